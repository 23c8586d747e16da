"""Sets of images to measure: those that are stored somewhere, and those that a model samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from guidon import registry
from guidon.classifier import Classifier
from guidon.errors import BadValue, DataError, NotSupported, ShapeMismatch
from guidon.measure.networks.network import weights_digest
from guidon.measure.observe import ImageSet, digest
from guidon.model import Model
from guidon.model_request import Label, class_id
from guidon.study.reading import OnImages, in_threads, opened, read_all, remember, remembered
from guidon.training.captions import said
from guidon.training.columns import class_ids, class_names
from guidon.training.data import DataConfig
from guidon.training.pixels import Decoder, Unreadable
from guidon.training.records import Skipped

OF_OTHERS = {"image", "inpaint", "repaint"}
MEANS = {"batching", "max_batch", "on_step"}  # of a request: they change no image


class Stored(ImageSet):
    """Images of a folder, of Parquet files, of WebDataset shards, of a saved data set, of the hub, the digits, or the shapes.

    All are read once when the set is opened: which of them can be read, and what they hold, must be known before any is measured. With
    a ``cache`` that is done once for files that have not changed since. Images that cannot be read are left out, in every process alike.

    Args:
        config: the ``data:`` section of a recipe; what it says of order, flips and crops means nothing here, and a stream is read as
            files are.
        cache: folder that remembers what was read; None: nothing is remembered.
        on_images: called with (images read, images) while they are read.

    Attributes:
        skipped: what could not be read; ``skipped.report()`` says it in a line.
        shape: (C, H, W) of every image.

    Raises:
        DataError: nothing is there, or none of it can be read.
        ShapeMismatch: images of differing sizes, and no size to bring them to.
        UnknownLabel: labels that fit no class.
    """

    def __init__(self, config: DataConfig, cache: Path | None = None, on_images: OnImages | None = None) -> None:
        self.skipped = Skipped()
        columns, self._records = opened(config, self.skipped)
        self.skipped.total = len(self._records)
        found = remembered(config, self._records, cache)
        if found is None:
            found = read_all(self._records, Decoder(config.size, config.channels), on_images)
            if found.shape is not None:
                remember(found, config, self._records, cache)
        for name, reason in found.unreadable.values():
            self.skipped.add(name, reason)
        if found.shape is None:
            raise DataError(
                f"{config.source!r} (split {config.split!r}) holds no readable image: {self.skipped.report()}. Check the source"
            )
        self.shape = found.shape
        self._decoder = Decoder(config.size, found.shape[0], found.shape)
        self._kept = np.setdiff1d(np.arange(len(self._records)), np.array([*found.unreadable], np.int64))
        if columns.label:
            labels = self._records.labels()
            names = class_names(config.classes, columns, labels)
            known = [i for i in self._kept if labels[i] is not None]
            ids = dict(zip(known, class_ids([labels[i] for i in known], names), strict=True))
            self.labels, self.classes = np.array([ids.get(i, -1) for i in self._kept], np.int64), tuple(names)
        if columns.told:
            texts = [said(each[0]) if each else "" for each in self._records.captions()]
            self.captions = tuple(texts[i] for i in self._kept)
        self.fingerprint = digest(
            found.content,
            found.shape,
            config.size,
            None if self.labels is None else self.labels.tobytes(),
            self.captions,
        )

    def __len__(self) -> int:
        return len(self._kept)

    def block(self, start: int, stop: int) -> Tensor:
        chosen = [int(i) for i in self._kept[start:stop]]
        try:
            pixels = list(in_threads(self._decoder, self._records.fetch(chosen)))
        except (Unreadable, ShapeMismatch, OSError) as error:
            raise DataError(
                f"an image that could be read before cannot be read any more ({error}); are the files still there?"
            ) from error
        return torch.from_numpy(np.stack(pixels))


class Sampled(ImageSet):
    """Images that a model samples, each from its own seed, whatever block it stands in.

    Args:
        model: whose images.
        told: classes or texts, repeated in turn; None: every class in turn, or no text.
        seeds: of the images, one each.
        request: as `Model.sample` has it: rule, solver, grid, steps, temperature, negative, also, partial, weak, classifier, max_batch.

    Attributes:
        seconds: that each block took, by the number of its first image.
        nfe: network evaluations an image of each block, likewise.
    """

    def __init__(
        self, model: Model, told: Sequence[Label] | None = None, *, seeds: Sequence[int], **request: Any
    ) -> None:
        if not seeds:
            raise BadValue("no seed is given; give one for each image, such as range(1000)")
        if told is not None and not told:
            raise BadValue("nothing is told; name a class or a text, or leave it out altogether")
        if set(request) & OF_OTHERS or model.low_res is not None or model.config.inpaint:
            raise NotSupported(
                "images that are made of other images are measured where they are stored: sample them, and give their folder"
            )
        if model.shape[0] not in (1, 3):
            raise NotSupported(
                f"the model makes latents of {model.shape[0]} channels; decode them, and measure the folder of the images"
            )
        classes, judge = model.classes, request.get("classifier")
        if classes is None and isinstance(judge, Classifier):
            classes = judge.classes
        texts = model.config.text is not None
        every = list(told) if told is not None else [*range(len(classes or ()))] or [None]
        self.model, self.seeds, self._request = model, tuple(int(seed) for seed in seeds), request
        self._told: list[Label] = [every[i % len(every)] for i in range(len(self.seeds))]
        if texts:
            self.captions = tuple("" if text is None else str(text) for text in self._told)
        elif classes is not None:
            ids = [-1 if name is None else class_id(name, classes) for name in self._told]
            self.labels, self.classes = np.array(ids, np.int64), tuple(classes)
        asked = {name: _identity(value) for name, value in request.items() if name not in MEANS}
        self.fingerprint = digest(_identity(model), self._told, self.seeds, asked)
        self.seconds: dict[int, float] = {}
        self.nfe: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self.seeds)

    def block(self, start: int, stop: int) -> Tensor:
        samples = self.model.sample(self._told[start:stop], seed=self.seeds[start:stop], **self._request)
        self.seconds[start], self.nfe[start] = samples.seconds, float(samples.nfe)
        return torch.from_numpy(samples.uint8()).permute(0, 3, 1, 2).contiguous()


def _identity(value: Any) -> Any:
    """Return what tells a model or a setting from another, as JSON has it."""
    if isinstance(value, nn.Module):
        config: Any = getattr(value, "config", None)
        about = None if config is None else config.model_dump(mode="json")
        return [type(value).__name__, about, weights_digest(value.state_dict())]
    if isinstance(value, list | tuple):
        return [_identity(part) for part in value]
    return value if value is None or isinstance(value, str | int | float) else registry.to_text(value)
