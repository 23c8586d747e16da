"""Weighted and long prompts for the pipelines of diffusers: what goes in place of prompt and negative_prompt."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from guidon.conditioning.emphasis import Part, parse
from guidon.errors import BadValue, NotSupported

FAR = 10.0  # the mean of a row is kept where that scales it by no more, nor by less than 1 / FAR
T5_LENGTHS = {"StableDiffusion3": 256, "Flux": 512, "PixArtAlpha": 120, "PixArtSigma": 300}  # diffusers' defaults

Texts = Sequence[Sequence[Part]]


class Tokens(NamedTuple):
    """The tokens of a text without its ends, and the weight of each."""

    ids: list[int]
    weights: list[float]


def encode(pipe: Any, prompt: str | list[str], negative_prompt: str | list[str] | None = "") -> dict[str, Tensor]:
    """Return what a pipeline's call takes in place of ``prompt`` and ``negative_prompt``.

    A text of weight 1 that is not too long gives what ``pipe.encode_prompt`` gives. Weights are written as
    `guidon.conditioning.emphasis.parse` reads them, and are applied by `emphasise`, to every encoder's rows apart and
    never to pooled vectors. CLIP reads a text of any length in chunks, each between its own start and end; all prompts
    and negative prompts of a call have as many chunks as the longest, those missing being of the empty text, and the
    pooled vector is that of the first. T5 reads a text whole, in the pipeline's usual length or the longest text's. Flux
    takes of CLIP nothing but the pooled vector.

    Args:
        pipe: a pipeline of Stable Diffusion 1, 2, XL or 3, Flux, or PixArt.
        prompt: a text, or B of them.
        negative_prompt: one for all, or B of them; None is what the pipeline does when told none (zeros for many an
            SDXL, otherwise the empty text).

    Returns:
        Keyword arguments. ``prompt_embeds`` (B, L, D); by family ``pooled_prompt_embeds`` (B, P) or
        ``prompt_attention_mask`` (B, L); and, where the pipeline takes them, the same with ``negative_`` before.

    Raises:
        BadValue: texts of another type or in other numbers, or brackets without a partner.
        NotSupported: a pipeline of another kind, without its text encoder, or that takes no negative prompt and was
            told one.

    Source: AUTOMATIC1111/stable-diffusion-webui, modules/sd_hijack_clip.py: the chunks, the first one's pooled vector.
    """
    family = _family(pipe)
    prompts = _listed("prompt", prompt)
    negatives = _listed("negative_prompt", "" if negative_prompt is None else negative_prompt)
    negatives = negatives * len(prompts) if isinstance(negative_prompt, str | None) else negatives
    if len(negatives) != len(prompts):
        raise BadValue(f"{len(prompts)} prompts and {len(negatives)} negative prompts; give one for each, or one text")
    taken = set(inspect.signature(pipe).parameters) if callable(pipe) else None
    if taken is not None and "prompt_embeds" not in taken:
        raise NotSupported(f"{type(pipe).__name__} takes no prompt_embeds; give it the prompt as it stands")
    pushed = taken is None or "negative_prompt_embeds" in taken
    if not pushed and any(negatives):
        raise NotSupported(f"{type(pipe).__name__} takes no negative prompt; leave it empty")
    texts = [parse(text) for text in (prompts + negatives if pushed else prompts)]
    with torch.no_grad():
        told = FAMILIES[family](pipe, texts)
    count = len(prompts)
    words = {name: rows[:count] for name, rows in told.items()}
    if pushed:
        zeros = negative_prompt is None and getattr(
            getattr(pipe, "config", None), "force_zeros_for_empty_prompt", False
        )
        words |= {
            f"negative_{name}": torch.zeros_like(rows[:count]) if zeros else rows[count:] for name, rows in told.items()
        }
    return words


def emphasise(rows: Tensor, weights: Tensor, seen: Tensor | None = None) -> Tensor:
    """Return an encoder's output with each token's features times its weight, each text scaled back to its old mean.

    The mean is one number for each text (of CLIP, for each chunk): over all features of all its tokens, ends and
    padding included, before and after the weights; all of them are then multiplied by the ratio of the two. The web UI
    takes that number over a whole batch; here neighbours do not matter. A mean near zero, or one whose sign the weights
    turn, says nothing of a text's size: where the ratio is below 1 / 10 or above 10, tokens are weighted and no more.

    Args:
        rows: what the encoder gave, (B, L, D).
        weights: one for each token, (B, L).
        seen: false where nobody looks (padding under a mask), which the means leave out, (B, L).

    Source: AUTOMATIC1111/stable-diffusion-webui, modules/sd_emphasis.py, EmphasisOriginal.
    """
    if bool((weights == 1).all()):
        return rows
    share = torch.ones_like(weights) if seen is None else seen.to(weights)
    weighted = rows.float() * weights[..., None]
    old, new = ((each.mean(2) * share).sum(1) for each in (rows.float(), weighted))
    ratio = old / new
    kept = (ratio >= 1 / FAR) & (ratio <= FAR)  # false for a NaN
    return (weighted * torch.where(kept, ratio, 1.0)[:, None, None]).to(rows.dtype)


def _family(pipe: Any) -> str:
    name = type(pipe).__name__
    for family in FAMILIES:
        if name.startswith(family) and not name.startswith("Flux2"):
            return family
    raise NotSupported(f"{name} is no pipeline whose prompts can be weighted; those that can: {', '.join(FAMILIES)}")


def _listed(what: str, texts: str | list[str]) -> list[str]:
    listed = [texts] if isinstance(texts, str) else texts
    if not isinstance(listed, list) or not listed or not all(isinstance(text, str) for text in listed):
        raise BadValue(f"{what} is a text or a list of texts, not {texts!r:.60}")
    return listed


# ------------------------------------------------------------------------------------------------------ families


def _stable_diffusion(pipe: Any, texts: Texts) -> dict[str, Tensor]:
    rows, _ = _clip(pipe, texts, [""], penultimate=False)
    return {"prompt_embeds": rows}


def _stable_diffusion_xl(pipe: Any, texts: Texts) -> dict[str, Tensor]:
    both = getattr(pipe, "text_encoder", None) is not None  # the refiner has the second alone
    rows, pooled = _clip(pipe, texts, ["", "_2"] if both else ["_2"], penultimate=True)
    return {"prompt_embeds": rows.to(pipe.text_encoder_2.dtype), "pooled_prompt_embeds": pooled[-1]}


def _stable_diffusion_3(pipe: Any, texts: Texts) -> dict[str, Tensor]:
    rows, pooled = _clip(pipe, texts, ["", "_2"], penultimate=True)
    usual = T5_LENGTHS["StableDiffusion3"]
    if getattr(pipe, "text_encoder_3", None) is None:  # many leave it out, for its size
        wide = rows.new_zeros(len(texts), usual, pipe.transformer.config.joint_attention_dim)
    else:
        wide, _ = _t5(pipe, texts, "_3", usual)
    padded = F.pad(rows, (0, wide.shape[2] - rows.shape[2]))
    return {"prompt_embeds": torch.cat([padded, wide], 1), "pooled_prompt_embeds": torch.cat(pooled, 1)}


def _flux(pipe: Any, texts: Texts) -> dict[str, Tensor]:
    tokenizer, encoder, device = _parts(pipe, "")
    length = _length(pipe, tokenizer, encoder)
    ids, _, _ = _rows(tokenizer, [_tokens(pipe, tokenizer, text) for text in texts], length, device)
    pooled = encoder(ids).pooler_output.to(encoder.dtype)
    rows, _ = _t5(pipe, texts, "_2", T5_LENGTHS["Flux"])
    return {"prompt_embeds": rows, "pooled_prompt_embeds": pooled}


def _pixart(pipe: Any, texts: Texts) -> dict[str, Tensor]:
    usual = T5_LENGTHS["PixArtSigma" if type(pipe).__name__.startswith("PixArtSigma") else "PixArtAlpha"]
    small = [[Part(part.text.lower().strip(), part.weight) for part in text] for text in texts]
    rows, mask = _t5(pipe, small, "", usual, masked=True)
    return {"prompt_embeds": rows, "prompt_attention_mask": mask}


FAMILIES: dict[str, Callable[[Any, Texts], dict[str, Tensor]]] = {  # the first whose name begins a pipeline's
    "StableDiffusionXL": _stable_diffusion_xl,
    "StableDiffusion3": _stable_diffusion_3,
    "StableDiffusion": _stable_diffusion,
    "Flux": _flux,
    "PixArtAlpha": _pixart,
    "PixArtSigma": _pixart,
}


# ------------------------------------------------------------------------------------------------------ encoders


def _clip(pipe: Any, texts: Texts, which: Sequence[str], *, penultimate: bool) -> tuple[Tensor, list[Tensor]]:
    """Return the chunks of the encoders, side by side on features, and what each one's first output was."""
    parts = [_parts(pipe, each) for each in which]
    tokens = [[_tokens(pipe, tokenizer, text) for text in texts] for tokenizer, _, _ in parts]
    rooms = [_length(pipe, tokenizer, encoder) - 2 for tokenizer, encoder, _ in parts]
    longest = (-(-len(row.ids) // room) for rows, room in zip(tokens, rooms, strict=True) for row in rows)
    chunks = max(1, *longest)
    features, pooled = [], []
    for (tokenizer, encoder, device), rows, room in zip(parts, tokens, rooms, strict=True):
        encoded = []
        for start in range(0, chunks * room, room):
            piece = [Tokens(ids[start : start + room], weights[start : start + room]) for ids, weights in rows]
            ids, weights, real = _rows(tokenizer, piece, room + 2, device)
            mask = {"attention_mask": real} if getattr(encoder.config, "use_attention_mask", False) else {}
            output = encoder(ids, output_hidden_states=penultimate, **mask)
            hidden = output.hidden_states[-2] if penultimate else output[0]
            encoded.append(emphasise(hidden, weights).to(parts[0][1].dtype))
            if start == 0:
                pooled.append(output[0])
        features.append(torch.cat(encoded, 1))
    return torch.cat(features, 2), pooled


def _t5(pipe: Any, texts: Texts, which: str, usual: int, *, masked: bool = False) -> tuple[Tensor, Tensor]:
    """Return the encoder's rows, and which of them are of tokens; ``masked`` hides the others from it."""
    tokenizer, encoder, device = _parts(pipe, which)
    tokens = [_tokens(pipe, tokenizer, text) for text in texts]
    length = max(usual, *(len(row.ids) + 1 for row in tokens))
    ids, weights, real = _rows(tokenizer, tokens, length, device, start=False)
    output = encoder(ids, attention_mask=real)[0] if masked else encoder(ids)[0]
    return emphasise(output, weights, real if masked else None).to(encoder.dtype), real


def _parts(pipe: Any, which: str) -> tuple[Any, Any, torch.device]:
    tokenizer, encoder = (getattr(pipe, part + which, None) for part in ("tokenizer", "text_encoder"))
    if tokenizer is None or encoder is None:
        raise NotSupported(
            f"this {type(pipe).__name__} has no tokenizer{which} or no text_encoder{which}; load it with both"
        )
    return tokenizer, encoder, getattr(pipe, "_execution_device", encoder.device)


def _length(pipe: Any, tokenizer: Any, encoder: Any) -> int:
    return min(
        getattr(pipe, "tokenizer_max_length", tokenizer.model_max_length), encoder.config.max_position_embeddings
    )


def _tokens(pipe: Any, tokenizer: Any, text: Sequence[Part]) -> Tokens:
    convert = getattr(pipe, "maybe_convert_prompt", None)  # a word learned by textual inversion may be many tokens
    ids: list[int] = []
    weights: list[float] = []
    for words, weight in text:
        known = words if convert is None else convert(words, tokenizer)
        new = tokenizer(known, add_special_tokens=False, verbose=False).input_ids
        ids, weights = ids + new, weights + [weight] * len(new)
    return Tokens(ids, weights)


def _rows(
    tokenizer: Any, tokens: Sequence[Tokens], length: int, device: torch.device, *, start: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids, weights and which are no padding, each (B, length); what is too long is cut before the end."""
    begin = [tokenizer.bos_token_id] if start else []
    room = length - len(begin) - 1
    ids, weights, real = [], [], []
    for row in tokens:
        kept = row.ids[:room]
        empty = room - len(kept)
        ids.append([*begin, *kept, tokenizer.eos_token_id, *[tokenizer.pad_token_id] * empty])
        weights.append([*[1.0] * len(begin), *row.weights[:room], *[1.0] * (empty + 1)])
        real.append([1] * (length - empty) + [0] * empty)
    return (
        torch.tensor(ids, device=device),
        torch.tensor(weights, dtype=torch.float32, device=device),
        torch.tensor(real, device=device),
    )
