"""What samples are compared with: real images, looked at once, and the classifier that is trained on them where nothing else is there.

All of it is kept under fingerprints of the images, of how they are prepared and of the network, so that nothing is computed twice and
nothing is taken for something else.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from guidon.errors import BadValue, NotSupported
from guidon.measure.features import ClassifierConfig, train_classifier
from guidon.measure.networks.classifier import Classifier, ClassifierObserver
from guidon.measure.networks.network import NetworkObserver
from guidon.measure.observe import ImageSet, Observer, OnBlock, Rows, digest, observe
from guidon.measure.processes import alone, team
from guidon.model_request import class_id
from guidon.study.images import Stored
from guidon.training.data import DataConfig

LARGEST = 64  # side of images that a classifier is trained on here
MEMORY = 1 << 29  # numbers that its training holds
BLOCK = 1000  # images that are read at once for it

Images = TypeVar("Images", bound=ImageSet)


def cache_folder() -> Path:
    """Return the folder of what is kept between runs: $GUIDON_CACHE, or ~/.cache/guidon."""
    return Path(os.environ.get("GUIDON_CACHE") or "~/.cache/guidon").expanduser()


def reference_rows(
    reference: DataConfig | ImageSet,
    observers: Sequence[Observer],
    cache: Path | None = None,
    on_block: OnBlock | None = None,
) -> Rows:
    """Return what feature networks see of real images; each looks at them once, whatever it is asked for together with.

    Args:
        reference: the ``data:`` section of a recipe, or images that are open.
        observers: of whom the feature networks look; the others compare nothing.
        cache: where rows are kept; None: `cache_folder`.
        on_block: called with (blocks done, blocks) of each network.

    Raises:
        DataError, ShapeMismatch, UnknownLabel: as `Stored`.
    """
    cache = cache or cache_folder()
    images = Stored(reference, cache) if isinstance(reference, DataConfig) else reference
    arrays: dict[str, np.ndarray] = {}
    names: dict[str, str] = {}
    for observer in observers:
        if isinstance(observer, NetworkObserver):
            folder = cache / "rows" / images.fingerprint / f"{observer.name}-{observer.fingerprint}"
            seen = observe(images, [observer], folder, on_block=on_block)
            arrays |= {aspect: seen[aspect] for aspect in seen.aspects}
            names[observer.name] = observer.fingerprint
    return Rows(
        arrays,
        len(images),
        labels=images.labels,
        classes=images.classes,
        captions=images.captions,
        fingerprint=images.fingerprint,
        observers=names,
    )


def auto_classifier(
    reference: DataConfig,
    cache: Path | None = None,
    on_epoch: Callable[[int, int], None] | None = None,
    images: Stored | None = None,
) -> Classifier:
    """Return the classifier of a labelled reference, trained when it is first asked for.

    Args:
        reference: the ``data:`` section of a recipe; its ``flip`` says whether mirror images show the same.
        cache: where it is kept; None: `cache_folder`.
        on_epoch: called with (epochs done, epochs).
        images: of the reference, where they are open already.

    Raises:
        BadValue: the images have no labels, or are all of one class.
        NotSupported: the images are too large to train on here.
        DataError, ShapeMismatch: there are too few, or they are not square.
    """
    cache = cache or cache_folder()
    images = Stored(reference, cache) if images is None else images
    if images.labels is None or images.classes is None or len(np.unique(images.labels[images.labels >= 0])) < 2:
        raise BadValue(
            f"auto is a classifier trained on the reference, and {reference.source!r} has no labels of two classes or more; name the"
            " column of labels (data.label_column), or compare by another network, such as dinov2 or inception"
        )
    if max(images.shape[1:]) > LARGEST:
        raise NotSupported(
            f"auto trains a classifier on images up to {LARGEST}x{LARGEST}, these are {images.shape[2]}x{images.shape[1]}; compare by"
            f" another network, such as dinov2 or inception, or bring both sides to a size of {LARGEST}"
        )
    chosen = _chosen(images)
    epochs = min(40, max(10, 250_000 // len(chosen)))
    folder = cache / "classifiers" / digest(images.fingerprint, images.classes, len(chosen), epochs, reference.flip)
    rank, _, wait = team()
    with alone(folder):
        if rank == 0 and not folder.is_dir():
            _train(images, chosen, folder, epochs, reference.flip, on_epoch)
        wait()
    return Classifier(str(folder))


def aligned(images: Images, observers: Sequence[Observer]) -> Images:
    """Return images whose labels are numbered as the classes of the classifier that looks at them, found by name or by number.

    Args:
        images: labels and classes are changed in them.
        observers: the classifier among them, if any, is asked for its classes.

    Raises:
        UnknownLabel: the classifier does not know a class of the images.
    """
    known = next((o.classes for o in observers if isinstance(o, ClassifierObserver) and o.classes), None)
    if known is None or images.labels is None or images.classes is None or tuple(images.classes) == tuple(known):
        return images
    named = images.classes
    ids = {old: class_id(images.classes[old], known) for old in np.unique(images.labels).tolist() if old >= 0}
    images.labels = np.array([ids.get(label, -1) for label in images.labels.tolist()], np.int64)
    images.classes, images.fingerprint = tuple(known), digest(images.fingerprint, named, known)
    return images


def _chosen(images: Stored) -> np.ndarray:
    """Return which images to train on: all that have a label, or as many of them, by chance, as fit into memory."""
    assert images.labels is not None
    labelled = np.flatnonzero(images.labels >= 0)
    channels, height, width = images.shape
    most = int(MEMORY / (channels * height * width * 1.25**2))  # with their borders
    if len(labelled) <= most:
        return labelled
    return np.sort(np.random.default_rng(0).choice(labelled, most, replace=False))


def _train(
    images: Stored,
    chosen: np.ndarray,
    folder: Path,
    epochs: int,
    flip: bool,
    on_epoch: Callable[[int, int], None] | None,
) -> None:
    """Train a classifier on some images, and write it into a folder."""
    assert images.labels is not None and images.classes is not None
    config = ClassifierConfig.for_images(len(images.classes), images.shape[0], images.shape[1])

    def show(epoch: int, loss: float) -> None:
        if on_epoch is not None:
            on_epoch(epoch + 1, epochs)

    classifier = train_classifier(
        torch.cat([_rows(images, part) for part in np.array_split(chosen, -(-len(chosen) // BLOCK))]),
        images.labels[chosen].tolist(),
        len(images.classes),
        epochs=epochs,
        flip=flip,
        precision="fp32",
        config=dataclasses.replace(config, names=images.classes),
        on_epoch=show,
    )
    classifier.save(folder)


def _rows(images: Stored, chosen: np.ndarray) -> torch.Tensor:
    """Return some images (B, C, H, W), given by ascending numbers."""
    start = int(chosen[0])
    return images.block(start, int(chosen[-1]) + 1)[torch.from_numpy(chosen - start)]
