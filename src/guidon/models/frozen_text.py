"""A text encoder of others that stays as it is: CLIP's or T5's, through `transformers`; only what leads from it is trained.

Its own weights are no part of a model: they are not saved, averaged, copied or trained with it. They are opened where their
source is, once for each device, when a text is encoded for the first time. Letters in shape comments: B texts, L tokens, W its width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from guidon.conditioning import Context, Texts
from guidon.conditioning.tokenizer import Tokenizer, TokenizerConfig
from guidon.conditioning.vocabulary import CLIP_ENDS, find
from guidon.errors import BadValue, DamagedCheckpoint, MissingFile, NotSupported
from guidon.models.text import checked

VOCABULARY = "tokenizer.json"


class FrozenTextConfig(BaseModel):
    """Which text encoder is taken as it is.

    Args:
        source: folder or hub id of a CLIP, of its text model alone, or of a T5.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["frozen"] = "frozen"
    source: str


@dataclass(frozen=True)
class Family:
    """What encoders of one make have in common.

    Args:
        loader: the class of `transformers` that opens one.
        start, end, padding: the tokens of that name.
        pooled: what becomes the vector: the row of the end token, which has seen all others, or the mean over real tokens.
    """

    loader: str
    start: str | None
    end: str
    padding: str
    pooled: Literal["end", "mean"]


CLIP = Family("CLIPTextModel", CLIP_ENDS[0], CLIP_ENDS[1], CLIP_ENDS[1], "end")
T5 = Family("T5EncoderModel", None, "</s>", "<pad>", "mean")
FAMILIES = {"clip": CLIP, "clip_text_model": CLIP, "t5": T5}  # by the model_type of config.json


class FrozenText(nn.Module):
    """Turns texts into a vector, a row for every token, or both, by an encoder that is not trained.

    Args:
        config: which one.
        length: tokens of a text, L.
        doors: widths that the network expects, by door: "vector", "tokens".

    Raises:
        NotSupported: `transformers` is not installed, or the encoder is of a kind that is not known.
        MissingFile: the encoder is not where the config says.
        BadValue: it takes fewer tokens.

    Source: CLIP's states after its last norm and that of the end token as Rombach et al., arXiv 2112.10752, have them; T5's as Saharia
    et al., arXiv 2205.11487, appendix D.1: rows by attention, their mean as the vector.
    """

    def __init__(self, config: FrozenTextConfig, length: int, doors: Mapping[str, int]) -> None:
        super().__init__()
        self.config, self.length = config, length
        there = described(config.source)
        text = getattr(there, "text_config", there)
        most = getattr(text, "max_position_embeddings", None)
        if most is not None and length > most:
            raise BadValue(
                f"texts of {length} tokens, but the encoder {config.source} takes {most} at most; set the context to that"
            )
        self.vocabulary = int(text.vocab_size)
        self.family = FAMILIES[there.model_type]
        self.vector_proj = nn.Linear(text.hidden_size, doors["vector"]) if "vector" in doors else None
        self.tokens_proj = nn.Linear(text.hidden_size, doors["tokens"]) if "tokens" in doors else None

    def forward(self, texts: Texts) -> Context:
        """Return the context of a batch of texts; its mask is that of the texts.

        Raises:
            ShapeMismatch: they are of another length.
            BadValue: a token is none of the vocabulary.
            MissingFile: the encoder's weights are not there.
        """
        tokens, mask = checked(texts, self.length, self.vocabulary, self.device)
        with torch.no_grad():
            said = opened(self.config.source, str(self.device))(input_ids=tokens, attention_mask=mask.long())
            hidden = said.last_hidden_state.to(self.dtype)  # (B, L, W)
        return Context(
            vector=None if self.vector_proj is None else self.vector_proj(self._pooled(hidden, mask)),
            tokens=None if self.tokens_proj is None else self.tokens_proj(hidden),
            mask=None if self.tokens_proj is None else mask,
        )

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What numbers the parameters are."""
        return next(self.parameters()).dtype

    def _pooled(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """Return one row for each text, (B, W)."""
        count = mask.sum(1)
        if self.family.pooled == "end":
            return hidden[torch.arange(len(hidden), device=hidden.device), count - 1]
        return (hidden * mask[..., None]).sum(1) / count.clamp_min(1)[:, None]


def frozen_tokenizer(source: str, context: int) -> Tokenizer:
    """Return the tokenizer of a frozen encoder, to be saved with the model that it tells about texts.

    Args:
        source: as in `FrozenTextConfig`.
        context: tokens in a row.

    Raises:
        MissingFile: the source has no ``tokenizer.json``.
        DamagedCheckpoint: that file holds no tokenizer, or one of another family.
    """
    family = FAMILIES[described(source).model_type]
    try:
        path = find(source, (VOCABULARY,))
    except MissingFile as error:
        raise MissingFile(
            f"{source} has no {VOCABULARY}; write one there with transformers: AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        ) from error
    text = path.read_text(encoding="utf-8")
    backend = Tokenizer.from_json(text, TokenizerConfig(context=context, padding=0, clean="none")).backend
    ids = {token: backend.token_to_id(token) for token in (family.start, family.end, family.padding) if token}
    if missing := [token for token, number in ids.items() if number is None]:
        raise DamagedCheckpoint(f"{path} has no token {missing[0]}; give the tokenizer that belongs to the encoder")
    start = None if family.start is None else ids[family.start]
    config = TokenizerConfig(
        context=context, padding=ids[family.padding], start=start, end=ids[family.end], clean="none"
    )
    return Tokenizer(backend, config)


@lru_cache(maxsize=8)
def described(source: str) -> Any:
    """Return what a source says of its encoder; raises as `FrozenText` does."""
    try:
        from transformers import AutoConfig
    except ImportError as error:
        raise NotSupported("a frozen text encoder needs transformers; pip install 'guidon[text]'") from error
    try:
        config = AutoConfig.from_pretrained(source)
    except Exception as error:  # the library and the hub's client let errors of several kinds through
        raise _missing(source, error) from error
    if config.model_type not in FAMILIES:
        raise NotSupported(
            f"{source} is a {config.model_type}; the text encoders that can be taken frozen are CLIP's and T5's"
        )
    return config


@lru_cache(maxsize=4)
def opened(source: str, device: str) -> nn.Module:
    """Return a frozen encoder on a device, the same one whenever it is asked for.

    Raises:
        MissingFile: it is not there.
        DamagedCheckpoint: some of its weights are not.
    """
    import transformers

    loader = getattr(transformers, FAMILIES[described(source).model_type].loader)
    try:
        # the fork: what training draws next must not depend on when this happens
        with torch.random.fork_rng(devices=[]), _quiet(transformers.utils.logging):
            network, found = loader.from_pretrained(source, output_loading_info=True)
    except Exception as error:  # as above
        raise _missing(source, error) from error
    if lacking := sorted(found["missing_keys"]):
        raise DamagedCheckpoint(
            f"the weights of {source} lack {len(lacking)} tensors of its text encoder, for instance {lacking[0]}; copy it again"
        )
    return network.float().eval().requires_grad_(False).to(device)


@contextmanager
def _quiet(logging: Any) -> Iterator[None]:
    """Keep the library from listing the weights that a text encoder does not need, such as those of CLIP's image encoder."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _missing(source: str, error: Exception) -> MissingFile:
    said = " ".join(str(error).split())[:200]
    return MissingFile(
        f"cannot open the frozen text encoder {source} ({type(error).__name__}: {said}); put its folder back, or write where it is now"
        " into text.encoder.source of the model's config.json; of one on the hub check its name and the network"
    )
