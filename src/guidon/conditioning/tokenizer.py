"""Texts to token ids and back, by byte-level byte-pair encoding: as GLIDE, as CLIP, or learned from captions."""

from __future__ import annotations

import html
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, Self

import tokenizers
import torch
from pydantic import BaseModel, ConfigDict, Field
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers

from guidon.conditioning.text import NullRow, Texts
from guidon.conditioning.vocabulary import CLIP_ENDS, LETTERS, WORD_END, read_clip, read_gpt2
from guidon.errors import BadValue, DamagedCheckpoint, DataError, GuidonWarning, NotSupported

GPT2, CLIP = "openai-community/gpt2", "openai/clip-vit-base-patch32"  # where their files are on the hub
PADDING, START = "<pad>", "<s>"  # the tokens 0 and 1 of a learned vocabulary
CLIP_WORDS = Regex(
    "|".join(map(re.escape, CLIP_ENDS)) + r"|(?i:'s|'t|'re|'ve|'m|'ll|'d)|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


class TokenizerConfig(BaseModel):
    """What a row of tokens looks like.

    Args:
        context: tokens in a row, L.
        padding: the id that fills a row up, of which the mask is false.
        start: the id that every row begins with, or None.
        end: the id that follows the text, or None.
        clean: what is done to a text first: nothing, lower case, or all that CLIP does (mending of broken Unicode, HTML
            entities, spaces, lower case).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    context: int = Field(ge=3)
    padding: int = Field(ge=0)
    start: int | None = Field(default=None, ge=0)
    end: int | None = Field(default=None, ge=0)
    clean: Literal["none", "lower", "clip"] = "lower"

    @property
    def empty(self) -> NullRow:
        """The row of the empty text, and its mask."""
        return self.row([])

    def row(self, tokens: Sequence[int]) -> NullRow:
        """Return the row of a text of these tokens, and its mask."""
        start, end = ([] if each is None else [each] for each in (self.start, self.end))
        whole = [*start, *tokens, *end]
        missing = self.context - len(whole)
        return (*whole, *[self.padding] * missing), (*[True] * len(whole), *[False] * missing)


class Tokenizer:
    """Texts to rows of token ids, and back.

    Args:
        backend: a tokenizer of the `tokenizers` library.
        config: what a row looks like.

    Raises:
        BadValue: the padding or an end is no token of the backend.
    """

    def __init__(self, backend: tokenizers.Tokenizer, config: TokenizerConfig) -> None:
        self.backend, self.config = backend, config
        self.backend.no_padding()
        self.backend.no_truncation()  # a tokenizer.json may ask for either; rows are made by the config alone
        self.backend.encode_special_tokens = config.clean != "clip"  # "<pad>" in a caption is but letters
        for what in ("padding", "start", "end"):
            if (number := getattr(config, what)) is not None and number >= self.size:
                raise BadValue(
                    f"the {what} {number} is no token of a vocabulary of {self.size}; give both of one tokenizer"
                )

    @property
    def size(self) -> int:
        """The number of tokens in the vocabulary."""
        return self.backend.get_vocab_size()

    @property
    def empty(self) -> NullRow:
        """The row of the empty text, and its mask."""
        return self.config.empty

    @property
    def room(self) -> int:
        """How many tokens of a text a row holds."""
        return self.config.context - sum(self.empty[1])

    def encode(self, texts: Sequence[str], *, warn: bool = True) -> Texts:
        """Return a row of tokens for each text; texts that are too long are cut, with one warning for all of them.

        Args:
            texts: what to turn into tokens.
            warn: false where somebody was warned before.

        Raises:
            BadValue: ``texts`` is not a list of texts.
        """
        if warn:
            warn_of_cut([self], texts, stacklevel=3)
        rows = [self.config.row(tokens[: self.room]) for tokens in self._tokens(texts)]
        shape = (len(rows), self.config.context)
        return Texts(
            torch.tensor([ids for ids, _ in rows], dtype=torch.long).reshape(shape),
            torch.tensor([real for _, real in rows], dtype=torch.bool).reshape(shape),
            self.empty,
            self.size,
        )

    def tokens(self, text: str) -> list[int]:
        """Return the tokens of a text alone: no start, no end, no padding, and nothing cut."""
        return self._tokens([text])[0]

    def too_long(self, texts: Sequence[str]) -> set[str]:
        """Return those of the texts that a row does not hold."""
        return {text for text, tokens in zip(texts, self._tokens(texts), strict=True) if len(tokens) > self.room}

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text that tokens stand for; bytes that are no letters become U+FFFD."""
        return self.backend.decode(list(tokens), skip_special_tokens=False)

    def to_json(self) -> str:
        """Return the vocabulary as the text of a ``tokenizer.json``."""
        return self.backend.to_str()

    @classmethod
    def from_json(cls, text: str, config: TokenizerConfig) -> Self:
        """Return the tokenizer of a ``tokenizer.json``; raises `DamagedCheckpoint` if it is none."""
        try:
            backend = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises nothing more precise
            raise DamagedCheckpoint(f"tokenizer.json does not hold a tokenizer ({error}); copy it again") from error
        return cls(backend, config)

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise BadValue(f"texts come as a list of str, not {texts!r:.60}; put a single one in a list")
        cleaned = [_clean(_encodable(text), self.config.clean) for text in texts]
        if self.config.clean != "clip":
            encoded = self.backend.encode_batch(cleaned, add_special_tokens=False)
        else:  # an end is one only where the pattern finds it whole, so the words are cut out first
            split = pre_tokenizers.Split(CLIP_WORDS, "removed", invert=True)
            words = [[word for word, _ in split.pre_tokenize_str(text)] for text in cleaned]
            encoded = self.backend.encode_batch(words, is_pretokenized=True, add_special_tokens=False)
        return [row.ids for row in encoded]


def warn_of_cut(tokenizers: Sequence[Tokenizer], texts: Sequence[str], *, stacklevel: int = 2) -> None:
    """Warn once of the texts that are too long for the rows of one of several tokenizers."""
    cut = {text for tokenizer in tokenizers for text in tokenizer.too_long(texts)}
    if cut:
        room = min(tokenizer.room for tokenizer in tokenizers)
        warnings.warn(
            f"{sum(text in cut for text in texts)} of {len(texts)} texts are longer than {room} tokens and were cut; "
            "shorten them to be read whole",
            GuidonWarning,
            stacklevel=stacklevel,
        )


def gpt2_tokenizer(source: str | Path = GPT2, context: int = 128) -> Tokenizer:
    """Return the tokenizer of GLIDE's networks: the vocabulary of GPT-2, in lower case, the last token as padding.

    Args:
        source: a folder with the files of GPT-2, or a model on the hub, whose files are kept for the next time.
        context: tokens in a row.

    Raises:
        MissingFile, DamagedCheckpoint: as `read_gpt2` says.

    Source: openai/glide-text2im, tokenizer/bpe.py.
    """
    vocabulary = read_gpt2(source)
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary.ids, merges=vocabulary.merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return Tokenizer(backend, TokenizerConfig(context=context, padding=len(vocabulary.ids) - 1))


def clip_tokenizer(source: str | Path = CLIP, context: int = 77) -> Tokenizer:
    """Return the tokenizer of CLIP: rows between a start and an end, padded with the token 0.

    Args:
        source: CLIP's file of merges, its folder, or a model on the hub, whose file is kept for the next time.
        context: tokens in a row.

    Raises:
        MissingFile, DamagedCheckpoint: as `read_clip` says.

    Source: openai/CLIP, simple_tokenizer.py; openai/glide-text2im, tokenizer/simple_tokenizer.py.
    """
    vocabulary = read_clip(source)
    backend = tokenizers.Tokenizer(
        models.BPE(vocab=vocabulary.ids, merges=vocabulary.merges, end_of_word_suffix=WORD_END)
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace(WORD_END, " ")])
    backend.add_special_tokens([AddedToken(end, normalized=False) for end in CLIP_ENDS])
    start, end = (vocabulary.ids[token] for token in CLIP_ENDS)
    return Tokenizer(backend, TokenizerConfig(context=context, padding=0, start=start, end=end, clean="clip"))


def train_tokenizer(captions: Iterable[str], *, size: int, context: int) -> Tokenizer:
    """Learn a vocabulary from captions, in lower case; a word is the same tokens at the beginning and within.

    Args:
        captions: what the model will be told.
        size: tokens at most: 256 for the bytes, the padding 0, the start 1, and the most frequent pairs.
        context: tokens in a row; its first one is the start, so the row of the empty text is the start alone.

    Raises:
        BadValue: ``size`` has no room for the bytes.
        DataError: there are no captions.

    Source: Sennrich et al. 2016, "Neural machine translation of rare words with subword units"; bytes as in GPT-2.
    """
    if size < len(LETTERS) + 2:
        raise BadValue(f"a vocabulary of {size} has no room for 256 bytes, padding and start; give 258 or more")
    texts = [_clean(_encodable(caption), "lower") for caption in captions]
    if not any(text.strip() for text in texts):
        raise DataError("there are no captions to learn a vocabulary from; check the column or the files of captions")
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[PADDING, START], initial_alphabet=LETTERS, show_progress=False
    )
    backend.train_from_iterator(texts, trainer, len(texts))
    return Tokenizer(backend, TokenizerConfig(context=context, padding=0, start=1))


def _encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadValue(f"{text!r:.60} holds half of a letter, which is no Unicode; read it again as UTF-8") from error
    return text


def _clean(text: str, how: str) -> str:
    if how == "clip":
        try:
            import ftfy
        except ImportError as error:
            raise NotSupported("the texts of CLIP are cleaned by ftfy; pip install 'guidon[text]'") from error
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
        text = re.sub(r"\s+", " ", text).strip()
    return (
        text if how == "none" else text.lower()
    )  # python's lower case: of the letters of all languages, as the original
