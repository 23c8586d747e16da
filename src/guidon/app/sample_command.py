"""``guidon sample``: images from a model, or one image again."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from guidon.errors import BadValue, GuidonError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from PIL.Image import Image

    from guidon.model import Model
    from guidon.study.film import Film
    from guidon.tasks.generate import Samples

EXAMPLES = """Examples:

  guidon sample runs/digits                            one image of each class
  guidon sample runs/digits --label 3 5 --n 8 --weight 4      8 of each
  guidon sample runs/digits --label 3 --rule "cfg(4, when=interval(0.3, 3))"
  guidon sample runs/digits --solver "ddim(eta=0.5)" --steps 50 --seed 7 -o out
  guidon sample runs/digits --label 3 --rule "negative(4)" --negative 8 --trace
  guidon sample runs/base --classifier runs/judge --weight 2 --class cat
  guidon sample runs/shapes --prompt "a red circle" "two blue squares" --n 4
  guidon sample runs/shapes --prompt "a dot" --negative red --rule "negative(4)"
  guidon sample models/glide-base --prompt "a boat" --upsampler models/glide-up
  guidon sample models/inpaint --prompt "a hat" --inpaint a.png --repaint m.png
  guidon sample models/upsample64-256 --class 207 --image small.png
  guidon sample --like out/0007-0.png -o again         that image, bit for bit

What can be named: guidon rules, guidon list solvers, guidon list grids."""

Count = Annotated[int | None, Parameter(validator=Number(gte=1))]


def sample(
    model: str | None = None,
    *,
    label: Annotated[
        list[str] | None, Parameter(name=["--label", "--class", "--prompt"], consume_multiple=True, negative=())
    ] = None,
    n: Annotated[int | None, Parameter(name=["--n", "-n"], validator=Number(gte=1))] = None,
    weight: str | None = None,
    rule: str | None = None,
    solver: str | None = None,
    grid: str | None = None,
    steps: Count = None,
    temperature: float | None = None,
    seed: Annotated[int | None, Parameter(validator=Number(gte=0))] = None,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("samples"),
    negative: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    also: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    partial: str | None = None,
    weak: str | None = None,
    classifier: str | None = None,
    calibrated: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    image: Annotated[list[Path] | None, Parameter(consume_multiple=True, negative=())] = None,
    inpaint: Annotated[list[Path] | None, Parameter(consume_multiple=True, negative=())] = None,
    repaint: Annotated[list[Path] | None, Parameter(consume_multiple=True, negative=())] = None,
    upsampler: str | None = None,
    trace: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    film: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    batching: Literal["joint", "sequential"] | None = None,
    max_batch: Count = None,
    precision: Literal["fp32", "bf16"] | None = None,
    device: str | None = None,
    like: Path | None = None,
) -> None:
    """Sample images under guidance.

    Writes one PNG an image, named by seed and class or text, and a contact sheet.
    Every PNG carries the record of how it was made. Nothing is overwritten: where a
    name is taken, the new files get a number. Settings left out are those that come
    with the model (guidon info MODEL).

    Args:
        model: a run's folder, a model's folder, or a Hugging Face id.
        label: classes by name or number; left out: all in turn. Of a model of texts: texts, each in quotes; left out: no text.
        n: images of each class or text given; without any the number of images in all.
        weight: how strongly to follow the class or text: 0 not at all, 1 plainly, 2 to 4 strongly; or a schedule such as "linear(1, 4)".
            With --classifier that of its gradient, left out: 1.
        rule: the whole guidance rule, in place of --weight; guidon rules lists them.
        solver: how to go from noise to image, for instance dpmpp-2m or "ddim(eta=0.5)".
        grid: where the steps lie, for instance karras or trailing.
        steps: number of steps; more are slower and finer.
        temperature: what the noise that sampling starts from is multiplied by, for instance 0.997.
        seed: of the first image; the others count on from it. Left out: 0.
        out: folder to write into.
        negative: classes or texts to steer away from, for rules such as "negative(4)" and "perp-neg(4)".
        also: further classes or texts to draw at once, for "conjunction([3, 3])".
        partial: a part of what is asked for, for "two-scale(4)".
        weak: a worse model to steer away from, for "autoguidance(2)": a folder or hub id, or self:0.1 for this model with
            that much noise in its weights.
        classifier: a classifier of noisy images to be led by, for "classifier(1)": a folder of guidon train-classifier or
            guidon convert. A model without classes takes the classifier's.
        calibrated: divide the classifier's logits by the temperatures that were fitted on held-out images.
        image: small images for a super-resolution model: one for all, or one for each image that is sampled.
        inpaint: pictures that an inpainting model completes: one for all, or one for each image; brought to its size.
        repaint: where it paints them anew: pictures, white there and black where the picture is kept.
        upsampler: a second model, which enlarges what the first one makes, told the same and as it is sampled by default.
        trace: record what guidance did at each step: trace.json and, plotted, trace.png.
        film: show what the model believed of the first images at ten of the steps: film.png.
        batching: all branches of a step in one forward, or one after the other.
        max_batch: images in one forward at most; smaller takes less memory. Left out: 128.
        precision: bf16 takes half to two thirds of the time where the machine has it, for images that differ slightly. Left out: fp32.
        device: cpu, cuda, cuda:1; left out: the first GPU where there is one.
        like: an image that guidon wrote: make it again from its record; MODEL, if given, is where the model is now.
    """
    wishes = {
        "label": label,
        "n": n,
        "weight": weight,
        "rule": rule,
        "solver": solver,
        "grid": grid,
        "steps": steps,
        "temperature": temperature,
        "seed": seed,
        "negative": negative,
        "also": also,
        "partial": partial,
        "weak": weak,
        "classifier": classifier,
        "calibrated": calibrated or None,
        "image": image,
        "inpaint": inpaint,
        "repaint": repaint,
        "upsampler": upsampler,
        "trace": trace or None,
        "film": film or None,
        "batching": batching,
        "max-batch": max_batch,
        "precision": precision,
    }
    if like is not None:
        _refuse_with_like(wishes)
        from guidon.app.again import make_again

        make_again(like, model, out, device)
        return
    if model is None:
        raise BadValue(
            "say which model: guidon sample MODEL, with the folder that guidon train wrote (runs/digits, say)"
        )
    started = time.perf_counter()
    if calibrated and classifier is None:
        raise BadValue("--calibrated is about a classifier; name one with --classifier, or leave it out")
    rule_ = _rule(weight, rule, led=classifier is not None)
    _check_texts(rule=rule_, solver=solver, grid=grid)
    from guidon.app.progress import loading, steps_bar

    with loading(model):
        from guidon.app.models import file_digest, open_classifier, open_model, open_weak
        from guidon.app.pictures import open_pictures

        loaded, digest = open_model(model, device)
        worse = None if weak is None else open_weak(weak, loaded, device)
        judge = judge_digest = None
        if classifier is not None:
            judge, judge_digest = open_classifier(classifier, device, calibrated=calibrated)
        second, second_digest = (None, None) if upsampler is None else open_model(upsampler, device)
        small, known, anew = (None if paths is None else open_pictures(paths) for paths in (image, inpaint, repaint))
    settings: dict[str, Any] = {
        "rule": rule_,
        "solver": solver,
        "grid": grid,
        "steps": steps,
        "temperature": temperature,
        "negative": negative,
        "also": also,
        "partial": partial,
        "weak": worse,
        "classifier": judge,
        "image": small,
        "batching": batching,
        "max_batch": max_batch,
        "precision": precision,
    }
    strip = None
    if film:
        from guidon.study.film import Film

        strip = Film()
    with steps_bar("sampling") as on_step:
        samples = sampled(
            loaded,
            second,
            label,
            n=n,
            seed=0 if seed is None else seed,
            on_step=on_step if strip is None else strip.beside(on_step),
            trace=trace,
            known={name: value for name, value in (("inpaint", known), ("repaint", anew)) if value is not None},
            **{key: value for key, value in settings.items() if value is not None},
        )
    record = {**samples.record, "weights": digest}
    if judge is not None:
        record["classifier"]["weights"] = judge_digest
    if second is not None:
        record["upsampler"]["weights"] = second_digest
    shown = {"low_res": image, "inpaint": inpaint, "repaint": repaint}
    record |= {name: [str(path) for path in paths] for name, paths in shown.items() if paths is not None}
    if pictures := {str(path): file_digest(path) for paths in shown.values() for path in paths or ()}:
        record["pictures"] = pictures
    paths = [write_latents(samples, record, out)] if samples.latent else write_samples(samples, record, out)
    print(summary(samples))
    if samples.trace is not None:
        from guidon.app.trace_plot import write_trace

        print(f"traced {write_trace(out, samples.trace.rows, record)}")
    if strip is not None:
        print(f"filmed {write_film(strip, record, out)}")
    print(f"wrote {_listed(paths)}, in {time.perf_counter() - started:.1f} s with loading")


def sampled(
    model: Model,
    upsampler: Model | None,
    told: Any,
    *,
    known: Mapping[str, list[Image]],
    upsampler_settings: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Samples:
    """Return what a model gives, or a cascade of two.

    Args:
        model: the only one, or the first.
        upsampler: the second one, if any.
        told, settings: as `Model.sample` has them.
        known: pictures to complete and which of their pixels to paint anew, of any size; of both models those that complete see them.
        upsampler_settings: of the second one; left out: its own defaults.
    """
    from guidon.app.pictures import of_size
    from guidon.cascade import cascade

    completing = [each for each in (model, upsampler) if each is not None and each.config.inpaint]

    def beside(each: Model) -> dict[str, Any]:
        if each not in (completing or [model]):  # where none completes, the first one says so
            return {}
        return {name: of_size(pictures, each.shape[1:], name == "repaint") for name, pictures in known.items()}

    if upsampler is None:
        return model.sample(told, **beside(model), **settings)
    more = {**(upsampler_settings or {}), **beside(upsampler)}
    return cascade(model, upsampler, told, upsampler_settings=more, **beside(model), **settings)


def write_samples(samples: Samples, record: dict[str, Any], folder: Path) -> list[Path]:
    """Write every image and the contact sheet, each with its record; return where, the sheet last."""
    from guidon.app.pictures import SHEET, contact_sheet, file_stems, free_paths
    from guidon.app.png import write_png

    images = samples.pil()
    seeds, labels = record["seeds"], record["labels"]
    paths = free_paths(folder, [*file_stems(seeds, labels), SHEET])
    for i, (path, image) in enumerate(zip(paths, images, strict=False)):
        write_png(path, image, {**record, "image": {"index": i, "seed": seeds[i], "label": labels[i]}})
    title = f"{record['rule']}   {record['solver']}, {record['steps']} steps on {record['grid']}   "
    title += f"seed {seeds[0]}" if len(set(seeds)) == 1 else f"seeds {min(seeds)} to {max(seeds)}"
    if (second := record.get("upsampler")) is not None:
        title += f"   enlarged: {second['rule']}, {second['steps']} steps"
    write_png(paths[-1], contact_sheet(images, labels, title), {**record, "image": None})
    return paths


def write_film(film: Film, record: dict[str, Any], folder: Path) -> Path:
    """Write a film as ``film.png`` with the record of the images; return where."""
    from guidon.app.pictures import free_paths
    from guidon.app.png import write_png
    from guidon.study.film import film_sheet

    names = [label or f"seed {seed}" for label, seed in zip(record["labels"], record["seeds"], strict=True)]
    (path,) = free_paths(folder, ["film"])
    title = f"{record['rule']}   {record['solver']}: the clean image that the model believed in"
    write_png(path, film_sheet({"": film}, names, title).picture, {**record, "image": None})
    return path


def write_latents(samples: Samples, record: dict[str, Any], folder: Path) -> Path:
    """Write latents, ``x`` (N, C, H, W), as one safetensors file that carries its record; return where."""
    import json

    from guidon.app.pictures import free_paths
    from guidon.checkpoints.native import write_tensors

    (path,) = free_paths(folder, ["latents"], ".safetensors")
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(path, {"x": samples.x}, {"guidon": json.dumps(record)})
    return path


def summary(samples: Samples) -> str:
    """Return what was done, in a line."""
    record = samples.record
    count = len(samples)
    up = record.get("upsampler")
    precision = "" if record.get("precision", "fp32") == "fp32" else f" in {record['precision']}"
    enlarged = f"enlarged by {up['rule']}, {up['solver']} in {up['steps']} steps on {up['grid']}, " if up else ""
    return (
        f"{count} image{'s' if count > 1 else ''} of {record['size'][0]}x{record['size'][1]}: {record['rule']}, "
        f"{record['solver']} in {record['steps']} steps on {record['grid']}{precision}, {enlarged}"
        f"{samples.nfe:g} network evaluations an image, {samples.seconds:.1f} s ({count / samples.seconds:.1f} images/s)"
    )


def _listed(paths: list[Path]) -> str:
    if len(paths) == 1:
        return f"{paths[0]}, latents for the model's autoencoder"
    first, last, sheet = paths[0], paths[-2], paths[-1]
    return f"{first}{f' to {last.name}' if last != first else ''} and {sheet.name}"


def _refuse_with_like(wishes: dict[str, Any]) -> None:
    given = [f"--{name}" for name, value in wishes.items() if value is not None]
    if given:
        raise BadValue(f"--like takes every setting from the image; leave out {', '.join(given)}, or leave out --like")


def _check_texts(**texts: str | None) -> None:
    """Refuse a text form that cannot be read before a model is loaded, or fetched."""
    import guidon.model_config  # noqa: F401  registers all that can be named
    from guidon import registry

    for kind, text in texts.items():
        if text is not None:
            registry.parse(kind, text)


def _rule(weight: str | None, rule: str | None, *, led: bool = False) -> str | None:
    """Return the rule that --weight or --rule asks for, in text form; ``led`` by a classifier."""
    form = "cfg(1) | threshold | classifier({})" if led else "cfg({})"
    if weight is None:
        return form.format("1") if led and rule is None else rule
    if rule is not None:
        raise BadValue(
            f"--weight and --rule say the same thing; put the weight into the rule: --rule '{form.format(weight)}'"
        )
    try:
        if math.isfinite(float(weight)):
            return form.format(weight.strip())
    except ValueError:
        pass
    import guidon.guidance  # noqa: F401  registers the weights
    from guidon import registry

    try:
        registry.parse("weight", weight)
    except GuidonError:
        known = ", ".join(registry.names("weight"))
        raise BadValue(
            f"--weight is a number (0 ignores the class or text, 1 follows it plainly, 3 strongly) or a schedule "
            f"({known}: for instance 'linear(1, 4)'); got {weight!r}"
        ) from None
    return form.format(weight)
