"""How the images of one cell are made: every setting of a plan, with its axes put in."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

import guidon.model_config  # noqa: F401  registers what a setting can name
from guidon import registry
from guidon.errors import BadValue, DataError
from guidon.scenes.draw import prompts
from guidon.training.ema import gamma_of_length
from guidon.training.run_recipe import Section

MANY = 1000  # images of a cell where a plan does not say
Said = int | str | None


class Setting(Section):
    """How the images of one cell are made; what is None is as the model has it."""

    model: str = Field(description="folder or hub id")
    average: float | None = Field(None, description="relative length of the power average of the run's weights")
    weak: str | None = Field(None, description="a worse model, or self:0.1")
    told: tuple[Said, ...] | None = Field(None, description="classes or texts, in turn; None: every class")
    n: int = Field(MANY, ge=1, description="images")
    seed: int = Field(0, ge=0, description="of the first image")
    rule: str | None = None
    solver: str | None = None
    grid: str | None = None
    steps: int | None = Field(None, ge=1)
    nfe: float | None = Field(None, ge=1, description="network evaluations an image, at most")
    temperature: float | None = Field(
        None, gt=0, description="what the noise that sampling starts from is multiplied by"
    )
    precision: Literal["fp32", "bf16"] | None = None
    negative: tuple[Said, ...] = ()

    @field_validator("rule", mode="before")
    @classmethod
    def _weight(cls, value: Any) -> Any:
        return f"cfg({value})" if isinstance(value, int | float) and not isinstance(value, bool) else value

    @field_validator("rule", "solver", "grid")
    @classmethod
    def _canonical(cls, text: str | None, info: ValidationInfo) -> str | None:
        return None if text is None else canonical(str(info.field_name), text)

    @field_validator("average")
    @classmethod
    def _length(cls, length: float | None) -> float | None:
        if length is not None:
            gamma_of_length(length)
        return length

    @field_validator("negative", "told", mode="before")
    @classmethod
    def _said(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None:
            return () if info.field_name == "negative" else None
        return told_of(value)

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.steps is not None and self.nfe is not None:
            raise BadValue("steps and nfe both say how long to sample; give one of the two")
        return self

    def plain(self) -> Setting:
        """Return the setting without what its rule has no use for, a weak model or something negative, which decides nothing."""
        if self.rule is None:
            return self
        uses = used_by(self.rule)
        return self.model_copy(update={name: none for name, none in SPARE.items() if name not in uses})


SETTINGS = tuple(Setting.model_fields)
SPARE: dict[str, Any] = {"weak": None, "negative": ()}


@cache
def canonical(kind: str, text: str) -> str:
    """Return the one text form of all that stand for the same thing."""
    return registry.to_text(registry.parse(kind, text))


@cache
def used_by(rule: str) -> frozenset[str]:
    """Return the names of the conditions and networks that a rule asks."""
    uses: frozenset[str] = registry.parse("rule", rule).uses()
    return uses


def told_of(given: Any) -> list[Said]:
    """Return what images are told, one after the other: a label or text, a list, captions of shapes, or the lines of a file.

    Raises:
        BadValue: it is nothing of these.
        DataError: the file cannot be read, or is empty.
    """
    if isinstance(given, Mapping):
        match dict(given):
            case {"shapes": kind, "count": int(count), **rest} if rest.keys() <= {"seed"}:
                return list(prompts(kind, count, rest.get("seed", 0)))
            case {"file": str(path), **rest} if not rest:
                return list(_lines(path))
        raise BadValue(f"told is a list, {{shapes: relation, count: 200}} or {{file: prompts.txt}}, not {dict(given)}")
    several = list(given) if isinstance(given, list | tuple) else [given]
    for each in several:
        if isinstance(each, bool) or not isinstance(each, int | str | None):
            raise BadValue(f"{each!r} is no class and no text; write a name, a number, or a sentence in quotes")
    if not several:
        raise BadValue("the list is empty; name a class or a text, or leave it out")
    return several


def _lines(path: str) -> list[str]:
    try:
        lines = [line.strip() for line in Path(path).expanduser().read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the texts in {path} ({error}); give a file with a text in each line") from error
    if not lines:
        raise DataError(f"{path} holds no text; write one into each line")
    return lines
