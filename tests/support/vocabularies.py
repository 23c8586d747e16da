"""Small vocabularies in the files of GPT-2 and of CLIP."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

from guidon.conditioning.vocabulary import LETTERS

# in the alphabet of both vocabularies a space is Ġ
PAIRS = ("r e", "re d", "Ġ c", "Ġc a", "Ġca t")
CLIP_PAIRS = ("r e", "re d</w>", "c a", "ca t</w>")


def gpt2_files(folder: Path, pairs: Sequence[str] = PAIRS) -> Path:
    """Write the two files of GPT-2, of 257 tokens and one for every pair, and return their folder."""
    folder.mkdir(exist_ok=True)
    tokens = [*LETTERS, *(pair.replace(" ", "") for pair in pairs), "<|endoftext|>"]
    (folder / "encoder.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "vocab.bpe").write_text("\n".join(["#version: 0.2", *pairs, ""]))
    return folder


def clip_file(folder: Path, pairs: Sequence[str] = CLIP_PAIRS) -> Path:
    """Write the file of CLIP, of 514 tokens and one for every pair, and return its folder."""
    folder.mkdir(exist_ok=True)
    path = folder / "bpe_simple_vocab_16e6.txt.gz"
    path.write_bytes(gzip.compress("\n".join(['"header', *pairs, ""]).encode()))
    return folder
