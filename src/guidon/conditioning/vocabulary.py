"""The vocabulary files of GPT-2 and CLIP: which tokens there are, and which pairs of them are joined, in order."""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

from tokenizers.pre_tokenizers import ByteLevel

from guidon.errors import DamagedCheckpoint, MissingFile

GPT2_IDS, GPT2_MERGES = ("encoder.json", "encoder.json.gz", "vocab.json"), ("vocab.bpe", "vocab.bpe.gz", "merges.txt")
CLIP_MERGES = ("bpe_simple_vocab_16e6.txt.gz", "bpe_simple_vocab_16e6.txt", "merges.txt")
CLIP_ENDS = ("<|startoftext|>", "<|endoftext|>")
CLIP_SIZE = 49152  # tokens that CLIP's code allows for, both ends and one alphabet of bytes among them
WORD_END = "</w>"  # what CLIP marks the last token of a word with

LETTERS = sorted(ByteLevel.alphabet())  # a letter for every byte, in the order of both vocabularies


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a byte-pair encoding.

    Args:
        ids: every token with its id, 0 .. n - 1.
        merges: pairs of tokens to be joined, the first ones first.
        source: the file or folder they came from.

    Raises:
        DamagedCheckpoint: the ids have gaps, a byte has no token, or a pair has a part or a whole that is no token.
    """

    ids: dict[str, int]
    merges: list[tuple[str, str]]
    source: Path

    def __post_init__(self) -> None:
        if sorted(self.ids.values()) != list(range(len(self.ids))):
            raise DamagedCheckpoint(
                f"the ids of {self.source} are not 0..{len(self.ids) - 1}, each once; download it again"
            )
        if missing := [letter for letter in LETTERS if letter not in self.ids]:
            raise DamagedCheckpoint(
                f"{self.source} has no token for {len(missing)} of the 256 bytes, for instance {missing[0]!r}; "
                "give the vocabulary of a byte-level tokenizer"
            )
        for first, second in self.merges:
            if unknown := [token for token in (first, second, first + second) if token not in self.ids]:
                raise DamagedCheckpoint(
                    f"{self.source} joins {first!r} and {second!r}, but {unknown[0]!r} is no token; "
                    "give both files of one tokenizer"
                )


def read_gpt2(source: str | Path) -> Vocabulary:
    """Read GPT-2's two files, which GLIDE's networks were trained with.

    Args:
        source: a folder with ``encoder.json`` and ``vocab.bpe``, gzipped or not, or ``vocab.json`` and ``merges.txt``; or
            the id of a model on the hub that has the latter.

    Raises:
        MissingFile: they are not there.
        DamagedCheckpoint: they are not what their names say, or are those of CLIP.
    """
    there = find(source, GPT2_IDS)
    try:
        ids = json.loads(_text(there))
    except ValueError as error:
        raise DamagedCheckpoint(f"{there} is not JSON ({error}); download it again") from error
    if not isinstance(ids, dict) or not ids or not all(type(number) is int for number in ids.values()):
        raise DamagedCheckpoint(f"{there} is not a vocabulary, every token with its id; download it again")
    merges = _merges(find(source, GPT2_MERGES))
    if any(token.endswith(WORD_END) for token in ids) or any(pair[1].endswith(WORD_END) for pair in merges):
        raise DamagedCheckpoint(f"{source} holds the vocabulary of CLIP; GLIDE's networks take that of GPT-2")
    return Vocabulary(ids, merges, there.parent)


def read_clip(source: str | Path) -> Vocabulary:
    """Read CLIP's file of merges, from which all of its vocabulary follows.

    Args:
        source: the file ``bpe_simple_vocab_16e6.txt``, gzipped or not, or a folder with it or with ``merges.txt``; or the
            id of a model on the hub that has the latter.

    Raises:
        MissingFile: it is not there.
        DamagedCheckpoint: it is not what its name says, or is that of GPT-2.
    """
    there = find(source, CLIP_MERGES)
    merges = _merges(there)[: CLIP_SIZE - len(LETTERS) - len(CLIP_ENDS)]
    if not any(second.endswith(WORD_END) for _, second in merges):
        raise DamagedCheckpoint(
            f"{there} does not hold the merges of CLIP, which mark where words end; give CLIP's file"
        )
    words = [letter + WORD_END for letter in LETTERS]
    tokens = [*LETTERS, *words, *(first + second for first, second in merges), *CLIP_ENDS]
    if len(set(tokens)) != len(tokens):
        raise DamagedCheckpoint(f"{there} makes a token of two different pairs; download it again")
    return Vocabulary({token: number for number, token in enumerate(tokens)}, merges, there)


def find(source: str | Path, names: tuple[str, ...]) -> Path:
    """Return the first of ``names`` in a folder, or the last of them from the hub; raises `MissingFile`."""
    folder = Path(source).expanduser()
    if folder.is_file():
        folder, names = folder.parent, (folder.name,)
    if folder.is_dir():
        for name in names:
            if (folder / name).is_file():
                return folder / name
        raise MissingFile(f"{folder} holds no {' or '.join(names)}; give the folder that the tokenizer's files are in")
    if str(source).count("/") != 1 or str(source).startswith((".", "/", "~")):
        raise MissingFile(f"there is no folder {source}; give one that holds {' or '.join(names)}")
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(str(source), names[-1]))
    except Exception as error:  # the hub's client lets errors of several libraries through
        raise MissingFile(
            f"{source} is neither a folder here nor a model whose {names[-1]} the hub gave ({type(error).__name__}); "
            "check the path, the name, and the network"
        ) from error


def _text(path: Path) -> str:
    """Return what a text file holds, gzipped or not."""
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    except (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError) as error:
        raise DamagedCheckpoint(f"{path} is cut short or is not text ({error}); download it again") from error


def _merges(path: Path) -> list[tuple[str, str]]:
    """Return the pairs of a file of merges: one on each line below a header."""
    pairs = [tuple(line.split()) for line in _text(path).split("\n")[1:] if line]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise DamagedCheckpoint(f"{path} does not hold merges, two tokens on each line; download it again")
    return pairs  # type: ignore[return-value]
