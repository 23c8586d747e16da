"""Byte for byte the tokens of GLIDE's two tokenizers; every text and context comes from the fixtures."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from parity.golden import GOLDEN, rows, settings

from guidon.conditioning.tokenizer import Tokenizer, clip_tokenizer, gpt2_tokenizer

NAMES = [path.stem for kind in ("glide", "clip") for path in sorted(GOLDEN.glob(f"{kind}_tokenizer*.json"))]
GLIDE, CLIP = ([name for name in NAMES if name.startswith(kind)] for kind in ("glide", "clip"))

pytestmark = pytest.mark.skipif(not (GLIDE and CLIP), reason=f"no tokenizer fixtures in {GOLDEN}; set GUIDON_GOLDEN")


@pytest.fixture(scope="module")
def glide() -> Tokenizer:
    return gpt2_tokenizer(GOLDEN)


@pytest.fixture(scope="module")
def clip() -> Tokenizer:
    return clip_tokenizer(GOLDEN)


def told(tokenizer: Tokenizer, text: str) -> tuple[list[int], list[int]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of the texts are meant to be cut
        row = tokenizer.encode([text])
    return row.tokens[0].tolist(), row.mask[0].int().tolist()


@pytest.mark.parametrize("case", [case for name in GLIDE for case in rows(name)])
def test_tokens_and_text_of_glide(glide: Tokenizer, case: dict[str, Any]) -> None:
    assert glide.tokens(case["text"]) == case["tokens"]
    assert glide.decode(case["tokens"]) == case["decoded"]
    for context, padded in case["padded"].items():
        at = Tokenizer(glide.backend, glide.config.model_copy(update={"context": int(context)}))
        assert told(at, case["text"]) == (padded["tokens"], padded["mask"])


@pytest.mark.parametrize("name", GLIDE)
def test_vocabulary_and_empty_rows_of_glide(glide: Tokenizer, name: str) -> None:
    assert glide.size == settings(name)["n_vocab"]
    assert glide.config.padding == settings(name)["end_token"]
    for context, padded in settings(name)["empty_list_padded"].items():
        tokens, mask = Tokenizer(glide.backend, glide.config.model_copy(update={"context": int(context)})).empty
        assert (list(tokens), [int(real) for real in mask]) == (padded["tokens"], padded["mask"])


@pytest.mark.parametrize("case", [case for name in CLIP for case in rows(name)])
def test_tokens_of_clip(clip: Tokenizer, case: dict[str, Any]) -> None:
    assert clip.tokens(case["text"]) == case["tokens"]
    tokens, mask = told(clip, case["text"])
    assert (tokens, sum(mask)) == (case["padded77"], case["len77"])


@pytest.mark.parametrize("name", CLIP)
def test_ends_of_clip(clip: Tokenizer, name: str) -> None:
    assert (clip.config.start, clip.config.end) == (settings(name)["start_token"], settings(name)["end_token"])


@pytest.mark.parametrize("which", ["glide", "clip"])
def test_written_and_read_back(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    whole = request.getfixturevalue(which)
    again = Tokenizer.from_json(whole.to_json(), whole.config)
    for case in settings(f"{which}_tokenizer").get("cases", []):
        assert again.tokens(case["text"]) == case["tokens"]
