"""As many steps as a number of network evaluations allows, counted on one image: rules and solvers ask as often as they like."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from guidon.errors import BadValue
from guidon.study.store import Trial

if TYPE_CHECKING:
    from guidon.model import Model

Count = Callable[[int], Trial]


def tried(model: Model, request: Mapping[str, Any], steps: int | None = None) -> Trial:
    """Sample one image and return what it took.

    Args:
        model: whose image.
        request: keywords of `Model.sample`, without ``n`` and ``steps``; of several that are told the first is.
        steps: of the run; None: the model's own.
    """
    told = request.get("told")
    first = told[0] if isinstance(told, list | tuple) and told else told
    alone = {**request, "told": None if first is None else [first], "n": 1, "steps": steps}
    samples = model.sample(**alone)
    return Trial(samples.record["steps"], samples.nfe, samples.seconds)


def steps_for(model: Model, request: Mapping[str, Any], nfe: float) -> int:
    """Return the largest number of steps that takes at most so many network evaluations an image; see `longest`."""
    return longest(lambda steps: tried(model, request, steps), nfe).steps


def longest(count: Count, nfe: float) -> Trial:
    """Return the longest run within so many network evaluations.

    More steps are taken to ask for no fewer evaluations. Where the number depends on the image, as under adaptive rules, others
    may take more than the one that it is counted on.

    Args:
        count: samples an image in so many steps.
        nfe: the most evaluations.

    Raises:
        BadValue: one step takes more.
    """
    good = count(1)
    if good.nfe > nfe:
        raise BadValue(
            f"even one step takes {good.nfe:g} network evaluations, and {nfe:g} are allowed; allow more, or take another rule or solver"
        )
    steps, over = 1, int(nfe) + 1  # a step takes one at least
    guess = int(nfe / good.nfe)
    while over - steps > 1:
        guess = min(max(guess, steps + 1), over - 1)
        found = count(guess)
        if found.nfe > nfe:
            over = guess
        elif found.steps < guess:  # of a grid that has its own number
            return found
        else:
            good, steps = found, guess
        guess = int(guess * nfe / found.nfe)
    return good
