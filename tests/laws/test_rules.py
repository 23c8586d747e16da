"""The laws of guidance, for every registered rule and stage and for every pair of them that makes sense.

Weight 1 is plain conditional with one branch, weight 0 the other side alone; neutral settings change nothing, others do; what a
network was trained on, batching, neighbours and order do not matter; every branch of a step is in one forward of its network.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import pytest
import torch
from support.examples import dataclasses_of, plain
from support.worlds import World, named

from guidon.errors import BadValue
from guidon.guidance import CFG, GIVEN, NULL, Interval, Moment, Rule
from guidon.guidance.contrast import Contrast, column
from guidon.guidance.push import Push
from guidon.guidance.stage import Relay, Reshape, Shape
from guidon.noise import EDM, Cosine, EDMOutput, EpsOutput, Flow, VelocityOutput, VOutput, X0Output
from guidon.noise.prediction import Prediction
from guidon.registry import parse, to_text
from guidon.solvers import Heun

RULES = [pytest.param(plain(name, member), id=name) for name, member in dataclasses_of("rule")]
STAGES = [pytest.param(plain(name, member), id=name) for name, member in dataclasses_of("stage")]
WEIGHTED = [p for p in RULES if "weight" in {f.name for f in dataclasses.fields(p.values[0])}]
OUTPUTS = [EpsOutput(), X0Output(), VOutput(), VelocityOutput(), EDMOutput()]
LABELS, SEEDS = [0, 3, 1, 4], [5, 6, 7, 8]

# settings under which a rule is plain conditional; cfgpp and dynamic-scale have none, as their pages say
NEUTRAL: dict[str, dict[str, Any]] = {
    "avoid": {"weight": 1.0, "push": 0.0},
    "two-scale": {"weight": 1.0, "part": 1.0},
    "perp-neg": {"weight": 1.0, "pushes": (0.0,)},
    "conjunction": {"weights": (1.0, 0.0)},
    "classifier": {"weight": 0.0},
    "fdg": {"weights": (1.0, 1.0)},
    "fbg": {"share": 1.0},
}
WITHOUT_NEUTRAL = {"cfgpp", "dynamic-scale"}
# settings under which a stage changes nothing; the others have no such setting
NEUTRAL_STAGES: dict[str, dict[str, Any]] = {
    "threshold": {"low": -1e6, "high": 1e6},
    "rescale": {"mix": 0.0},
    "apg": {"eta": 1.0, "radius": math.inf, "momentum": 0.0},
    "mambo-g": {"alpha": 0.0},
    "power-law": {"alpha": 0.0},
    "adaptive": {"threshold": 1.0},
    "reuse": {"every": 1},
    "linear-ag": {"every": 1},
    "cads": {"tau1": 2.0, "tau2": 3.0},
}


def pairs() -> list[Any]:
    """Return every rule followed by every stage, and by every rule that adds to it."""
    found = []
    for rule, stage in itertools.product(RULES, [*STAGES, *RULES]):
        left, right = rule.values[0], stage.values[0]
        if makes_sense(left, right):
            found.append(pytest.param(left | right, id=f"{rule.id}|{stage.id}"))
    return found


def makes_sense(rule: Rule, link: Any) -> bool:
    if isinstance(link, Rule):
        return isinstance(link, Push) or (isinstance(link, Contrast) and link.adds)
    name = to_text(rule).partition("(")[0]
    if name in link.not_after or (isinstance(link, Relay) and link.invents and name in ("internal", "classifier")):
        return False
    return isinstance(rule, Contrast) or not isinstance(link, Shape)


PAIRS = pairs()


def test_pairs_that_make_no_sense_are_refused() -> None:
    refused = 0
    for rule, stage in itertools.product(RULES, [*STAGES, *RULES]):
        left, right = rule.values[0], stage.values[0]
        if not makes_sense(left, right):
            refused += 1
            with pytest.raises(BadValue, match=r"left|stand first|cannot follow|could be saved"):
                left | right
    assert refused and len(PAIRS) > 150
    for stage in STAGES:
        with pytest.raises(BadValue, match="stands right of a rule"):
            parse("rule", to_text(stage.values[0]))


@pytest.mark.parametrize("rule", WEIGHTED)
def test_weight_1_is_plain_conditional_and_weight_0_the_other_side(rule: Rule) -> None:
    name = to_text(rule).partition("(")[0]
    if name in WITHOUT_NEUTRAL:
        pytest.skip("has no neutral weight")
    world = World(EDM())
    neutral = dataclasses.replace(rule, **NEUTRAL.get(name, {"weight": 1.0}))
    if name == "classifier":
        plainly, other = CFG(0.0) if neutral.base == "null" else CFG(1.0), None  # type: ignore[attr-defined]
    else:
        plainly, other = CFG(1.0), dataclasses.replace(neutral, weight=0.0)
    x, events, _ = world.watched(neutral, LABELS, SEEDS)
    assert all(len(event.predictions) == 1 for event in events)
    if not rule.only_with:
        assert torch.equal(x, world.run(plainly, LABELS, SEEDS))
    if isinstance(rule, Contrast) and other is not None:
        each = dataclasses.replace(rule, weight=(1.0,) * 4)
        assert torch.equal(x, world.run(each, LABELS, SEEDS))
        at = _moment(world)
        if not rule.only_with:  # Rectified-CFG++ asks the given branch in any case
            assert other.branches(at, other.init()) == (other.away_at(at),)
        mixed = world.run(dataclasses.replace(rule, weight=(1.0, 0.0, 3.0, 0.0)), LABELS, SEEDS)
        alone = [dataclasses.replace(rule, weight=w) for w in (1.0, 0.0, 3.0, 0.0)]
        for i, single in enumerate(alone):
            assert torch.allclose(mixed[i], world.run(single, LABELS[i : i + 1], SEEDS[i : i + 1])[0], atol=1e-10)


def _moment(world: World) -> Moment:
    levels = [world.process.level(world.process.time_at(s)) for s in (3.0, 1.0)]
    return Moment(levels[0], levels[1], 1, 4)


@pytest.mark.parametrize("rule", RULES)
def test_other_settings_change_the_result(rule: Rule) -> None:
    world = World(EDM())
    plainly = world.run(CFG(1.0), LABELS, SEEDS)
    x = world.run(rule, LABELS, SEEDS)
    assert not torch.allclose(x, plainly, rtol=1e-4)
    if "weight" in {f.name for f in dataclasses.fields(rule)}:  # type: ignore[arg-type]
        more = world.run(dataclasses.replace(rule, weight=5.0), LABELS, SEEDS)  # type: ignore[type-var]
        assert not torch.allclose(x, more, rtol=1e-4)


@pytest.mark.parametrize("stage", STAGES)
def test_stages_are_neutral_where_they_say_so_and_not_elsewhere(stage: Any) -> None:
    world, name = World(EDM()), to_text(stage).partition("(")[0]
    rule = CFG(6.0)
    plainly = world.run(rule, LABELS, SEEDS)
    if name in NEUTRAL_STAGES:
        neutral = dataclasses.replace(stage, **NEUTRAL_STAGES[name])
        assert torch.allclose(world.run(rule | neutral, LABELS, SEEDS), plainly, atol=1e-9)
    if name not in NEUTRAL_STAGES or stage != dataclasses.replace(stage, **NEUTRAL_STAGES[name]):
        assert not torch.allclose(world.run(rule | _busy(stage, name), LABELS, SEEDS), plainly, rtol=1e-7)


def _busy(stage: Any, name: str) -> Any:
    """Return a stage whose defaults leave some of this small world alone, with settings that do not."""
    settings = {
        "adaptive": {"threshold": 0.0},
        "threshold": {"low": -0.5, "high": 0.5},
        "cads": {"scale": 3.0, "tau1": 0.1, "mixing": 0.0},
    }
    return dataclasses.replace(stage, **settings.get(name, {}))


@pytest.mark.parametrize("rule", [p for p in RULES if isinstance(p.values[0], Contrast)])
@pytest.mark.parametrize("stage", [p for p in STAGES if isinstance(p.values[0], Shape)])
def test_weight_1_stays_plain_conditional_under_every_shape(rule: Any, stage: Any) -> None:
    if (
        to_text(rule).partition("(")[0] in WITHOUT_NEUTRAL
        or not hasattr(rule, "weight")
        or not makes_sense(rule, stage)
    ):
        pytest.skip("has no neutral weight, or cannot be followed so")
    if isinstance(stage, Reshape):  # CFG-Zero* also stands still for some steps
        stage = dataclasses.replace(stage, zero_steps=0)
    world = World(EDM())
    neutral = dataclasses.replace(rule, weight=1.0) | stage
    x, events, _ = world.watched(neutral, LABELS, SEEDS)
    assert all(tuple(event.predictions) == (GIVEN,) for event in events)
    if not rule.only_with:
        assert torch.equal(x, world.run(CFG(1.0), LABELS, SEEDS))


@pytest.mark.parametrize("rule", [p for p in PAIRS if isinstance(p.values[0].links[1], Rule)])
def test_what_is_added_is_the_pull_of_what_adds(rule: Any) -> None:
    """A contrast right of a rule adds (w - 1)(given - away) to exactly what the rule alone gives."""
    world = World(EDM())
    first, second = rule.links
    _, events, _ = world.watched(rule, LABELS, SEEDS)
    if isinstance(second, Push):
        _adds_its_score(first, second, events)
        return
    # memories are empty; Rectified-CFG++ begins with a question of its own
    event = next(event for event in events if second.away_at(event.at) in event.predictions)
    alone, _ = first.combine(event.predictions, event.at, first.init())
    pull, _ = second.pull(event.predictions, event.at, second.init())
    given, away = event.predictions[GIVEN], event.predictions[second.away_at(event.at)]
    added = (column(pull.weight, given.x0) - 1) * (given.x0 - away.x0)
    assert torch.allclose(event.guided.x0, alone.x0 + added, rtol=1e-9, atol=1e-9)
    if first.only_with and "ddim" in first.only_with:  # CFG++ re-noises with the noise of its other branch
        assert torch.equal(event.guided.eps, alone.eps)
    else:
        x = event.at.here.alpha * event.guided.x0 + event.at.here.sigma * event.guided.eps
        assert torch.allclose(x, given.x, rtol=1e-9, atol=1e-9)


def _adds_its_score(first: Rule, second: Push, events: Any) -> None:
    event = next(
        event for event in events if second.asks(event.at) and set(second.asks(event.at)) <= set(event.predictions)
    )
    alone, _ = first.combine(event.predictions, event.at, first.init())
    here = event.at.here
    belief = Prediction(here.alpha * alone.x0 + here.sigma * alone.eps, here, alone.x0, alone.eps)
    score = second.push(event.predictions, event.at, belief)
    assert score.abs().max() > 1e-6
    assert torch.allclose(event.guided.x0, alone.x0 + here.sigma**2 / here.alpha * score, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rule", [*RULES, *PAIRS])
def test_networks_of_every_output_give_the_same_images(rule: Rule) -> None:
    # Perp-Neg takes the direction of a difference that shrinks to 1e-8: rounding turns it
    loose = 1e-5 if "perp-neg" in to_text(rule) else 1e-7
    for process in (EDM(), Cosine(), Flow()):
        images = [World(process, output=output).run(rule, LABELS[:2], SEEDS[:2]) for output in OUTPUTS]
        scale = max(1.0, images[0].abs().max().item())
        for output, x in zip(OUTPUTS, images, strict=True):
            assert torch.allclose(x, images[0], rtol=1e-6, atol=loose * scale), to_text(output)


@pytest.mark.parametrize("rule", [*RULES, *PAIRS])
def test_batching_neighbours_and_order_do_not_matter(rule: Rule) -> None:
    world = World(EDM())
    together = world.run(rule, LABELS, SEEDS)
    assert torch.isfinite(together).all()
    assert torch.equal(together, world.run(rule, LABELS, SEEDS)), "the same run twice"
    scale = max(1.0, together.abs().max().item())
    for other in (
        world.run(rule, LABELS, SEEDS, batching="sequential"),
        world.run(rule, LABELS, SEEDS, max_batch=3),
        world.run(rule, LABELS[::-1], SEEDS[::-1]).flip(0),
        torch.cat([world.run(rule, [label], [seed]) for label, seed in zip(LABELS, SEEDS, strict=True)]),
    ):
        assert torch.allclose(together, other, rtol=1e-8, atol=1e-9 * scale)


@pytest.mark.parametrize("rule", [p for p in PAIRS if not isinstance(p.values[0].links[1], Rule)])
def test_images_of_weight_0_and_1_are_as_alone_in_any_company(rule: Any) -> None:
    """Also under stages, and in their learned variance."""
    first, stage = rule.links
    if "weight" not in {f.name for f in dataclasses.fields(first)}:
        pytest.skip("has no weight for each image")
    weights = (1.0, 0.0, 3.0, 0.0)
    if isinstance(stage, Relay) and stage.invents:  # they refuse to invent what an image of weight 0 is
        with pytest.raises(BadValue, match="weight 0 consists of"):
            World(EDM()).run(dataclasses.replace(first, weight=weights) | stage, LABELS, SEEDS)
        weights = (1.0, 0.5, 3.0, 2.0)
    mixed, events, _ = World(EDM(), fraction=True).watched(
        dataclasses.replace(first, weight=weights) | stage, LABELS, SEEDS
    )
    for i, weight in enumerate(weights):
        world = World(EDM(), fraction=True)
        x, own, _ = world.watched(
            dataclasses.replace(first, weight=weight) | stage, LABELS[i : i + 1], SEEDS[i : i + 1]
        )
        assert torch.allclose(mixed[i], x[0], atol=1e-8 * max(1.0, x.abs().max().item())), f"weight {weight}"
        if not first.only_with:
            for a, b in zip(events, own, strict=True):
                assert a.guided.variance_fraction is not None and b.guided.variance_fraction is not None
                assert torch.equal(a.guided.variance_fraction[i], b.guided.variance_fraction[0]), f"weight {weight}"


@pytest.mark.parametrize("rule", [*RULES, *PAIRS])
def test_one_forward_a_step_and_network_and_evaluations_as_counted(rule: Rule) -> None:
    world = World(EDM())
    _, events, engine = world.watched(rule, LABELS, SEEDS)
    networks = [{branch.network for branch in event.predictions} for event in events]
    assert engine.forwards == sum(len(asked) for asked in networks)
    assert engine.rows == sum(int(event.asked.sum()) for event in events)
    most = max(sum(not branch.inner for branch in event.predictions) for event in events)
    assert all(int(event.asked.max()) <= most for event in events)
    relays = any(isinstance(link, Relay) for link in getattr(rule, "links", ()))
    if not relays:
        for event in events:
            assert (event.asked == sum(not branch.inner for branch in event.predictions)).all()


@pytest.mark.parametrize("rule", [*RULES, *PAIRS])
def test_text_form(rule: Rule) -> None:
    assert parse("rule", to_text(rule)) == rule
    assert hash(parse("rule", to_text(rule))) == hash(rule)


@pytest.mark.parametrize("rule", [p for p in [*RULES, *PAIRS] if not p.values[0].only_with])
def test_two_evaluations_of_a_step_advance_the_memory_once(rule: Rule) -> None:
    """Under Heun a rule is told of two evaluations a step; its state is that after the first of each."""
    world = World(EDM(), solver=Heun())
    seen: list[tuple[int, bool]] = []

    @dataclasses.dataclass(frozen=True)
    class Watched(Rule):
        inner: Rule

        def init(self) -> Any:
            return 0, self.inner.init()

        def branches(self, at: Moment, state: Any) -> Any:
            return self.inner.branches(at, state[1])

        def rows(self, branch: Any, at: Moment, state: Any) -> Any:
            return self.inner.rows(branch, at, state[1])

        def combine(self, predictions: Any, at: Moment, state: Any) -> Any:
            seen.append((state[0], at.began is not None))
            guided, after = self.inner.combine(predictions, at, state[1])
            return guided, (state[0] + 1, after)

        def to_text(self) -> str:
            return to_text(self.inner)

    world.run(Watched(rule), LABELS[:2], SEEDS[:2])
    assert seen == [
        (i, second) for i in range(world.steps) for second in ((False, True) if i < world.steps - 1 else (False,))
    ]


@pytest.mark.parametrize("rule", WEIGHTED)
def test_an_interval_asks_one_branch_outside(rule: Rule) -> None:
    if "when" not in {f.name for f in dataclasses.fields(rule)}:  # type: ignore[arg-type]
        pytest.skip("takes no interval")
    world = World(EDM())
    inside = dataclasses.replace(rule, when=Interval(0.3, 3.0))  # type: ignore[type-var]
    _, events, _ = world.watched(inside, LABELS, SEEDS)
    for event in events:
        open_now = 0.3 < event.at.noise_level <= 3.0
        assert (len(event.predictions) > 1) == open_now
    assert {len(event.predictions) > 1 for event in events} == {True, False}


def test_names_in_the_tables_exist() -> None:
    names = {p.id for p in RULES}
    assert set(NEUTRAL) | WITHOUT_NEUTRAL <= names
    assert set(NEUTRAL_STAGES) <= {p.id for p in STAGES}
    assert named(CFG(2.0)) == "cfg(2)" and NULL.condition == "null"
