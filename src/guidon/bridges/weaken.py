"""Networks of diffusers weakened for one question: attention to oneself alone, blurred queries, skipped blocks, an unsure time."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from guidon.errors import NotSupported, nearest
from guidon.models.perturb import blur, with_time_noise
from guidon.perturbation import Perturbation

BLOCKS = ("transformer_blocks", "blocks", "layers", "single_transformer_blocks", "joint_transformer_blocks")


@contextlib.contextmanager
def weakened(network: nn.Module, how: Perturbation, state: Tensor) -> Iterator[None]:
    """Weaken every row of a network's calls.

    Args:
        network: of diffusers, not compiled.
        how: "attention-identity", "query-blur", "skip" or "time-noise".
        state: what it will be asked about (B, C, ..., H, W), which says how positions lie.

    Raises:
        NotSupported: the network has no layer of that kind, or none of that name, or its positions are no grid to blur over.
    """
    modules = dict(network.named_modules())
    with contextlib.ExitStack() as stack:
        for name in layers_of(network, how):
            module = modules[name]
            if how.name == "skip":
                stack.enter_context(_hooked(module, _skip))
            elif how.name == "time-noise":
                stack.enter_context(_hooked(module, partial(_unsure, how)))
            else:
                stack.enter_context(_looking(module, how, state))
        yield


def layers_of(network: nn.Module, how: Perturbation) -> tuple[str, ...]:
    """Return the names of the layers that are weakened: those named, or what they hold, or those in the middle.

    Of a UNet the middle is its middle block, of a transformer the middle quarter of its depth; skipped are, as in Stable Diffusion
    3.5, blocks from 7/24 of the depth on, an eighth of them; time is unsure everywhere.
    """
    kind = type(network).__name__
    offered = _offered(network, how.name)
    if not offered:
        raise NotSupported(f"{kind} has no layers for {how.name!r}; use another rule")
    if how.name == "time-noise":
        return offered
    if how.layers is None:
        return _suggested(offered, how.name)
    chosen: list[str] = []
    for wanted in how.layers:
        found = [name for name in offered if name == wanted or name.startswith(f"{wanted}.")]
        if not found:
            raise NotSupported(
                f"{kind} has no layer {wanted!r} for {how.name!r}{nearest(wanted, offered)}; it has: {', '.join(offered)}"
            )
        chosen += found
    return tuple(dict.fromkeys(chosen))


def _offered(network: nn.Module, kind: str) -> tuple[str, ...]:
    if kind == "time-noise":
        return tuple(name for name, module in network.named_modules() if _embeds_time(name, module))
    if kind in ("attention-identity", "query-blur"):
        return tuple(name for name, module in network.named_modules() if _sees_itself(module))
    if kind != "skip":
        raise NotSupported(f"networks of diffusers offer no {kind!r}; use another rule")
    blocks = tuple(name for name, _ in network.named_modules() if _is_block(name))
    return blocks or _offered(network, "attention-identity")


def _sees_itself(module: nn.Module) -> bool:
    """Return whether a module is an attention layer, and not one that sees the text alone."""
    if not (hasattr(module, "to_q") and hasattr(module, "processor")):
        return False
    text_alone = getattr(module, "is_cross_attention", False) and getattr(module, "added_kv_proj_dim", None) is None
    return not text_alone


def _embeds_time(name: str, module: nn.Module) -> bool:
    """Return whether a module embeds the time: others of its class embed sizes, or a weight of guidance."""
    return type(module).__name__ == "TimestepEmbedding" and "time" in name.rpartition(".")[2]


def _is_block(name: str) -> bool:
    holder, _, number = name.rpartition(".")
    return number.isdigit() and holder.rpartition(".")[2] in BLOCKS


def _suggested(offered: Sequence[str], kind: str) -> tuple[str, ...]:
    middle = tuple(name for name in offered if name.startswith("mid_block"))
    if middle:
        return middle
    depth = len(offered)
    if kind == "skip":
        first, count = 7 * depth // 24, max(depth // 8, 1)
    else:
        count = max(depth // 4, 1)
        first = (depth - count) // 2
    return tuple(offered[first : first + count])


# ------------------------------------------------------------------------------------------------ skipping, time


@contextlib.contextmanager
def _hooked(module: nn.Module, change: Callable[..., Any]) -> Iterator[None]:
    handle = module.register_forward_hook(change, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _streams(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
    """Return the positions of the image that a layer is given, and those of the text, if they are told apart."""
    hidden = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
    text = kwargs.get("encoder_hidden_states", args[1] if len(args) > 1 else None)
    return hidden, text if isinstance(text, Tensor) and text.ndim == 3 else None


def _skip(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    """Give back what a block was given, for the image and, where it answers for that too, for the text."""
    hidden, text = _streams(args, kwargs)
    if isinstance(output, Tensor):
        return hidden
    if len(output) == 1:
        return (hidden,)
    first, second = output
    if (
        text is not None
        and first is not None
        and first.shape == hidden.shape
        and second.shape == text.shape != hidden.shape
    ):
        return (hidden, text)
    return (None if first is None else text, hidden)


def _unsure(
    how: Perturbation, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor
) -> Tensor:
    return with_time_noise(output, [(how, slice(None))])


# ---------------------------------------------------------------------------------------------------- attention


@dataclass(frozen=True)
class _Places:
    """Where the image is among the positions that a layer of attention sees.

    Args:
        image: how many positions it has.
        text: how many the text has that is seen along with it, 0 for none.
        image_first: which of both comes first.
    """

    image: int
    text: int
    image_first: bool

    def queries(self, count: int) -> slice | None:
        """Return the image's places among the queries; None where these are not its."""
        if count == self.image:
            return slice(0, count)
        if count == self.image + self.text:
            return slice(0, self.image) if self.image_first else slice(self.text, count)
        return None

    def keys(self, count: int, queries: int) -> slice | None:
        """Return the image's places among the keys; None where the layer does not look at the image."""
        if count == queries:
            return self.queries(count)
        return (
            slice(count - self.image, count) if self.text and count == self.image + self.text else None
        )  # text put before


@contextlib.contextmanager
def _looking(module: nn.Module, how: Perturbation, state: Tensor) -> Iterator[None]:
    """Weaken one layer of attention."""
    acting = contextlib.ExitStack()

    def enter(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden, text = _streams(args, kwargs)
        image = hidden.shape[1] if hidden.ndim == 3 else hidden[0, 0].numel()
        first = "JointAttn" in type(layer.processor).__name__
        acting.enter_context(_Looks(how, _Places(image, 0 if text is None else text.shape[1], first), state))

    def leave(*_: Any) -> None:
        acting.close()

    before = module.register_forward_pre_hook(enter, with_kwargs=True)
    after = module.register_forward_hook(leave, always_call=True)
    try:
        yield
    finally:
        before.remove()
        after.remove()
        acting.close()


class _Looks(TorchFunctionMode):
    """Changes what `scaled_dot_product_attention` gives for the positions of the image."""

    def __init__(self, how: Perturbation, places: _Places, state: Tensor) -> None:
        super().__init__()
        self.how, self.places, self.state = how, places, state

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        words = dict(zip(("query", "key", "value", "attn_mask"), args, strict=False)) | kwargs
        query, value = words["query"], words["value"]  # (B, heads, positions, width)
        image = self.places.queries(query.shape[2])
        seen = self.places.keys(value.shape[2], query.shape[2])
        if image is None or seen is None:
            return func(*args, **kwargs)
        if self.how.name == "query-blur":
            blurred = query.clone()
            size = _size(self.state, self.places.image, self.how.amount)
            blurred[:, :, image] = blur(query[:, :, image], size, self.how.amount)
            return func(**words | {"query": blurred})
        if self.places.image == value.shape[2]:  # there is nothing else to see
            return value
        return func(**words | {"attn_mask": _itself_alone(query, value, image, seen, words.get("attn_mask"))})


def _itself_alone(query: Tensor, value: Tensor, image: slice, seen: slice, mask: Tensor | None) -> Tensor:
    """Return a mask, added to that which is, under which positions of the image see of the image themselves alone."""
    alone = torch.zeros(query.shape[2], value.shape[2], device=query.device, dtype=query.dtype)
    block = alone[image, seen]
    block.fill_(-torch.inf).fill_diagonal_(0)
    if mask is None:
        return alone
    if mask.dtype == torch.bool:
        return alone.masked_fill(~mask, -torch.inf)
    return mask + alone


def _size(state: Tensor, positions: int, deviation: float) -> tuple[int, int]:
    """Return the height and width of the grid that positions of attention are."""
    if math.isinf(deviation):
        return (1, positions)
    if state.ndim == 4:
        height, width = state.shape[2:]
        scale = math.sqrt(height * width / positions)
        rows, columns = round(height / scale), round(width / scale)
        if rows * columns == positions:
            return rows, columns
    raise NotSupported(
        "these positions are no grid of rows and columns to blur over; leave blur out, and queries become their mean"
    )
