"""What makes the cells of a sweep: models, networks and real images, each opened once and used for cell after cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guidon import registry
from guidon.errors import UnknownLabel
from guidon.measure.metric import Wanted, check, measured
from guidon.measure.metrics import Pixels, Shapes
from guidon.measure.networks.network import weights_digest
from guidon.measure.observe import IMAGES, ImageSet, Observer, OnBlock, Rows, digest, observe
from guidon.model import Model
from guidon.models.degrade import read_degraded
from guidon.study.cost import LOG, Logged
from guidon.study.images import Sampled
from guidon.study.nfe import longest, tried
from guidon.study.plan import AUTO, Point, SweepPlan
from guidon.study.reference import aligned, auto_classifier, reference_rows
from guidon.study.setting import Setting, canonical
from guidon.study.store import Cell, Trial, finished_passes, merged
from guidon.training.snapshots import reconstruct_model

OnPrepare = Callable[[str, int, int], None]

KEPT = 16 << 20  # bytes of images of a cell that are kept where a plan does not say
MODELS = 2  # that are held at once, beside what is made of them


class Bench:
    """Makes cells.

    Args:
        plan: of the sweep; it says what is measured.
        device: where everything runs; None: the first GPU where there is one.
        cache: folder of the rows of real images; None: the user's.
        on_prepare: called with (what, parts done, parts) while the classifier is trained and the real images are looked at.
    """

    def __init__(
        self,
        plan: SweepPlan,
        device: str | None = None,
        cache: Path | None = None,
        on_prepare: OnPrepare | None = None,
    ) -> None:
        self.plan, self.cache, self.on_prepare = plan, cache, on_prepare or (lambda what, done, parts: None)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.wanted: list[Wanted] = plan.wanted()
        self._models: dict[tuple[str, float | None], Model] = {}
        self._weak: dict[tuple[str, float | None, str], Model] = {}
        self._digests: dict[tuple[str, float | None, str | None], str] = {}

    @cached_property
    def observers(self) -> list[Observer]:
        """What looks at the images, opened when it is first asked for."""
        eyes = [self._network(name) for name in sorted({wish.network for wish in self.wanted} - {""})]
        needed = {need for wish in self.wanted for need in wish.metric.needs}
        return eyes + [eye() for eye in (Pixels, Shapes) if eye.name in needed]

    @cached_property
    def reference(self) -> Rows | None:
        """What was seen of the real images; None where no metric compares with any."""
        if self.plan.reference is None or not any(wish.metric.compares for wish in self.wanted):
            return None
        on_block = partial(self.on_prepare, "looking at the real images")
        return reference_rows(self.plan.reference, self.observers, self.cache, on_block)

    def settings(self, setting: Setting) -> dict[str, Any]:
        """Return how the images of a cell are made, with every default of the model; steps are None where evaluations are given."""
        default = self._model(setting).config.sample
        found = setting.model_dump(mode="json")
        for name in ("rule", "solver", "grid"):
            found[name] = found[name] or canonical(name, getattr(default, name))
        found["temperature"] = found["temperature"] or default.temperature
        found["precision"] = found["precision"] or "fp32"
        if setting.steps is None and setting.nfe is None:
            found["steps"] = default.steps
        found["weights"] = self._digest(setting, None)
        found["weak_weights"] = None if setting.weak is None else self._digest(setting, setting.weak)
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
        model, request = self._model(setting), self._request(setting)
        told = setting.told[:1] if setting.told else None

        def count(steps: int | None) -> Trial:
            return tried(model, {**request, "told": told, "seed": setting.seed}, steps)

        return count(self.settings(setting)["steps"]) if setting.nfe is None else longest(count, setting.nfe)

    def lacks(self, cell: Cell) -> list[Wanted]:
        """Return what is wanted of a finished cell and not measured yet, or with another network or reference."""
        return [wish for wish in self.wanted if cell.against.get(wish.key) != self._against(wish)]

    def check(self, setting: Setting) -> None:
        """Refuse a cell whose images cannot be measured as is wanted; raises `BadValue`."""
        images = self._images(setting, 1)
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
        images = Logged(self._images(point.setting, trial.steps), room / LOG, self.device)
        rows = self._rows(room, images, on_block)
        settings = {**self.settings(point.setting), "steps": trial.steps}
        cell = Cell(key, point.axes, settings, {}, images.cost(), room)
        return self.measured(cell, rows, self.wanted)

    def remeasured(self, cell: Cell, setting: Setting, on_block: OnBlock | None = None) -> Cell:
        """Return a finished cell with the figures that it lacks, from the rows and images that were kept as far as these go."""
        images = Logged(self._images(setting, cell.settings["steps"]), cell.folder / LOG, self.device)
        return self.measured(cell, self._rows(cell.folder, images, on_block), self.lacks(cell))

    def measured(self, cell: Cell, rows: Rows, wanted: Sequence[Wanted]) -> Cell:
        """Return a cell with further figures."""
        figures = measured(wanted, rows, self.reference, resamples=self.plan.resamples)
        against = {wish.key: self._against(wish) for wish in wanted}
        return replace(cell, figures={**cell.figures, **figures}, against={**cell.against, **against})

    def _network(self, name: str) -> Observer:
        """Open a feature network: the plan's own by its name, or another."""
        if name != self.plan.network:
            return registry.parse("features", name).open(self.device)
        if self.plan.features != AUTO:
            return registry.parse("features", self.plan.features).open(self.device)
        assert self.plan.reference is not None  # the plan has seen to that
        on_epoch = partial(self.on_prepare, "training the classifier that looks")
        return auto_classifier(self.plan.reference, self.cache, on_epoch).open(self.device)

    def _rows(self, room: Path, images: Logged, on_block: OnBlock | None) -> Rows:
        """Return what all observers see of the images of a cell; those that have seen them are not asked again."""
        passes = finished_passes(room)
        eyes = {observer.name: observer.fingerprint for observer in self.observers}
        seen = {item for rows in passes for item in rows.observers.items()}
        new = [observer for observer in self.observers if (observer.name, observer.fingerprint) not in seen]
        if new or not passes:
            kept = next(
                (Kept(rows, images) for rows in passes if IMAGES in rows and len(rows[IMAGES]) == len(rows)), None
            )
            keep = 0 if passes else self._keep(images)
            looked_at = kept or images
            folder = room / digest(looked_at.fingerprint, {eye.name: eye.fingerprint for eye in new}, keep)
            passes.append(observe(looked_at, new, folder, keep_images=keep, on_block=on_block))
        return merged(passes, eyes)

    def _keep(self, images: Logged) -> int:
        if self.plan.keep_images is not None:
            return min(self.plan.keep_images, len(images))
        channels, height, width = images.images.model.shape
        return max(1, min(len(images), KEPT // (channels * height * width)))

    def _against(self, wish: Wanted) -> str:
        """Return the fingerprint of what a figure is measured with, besides the images."""
        used = {wish.network, *wish.metric.needs}
        eyes = [eye.fingerprint for eye in self.observers if eye.name in used]
        real = self.reference.fingerprint if wish.metric.compares and self.reference is not None else ""
        return digest(eyes, real, self.plan.resamples)

    def _images(self, setting: Setting, steps: int) -> Sampled:
        seeds = range(setting.seed, setting.seed + setting.n)
        images = Sampled(self._model(setting), setting.told, seeds=seeds, steps=steps, **self._request(setting))
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
        return request | ({} if setting.weak is None else {"weak": self._weaker(setting, setting.weak)})

    def _model(self, setting: Setting) -> Model:
        name = (setting.model, setting.average)
        if name not in self._models:
            if len(self._models) >= MODELS:
                oldest = next(iter(self._models))
                del self._models[oldest]
                self._weak = {key: model for key, model in self._weak.items() if key[:2] != oldest}
            made = Model.from_pretrained(name[0]) if name[1] is None else reconstruct_model(name[0], name[1])
            self._models[name] = made.to(self.device)
        return self._models[name]

    def _weaker(self, setting: Setting, text: str) -> Model:
        name, noisy = (setting.model, setting.average, text), read_degraded(text)
        if noisy is None:
            return self._model(Setting(model=text))
        model = self._model(setting)
        if name not in self._weak:
            self._weak[name] = model.degraded(*noisy)
        return self._weak[name]

    def _digest(self, setting: Setting, weak: str | None) -> str:
        name = (setting.model, setting.average, weak)
        if name not in self._digests:
            self._digests[name] = fingerprint(self._model(setting) if weak is None else self._weaker(setting, weak))
        return self._digests[name]


class Kept(ImageSet):
    """Sampled images as they were kept, all of them, for those who have not looked yet."""

    def __init__(self, rows: Rows, sampled: ImageSet) -> None:
        self._images, self.fingerprint = rows[IMAGES], sampled.fingerprint
        self.labels, self.classes, self.captions = sampled.labels, sampled.classes, sampled.captions

    def __len__(self) -> int:
        return len(self._images)

    def block(self, start: int, stop: int) -> Tensor:
        return torch.from_numpy(self._images[start:stop].copy())


def fingerprint(model: Model) -> str:
    """Return a fingerprint of what a model is: its weights and its config, without how it is sampled and was trained."""
    config = model.config.model_dump(mode="json", exclude={"sample", "training"})
    return digest(config, weights_digest(model.state_dict()), model.tokenizer and model.tokenizer.to_json())
