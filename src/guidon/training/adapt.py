"""Which weights of a model fine-tuning may change: all, one of its halves, or low-rank additions to its attention.

An addition B A of rank r to a linear map W (Hu et al., arXiv 2106.09685) is trained in place of W and added to it in the end, so
what comes out is an ordinary model. The `peft` library makes, runs and merges them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import safetensors.torch
import torch
from pydantic import Field
from torch import Tensor, nn

from guidon.checkpoints.atomic import write_bytes, write_text
from guidon.checkpoints.native import read_tensors
from guidon.errors import BadRecipe, DamagedCheckpoint, MissingFile
from guidon.model import Model
from guidon.models.attention import SelfAttention
from guidon.models.inject import TokenListener
from guidon.models.text import TokenAttention
from guidon.training.run_recipe import Section

ADAPTER, SETTINGS = "lora.safetensors", "lora.json"
ATTENTION = (SelfAttention, TokenListener, TokenAttention)


class LoRA(Section):
    """Low-rank additions to the linear maps of attention."""

    rank: int = Field(8, ge=1, description="rank of what is added to a map")
    alpha: float = Field(8.0, gt=0, description="what is added is multiplied by alpha / rank")


class AdaptSection(Section):
    """The ``adapt:`` section of a recipe: which weights are trained."""

    freeze: Literal["text", "network"] | None = Field(
        None,
        description="the half that stays as it is: what reads the text (or the class), or the network that denoises",
    )
    lora: LoRA | None = Field(
        None,
        description="train additions of low rank to the maps of attention, of what is not frozen, and nothing else",
    )


def adapt(model: Model, section: AdaptSection) -> None:
    """Freeze what is not to be trained, and add what is trained in its place.

    Args:
        model: changed in place.
        section: says how.

    Raises:
        BadRecipe: nothing is left to train.
    """
    halves = {None: None, "text": model.encoder, "network": model.network}
    frozen = halves[section.freeze]
    if section.freeze == "text" and frozen is None:
        raise BadRecipe("adapt.freeze: text, but the model is told nothing that could be frozen; leave it out")
    if frozen is not None:
        frozen.requires_grad_(False)
    if section.lora is not None:
        maps = [name for name in attention_maps(model) if model.get_parameter(f"{name}.weight").requires_grad]
        if not maps:
            raise BadRecipe(
                "adapt.lora: what is not frozen has no attention to add to; set adapt.lora to null, or freeze another half"
            )
        _inject(model, section.lora, maps)
    if not any(p.requires_grad for p in model.parameters()):
        raise BadRecipe(f"adapt.freeze: {section.freeze} leaves nothing to train; leave it out")


def attention_maps(model: nn.Module) -> list[str]:
    """Return the names of the linear maps of self- and cross-attention, those of the text encoder included."""
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, ATTENTION)]
    return [
        f"{name}.{own}" for name, layer in layers for own, part in layer.named_children() if isinstance(part, nn.Linear)
    ]


def _inject(model: Model, lora: LoRA, maps: list[str]) -> None:
    from peft import LoraConfig, inject_adapter_in_model  # takes seconds, with transformers

    holder = nn.ModuleDict({"model": model})  # peft looks for a `config` of its own kind on what it is given
    targets = [f"model.{name}" for name in maps]
    inject_adapter_in_model(LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=targets), holder)  # type: ignore[arg-type]


def merge(model: Model) -> None:
    """Add what was trained to the maps that it was trained for: the model is an ordinary one again."""
    from peft.tuners.lora import Linear

    for name, layer in list(model.named_modules()):
        if isinstance(layer, Linear):
            layer.merge()
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, layer.get_base_layer())


def adapter_tensors(model: Model) -> dict[str, Tensor]:
    """Return what was added, A (r, in) and B (out, r) of every map: ``NAME.lora_A.weight`` and ``NAME.lora_B.weight``."""
    return {name.replace(".default.", "."): value for name, value in model.state_dict().items() if ".lora_" in name}


def save_adapter(model: Model, lora: LoRA, base: str, folder: Path) -> None:
    """Write what was added to a folder, with its settings; raises `SaveFailed`."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in adapter_tensors(model).items()}
    write_bytes(folder / ADAPTER, safetensors.torch.save(tensors))
    maps = sorted({name.partition(".lora_")[0] for name in tensors})
    write_text(folder / SETTINGS, json.dumps({"base": base, **lora.model_dump(), "maps": maps}, indent=2) + "\n")


@torch.no_grad()
def add_adapter(model: Model, folder: str | Path, scale: float = 1.0) -> None:
    """Add what a run learned to the model that it started from, or to another of the same shape.

    Args:
        model: changed in place, by all that is in the folder or not at all.
        folder: of the run, with ``lora.safetensors`` and ``lora.json``.
        scale: how much of it, 1 for all.

    Raises:
        MissingFile: there is no adapter in the folder.
        DamagedCheckpoint: it cannot be read, or does not fit the model.
    """
    folder = Path(folder)
    if not (folder / ADAPTER).is_file() or not (folder / SETTINGS).is_file():
        raise MissingFile(f"{folder} has no {ADAPTER} with its {SETTINGS}; give the folder of a run with adapt.lora")
    try:
        settings = json.loads((folder / SETTINGS).read_text())
        maps, share = list(settings["maps"]), scale * settings["alpha"] / settings["rank"]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpoint(f"{folder / SETTINGS} is not readable ({error!r}); copy it again") from error
    tensors, parameters = read_tensors(folder / ADAPTER), dict(model.named_parameters())
    added: list[tuple[nn.Parameter, Tensor]] = []
    for name in maps:
        try:
            weight = parameters[f"{name}.weight"]
            more = tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"]
            added.append((weight, more.to(weight).view_as(weight)))
        except (KeyError, RuntimeError) as error:
            raise DamagedCheckpoint(
                f"{folder / ADAPTER} does not fit this model at {name}; add it to the model it is of"
            ) from error
    for weight, more in added:
        weight.add_(more, alpha=share)


def trained_share(model: nn.Module) -> float:
    """Return how many weights are trained, as a share of those of the model without additions; what LoRA adds counts as trained."""
    own = sum(p.numel() for name, p in model.named_parameters() if ".lora_" not in name)
    return sum(p.numel() for p in model.parameters() if p.requires_grad) / own


def changed_share(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> float:
    """Return the share of the weights that differ between two states of one model, additions merged into what they were added to."""
    differing = sum(int((after[name].cpu() != value.cpu()).sum()) for name, value in before.items())
    return differing / sum(value.numel() for value in before.values())
