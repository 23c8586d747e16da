"""What guidance is made of, on Gaussians fitted to images: each component alone, as images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance import CFG, Rule
from guidon.lab import drawing
from guidon.lab.experiment import Experiment, Findings, Track, quietly
from guidon.lab.gaussian import Gaussian, Gaussians
from guidon.lab.images import END, START, Ends, ImageWorld
from guidon.lab.linear import PARTS, Difference, LinearGuidance, gains
from guidon.lab.mixture import NULL_LABEL
from guidon.noise import EDM, Level
from guidon.noise.grids import LogSNR
from guidon.registry import register

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WAYS = {
    "naive": "no guidance",
    "all": "all of it",
    "positive": "positive",
    "negative": "negative",
    "mean": "mean shift",
}
LEADING = 6  # directions of a sign


@register("experiment", "components")
@dataclass(frozen=True)
class Components(Experiment):
    """The components of linear guidance on Gaussians fitted to classes of images.

    Each class, and all images together, are replaced by the Gaussian with their mean and covariance, in the coordinates of the
    leading principal axes of all images. Beliefs are then linear, and what guidance adds splits into three parts: along some
    directions the class varies more than all images do at that noise level, and guidance stretches these (*positive*); along
    others it varies less, and guidance shrinks these (*negative*); and every image is moved alike (*mean shift*). Each part
    alone guides the same seeds, through the engine and its solver.

    A run of a linear model is affine in its start. So one run on unit vectors gives mean and covariance of what arrives, without
    drawing samples: the table's numbers are exact for the Gaussians, at this number of steps.

    Where the covariances of the class and of all images share their axes, guidance scales each axis by `h^((w - 1)/2)` relative to no
    guidance. Those of real images do not, so the prediction, made from the variances along a direction, is an
    approximation. The table has both, and the same for covariances that were made to share their axes, for which it is a theorem.

    The pictures are of Gaussians, not of photographs: they have the colours, the layout and the coarse shapes of a class and
    nothing finer.

    Args:
        data: images as in the recipe's ``data.source``: digits, a folder, Parquet files, a hub id.
        classes: those to show, by name; left out: three of those that there are.
        weight: of guidance, 0 to 100.
        steps: of each run, from noise level 80 to 0.02, which nobody sees.
        limit: images to fit the Gaussians to, at most.
        axes: principal axes to keep, at most.
        noise_level: at which directions are shown.

    Raises:
        BadValue: too few steps, images or axes, a weight outside its range, or a noise level that is not positive.
    """

    page: ClassVar[int] = 4
    title: ClassVar[str] = "The components of linear guidance"
    asks: ClassVar[str] = "What does guidance amplify, what does it suppress, and what does it move?"
    sources: ClassVar[tuple[str, ...]] = ("li2025towards",)

    data: str = "digits"
    classes: tuple[str, ...] = ()
    weight: float = 3.0
    steps: int = 24
    limit: int = 20000
    axes: int = 512
    noise_level: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 100:
            raise BadValue(f"components needs a weight from 0 to 100, got {self.weight}")
        if self.steps < 2 or self.limit < 4 or self.axes < 2 or not self.noise_level > 0:
            raise BadValue(f"components needs steps and axes >= 2, limit >= 4 and a noise level > 0, got {self}")

    def run(self, track: Track[Any] = quietly) -> Findings:
        world = ImageWorld.read(self.data, self.limit, self.axes, self.classes)
        levels = LogSNR(END, START).levels(EDM(), self.steps + 1)[:-1]
        seen = [self._look(world, label, levels) for label in track(world.shown, "classes")]
        parts = [{"class": one.name, **row} for one in seen for row in one.parts()]
        directions = [{key: _short(value) for key, value in row.items()} for one in seen for row in one.directions]
        tables = {"parts": parts, "directions": directions}
        if len(seen) > 1:
            tables["between_classes"] = _apart(seen)
        return Findings(
            self._sees(world, seen, tables.get("between_classes", [])),
            tables,
            {
                "": _images_figure(world, seen, self.weight),
                "directions": _directions_figure(world, seen, self.noise_level),
                "gains": _gains_figure(seen),
            },
        )

    def _look(self, world: ImageWorld, label: int, levels: Sequence[Level]) -> Seen:
        difference = Difference(world.gaussians, label)
        rules: dict[str, Rule] = {"naive": CFG(1.0), "all": CFG(self.weight)}
        rules |= {part: LinearGuidance(difference, self.weight, (part,)) for part in PARTS}
        ends = {way: Ends.of(world.gaussians, label, rule, levels) for way, rule in rules.items()}
        split = difference.at(self.noise_level)
        assert split.axes is not None
        leading, rows = {}, []
        for sign, signed in (("positive", split.values), ("negative", -split.values)):
            chosen = [int(k) for k in signed.argsort(descending=True) if signed[k] > 0][:LEADING]
            leading[sign] = split.axes[:, chosen].T
            along = [_along(leading[sign], world.gaussians[which]) for which in (label, NULL_LABEL)]
            columns = {
                "value": split.values[chosen],
                "variance": along[0],
                "variance_all": along[1],
                "gain_predicted": gains(along[0], along[1], self.weight, START, END),
                "gain": ends["all"].std(leading[sign]) / ends["naive"].std(leading[sign]),
                "gain_of_sign_alone": ends[sign].std(leading[sign]) / ends["naive"].std(leading[sign]),
            }
            for rank in range(len(chosen)):
                numbers = {key: float(column[rank]) for key, column in columns.items()}
                rows.append({"class": world.names[label], "sign": sign, "rank": rank + 1, **numbers})
        off = self._off(_shared_axes(world.gaussians, label), label, levels)
        return Seen(world.names[label], len(world.axes), ends, leading, rows, off)

    def _off(self, shared: Gaussians, label: int, levels: Sequence[Level]) -> float:
        """Return how far gains are from the theorem where it holds."""
        axes = torch.eye(shared.shape[0], dtype=torch.float64)
        naive, guided = (Ends.of(shared, label, CFG(weight), levels).std(axes) for weight in (1.0, self.weight))
        stated = gains(shared[label].variances, shared[NULL_LABEL].variances, self.weight, START, END)
        return float(((guided / naive - stated).abs() / stated.clamp_min(1)).max())

    def _sees(self, world: ImageWorld, seen: Sequence[Seen], apart: Sequence[Mapping[str, Any]]) -> list[str]:
        parts = [row for one in seen for row in one.parts()]
        size = {
            way: math.sqrt(sum(row["change"] ** 2 for row in parts if row["part"] == way) / len(seen)) for way in WAYS
        }
        spread = {way: sum(row["spread"] for row in parts if row["part"] == way) / len(seen) for way in WAYS}
        first, second, third = sorted(PARTS, key=lambda part: -size[part])
        most = (
            f"{WAYS[first]} changes"
            if size[second] < 0.99 * size[first]
            else f"{WAYS[first]} and {WAYS[second]} change"
        )
        rows = [row for one in seen for row in one.directions]
        off = max(rows, key=lambda row: abs(math.log(row["gain"] / row["gain_predicted"])))
        sees = [
            f"The {len(world.gaussians[NULL_LABEL].variances)} axes hold {world.kept:.1%} of the variance of {world.count} images.",
            f"Of the parts alone, {most} images most: by {size[first]:.3f} (root mean square over pixels, in a range "
            f"of 2), {WAYS[second]} by {size[second]:.3f}, {WAYS[third]} by {size[third]:.3f}; all together change them by "
            f"{size['all']:.3f}.",
            f"With all of it the spread of what arrives is {spread['all']:.2f} of that without guidance; positive alone makes it "
            f"{spread['positive']:.2f}, negative alone {spread['negative']:.2f}, mean shift alone {spread['mean']:.2f}.",
            f"Where the covariances share their axes, the measured gains agree with the theorem to {max(one.off for one in seen):.1g}, "
            f"the error of {self.steps} steps. "
            f"For those of the images the prediction is farthest off for {off['sign']} direction {off['rank']} of "
            f"{off['class']}: {off['gain_predicted']:.3g} predicted, {off['gain']:.3g} measured.",
        ]
        if apart:
            low, high = (choose(apart, key=lambda row: row["distance"]) for choose in (min, max))
            naive = next(row["distance"] for row in apart if row["part"] == "naive")
            sees.append(
                f"Without guidance the classes are {naive:.2f} apart (Fréchet distance of what arrives, mean over pairs); "
                f"most with {WAYS[high['part']]}, {high['distance']:.2f}, least with {WAYS[low['part']]}, {low['distance']:.2f}."
            )
        return sees


@dataclass(frozen=True, eq=False)
class Seen:
    """What was seen of a class.

    Args:
        name: of the class.
        pixels: numbers of an image.
        ends: where runs end, by `WAYS`.
        leading: directions (up to LEADING, D) by sign, the strongest first.
        directions: rows about them.
        off: how far gains are from the theorem for covariances that share their axes; relative for those above 1.
    """

    name: str
    pixels: int
    ends: Mapping[str, Ends]
    leading: Mapping[str, Tensor]
    directions: Sequence[Mapping[str, Any]]
    off: float

    def parts(self) -> list[dict[str, Any]]:
        """Return for every way by how much it changes what arrives without guidance, a pixel, and how wide it leaves it."""
        naive, rows = self.ends["naive"], []
        for way, end in self.ends.items():
            moved = float((end.mean - naive.mean).square().sum() / self.pixels)
            bent = float((end.factor - naive.factor).square().sum() / self.pixels)
            rows.append(
                {
                    "part": way,
                    "change": round(math.sqrt(moved + bent), 4),
                    "change_of_mean": round(math.sqrt(moved), 4),
                    "spread": round(float(end.factor.norm() / naive.factor.norm()), 4),
                }
            )
        return rows


def _short(value: Any) -> Any:
    """Return a number to five digits, and anything else as it is."""
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _along(vectors: Tensor, gaussian: Gaussian) -> Tensor:
    """Return the variance of a Gaussian along unit vectors (N, D)."""
    return gaussian.turned(vectors).square() @ gaussian.variances


def _shared_axes(gaussians: Gaussians, label: int) -> Gaussians:
    """Return Gaussians with the variances along the coordinates, and no covariance between them."""
    axes = torch.eye(gaussians.shape[0], dtype=torch.float64)
    wanted = {which: gaussians[which] for which in (label, NULL_LABEL)}
    return Gaussians({which: Gaussian(one.mean, _along(axes, one)) for which, one in wanted.items()})


def _apart(seen: Sequence[Seen]) -> list[dict[str, Any]]:
    """Return the Fréchet distance between two or more classes for every way, root mean square over pixels, mean over pairs."""
    from guidon.measure.distances import FeatureStatistics, frechet_distance

    rows = []
    for way in WAYS:
        known = [
            FeatureStatistics(2, one.ends[way].mean, one.ends[way].factor.T @ one.ends[way].factor) for one in seen
        ]
        squares = [frechet_distance(a, b) / seen[0].pixels for a, b in itertools.combinations(known, 2)]
        rows.append({"part": way, "distance": round(sum(math.sqrt(s) for s in squares) / len(squares), 4)})
    return rows


def _images_figure(world: ImageWorld, seen: Sequence[Seen], weight: float) -> Figure:
    figure, panels = drawing.panels(len(seen), len(WAYS), width=1.9, height=1.95)
    for one, row in zip(seen, panels, strict=True):
        for (way, title), axes in zip(WAYS.items(), row, strict=True):
            images = world.images(one.ends[way].images)
            drawing.picture(axes, drawing.tiles(images.reshape(-1, 3, *images.shape[1:])))
            if one is seen[0]:
                axes.set_title(title, fontsize=9)
        row[0].set_ylabel(one.name, fontsize=9)
    figure.suptitle(f"Samples of Gaussians, the same seeds in every column; weight {weight:g}", fontsize=10)
    return figure


def _directions_figure(world: ImageWorld, seen: Sequence[Seen], noise_level: float) -> Figure:
    figure, panels = drawing.panels(len(seen), 2, width=4.6, height=1.0)
    for one, row in zip(seen, panels, strict=True):
        for sign, axes in zip(("positive", "negative"), row, strict=True):
            drawing.bare(axes)
            if len(one.leading[sign]):
                drawing.picture(axes, drawing.tiles(world.directions(one.leading[sign])[None]))
            if one is seen[0]:
                axes.set_title(
                    f"{sign}: what guidance {'amplifies' if sign == 'positive' else 'suppresses'}", fontsize=9
                )
        row[0].set_ylabel(one.name, fontsize=9)
    figure.suptitle(f"Leading contrastive directions at noise level {noise_level:g}; grey is no change", fontsize=10)
    return figure


def _gains_figure(seen: Sequence[Seen]) -> Figure:
    figure, ((axes,),) = drawing.panels(1, 1, width=6.0, height=4.8)
    ends = []
    for i, one in enumerate(seen):
        for sign, mark in (("positive", "^"), ("negative", "v")):
            rows = [row for row in one.directions if row["sign"] == sign]
            x, y, alone = ([row[key] for row in rows] for key in ("gain_predicted", "gain", "gain_of_sign_alone"))
            color = drawing.color(i)
            axes.loglog(x, y, mark, color=color, markersize=5, label=f"{one.name}, {sign}: all of it")
            axes.loglog(x, alone, mark, color=color, markersize=5, markerfacecolor="none", label=f"... {sign} alone")
            ends += x + y + alone
    line = [min(ends) / 1.1, max(ends) * 1.1]
    axes.loglog(line, line, color=drawing.TRUTH, linewidth=0.8, label="if covariances shared their axes")
    ticks = [tick for tick in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if line[0] < tick < line[1]]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_ticks([], minor=True)
    drawing.plain(axes, "How much guidance stretches the leading directions", "predicted gain", "measured gain")
    axes.legend(fontsize=7, frameon=False, bbox_to_anchor=(1.0, 1.0), loc="upper left")
    return figure
