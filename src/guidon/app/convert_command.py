"""``guidon convert``: checkpoints that others released or trained, as models of guidon's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

if TYPE_CHECKING:
    from guidon.app.conversion import Plan

EXAMPLES = """Examples:

  guidon convert presets                     every checkpoint that is known
  guidon convert guided-diffusion 256x256_diffusion.pt --preset imagenet256
  guidon convert guided-diffusion 256x256_classifier.pt --preset classifier256
  guidon convert glide base.pt --preset base
  guidon convert dit DiT-XL-2-256x256.pt --preset xl-2-256"""

GUIDED_EXAMPLES = """Examples:

  guidon convert guided-diffusion 64x64_diffusion.pt --preset imagenet64
  guidon convert guided-diffusion 64x64_classifier.pt --preset classifier64
  guidon convert guided-diffusion ema_0.9999_200000.pt -o cats \\
      --flags "--image_size 64 --num_channels 128 --learn_sigma True"

Names of presets: guidon convert presets."""

GLIDE_EXAMPLES = """Examples:

  guidon convert glide base.pt --preset base
  guidon convert glide upsample.pt --preset upsample --vocab my/gpt2
  guidon convert glide clip_image_enc.pt clip_text_enc.pt --preset clip

Names of presets: guidon convert presets."""

DIT_EXAMPLES = """Examples:

  guidon convert dit DiT-XL-2-256x256.pt --preset xl-2-256
  guidon convert dit 0400000.pt --preset s-2-256 --classes 10 -o mine
  guidon convert dit 0400000.pt --heads 8 -o mine       a size of your own

Names of presets: guidon convert presets."""

PRESETS_EXAMPLES = """Examples:

  guidon convert presets          all of them
  guidon convert presets dit      those of one project"""

Out = Annotated[Path | None, Parameter(name=["--out", "-o"])]

convert = App(
    name="convert",
    help="Turn checkpoints that others released or trained into models of guidon's.",
    help_format="plaintext",
    help_epilogue=EXAMPLES,
)


@convert.command(name="guided-diffusion", help_epilogue=GUIDED_EXAMPLES)
def guided_diffusion(
    file: Path,
    *,
    preset: str | None = None,
    flags: Annotated[str | None, Parameter(allow_leading_hyphen=True)] = None,
    classes: str | None = None,
    out: Out = None,
) -> None:
    """Convert a checkpoint of openai/guided-diffusion: a model, an upsampler, or a classifier of noisy images.

    The file is read without running what stands in it, and converted whole or not
    at all. Say what it is by --preset, or, if you trained it, by --flags.

    Args:
        file: a .pt or .safetensors file.
        preset: which of the released checkpoints it is like.
        flags: the flags that it was trained with, in one string: "--image_size 64 --num_channels 128 ...".
        classes: a text file with the names of its classes, one on each line; or, with --preset, how many it knows, if not
            1000. With --flags the file tells how many.
        out: the folder to write, new or empty; left out: models/PRESET, or models/NAME-OF-THE-FILE.
    """
    _convert(file, "guided-diffusion", out, classes, preset, flags=flags)


@convert.command(help_epilogue=GLIDE_EXAMPLES)
def glide(
    file: Path,
    other: Path | None = None,
    /,
    *,
    preset: str | None = None,
    vocab: str | None = None,
    out: Out = None,
) -> None:
    """Convert a checkpoint of openai/glide-text2im: a network told texts, or CLIP.

    The four networks draw, enlarge or complete images; the noise-aware CLIP, whose
    two encoders are two files, steers them. The vocabulary becomes part of what is
    written. The files are read without running what stands in them, and converted
    whole or not at all.

    Args:
        file: a .pt or .safetensors file.
        other: of CLIP, the other one.
        preset: which of the released checkpoints it is: base, upsample, base-inpaint, upsample-inpaint or clip.
        vocab: a folder with the files of GPT-2 (encoder.json and vocab.bpe, or vocab.json and merges.txt), for clip with
            CLIP's (bpe_simple_vocab_16e6.txt.gz); or a model on the Hugging Face hub that has them. Left out:
            openai-community/gpt2 and openai/clip-vit-base-patch32, fetched once and kept.
        out: the folder to write, new or empty; left out: models/PRESET, or models/NAME-OF-THE-FILE.
    """
    _convert(file, "glide", out, None, preset, other=other, vocab=vocab)


@convert.command(help_epilogue=DIT_EXAMPLES)
def dit(
    file: Path,
    *,
    preset: str | None = None,
    heads: int | None = None,
    size: int | None = None,
    classes: str | None = None,
    out: Out = None,
) -> None:
    """Convert a checkpoint of facebookresearch/DiT, released or from its training script.

    It draws latents; of a training checkpoint the averaged weights are taken.
    The file is read without running what stands in it, and converted whole or not
    at all. Say what it is by --preset, or, if its size is your own, by --heads.

    Args:
        file: a .pt or .safetensors file.
        preset: size, patch and side of the images, such as xl-2-256.
        heads: number of attention heads, which the file does not tell; every other size it does.
        size: with --heads: side of the latents; left out: as the file's pos_embed tells.
        classes: a text file with the names of its classes, one on each line; or, with --preset, how many it knows, if not
            1000. With --heads the file tells how many.
        out: the folder to write, new or empty; left out: models/PRESET, or models/NAME-OF-THE-FILE.
    """
    _convert(file, "dit", out, classes, preset, heads=heads, size=size)


@convert.command(help_epilogue=PRESETS_EXAMPLES)
def presets(family: str | None = None) -> None:
    """List the presets: what --preset can say.

    Args:
        family: guided-diffusion, glide or dit; left out: all.
    """
    import textwrap

    from rich.text import Text

    from guidon.app.console import Output
    from guidon.app.progress import loading
    from guidon.errors import UnknownName

    with loading("torch"):
        from guidon.checkpoints.presets import FAMILIES
    if family is not None and family not in FAMILIES:
        raise UnknownName("family of presets", family, FAMILIES)
    console = Output()
    for name in FAMILIES if family is None else [family]:
        known = FAMILIES[name].presets.values()
        console.print(Text(f"guidon convert {name}", "bold"), f"{FAMILIES[name].source}, {FAMILIES[name].license}")
        released = [(preset.name, preset.file, preset.about) for preset in known if preset.file]
        wide, wider = (max(len(row[column]) for row in released) for column in (0, 1))
        for name, file, about in released:
            console.print(Text(f"  {name:<{wide}}  {file:<{wider}}  {about}"), soft_wrap=True)
        if own := [preset.name for preset in known if not preset.file]:
            names = f"of these sizes none was released: {', '.join(own)}"
            console.print(
                Text(
                    textwrap.fill(
                        names, console.width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
                    )
                )
            )


def _convert(
    file: Path,
    family: str,
    out: Path | None,
    classes: str | None,
    preset: str | None,
    *,
    other: Path | None = None,
    vocab: str | None = None,
    **own: Any,
) -> None:
    """Convert a file, or two that belong together; ``own`` is what says what it is where no preset does."""
    from rich.text import Text

    from guidon.app.progress import console, loading

    folder = Path("models") / (preset or file.stem) if out is None else out
    _check_empty(folder)
    with loading("torch"):
        from guidon.app.conversion import convert as converted
        from guidon.app.conversion import plan_of, tokenizer_of
        from guidon.checkpoints.glide import together
        from guidon.checkpoints.reading import read_state
    with console.status(Text(f"reading {file}")):
        state = read_state(file)
        if family == "glide":
            state = together([state] if other is None else [state, read_state(other)])
        plan = plan_of(state, family, preset, classes=None if classes is None else _names(classes), **own)
        model = converted(state, plan)
        if (tokenizer := tokenizer_of(plan, vocab)) is not None:
            model.tokenizer = tokenizer
    count = sum(value.numel() for value in model.state_dict().values())
    with console.status(Text(f"writing {folder}, {4 * count / 1e9:.1f} GB")):
        model.save_pretrained(folder)
    part = f" from its {state.part!r}" if state.part else ""
    print(
        f"took {len(state.tensors):,} tensors{part}, {count:,} parameters; none is missing, none left over\n"
        f"the {plan.blueprint.kind} is in {folder}; now: {_use(plan, folder)}"
    )


def _check_empty(folder: Path) -> None:
    """Refuse a folder in which something stands; raises `BadValue`."""
    from guidon.checkpoints.atomic import surviving
    from guidon.errors import BadValue

    there = surviving(folder)
    if there.exists() and (not there.is_dir() or any(there.iterdir())):
        raise BadValue(f"{folder} is not empty; choose another folder, -o FOLDER, or delete it")


def _use(plan: Plan, folder: Path) -> str:
    """Return the command that uses what was converted."""
    config = plan.blueprint.config
    if plan.blueprint.kind != "model":
        return f"guidon sample MODEL --classifier {folder}"
    if config["shape"][0] not in (1, 3):
        return f"guidon sample {folder}, which writes latents for an autoencoder"
    told = ' --prompt "an oil painting of a corgi"' if config.get("text") else ""
    return f"guidon sample {folder}{told}" + (" --image SMALL.png" if config.get("low_res") else "")


def _names(classes: str) -> tuple[str, ...]:
    """Return the names of classes: numbers up to a count, or the lines of a file; raises `BadValue`."""
    from guidon.errors import BadValue

    if classes.isdecimal() and int(classes) > 0:
        return tuple(map(str, range(int(classes))))
    try:
        names = [line.strip() for line in Path(classes).read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadValue(
            f"--classes is a number > 0, or a text file with a name on each line; {classes} is neither ({error})"
        ) from error
    if len(set(names)) != len(names) or not names:
        raise BadValue(
            f"{classes} holds {len(names)} names, {len(set(names))} of them different; give each class a name of its own"
        )
    return tuple(names)
