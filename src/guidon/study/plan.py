"""A plan of a sweep: settings in one YAML file, any of which may be an axis, all of them checked before anything runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

import guidon.model_config  # noqa: F401  registers rules, solvers and grids
from guidon.errors import BadRecipe, BadValue, GuidonError, nearest
from guidon.measure.metric import Wanted
from guidon.study.axes import Axis, filled, read_axis
from guidon.study.setting import MANY, SETTINGS, SPARE, Setting
from guidon.training.data import DataConfig
from guidon.training.run_recipe import Section, apply_change, known, problems, read_yaml

AUTO, CLASSIFIER = "auto", "classifier"  # as a network: one trained on the reference; the name that it has


class Point:
    """A cell of a plan: where it stands on the axes, and its setting."""

    def __init__(self, axes: Mapping[str, Any], setting: Setting) -> None:
        self.axes, self.setting = dict(axes), setting


class SweepPlan(Section):
    """A whole plan. Every setting from ``model`` to ``negative`` may be an axis, or hold {axis} in its text."""

    model: Any = Field(description="folder or hub id")
    average: Any = Field(
        None, description="relative length of the power average to make of a run's snapshots, such as 0.05"
    )
    weak: Any = Field(None, description="a worse model to steer away from: folder, hub id, or self:0.1")
    reference: DataConfig | None = Field(
        None, description="real images, a data section as recipes have it; none: only metrics without a reference"
    )
    features: str = Field(
        AUTO, description="network that metrics see with, such as inception; auto: a classifier of the reference"
    )
    told: Any = Field(
        None,
        description="classes or texts, repeated in turn; none: every class in turn; {shapes: relation, count: 200}; {file: prompts.txt}",
    )
    n: Any = Field(MANY, description="images a cell")
    seed: Any = Field(0, description="of the first image; cells of the same seeds can be compared image by image")
    rule: Any = Field(None, description="guidance rule; none, as of all that follows: the model's own")
    solver: Any = None
    grid: Any = None
    steps: Any = None
    nfe: Any = Field(
        None, description="in place of steps: as many of them as take at most so many evaluations an image"
    )
    temperature: Any = None
    precision: Any = Field(None, description="fp32, or bf16, which is faster where the machine has it")
    negative: Any = Field(None, description="class or text to steer away from, or a list")
    metrics: tuple[str, ...] = Field((), description="what to measure, such as fid, fid@dinov2, precision(5)")
    axes: dict[str, Any] = Field(
        default_factory=dict, description="a list, names for values, or {from, to, count, spacing: linear | log}"
    )
    cells: tuple[dict[str, Any], ...] = Field(
        (), description="further cells, each a value for every axis that it is on"
    )
    keep_images: int | None = Field(None, ge=0, description="images of a cell that are kept; none: 16 MB of them")
    resamples: int = Field(200, ge=0, description="of the bootstrap behind each interval")

    @field_validator("features")
    @classmethod
    def _network(cls, text: str) -> str:
        return text if text == AUTO else known("features", text)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        """Find everything that is wrong at once."""
        wrong = dict.fromkeys(itertools.chain(self._bad_metrics(), self._bad_cells()))
        if wrong:
            raise BadValue("\n".join(wrong))
        return self

    @property
    def network(self) -> str:
        """The name of the network that metrics see with where they name none."""
        return CLASSIFIER if self.features == AUTO else self.features.partition("(")[0].strip()

    def opening(self, network: str) -> str:
        """Return the text form of a network by its name: the plan's own, `AUTO` for another's classifier, or the name itself."""
        return self.features if network == self.network else AUTO if network == CLASSIFIER else network

    def wanted(self) -> list[Wanted]:
        """Return what is to be measured."""
        return [Wanted.parse(text, self.network) for text in dict.fromkeys(self.metrics)]

    def read_axes(self) -> dict[str, Axis]:
        """Return the axes by name; raises `BadValue`."""
        return {name: read_axis(name, given) for name, given in self.axes.items()}

    def points(self) -> list[Point]:
        """Return every cell once: the product of the axes, the first one slowest, then the further cells."""
        found: dict[str, Point] = {}
        for axes, values in self._places(self.read_axes()):
            setting = self.setting(values).plain()
            found.setdefault(setting.model_dump_json(), Point(axes, setting))
        return list(found.values())

    def setting(self, values: Mapping[str, Any], used: set[str] | None = None) -> Setting:
        """Return the setting of a place on the axes.

        Args:
            values: of each axis.
            used: gets the names of the axes that play a part.

        Raises:
            BadValue: it does not fit; one line for each problem.
        """
        used = set() if used is None else used
        content, wrong = {}, []
        for name in SETTINGS:
            given = getattr(self, name)
            if name in values and f"{{{name}}}" not in str(given):  # an axis by the name of the setting
                given = f"{{{name}}}"
            try:
                content[name] = given if isinstance(given, dict) else filled(given, values, used)
            except BadValue as error:
                wrong.append(f"{name}: {error}")
        try:
            if not wrong:
                return Setting(**content)
        except ValidationError as error:
            wrong = list(problems(error, Setting))
        raise BadValue("\n".join(wrong))

    def _places(self, axes: Mapping[str, Axis]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield the names and the values on the axes of each cell."""
        if axes or not self.cells:
            for chosen in itertools.product(*(axis.values for axis in axes.values())):
                pairs = dict(zip(axes, chosen, strict=True))
                yield {name: label for name, (label, _) in pairs.items()}, {name: v for name, (_, v) in pairs.items()}
        for cell in self.cells:
            yield cell, {name: axes[name].named(label) if name in axes else label for name, label in cell.items()}

    def _bad_metrics(self) -> Iterator[str]:
        for text in self.metrics:
            try:
                wish = Wanted.parse(text, self.network)
                if (opening := self.opening(wish.network)) not in ("", AUTO):
                    known("features", opening)
            except GuidonError as error:
                yield f"metrics: {error}"
                continue
            if wish.metric.compares and self.reference is None:
                yield f"metrics: {text} compares with real images; give a reference, or leave it out"
            elif opening == AUTO and self.reference is None:
                yield f"metrics: {text} needs a network to see with; give features, or a reference to train one on"

    def _bad_cells(self) -> Iterator[str]:
        axes, used = {}, set[str]()
        for name, given in self.axes.items():
            try:
                axes[name] = read_axis(name, given)
            except BadValue as error:
                yield f"axes: {error}"
        if len(axes) < len(self.axes):
            return
        wrong: dict[str, list[Mapping[str, Any]]] = {}
        left = {name for name, none in SPARE.items() if getattr(self, name) or name in axes}
        for place, values in self._places(axes):
            try:
                setting = self.setting(values, used)
                left -= {name for name, none in SPARE.items() if getattr(setting.plain(), name) != none}
            except BadValue as error:
                for line in str(error).split("\n"):
                    wrong.setdefault(line, []).append(place)
        for line, places in wrong.items():
            where = ", ".join(f"{name}={label}" for name, label in places[0].items())
            others = f", and {len(places) - 1} more" if len(places) > 1 else ""
            yield f"{line}{f' (cell {where}{others})' if where else ''}"
        if wrong:
            return
        for name in dict.fromkeys([*axes, *(name for cell in self.cells for name in cell)]):
            if name not in used:
                yield (
                    f"axes: {name} is no setting{nearest(name, SETTINGS)}, and no {{{name}}} stands in the text of one;"
                    f" the settings are: {', '.join(SETTINGS)}"
                )
        for name in sorted(left):
            yield f"{name}: no rule here has a use for it; leave it out, or take a rule that has: guidon rules"

    @classmethod
    def load(cls, path: str | Path, sets: Sequence[str] = ()) -> Self:
        """Read a plan from a YAML file.

        Args:
            path: the file.
            sets: changes on top of it, each "key=value" with the value in YAML, for instance "axes.w=[1, 2]".

        Raises:
            BadRecipe: the file is not there or is not YAML, a key is unknown (says which was meant), or something does not fit.
        """
        content = read_yaml(path, cls, "plan")
        for change in sets:
            apply_change(content, change)
        return cls.read(content, str(path))

    @classmethod
    def read(cls, content: Mapping[str, Any], source: str = "plan") -> Self:
        """Make a plan of nested mappings; ``source`` names them in errors. Raises `BadRecipe` with everything that is wrong."""
        try:
            return cls(**content)
        except ValidationError as error:
            lines = [line for problem in problems(error, cls) for line in problem.split("\n")]
            raise BadRecipe("\n".join(f"{source}: {line}" for line in lines)) from error
        except TypeError as error:
            raise BadRecipe(
                f"{source}: the names of settings are text; they are: {', '.join(cls.model_fields)}"
            ) from error
