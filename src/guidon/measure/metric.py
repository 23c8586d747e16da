"""What can be measured, and how a wish such as "fid@dinov2" becomes a figure."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from guidon import registry
from guidon.errors import BadValue
from guidon.measure.estimate import Figure, Statistic, estimate
from guidon.measure.observe import Rows

OF_NETWORKS = ("features", "logits", "text")


class Metric(ABC):
    """Turns the rows of a sample into a statistic; frozen dataclasses, registered under the kind "metric".

    Attributes:
        title: as it stands in a table or on an axis.
        better: whether a "higher" or a "lower" figure is better; None where neither is.
        needs: of "features", "logits" and "text" those that a network must give; "labels", "captions"; the names of other observers.
        networks: that know what it asks them; empty: any that gives what it needs.
        compares: whether there must be a reference.
        about: what it is, in a sentence.
        source: the paper and the equation.
    """

    title: ClassVar[str]
    about: ClassVar[str]
    source: ClassVar[str]
    better: ClassVar[Literal["higher", "lower"] | None]
    needs: ClassVar[tuple[str, ...]]
    networks: ClassVar[tuple[str, ...]] = ()
    compares: ClassVar[bool] = False

    @abstractmethod
    def statistic(self, sample: Rows, reference: Rows | None, network: str) -> Statistic:
        """Return the figure of a sample as a function of how often each image counts.

        Args:
            sample: what was seen of it.
            reference: what was seen of the images that it is compared with.
            network: whose aspects to take, such as "inception".
        """


@dataclass(frozen=True)
class Wanted:
    """A metric in the eyes of a network.

    Args:
        key: as it was asked for, which names the figure.
        metric: what to measure.
        network: name of the feature network; empty where none is needed.
    """

    key: str
    metric: Metric
    network: str

    @classmethod
    def parse(cls, text: str, network: str) -> Wanted:
        """Read "fid", "kid(50, 500)" or "fid@dinov2"; ``network`` is that of metrics that name none.

        Raises:
            UnknownName: there is no such metric.
            BadValue: a network is named that the metric has no use for.
        """
        name, at, other = text.rpartition("@") if "@" in text else (text, "", "")
        metric: Metric = registry.parse("metric", name)
        if not any(need in OF_NETWORKS for need in metric.needs):
            if at:
                raise BadValue(f"{name} is measured without a network; leave @{other} out")
            return cls(text, metric, "")
        return cls(text, metric, other or network)


def measured(
    wanted: Sequence[Wanted],
    sample: Rows,
    reference: Rows | None = None,
    *,
    resamples: int = 200,
    seed: int = 0,
) -> dict[str, Figure]:
    """Measure a sample; returns a figure for each wish, by its key.

    Args:
        wanted: what to measure.
        sample: what was seen of it.
        reference: what was seen of the images that it is compared with.
        resamples, seed: of the intervals; see `estimate`.

    Raises:
        BadValue: there is no reference, no label or no caption where a metric needs one; its network does not know what is asked for;
            sample and reference were seen by other networks.
    """
    figures = {}
    for wish in wanted:
        network = check(wish, sample, reference)
        figure = estimate(wish.metric.statistic(sample, reference, wish.network), resamples=resamples, seed=seed)
        figures[wish.key] = dataclasses.replace(figure, network=network)
    return figures


def check(wish: Wanted, sample: Rows, reference: Rows | None) -> str:
    """Refuse what cannot be measured, and return the fingerprint of the network; see `measured` for what is raised."""
    if wish.metric.compares and reference is None:
        raise BadValue(f"{wish.key} compares with real images; give a reference")
    for told in ("labels", "captions"):
        if told in wish.metric.needs and getattr(sample, told) is None:
            raise BadValue(
                f"{wish.key} needs {told}, and the images have none; leave it out, or measure images with {told}"
            )
    if not wish.network:
        return ""
    if wish.metric.networks and wish.network not in wish.metric.networks:
        known = " or ".join(wish.metric.networks)
        raise BadValue(
            f"{wish.key} is told by a {known} of the same classes, and {wish.network} knows others; take features of a {known} (auto trains"
            " one on the reference), or leave it out"
        )
    seen = sample.observers.get(wish.network, "")
    if wish.metric.compares and reference is not None and reference.observers.get(wish.network, "") != seen:
        raise BadValue(
            f"{wish.key}: sample and reference were seen by different networks called {wish.network}"
            f" ({seen or 'none'} and {reference.observers.get(wish.network, 'none')}), so their features cannot be compared;"
            " measure both with the same"
        )
    return seen
