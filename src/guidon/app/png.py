"""The run record inside a PNG: how an image was made, in our form and in the one that other tools read.

The chunk ``guidon`` holds JSON: the whole request (bit-for-bit reproduction runs the same batch again), which image of it this
is, and the SHA-256 of the weights. The chunk ``parameters`` holds the text form of AUTOMATIC1111's web UI.
"""

from __future__ import annotations

import ast
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from guidon.checkpoints.atomic import write_bytes
from guidon.errors import DataError, MissingFile

CHUNK = "guidon"
Record = dict[str, Any]

_SAMPLERS = {"ddim": "DDIM", "ddpm": "DDPM", "dpmpp-2m": "DPM++ 2M", "euler": "Euler", "heun": "Heun"}
_SCHEDULES = {"karras": "Karras", "linspace": "Uniform"}


def write_png(path: Path, image: Image.Image, record: Mapping[str, Any]) -> None:
    """Write an image with its record, whole or not at all; raises `SaveFailed`.

    Args:
        path: where.
        image: what.
        record: the record of the request; ``record["image"]`` says which of its images this is, None for all of them.
    """
    chunks = PngInfo()
    text = json.dumps(record, separators=(",", ":"), ensure_ascii=False)
    chunks.add_text(CHUNK, text, zip=len(text) > 4000)
    chunks.add_text("parameters", parameters_text(record))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=chunks)
    write_bytes(path, buffer.getvalue())


def read_record(path: str | Path) -> Record:
    """Return the record that `write_png` put into an image.

    Raises:
        MissingFile: there is no such file.
        DataError: it is no image, or carries no record of ours.
    """
    if Path(path).suffix == ".safetensors":
        raise DataError(
            f"{path} holds latents, not an image; to make them again give `guidon sample` the settings in their record:"
            f" guidon info {path}"
        )
    try:
        with Image.open(path) as image:
            text = image.info.get(CHUNK)
    except FileNotFoundError:
        raise MissingFile(f"there is no image {path}; check the path") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read as an image ({error}); give a PNG that `guidon sample` wrote"
        ) from error
    if not isinstance(text, str):
        raise DataError(
            f"{path} carries no guidon record; only PNGs that `guidon sample` wrote do, "
            "and many editors and messengers drop it when they save an image again: use the original file"
        )
    try:
        record = json.loads(text)
    except ValueError as error:
        raise DataError(f"the guidon record of {path} is damaged ({error}); use the original file") from error
    if not isinstance(record, dict):
        raise DataError(f"the guidon record of {path} is damaged; use the original file")
    return record


def parameters_text(record: Mapping[str, Any]) -> str:
    """Return the record as prompt line, ``Negative prompt`` where there is one, and a line of settings."""
    image = record.get("image")
    labels = list(dict.fromkeys(record["labels"])) if image is None else [image["label"]]
    prompt = ", ".join(label for label in labels if label is not None)
    solver, grid = _name(record["solver"]), _name(record["grid"])
    settings: dict[str, Any] = {"Steps": record["steps"], "Sampler": _SAMPLERS.get(solver, solver)}
    settings["Schedule type"] = _SCHEDULES.get(grid, grid)
    weight = constant_weight(record["rule"])
    if weight is not None:
        settings["CFG scale"] = f"{weight:g}"
    settings["Seed"] = record["seeds"][0] if image is None else image["seed"]
    settings["Size"] = "x".join(str(side) for side in record["size"])
    if record.get("weights"):
        settings["Model hash"] = record["weights"][:10]
    settings["Model"] = model_name(record["model"])
    if "upsampler" in record:
        settings["Hires upscaler"] = model_name(record["upsampler"]["model"])
    if weight is None:
        settings["Rule"] = record["rule"]
    settings["Version"] = f"guidon {record['guidon']}"
    lines = [prompt]
    if record.get("negative"):
        lines.append(f"Negative prompt: {', '.join(record['negative'])}")
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in settings.items()))
    return "\n".join(lines)


def constant_weight(rule: str) -> float | None:
    """Return w of a rule that is ``cfg(w)`` and nothing else."""
    if not (rule.startswith("cfg(") and rule.endswith(")")):
        return None
    try:
        value = ast.literal_eval(rule[4:-1])
    except (ValueError, SyntaxError):
        return None
    return float(value) if isinstance(value, int | float) else None


def model_name(source: str) -> str:
    """Return what to call a model for people: ``runs/digits/model`` is "digits"."""
    path = Path(source)
    return path.parent.name or source if path.name == "model" else path.name


def _name(text_form: str) -> str:
    return text_form.partition("(")[0]


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(c in text for c in ",:\n") else text
