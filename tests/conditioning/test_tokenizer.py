from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
import tokenizers
import torch
from pydantic import ValidationError
from support.vocabularies import CLIP_PAIRS, clip_file, gpt2_files

from guidon.conditioning.tokenizer import (
    Tokenizer,
    TokenizerConfig,
    clip_tokenizer,
    gpt2_tokenizer,
    train_tokenizer,
)
from guidon.conditioning.vocabulary import LETTERS
from guidon.errors import BadValue, DamagedCheckpoint, DataError, MissingFile

CAPTIONS = ["a red circle", "a blue square", "a red square left of a blue circle"] * 4


@pytest.fixture
def gpt2(tmp_path: Path) -> Tokenizer:
    return gpt2_tokenizer(gpt2_files(tmp_path), context=6)


@pytest.fixture
def clip(tmp_path: Path) -> Tokenizer:
    return clip_tokenizer(clip_file(tmp_path), context=6)


@pytest.fixture(scope="module")
def learned() -> Tokenizer:
    return train_tokenizer(CAPTIONS, size=300, context=12)


# ------------------------------------------------------------------------------------------------------ rows


def test_words_are_joined_by_rank_and_rows_are_padded(gpt2: Tokenizer) -> None:
    red, cat, pad = 257, 260, 261
    told = gpt2.encode(["Red cat", "", "x"])
    assert told.tokens.tolist() == [[red, cat, *[pad] * 4], [pad] * 6, [LETTERS.index("x"), *[pad] * 5]]
    assert told.mask.tolist() == [[True] * 2 + [False] * 4, [False] * 6, [True] + [False] * 5]
    assert told.empty == ((pad,) * 6, (False,) * 6)
    assert torch.equal(told.null().tokens, gpt2.encode(["", "", ""]).tokens)


def test_clip_marks_the_ends_of_words_and_of_the_row(clip: Tokenizer) -> None:
    assert clip.size == 2 * 256 + 4 + 2
    told = clip.encode(["RED  cat ", ""])
    assert told.tokens.tolist() == [[516, 513, 515, 517, 0, 0], [516, 517, 0, 0, 0, 0]]
    assert told.mask.sum(1).tolist() == [4, 2]
    assert told.empty == ((516, 517, 0, 0, 0, 0), (True, True, False, False, False, False))
    assert clip.decode(clip.tokens("red cat")) == "red cat "


def test_long_texts_are_cut_with_one_warning_and_keep_their_end(clip: Tokenizer, gpt2: Tokenizer) -> None:
    with pytest.warns(UserWarning, match=r"2 of 3 texts are longer than 4 tokens") as found:
        told = clip.encode(["cat " * 5, "red", "cat " * 9])
    assert len(found) == 1 and found[0].filename == __file__
    assert told.tokens.tolist()[0] == [516, 515, 515, 515, 515, 517]
    assert told.mask[0].all()
    with pytest.warns(UserWarning, match=r"1 of 1 texts are longer than 6 tokens"):
        assert gpt2.encode([" cat" * 7]).tokens.tolist() == [[260] * 6]


@pytest.mark.filterwarnings("error")
def test_texts_that_just_fit_are_no_warning(clip: Tokenizer, gpt2: Tokenizer) -> None:
    assert clip.encode(["cat " * 4]).mask.all()
    assert gpt2.encode([" cat" * 6]).mask.all()
    assert len(gpt2.encode([])) == 0


def test_ends_written_in_a_text(clip: Tokenizer, gpt2: Tokenizer, learned: Tokenizer) -> None:
    assert clip.tokens("red<|endoftext|>cat") == [513, 517, 515]
    assert clip.tokens("<|EndOfText|>") == [517]
    assert 517 not in clip.tokens("!<|endoftext|>")  # the pattern takes "!<|" for a word of its own
    assert gpt2.config.padding not in gpt2.tokens("<|endoftext|>")
    assert not {0, 1} & set(learned.tokens("<pad> <s>"))
    assert learned.decode(learned.tokens("<pad> <s>")) == "<pad> <s>"


def test_clip_mends_texts_first(clip: Tokenizer) -> None:
    assert clip.tokens(" \u201cred\u201d\n &amp;amp; ca\u0301t\x07 ") == clip.tokens('"red" & c\u00e1t')
    assert clip.tokens("<red> &amp;amp;") == clip.tokens("<red> &")


# --------------------------------------------------------------------------------------------------- learned


def test_words_of_the_captions_become_tokens(learned: Tokenizer) -> None:
    assert learned.tokens("Red circle") == learned.tokens("a red circle")[1:]  # the same at the beginning as within
    assert len(learned.tokens("a red square left of a blue circle")) == 8
    assert learned.decode(learned.tokens("a RED circle")) == "a red circle"
    assert learned.decode(learned.tokens("日本 é")) == "日本 é"  # never seen, but bytes
    assert learned.size <= 300


def test_learned_rows_begin_with_the_start(learned: Tokenizer) -> None:
    told = learned.encode(["red", ""])
    assert told.tokens[:, 0].tolist() == [1, 1]
    assert told.mask.tolist() == [[True] * 2 + [False] * 10, [True] + [False] * 11]
    assert told.empty == ((1, *[0] * 11), (True, *[False] * 11))


def test_learning_twice_gives_the_same(learned: Tokenizer) -> None:
    assert train_tokenizer(iter(CAPTIONS), size=300, context=12).to_json() == learned.to_json()


def test_learning_needs_captions_and_room() -> None:
    with pytest.raises(BadValue, match="258 or more"):
        train_tokenizer(CAPTIONS, size=257, context=12)
    with pytest.raises(DataError, match="no captions"):
        train_tokenizer(["", " "], size=300, context=12)


# ------------------------------------------------------------------------------------------ kept in a folder


@pytest.mark.parametrize("kind", ["gpt2", "clip", "learned"])
def test_written_and_read_back(kind: str, request: pytest.FixtureRequest) -> None:
    whole: Tokenizer = request.getfixturevalue(kind)
    config = TokenizerConfig.model_validate_json(whole.config.model_dump_json())
    again = Tokenizer.from_json(whole.to_json(), config)
    texts = ["Red cat", "", "<pad> <|endoftext|> é"]
    for text in texts:
        assert again.tokens(text) == whole.tokens(text)
        assert again.decode(again.tokens(text)) == whole.decode(whole.tokens(text))
    assert again.empty == whole.empty


def test_padding_and_truncation_of_the_file_are_not_heeded(gpt2: Tokenizer) -> None:
    texts = ["red cat", "x", "cat cat red"]
    wanted = gpt2.encode(texts)
    backend = tokenizers.Tokenizer.from_str(gpt2.to_json())
    backend.enable_padding(length=5, pad_id=7)
    backend.enable_truncation(2)
    again = Tokenizer.from_json(backend.to_str(), gpt2.config).encode(texts)
    assert torch.equal(again.tokens, wanted.tokens) and torch.equal(again.mask, wanted.mask)


def test_what_is_no_tokenizer() -> None:
    with pytest.raises(DamagedCheckpoint, match=r"tokenizer\.json"):
        Tokenizer.from_json("{}", TokenizerConfig(context=4, padding=0))


def test_a_config_of_another_tokenizer(gpt2: Tokenizer) -> None:
    with pytest.raises(BadValue, match="no token of a vocabulary of 262"):
        Tokenizer(gpt2.backend, TokenizerConfig(context=4, padding=50256))
    with pytest.raises(ValidationError):
        TokenizerConfig(context=2, padding=0)


# ------------------------------------------------------------------------------------------------ wrong input


@pytest.mark.parametrize("texts", ["a cat", [3], [None]])
def test_what_is_no_list_of_texts(gpt2: Tokenizer, texts: object) -> None:
    with pytest.raises(BadValue, match="list of str"):
        gpt2.encode(texts)  # type: ignore[arg-type]


def test_half_a_letter(gpt2: Tokenizer) -> None:
    with pytest.raises(BadValue, match="no Unicode"):
        gpt2.encode(["\ud83d"])


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"encoder\.json"):
        gpt2_tokenizer(tmp_path)
    with pytest.raises(MissingFile, match="there is no folder"):
        gpt2_tokenizer("./nowhere/at/all")
    (gpt2_files(tmp_path) / "vocab.bpe").unlink()
    with pytest.raises(MissingFile, match=r"vocab\.bpe"):
        gpt2_tokenizer(tmp_path)
    with pytest.raises(MissingFile, match="bpe_simple_vocab"):
        clip_tokenizer(tmp_path)


def test_both_namings_and_both_packings_are_read(tmp_path: Path, gpt2: Tokenizer, clip: Tokenizer) -> None:
    (tmp_path / "encoder.json").rename(tmp_path / "vocab.json")
    (tmp_path / "merges.txt").write_bytes((tmp_path / "vocab.bpe").read_bytes())
    (tmp_path / "vocab.bpe").unlink()
    assert gpt2_tokenizer(tmp_path, 6).to_json() == gpt2.to_json()
    packed = tmp_path / "bpe_simple_vocab_16e6.txt.gz"
    plain = tmp_path / "bpe_simple_vocab_16e6.txt"
    plain.write_bytes(gzip.decompress(packed.read_bytes()))
    assert clip_tokenizer(plain, 6).to_json() == clip.to_json()


def damage(path: Path, how: str) -> None:
    ids = path / "encoder.json"
    match how:
        case "not JSON":
            ids.write_text("{")
        case "a list":
            ids.write_text('["a"]')
        case "no merges":
            (path / "vocab.bpe").write_text("#version: 0.2\n")
        case "three parts":
            (path / "vocab.bpe").write_text("#version: 0.2\na b c\n")
        case "gap":
            ids.write_text(ids.read_text().replace("261", "300"))
        case "unknown part":
            (path / "vocab.bpe").write_text("#version: 0.2\nzz y\n")
        case "byte without a token":
            tokens = {token: number for number, token in enumerate([*LETTERS[1:], "re"])}
            ids.write_text(json.dumps(tokens))
        case "cut short":
            (path / "vocab.bpe").unlink()
            (path / "vocab.bpe.gz").write_bytes(gzip.compress(b"#version\nr e\n" * 99)[:20])


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("not JSON", "is not JSON"),
        ("a list", "every token with its id"),
        ("no merges", "does not hold merges"),
        ("three parts", "does not hold merges"),
        ("gap", r"are not 0\.\.261"),
        ("unknown part", "'zz' is no token"),
        ("byte without a token", "256 bytes"),
        ("cut short", "cut short"),
    ],
)
def test_damaged_files(tmp_path: Path, how: str, said: str) -> None:
    damage(gpt2_files(tmp_path), how)
    with pytest.raises(DamagedCheckpoint, match=said) as found:
        gpt2_tokenizer(tmp_path)
    assert re.search(r"again|give", str(found.value))


def test_the_files_of_the_other_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(DamagedCheckpoint, match="vocabulary of CLIP"):
        gpt2_tokenizer(gpt2_files(tmp_path / "a", CLIP_PAIRS))
    with pytest.raises(DamagedCheckpoint, match="merges of CLIP"):
        clip_tokenizer(gpt2_files(tmp_path / "b") / "vocab.bpe")
    with pytest.raises(DamagedCheckpoint, match="two different pairs"):
        clip_tokenizer(clip_file(tmp_path / "c", ["a b", "ab c</w>", "b c</w>", "a bc</w>"]))
