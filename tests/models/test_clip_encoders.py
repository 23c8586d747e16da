"""CLIP's two encoders against their formulas, written out with plain functions of their state dicts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from guidon.conditioning.text import Texts
from guidon.errors import BadValue, ShapeMismatch
from guidon.models.clip import ClipConfig, ImageEncoder, TextEncoder

TINY = ClipConfig(
    size=8,
    patch=4,
    times=10,
    vocabulary=300,
    context=6,
    features=5,
    image_layers=2,
    image_heads=2,
    text_layers=2,
    text_heads=3,
    head_channels=4,
)
State = dict[str, Tensor]


def drawn(encoder: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.normal_(std=0.5)
    return encoder.double().requires_grad_(False)


@pytest.fixture(scope="module")
def image() -> ImageEncoder:
    return drawn(ImageEncoder(TINY))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def text() -> TextEncoder:
    return drawn(TextEncoder(TINY))  # type: ignore[return-value]


def normed(x: Tensor, state: State, name: str) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    spread = (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return centred / spread * state[f"{name}.weight"] + state[f"{name}.bias"]


def mapped(x: Tensor, state: State, name: str) -> Tensor:
    return x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", torch.zeros(()).double())


def block(x: Tensor, state: State, name: str, heads: int, seen: Tensor) -> Tensor:
    """One sequence (L, W) through one block; ``seen[i, j]`` says whether position i sees j."""
    h, width = normed(x, state, f"{name}.f_attn.ln"), x.shape[1] // heads
    told = []
    for head in range(heads):
        q, k, v = (
            mapped(h, state, f"{name}.f_attn.f_{which}")[:, head * width : (head + 1) * width] for which in "qkv"
        )
        scores = (q @ k.T / math.sqrt(width)).where(seen, torch.tensor(-1e10).double())
        told.append(scores.exp() / scores.exp().sum(1, keepdim=True) @ v)
    x = x + mapped(torch.cat(told, dim=1), state, f"{name}.f_attn.f_c")
    h = mapped(normed(x, state, f"{name}.f_mlp.ln"), state, f"{name}.f_mlp.f_1")
    h = h * (1 + torch.erf(h / math.sqrt(2))) / 2
    return x + mapped(h, state, f"{name}.f_mlp.f_2")


def features(x: Tensor, state: State) -> Tensor:
    z = mapped(normed(x, state, "blocks.output.ln"), state, "blocks.output.f")
    return z / z.square().sum().sqrt()


def images() -> Tensor:
    return torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double()


def told(rows: list[list[int]], context: int = 6) -> Texts:
    tokens = [row + [0] * (context - len(row)) for row in rows]
    mask = [[True] * len(row) + [False] * (context - len(row)) for row in rows]
    return Texts(torch.tensor(tokens), torch.tensor(mask), ((0,) * context, (False,) * context))


def test_images_are_patches_behind_the_row_of_their_time(image: ImageEncoder) -> None:
    state, x, times = dict(image.state_dict()), images(), [0, 7, 9]
    means, deviations = [122.77093945, 116.74601272, 104.09373519], [68.50053285, 66.63215831, 70.32316309]
    got = image(x, torch.tensor(times).float())
    for i, t in enumerate(times):
        shown = torch.stack([((x[i, c] + 1) * 127.5 - means[c]) / deviations[c] for c in range(3)])
        rows = [state["blocks.input.w_t"][t]]
        for top in (0, 4):
            for left in (0, 4):
                patch = shown[:, top : top + 4, left : left + 4]
                rows.append((state["blocks.input.patch_proj"] * patch).sum((1, 2, 3)))
        h = normed(torch.stack(rows) + state["blocks.input.w_pos"], state, "blocks.input.ln")
        for layer in range(2):
            h = block(h, state, f"blocks.block_{layer}", 2, torch.ones(5, 5).bool())
        torch.testing.assert_close(got[i], features(h[0], state))


def test_tokens_see_those_before_and_the_last_real_one_speaks(text: TextEncoder) -> None:
    state, rows = dict(text.state_dict()), [[1, 2, 299], [5], [7, 8, 9, 10, 11, 12]]
    got = text(told(rows))
    for i, row in enumerate(rows):
        h = state["blocks.input.w_voc"][row] + state["blocks.input.w_pos"][: len(row)]
        for layer in range(2):
            h = block(h, state, f"blocks.block_{layer}", 3, torch.ones(len(row), len(row)).tril().bool())
        torch.testing.assert_close(got[i], features(h[-1], state))


def test_what_stands_behind_a_text_changes_nothing(text: TextEncoder) -> None:
    plain = told([[1, 2, 3]])
    padded = Texts(torch.tensor([[1, 2, 3, 9, 9, 9]]), plain.mask, plain.empty)
    torch.testing.assert_close(text(plain), text(padded))


def test_the_gradient_is_that_of_finite_differences(image: ImageEncoder) -> None:
    x = images().requires_grad_()
    assert torch.autograd.gradcheck(lambda y: image(y, torch.tensor([0.0, 3.5, 9.0])), x)


def test_a_time_between_two_entries_is_between_their_rows(image: ImageEncoder) -> None:
    rows = image.blocks["input"].row(torch.tensor([3.0, 3.25, 4.0, -1.0, 9.0, 12.0]))  # type: ignore[operator]
    torch.testing.assert_close(rows[1], 0.75 * rows[0] + 0.25 * rows[2])
    table = image.state_dict()["blocks.input.w_t"]
    torch.testing.assert_close(rows[[0, 2, 3, 4, 5]], table[[3, 4, 0, 9, 9]])
    x = images()[:1].expand(2, -1, -1, -1)
    near, far = image(x, torch.tensor([0.0, 9.0]))
    assert (near - far).abs().max() > 0.01


def test_the_released_sizes() -> None:
    with torch.device("meta"):
        image, text = ImageEncoder(ClipConfig()), TextEncoder(ClipConfig())
    shapes = {name: tuple(value.shape) for name, value in image.state_dict().items()}
    assert shapes["blocks.input.w_t"] == (1000, 768) and shapes["blocks.input.w_pos"] == (257, 768)
    assert shapes["blocks.input.patch_proj"] == (768, 3, 4, 4) and shapes["blocks.output.f.weight"] == (512, 768)
    assert "blocks.block_11.f_attn.f_q.bias" in shapes and "blocks.block_11.f_attn.f_k.bias" not in shapes
    shapes = {name: tuple(value.shape) for name, value in text.state_dict().items()}
    assert shapes["blocks.input.w_voc"] == (65536, 512) and shapes["blocks.input.w_pos"] == (77, 512)

    def per_block(width: int) -> int:
        return 12 * width**2 + 3 * width + 5 * width + 2 * 2 * width  # maps, their biases, two norms

    def ends(width: int) -> int:
        return 2 * width + 512 * width  # the last norm, and the features

    assert sum(p.numel() for p in image.parameters()) == (
        12 * per_block(768) + ends(768) + (1000 + 257) * 768 + 48 * 768 + 2 * 768
    )
    assert sum(p.numel() for p in text.parameters()) == 12 * per_block(512) + ends(512) + (65536 + 77) * 512


def test_what_does_not_fit(image: ImageEncoder, text: TextEncoder) -> None:
    with pytest.raises(BadValue, match="patches of 3"):
        ImageEncoder(TINY.model_copy(update={"patch": 3}))
    with pytest.raises(ShapeMismatch, match=r"images \(B, 3, 8, 8\)"):
        image(torch.zeros(1, 3, 8, 4).double(), torch.zeros(1))
    for strange in (-1, TINY.vocabulary):
        with pytest.raises(BadValue, match=f"there is {strange}; use the model's own tokenizer"):
            text(told([[1, strange, 2]]))
    with pytest.raises(ShapeMismatch, match="4 tokens for an encoder of 6"):
        text(told([[1]], context=4))
