"""Making an image again from the record inside it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from guidon._version import __version__
from guidon.app.models import file_digest, open_classifier, open_model, open_weak
from guidon.app.pictures import file_stems, free_paths, open_pictures
from guidon.app.png import Record, read_record, write_png
from guidon.app.progress import steps_bar
from guidon.app.sample_command import sampled, summary, write_samples
from guidon.classifier import Classifier
from guidon.clip import Clip
from guidon.errors import DataError, MissingFile
from guidon.model import Model

_NEEDED = ("model", "rule", "solver", "grid", "steps", "labels", "seeds", "batching", "max_batch", "device", "threads")


def make_again(image: Path, model: str | None, out: Path, device: str | None) -> None:
    """Run the request again that an image came from, write the image, and say whether it is the same.

    Args:
        image: a PNG with a record. A single image is written alone, a contact sheet with all its images.
        model: where the model is now; left out: where the record says.
        out: folder to write into.
        device: left out: that of the record.

    Raises:
        DataError: the image has no record of ours, or an incomplete one.
        MissingFile: the model is no longer where it was.
    """
    record = read_record(image)
    missing = [key for key in _NEEDED if key not in record]
    if missing:
        raise DataError(f"the guidon record of {image} lacks {', '.join(missing)}; it cannot be made again")
    where = device or record["device"]
    loaded, digest = _open(record, image, model, where)
    classifier = _classifier(record, image, where)
    if record.get("weights") and digest != record["weights"]:
        print(
            f"note: {loaded.name} holds other weights than {image} was made with; the image will differ",
            file=sys.stderr,
        )
    upsampler, upsampling = _upsampler(record, image, where)
    shown = {name: record[name] for name in ("low_res", "inpaint", "repaint") if record.get(name)}
    places = {path: _picture(path, image) for paths in shown.values() for path in paths}
    pictures = {name: open_pictures([places[path] for path in paths]) for name, paths in shown.items()}
    digests = {path: file_digest(place) for path, place in places.items()}
    for path, picture in digests.items():
        if picture != record.get("pictures", {}).get(path, picture):
            print(
                f"note: {places[path]} is another picture than {image} was made with; it will differ", file=sys.stderr
            )
    labelled = loaded.classes is not None or any(label is not None for label in record["labels"])
    threads = torch.get_num_threads()
    torch.set_num_threads(record["threads"])
    try:
        with steps_bar("sampling") as on_step:
            samples = sampled(
                loaded,
                upsampler,
                record["labels"] if labelled else None,
                n=None if labelled else len(record["seeds"]),
                seed=record["seeds"],
                on_step=on_step,
                weak=open_weak(record["weak"], loaded, where) if record.get("weak") else None,
                classifier=classifier,
                image=pictures.pop("low_res", None),
                known=pictures,
                upsampler_settings=upsampling,
                **{
                    key: record[key]
                    for key in ("negative", "also", "partial", "temperature", "precision")
                    if key in record
                },
                **{key: record[key] for key in ("rule", "solver", "grid", "steps", "batching", "max_batch")},
            )
    finally:
        torch.set_num_threads(threads)
    new = {**samples.record, "weights": digest} | shown | ({"pictures": digests} if digests else {})
    if classifier is not None:
        new["classifier"]["weights"] = record["classifier"].get("weights")
    if upsampler is not None:
        new["upsampler"]["weights"] = record["upsampler"].get("weights")
    which = record.get("image")
    print(summary(samples))
    if which is None:
        paths = write_samples(samples, new, out)
        path = paths[-1]
    else:
        (path,) = free_paths(out, file_stems([which["seed"]], [which["label"]]))
        write_png(path, samples.pil()[which["index"]], {**new, "image": which})
    print(f"wrote {path}: {_verdict(image, path, record)}")


def _open(record: Record, image: Path, model: str | None, device: str) -> tuple[Model, str]:
    """Open the model of a record: the one given, or as written there, from here or from a folder that the image lies in."""
    if model is not None:
        return open_model(model, device)
    name = record["model"]
    try:
        return open_model(_found(name, image), device)
    except MissingFile as error:
        raise MissingFile(
            f"{image} was made with {name}, which cannot be found: {error}. "
            f"If the model is somewhere else now, say where: guidon sample MODEL --like {image}"
        ) from error


def _classifier(record: Record, image: Path, device: str) -> Classifier | Clip | None:
    """Open the classifier of a record, None where there was none; raises `DataError` where it was a function."""
    if "classifier" not in record:
        return None
    told = record["classifier"]
    if told is None:
        raise DataError(f"{image} was led by a function, which no record can hold; make it again from Python")
    classifier, digest = open_classifier(_found(told["name"], image), device, calibrated=told["calibrated"])
    if digest != told.get("weights", digest):
        print(f"note: {told['name']} holds other weights than {image} was made with; it will differ", file=sys.stderr)
    return classifier


def _upsampler(record: Record, image: Path, device: str) -> tuple[Model | None, dict[str, Any]]:
    """Open the upsampler of a record and return it with how it was sampled, None where there was none."""
    if "upsampler" not in record:
        return None, {}
    told = record["upsampler"]
    upsampler, digest = open_model(_found(told["model"], image), device)
    if digest != told.get("weights", digest):
        print(f"note: {told['model']} holds other weights than {image} was made with; it will differ", file=sys.stderr)
    return upsampler, {key: told[key] for key in ("rule", "solver", "grid", "steps", "temperature") if key in told}


def _found(name: str, image: Path) -> str | Path:
    """Return where a folder or a file of a record is: as written there, from here or from a folder that the image lies in."""
    places = [Path(name), *(parent / name for parent in image.resolve().parents)]
    return next((place for place in places if place.exists()), name)


def _picture(name: str, image: Path) -> Path:
    """Return where a picture of a record is: as `_found` says, or by its own name beside the image."""
    found, beside = Path(_found(name, image)), image.parent / Path(name).name
    return beside if beside.exists() and not found.exists() else found


def _verdict(old: Path, new: Path, record: Record) -> str:
    """Say in words how two image files compare."""
    a, b = (np.asarray(Image.open(path)).astype(int) for path in (old, new))
    if a.shape != b.shape:
        return f"of another size than {old}"
    if np.array_equal(a, b):
        return f"the same as {old}, pixel for pixel"
    share, most = (a != b).mean(), np.abs(a - b).max()
    return f"not quite {old}: {share:.1%} of the values differ, by {most} of 255 at most{_reason(record)}"


def _reason(record: dict[str, Any]) -> str:
    versions = {"guidon": __version__, "torch": torch.__version__}
    changed = [
        f"{name} {record[name]} then, {now} now" for name, now in versions.items() if record.get(name, now) != now
    ]
    return f" ({'; '.join(changed)})" if changed else ""
