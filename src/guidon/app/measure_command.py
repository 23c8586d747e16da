"""``guidon measure``: figures of images, each with its interval."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from guidon.errors import BadValue, GuidonError, GuidonWarning, UnknownName

if TYPE_CHECKING:
    from guidon.measure.metric import Wanted
    from guidon.measure.networks import FeatureNetwork
    from guidon.measure.observe import ImageSet, Observer
    from guidon.study.images import Stored

EXAMPLES = """Examples:

  guidon measure samples/ --reference data/cifar10          FID and the like
  guidon measure runs/digits --reference digits --metric fid accuracy --n 500
  guidon measure runs/digits -r digits --rule "cfg(3)" --steps 10 -o at-3
  guidon measure samples/ -r data/ --metric fid "kid(50, 500)" --features dinov2
  guidon measure samples/ -r data/ --metric fid@clip fid@inception
  guidon measure photos/ --metric saturation contrast       without a reference
  torchrun --nproc-per-node 2 -m guidon measure runs/digits -r digits -n 5000

What can be named: guidon list metrics, guidon list features."""

AUTO = "auto"
OF_MODELS = ("label", "rule", "solver", "grid", "steps", "seed")
COMPARING, ALONE = ("fid", "precision", "recall"), ("saturation", "contrast", "clipping")
SAMPLES = 1000  # of a model where nobody says how many
OF_SAMPLES = 100  # in a block; what is sampled is kept block by block
Count = Annotated[int | None, Parameter(validator=Number(gte=1))]


def measure(
    images: str,
    *,
    reference: Annotated[str | None, Parameter(name=["--reference", "-r"])] = None,
    metric: Annotated[list[str] | None, Parameter(name=["--metric", "-m"], consume_multiple=True, negative=())] = None,
    features: Annotated[list[str] | None, Parameter(consume_multiple=True, negative=())] = None,
    n: Annotated[int | None, Parameter(name=["--n", "-n"], validator=Number(gte=1))] = None,
    size: Count = None,
    split: str = "train",
    reference_split: str = "train",
    label: Annotated[
        list[str] | None, Parameter(name=["--label", "--class", "--prompt"], consume_multiple=True, negative=())
    ] = None,
    rule: str | None = None,
    solver: str | None = None,
    grid: str | None = None,
    steps: Count = None,
    seed: Annotated[int | None, Parameter(validator=Number(gte=0))] = None,
    resamples: Annotated[int, Parameter(validator=Number(gte=0))] = 200,
    device: str | None = None,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("measured"),
) -> None:
    """Measure images, or those that a model samples, each figure with its interval.

    Compare figures only where the number of images, the reference and the network
    are the same: they stand beside every figure. Writes measure.json; what was seen
    of the images is kept in rows/ beside it and is not looked at, nor sampled,
    again. Nothing is overwritten: the next is measure-2.json, and so on. Rows of references, and classifiers trained on them, are kept in
    $GUIDON_CACHE (~/.cache/guidon).

    Args:
        images: a folder, Parquet files, digits, shapes or a hub id, as data.source of a recipe names them; or a run's or model's folder.
        reference: real images to compare with, named likewise.
        metric: what to measure; @ names a network, as in fid@dinov2. Left out: fid, precision and recall, or, without a reference,
            saturation, contrast and clipping.
        features: networks to see with, the first for metrics that name none: auto (a classifier trained on the reference, for
            small labelled images), inception, dinov2, clip, "classifier('FOLDER')", "torchscript('FILE')". Left out: auto.
        n: the first so many images of a folder, left out: all; of a model, left out: 1000.
        size: bring images and reference to this size; left out: a reference is brought to that of a model.
        split: which part of the images, where they have parts.
        reference_split: which part of the reference.
        label: classes or texts to sample, in turn; left out: every class in turn.
        rule: of a model's samples, as all up to --seed; left out: as the model has it.
        solver: for instance dpmpp-2m.
        grid: where the steps lie, for instance karras.
        steps: number of steps.
        seed: of the first sample, the others count on from it; left out: 0.
        resamples: of the bootstrap behind each interval; 0: no interval.
        device: cpu, cuda, cuda:1; left out: the first GPU where there is one.
        out: folder to write into.
    """
    from guidon.app.progress import loading, steps_bar

    started = time.perf_counter()
    asked = {"label": label, "rule": rule, "solver": solver, "grid": grid, "steps": steps, "seed": seed}
    with loading("networks"):
        from guidon.app.measure_table import table, too_few, write_measured
        from guidon.app.models import device_of
        from guidon.measure.metric import check, measured
        from guidon.measure.observe import Rows, digest, leave_team, observe, team
        from guidon.study.reference import aligned, cache_folder, reference_rows

        networks = named_networks(features or [AUTO])
        wanted = wishes(metric or (ALONE if reference is None else COMPARING), networks)
        first = team()[0] == 0
    if reference is None and (comparing := [wish.key for wish in wanted if wish.metric.compares]):
        raise BadValue(f"{', '.join(comparing)} compares with real images; give --reference")
    where, cache = device_of(device), cache_folder()
    with steps_bar("reading", "images", shown=first) as on_images:
        looked, about = open_images(images, asked, n, size, split, device, cache, on_images)
        if n is not None and len(looked) < n and first:
            warnings.warn(GuidonWarning(f"asked for {n:,} images, there are {len(looked):,}"), stacklevel=1)
        real = None if reference is None else open_reference(reference, reference_split, size, looked, cache, on_images)
    with steps_bar("training a classifier", "epochs", shown=first) as on_epoch:
        eyes = open_eyes(wanted, networks, real, cache, where, on_epoch)
    told = {eye.name: eye.fingerprint for eye in eyes}
    if any("labels" in wish.metric.needs for wish in wanted):
        looked = aligned(looked, eyes)
    failed: dict[str, GuidonError] = {}
    for wish in wanted:
        try:
            check(
                wish,
                Rows({}, len(looked), labels=looked.labels, captions=looked.captions, observers=told),
                None if real is None else Rows({}, len(real[1]), observers=told),
            )
        except BadValue as error:
            failed[wish.key] = error
            if "labels" in wish.metric.needs and looked.labels is None:
                failed[wish.key] = BadValue(
                    f"{wish.key} needs labels, and the images have none; put them into a folder for each class, or measure the model itself"
                )
    if len(failed) == len(wanted):
        raise next(iter(failed.values()))
    wanted = [wish for wish in wanted if wish.key not in failed]
    against = None
    if real is not None:
        compare = {wish.network for wish in wanted if wish.metric.compares}
        with steps_bar("looking at the reference", "blocks", shown=first) as on_block:
            against = reference_rows(real[1], [eye for eye in eyes if eye.name in compare], cache, on_block)
    with steps_bar("looking", "blocks", shown=first) as on_block:
        room = out / "rows" / digest(looked.fingerprint, told)
        rows = observe(looked, eyes, room, block=OF_SAMPLES if about["sampled"] else 250, on_block=on_block)
    leave_team()
    if not first:
        return
    figures: dict[str, Any] = {}
    with steps_bar("measuring", "figures") as on_figure:
        for done, wish in enumerate(wanted, 1):
            try:
                figures |= measured([wish], rows, against, resamples=resamples)
            except GuidonError as error:
                failed[wish.key] = error
            on_figure(done, len(wanted))
    if not figures:
        raise next(iter(failed.values()))
    wanted = [wish for wish in wanted if wish.key in figures]
    record = {"images": about, "networks": {eye.name: eye.fingerprint for eye in eyes}, "resamples": resamples}
    if real is not None:
        record["reference"] = {"source": reference, "split": reference_split, **told_of(real[1])}
    if failed:
        record["failed"] = {key: str(error) for key, error in failed.items()}
    written = write_measured(out, wanted, figures, record)
    table(wanted, figures, record)
    for line in too_few(figures, rows):
        print(line)
    print(f"wrote {written}, in {time.perf_counter() - started:.1f} s with loading")
    if failed:
        raise BadValue("\n".join(f"{key} could not be measured: {error}" for key, error in failed.items()))


def named_networks(features: Sequence[str]) -> dict[str, FeatureNetwork | None]:
    """Return feature networks by name, the first one first; None stands for a classifier that is still to be trained.

    Raises:
        UnknownName: there is no such network.
        BadValue: two of them are of one kind.
    """
    from guidon import registry

    found: dict[str, Any] = {}
    for text in features:
        if text != AUTO and "(" not in text and text not in registry.names("features"):
            raise UnknownName("network", text, [*registry.names("features"), AUTO])
        network = None if text == AUTO else registry.parse("features", text)
        name = "classifier" if network is None else network.name
        if name in found:
            raise BadValue(f"--features names two networks called {name}; give one, and measure again with the other")
        found[name] = network
    return found


def wishes(metrics: Sequence[str], networks: dict[str, FeatureNetwork | None]) -> list[Wanted]:
    """Return what is wanted, each thing once; raises `UnknownName` and `BadValue` as `Wanted.parse`."""
    from guidon import registry
    from guidon.measure.metric import Wanted

    wanted = [Wanted.parse(text, next(iter(networks))) for text in dict.fromkeys(metrics)]
    for wish in wanted:
        if wish.network and wish.network not in (*networks, *registry.names("features")):
            raise UnknownName("network", wish.network, registry.names("features"))
    return wanted


def open_images(
    source: str,
    asked: dict[str, Any],
    n: int | None,
    size: int | None,
    split: str,
    device: str | None,
    cache: Path,
    on_images: Any,
) -> tuple[ImageSet, dict[str, Any]]:
    """Return the images to measure, and what to say of them."""
    from guidon.app.models import holds_model, open_model
    from guidon.study.images import Sampled, Stored
    from guidon.training.data import DataConfig

    if not holds_model(source):
        if idle := [f"--{name}" for name in OF_MODELS if asked[name] is not None]:
            raise BadValue(
                f"{', '.join(idle)} says how a model samples, and {source} is no folder of a model; leave it out, or give a run's folder"
            )
        stored = Stored(
            DataConfig(source=source, split=split, size=size).model_copy(update={"limit": n}), cache, on_images
        )
        return stored, {"source": source, "split": split, "sampled": False, **told_of(stored)}
    if size is not None:
        raise BadValue(
            "a model samples at its own size; leave --size out: the reference is brought to that of the model"
        )
    request = {name: _canonical(name, asked[name]) for name in ("rule", "solver", "grid") if asked[name] is not None}
    request |= {} if asked["steps"] is None else {"steps": asked["steps"]}
    model, weights = open_model(source, device)
    start = asked["seed"] or 0
    sampled = Sampled(model, asked["label"], seeds=range(start, start + (n or SAMPLES)), **request)
    made = {"request": request, "told": asked["label"], "seed": start, "weights": weights}
    return sampled, {"source": source, "sampled": True, "n": len(sampled), "fingerprint": sampled.fingerprint, **made}


def open_reference(
    source: str, split: str, size: int | None, images: ImageSet, cache: Path, on_images: Any
) -> tuple[Any, Stored]:
    """Return where real images are and the images, brought to the size and the channels of a model whose samples are measured."""
    from guidon.study.images import Sampled, Stored
    from guidon.training.data import DataConfig

    fit: dict[str, Any] = {"size": size}
    if isinstance(images, Sampled):
        channels, height, width = images.model.shape
        fit = {"channels": channels, "size": height if height == width else None}
    config = DataConfig(source=source, split=split, **fit)
    return config, Stored(config, cache, on_images)


def open_eyes(
    wanted: Sequence[Wanted],
    networks: dict[str, FeatureNetwork | None],
    real: tuple[Any, Stored] | None,
    cache: Path,
    device: Any,
    on_epoch: Any,
) -> list[Observer]:
    """Return all that must look at the images for what is wanted."""
    from guidon import registry
    from guidon.measure.metrics import Pixels, Shapes
    from guidon.study.reference import auto_classifier

    eyes: list[Observer] = []
    for name in dict.fromkeys(wish.network for wish in wanted if wish.network):
        network = networks.get(name) if name in (*networks, "classifier") else registry.parse("features", name)
        if network is None:
            if real is None:
                raise BadValue(
                    "auto is a classifier trained on the reference; give --reference, or another network with --features"
                )
            network = auto_classifier(real[0], cache, on_epoch, images=real[1])
        eyes.append(network.open(device))
    needed = {need for wish in wanted for need in wish.metric.needs}
    return eyes + [eye() for eye in (Pixels, Shapes) if eye.name in needed]


def told_of(images: Stored) -> dict[str, Any]:
    """Return what to say of stored images."""
    skipped = images.skipped.report() if images.skipped else None
    return {"n": len(images), "shape": list(images.shape), "fingerprint": images.fingerprint, "skipped": skipped}


def _canonical(kind: str, text: str) -> str:
    import guidon.model_config  # noqa: F401  registers all that can be named
    from guidon import registry

    return registry.to_text(registry.parse(kind, text))
