"""What makes the cells of a sweep: models, networks and real images, each opened once and used for cell after cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from guidon import registry
from guidon.errors import BadValue, GuidonError, MissingFile, SaveFailed, UnknownLabel
from guidon.measure.metric import Wanted, check, measured
from guidon.measure.metrics import Pixels, Shapes
from guidon.measure.networks import Classifier, FeatureNetwork
from guidon.measure.observe import Observer, OnBlock, Rows, digest
from guidon.study.cost import LOG, Logged
from guidon.study.images import Sampled
from guidon.study.nfe import longest, tried
from guidon.study.passes import finished_passes, kept_images, look, seen_by
from guidon.study.plan import AUTO, Point, SweepPlan
from guidon.study.reference import aligned, auto_classifier, reference_rows
from guidon.study.setting import Setting, canonical
from guidon.study.shelf import Shelf
from guidon.study.store import Cell, Trial
from guidon.training.data import DataConfig

OnPrepare = Callable[[str, int, int], None]

KEPT = 16 << 20  # bytes of images of a cell that are kept where a plan does not say


class Bench:
    """Makes cells.

    Args:
        plan: of the sweep; it says what is measured.
        device: where everything runs; None: the first GPU where there is one.
        cache: folder of the rows of real images; None: the user's.
        on_prepare: called with (what, parts done, parts) while the classifier is trained and the real images are looked at.
        classifier: folder of the one that ``auto`` stands for; None: it is trained on the reference when it is first asked for.
    """

    def __init__(
        self,
        plan: SweepPlan,
        device: str | None = None,
        cache: Path | None = None,
        on_prepare: OnPrepare | None = None,
        classifier: Path | None = None,
    ) -> None:
        self._trained = classifier
        self.plan, self.cache, self.on_prepare = plan, cache, on_prepare or (lambda what, done, parts: None)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.wanted: list[Wanted] = plan.wanted()
        self.shelf = Shelf(self.device)

    @cached_property
    def observers(self) -> list[Observer]:
        """What looks at the images, opened when it is first asked for."""
        eyes = [self._network(name) for name in sorted({wish.network for wish in self.wanted} - {""})]
        needed = {need for wish in self.wanted for need in wish.metric.needs}
        return eyes + [eye() for eye in (Pixels, Shapes) if eye.name in needed]

    @cached_property
    def real(self) -> DataConfig | None:
        """Where the real images are, brought to the size and the channels of the models where the plan gives none.

        Raises:
            BadValue: the models make images of several sizes, and the plan does not say which.
        """
        given = self.plan.reference
        if given is None or (given.size is not None and given.channels is not None):
            return given
        shapes = {self.shelf.shape(point.setting) for point in self.plan.points()}
        if given.size is None and len({shape[1:] for shape in shapes}) > 1:
            sizes = " and ".join(f"{width}x{height}" for _, height, width in sorted(shapes))
            raise BadValue(
                f"the models make images of {sizes}; set reference.size, which the real images are brought to, and features that see"
                " images of any size, such as inception, or do a sweep for each size"
            )
        (channels, height, width), *others = sorted(shapes)
        fit: dict[str, Any] = {"size": given.size or (height if height == width else None)}
        if given.channels is None and channels in (1, 3) and all(shape[0] == channels for shape in others):
            fit["channels"] = channels
        return given.model_copy(update=fit)

    @cached_property
    def reference(self) -> Rows | None:
        """What was seen of the real images; None where no metric compares with any."""
        if self.real is None or not any(wish.metric.compares for wish in self.wanted):
            return None
        on_block = partial(self.on_prepare, "looking at the real images")
        return reference_rows(self.real, self.observers, self.cache, on_block)

    @cached_property
    def classifier(self) -> Classifier | None:
        """The classifier that ``auto`` stands for; None where nothing asks for it."""
        if not any(wish.network and self.plan.opening(wish.network) == AUTO for wish in self.wanted):
            return None
        if self._trained is not None:
            return Classifier(str(self._trained))
        assert self.real is not None  # the plan has seen to that
        return auto_classifier(self.real, self.cache, partial(self.on_prepare, "training the classifier that looks"))

    def record(self) -> dict[str, Any]:
        """Return the plan, with the size of the real images, as JSON can hold it."""
        real = None if self.real is None else self.real.model_dump(mode="json")
        return {**self.plan.model_dump(mode="json"), "reference": real}

    def settings(self, setting: Setting) -> dict[str, Any]:
        """Return how the images of a cell are made, with every default of the model; steps are None where evaluations are given."""
        default = self.shelf.model(setting).config.sample
        found = setting.model_dump(mode="json")
        for name in ("rule", "solver", "grid"):
            found[name] = found[name] or canonical(name, getattr(default, name))
        found["temperature"] = found["temperature"] or default.temperature
        found["precision"] = found["precision"] or "fp32"
        if setting.steps is None and setting.nfe is None:
            found["steps"] = default.steps
        found["weights"] = self.shelf.digest(setting)
        found["weak_weights"] = None if setting.weak is None else self.shelf.digest(setting, setting.weak)
        return found

    def key(self, setting: Setting) -> str:
        """Return the fingerprint of everything that decides the images of a cell."""
        deciding = {
            name: value for name, value in self.settings(setting).items() if name not in ("model", "average", "weak")
        }
        return digest(deciding)

    def trial(self, setting: Setting) -> Trial:
        """Sample one image of a cell: of as many steps as are asked for, or as the evaluations allow.

        Raises:
            BadValue: the evaluations do not allow one step.
            NotSupported: the model cannot be sampled in this way.
        """
        model, request = self.shelf.model(setting), self._request(setting)
        told = setting.told[:1] if setting.told else None

        def count(steps: int | None) -> Trial:
            return tried(model, {**request, "told": told, "seed": setting.seed}, steps)

        return count(self.settings(setting)["steps"]) if setting.nfe is None else longest(count, setting.nfe)

    def lacks(self, cell: Cell) -> list[Wanted]:
        """Return what is wanted of a finished cell and not measured yet, or with another network or reference."""
        return [wish for wish in self.wanted if cell.against.get(wish.key) != self.against(wish)]

    def lacks_images(self, cell: Cell) -> bool:
        """Return whether more images of a finished cell are to be kept than are."""
        keep = self.plan.keep_images
        return keep is not None and kept_images(cell.folder) < min(keep, cell.cost.images)

    def current(self, cell: Cell) -> Cell:
        """Return a finished cell with those of its figures that are wanted, of these networks and this reference."""
        lacking = {wish.key for wish in self.lacks(cell)}
        keys = [wish.key for wish in self.wanted if wish.key in cell.figures and wish.key not in lacking]
        figures, against = {key: cell.figures[key] for key in keys}, {key: cell.against[key] for key in keys}
        return replace(cell, figures=figures, against=against)

    def check(self, setting: Setting) -> None:
        """Refuse a cell whose images cannot be measured as is wanted; raises `BadValue`."""
        images = self.images(setting, 1)
        eyes = {eye.name: eye.fingerprint for eye in self.observers}
        told = Rows({}, len(images), labels=images.labels, captions=images.captions, observers=eyes)
        for wish in self.wanted:
            check(wish, told, self.reference)

    def make(self, key: str, point: Point, room: Path, trial: Trial, on_block: OnBlock | None = None) -> Cell:
        """Sample the images of a cell, look at them and measure.

        Args:
            key: of the cell.
            point: where it stands, and how its images are made.
            room: folder of its rows; what is there already is gone on with.
            trial: of the cell; it says how many steps.
            on_block: called with (blocks done, blocks).
        """
        images = Logged(self.images(point.setting, trial.steps), room / LOG, self.device)
        rows = self._rows(room, images, on_block)
        settings = {**self.settings(point.setting), "steps": trial.steps, "device": device_name(self.device)}
        cell = Cell(key, point.axes, settings, {}, images.cost(), room)
        return self.measured(cell, rows, self.wanted)

    def remeasured(self, cell: Cell, setting: Setting, on_block: OnBlock | None = None) -> Cell:
        """Return a finished cell with the figures that it lacks, from the rows and images that were kept as far as these go."""
        images = Logged(self.images(setting, cell.settings["steps"]), cell.folder / LOG, self.device)
        return self.measured(cell, self._rows(cell.folder, images, on_block), self.lacks(cell))

    def measured(self, cell: Cell, rows: Rows, wanted: Sequence[Wanted]) -> Cell:
        """Return a cell with further figures, in the order in which they are asked for; what cannot be measured is noted in it."""
        figures, against, failed = dict(cell.figures), dict(cell.against), {}
        for wish in wanted:
            try:
                figures |= measured([wish], rows, self.reference, resamples=self.plan.resamples)
                against[wish.key] = self.against(wish)
            except (SaveFailed, MissingFile):
                raise
            except GuidonError as error:
                failed[wish.key] = str(error)
        order = [wish.key for wish in self.wanted if wish.key in figures]
        return replace(cell, figures={key: figures[key] for key in order}, against=against, failed=failed)

    def seen(self, cell: Cell, setting: Setting) -> Rows:
        """Return what the observers saw of the images of a finished cell."""
        return seen_by(self.observers, self.images(setting, cell.settings["steps"]), cell.folder)

    def _network(self, name: str) -> Observer:
        """Open a feature network by its name."""
        text = self.plan.opening(name)
        network: FeatureNetwork | None = self.classifier if text == AUTO else registry.parse("features", text)
        assert network is not None  # somebody asks for it
        return network.open(self.device)

    def _rows(self, room: Path, images: Logged, on_block: OnBlock | None) -> Rows:
        keep = self._keep(images) if self.plan.keep_images is not None or not finished_passes(room) else 0
        return look(images, self.observers, room, keep, on_block)

    def _keep(self, images: Logged) -> int:
        if self.plan.keep_images is not None:
            return min(self.plan.keep_images, len(images))
        channels, height, width = images.images.model.shape
        return max(1, min(len(images), KEPT // (channels * height * width)))

    def against(self, wish: Wanted) -> str:
        """Return the fingerprint of what a figure is measured with, besides the images."""
        used = {wish.network, *wish.metric.needs}
        eyes = [eye.fingerprint for eye in self.observers if eye.name in used]
        real = self.reference.fingerprint if wish.metric.compares and self.reference is not None else ""
        return digest(eyes, real, self.plan.resamples)

    def images(self, setting: Setting, steps: int) -> Sampled:
        """Return the images of a cell, which are sampled when they are looked at, labelled as the classifier numbers classes."""
        seeds = range(setting.seed, setting.seed + setting.n)
        images = Sampled(self.shelf.model(setting), setting.told, seeds=seeds, steps=steps, **self._request(setting))
        try:
            return aligned(images, self.observers)
        except UnknownLabel:
            if any("labels" in wish.metric.needs for wish in self.wanted):
                raise
            return images

    def _request(self, setting: Setting) -> dict[str, Any]:
        """Return what `Model.sample` is asked for, but for the steps and what is told."""
        wishes = {name: getattr(setting, name) for name in ("rule", "solver", "grid", "temperature", "precision")}
        request = {name: value for name, value in wishes.items() if value is not None}
        request |= {"negative": list(setting.negative)} if setting.negative else {}
        return request | ({} if setting.weak is None else {"weak": self.shelf.weaker(setting, setting.weak)})


def device_name(device: torch.device) -> str:
    """Return what a device is called by its maker, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
