"""What every training run has, whatever it trains: its settings, checked before anything is loaded, and how they are read."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Generic, Literal, Self, TypeVar, get_args

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from torch import Tensor, nn

import guidon.training.ema  # noqa: F401  registers the averages that a recipe can name
from guidon import registry
from guidon.conditioning import Texts
from guidon.errors import BadRecipe, BadValue, nearest
from guidon.training.batches import Batch, TrainingData
from guidon.training.data import DataConfig
from guidon.training.holdout import open_divided

if TYPE_CHECKING:
    from guidon.classifier import Classifier
    from guidon.model import Model
    from guidon.training.trainer import Trainer

Trained = TypeVar("Trained", bound="Model | Classifier")
Wordings = Callable[[], Iterable[str]]  # the texts that data have, read when they are asked for


class Loss(nn.Module, ABC):
    """What training minimises: called with images, what a batch tells of them, and a draw, it gives the loss of every image (B,)."""

    @abstractmethod
    def told(self, batch: Batch) -> Tensor | Texts | None:
        """Return what a batch tells of its images: class ids (B,), texts, or nothing."""


MAY_CHANGE = (
    "steps",
    "budget",
    "sample_every",
    "sample_weights",
    "sample_prompts",
    "validate_every",
    "checkpoint_every",
    "log_every",
    "trackers",
)
"""Keys of ``train:`` that a resumed run may change: how long it goes on, and what it shows on its way."""

COMMANDS = {
    "model": "guidon train",
    "classifier": "guidon train-classifier",
    "finetune": "guidon finetune --recipe",
}
"""What trains each kind of recipe."""


class Section(BaseModel):
    """A part of a recipe: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Share = Annotated[float, Field(ge=0, lt=1)]


class RunSection(Section):
    """What the ``train:`` section of every recipe has."""

    steps: int | None = Field(
        None, ge=1, description="optimizer steps; the run ends at whichever of steps and budget is first"
    )
    budget: str | None = Field(None, description="wall-clock time from the first step on, for instance 90s, 20m, 1h30m")
    batch_size: int = Field(128, ge=1, description="images per optimizer step, over all processes")
    accumulate: int = Field(
        1, ge=1, description="parts that a process cuts its batch into, to save memory; the result is the same"
    )
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw",
        description="muon: orthogonal updates for hidden matrices and kernels, AdamW for the rest; learns more a step",
    )
    lr: float = Field(1e-3, gt=0, description="peak learning rate of AdamW")
    muon_lr: float = Field(0.02, gt=0, description="peak learning rate of Muon, in units of an orthogonal matrix")
    warmup: int = Field(100, ge=0, description="steps over which the learning rate rises from zero")
    schedule: Literal["constant", "cosine", "linear"] = Field(
        "cosine",
        description="how the learning rate falls to zero at the end of the steps or of the budget, whichever is nearer",
    )
    betas: tuple[Share, Share] = Field(
        (0.9, 0.99), description="AdamW: decay of the first and second moments of the gradient"
    )
    weight_decay: float = Field(
        0.0, ge=0, description="decoupled decay of matrices and kernels per step, times the learning rate"
    )
    clip: float | None = Field(1.0, gt=0, description="largest norm of the gradient; none for no limit")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16: autocast; weights and loss stay float32")
    channels_last: bool = Field(True, description="memory layout of images; faster on most machines")
    checkpointing: bool = Field(
        False,
        description="compute the features of every block again for its gradient: less memory, the same numbers, slower",
    )
    compile: bool = Field(False, description="compile the network; a minute at the start, then faster")
    threads: int | None = Field(
        None, ge=1, description="CPU threads; none: measure what is fastest before the first step"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="decides the initial weights, the order of the data and all noise")
    average: str = Field(
        "half-life(50000)", description="average of the weights that is kept in the end: decay, half-life or power"
    )
    checkpoint_every: int | str = Field("5m", description="steps (a number) or time (such as 5m) between checkpoints")
    log_every: int = Field(20, ge=1, description="steps between entries in the trackers")
    trackers: tuple[str, ...] = Field(("tensorboard",), description="tensorboard, or any other that accelerate knows")

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.steps is None and self.budget is None:
            raise BadValue("say when training ends: give steps, or budget (such as 20m)")
        if self.batch_size % self.accumulate:
            raise BadValue(
                f"a batch of {self.batch_size} does not divide into {self.accumulate} parts; change accumulate"
            )
        return self

    @field_validator("budget")
    @classmethod
    def _duration(cls, text: str | None) -> str | None:
        if text is not None:
            seconds(text)
        return text

    @field_validator("checkpoint_every")
    @classmethod
    def _interval(cls, value: int | str) -> int | str:
        if isinstance(value, str):
            seconds(value)
        elif value < 1:
            raise BadValue(f"at least 1 step lies between checkpoints, got {value}")
        return value

    @field_validator("average")
    @classmethod
    def _average(cls, text: str) -> str:
        return known("average", text)


class RunRecipe(Section, ABC, Generic[Trained]):
    """What every recipe has and says: the sections ``data`` and ``train``, what is trained, and to what end."""

    kind_of_recipe: ClassVar[str] = "model"

    if TYPE_CHECKING:  # every recipe declares them among its other sections, in the order in which they are read
        data: DataConfig
        train: RunSection

    def open(self) -> TrainingData:
        """Return the data, without what is held out; raises as `guidon.training.holdout.open_divided` does."""
        return open_divided(self.data, seed=self.train.seed)

    @abstractmethod
    def build(
        self,
        shape: tuple[int, int, int],
        classes: Sequence[str] | None,
        texts: Wordings = tuple,
        further: Sequence[str] = (),
    ) -> Trained:
        """Return what is trained, new.

        Args:
            shape: (C, H, W) of the images.
            classes: None where the data have none.
            texts: what a model of texts is told, to learn a vocabulary from.
            further: what else it is told, when it is measured.
        """

    @abstractmethod
    def loss(self, model: Trained) -> Loss:
        """Return what training minimises."""

    @abstractmethod
    def draw(self, model: Trained, shape: torch.Size, *, step: int, device: torch.device) -> Any:
        """Draw what chance decides in one step, for the whole batch (B, C, H, W); the loss is given the rows of it."""

    @property
    def stored_averages(self) -> tuple[float, ...]:
        """The lengths of the power averages that are stored along the way."""
        return ()

    def begin(self, trainer: Trainer[Any], out: Path) -> None:
        """Do what a run does before its first step."""

    def between(self, trainer: Trainer[Any], out: Path) -> None:
        """Do what a run does after a step, besides logs and checkpoints."""

    def finish(self, trainer: Trainer[Any], out: Path) -> None:
        """Do what a run does at its end, before what was trained is saved: in every process, of which the main one alone writes."""

    @classmethod
    def load(cls, path: str | Path, sets: Sequence[str] = ()) -> Self:
        """Read a recipe from a YAML file.

        Args:
            path: the file.
            sets: changes on top of it, each "section.key=value" with the value in YAML, for instance "train.lr=1e-3".

        Raises:
            BadRecipe: the file is not there or is not YAML, a key is unknown (says which was meant), or a value does not fit.
        """
        return cls.changed(read_yaml(path, cls), sets, str(path))

    @classmethod
    def changed(cls, content: dict[str, Any], sets: Sequence[str], source: str = "recipe") -> Self:
        """Make a recipe of nested mappings with changes on top of them, as `load` does of a file."""
        for change in sets:
            apply_change(content, change)
        return cls.read(content, source)

    @classmethod
    def read(cls, content: Mapping[str, Any], source: str = "recipe") -> Self:
        """Make a recipe of nested mappings; ``source`` names them in errors. Raises `BadRecipe`."""
        kind = content.get("kind", "model")
        if kind == cls.kind_of_recipe == "model":  # which a recipe need not say
            content = {key: value for key, value in content.items() if key != "kind"}
        if kind != cls.kind_of_recipe and isinstance(kind, str) and kind in COMMANDS:
            raise BadRecipe(f"{source} is the recipe of a {kind}; give it to `{COMMANDS[kind]}`")
        try:
            return cls(**content)
        except ValidationError as error:
            raise BadRecipe("\n".join(f"{source}: {problem}" for problem in problems(error, cls))) from error
        except TypeError as error:
            raise BadRecipe(
                f"{source}: the names of sections are text; they are: {', '.join(cls.model_fields)}"
            ) from error


def read_yaml(path: str | Path, kind: type[BaseModel], what: str = "recipe") -> dict[str, Any]:
    """Return the sections in a YAML file, which is to be ``what``, of some kind; raises `BadRecipe`."""
    try:
        content = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise BadRecipe(f"cannot read the {what} {path} ({error.strerror}); give the path of a YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadRecipe(f"{path} is not readable YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise BadRecipe(f"{path} must hold the sections {', '.join(kind.model_fields)}")
    return content


def flat(recipe: RunRecipe[Any]) -> dict[str, Any]:
    """Return every setting of a recipe under its dotted name."""

    def walk(value: Any, name: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, dict):
            for key, part in value.items():
                yield from walk(part, f"{name}.{key}" if name else key)
        else:
            yield name, value

    return dict(walk(recipe.model_dump(mode="json"), ""))


def differences(stored: Mapping[str, Any], recipe: RunRecipe[Any]) -> list[str]:
    """Return the settings that differ from those of a stored recipe (see `flat`), without those that may change.

    What a run shows on its way and how its model is sampled by default may change at any time. A setting that the stored
    recipe does not know yet counts as at its default.
    """
    current = flat(recipe)
    stored = {**{name: _default(type(recipe), name) for name in current.keys() - stored.keys()}, **stored}
    allowed = ("sample.", *(f"train.{key}" for key in MAY_CHANGE))
    names = sorted(stored.keys() | current.keys())
    return [name for name in names if stored.get(name) != current.get(name) and not name.startswith(allowed)]


def _default(section: Any, name: str) -> Any:
    """Return the default of a setting by its dotted name; None for what has none."""
    *sections, last = name.split(".")
    for part in sections:
        section = getattr(section, "model_fields", {}).get(part)
        section = section.annotation if section is not None else None
    field = getattr(section, "model_fields", {}).get(last)
    return None if field is None or field.is_required() else field.get_default(call_default_factory=True)


def seconds(text: str) -> float:
    """Turn a duration such as 90s, 20m or 1h30m into seconds; raises `BadValue`."""
    found = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?", text.strip())
    try:
        total = (
            sum(float(part) * unit for part, unit in zip(found.groups(), (3600, 60, 1), strict=True) if part)
            if found
            else 0
        )
    except ValueError:
        total = 0
    if not total > 0:
        raise BadValue(f"{text!r} is not a duration; write for instance 90s, 20m or 1h30m")
    return total


def known(kind: str, text: str) -> str:
    """Return the text form of something registered; raises where there is no such thing."""
    registry.parse(kind, text)
    return text


def apply_change(content: dict[str, Any], change: str) -> None:
    """Make one change, "section.key=value" with the value in YAML, in nested mappings; raises `BadRecipe`."""
    name, equals, value = change.partition("=")
    *sections, key = name.strip().split(".")
    if not equals or not key or not all(sections):
        raise BadRecipe(f"cannot read the setting {change!r}; write section.key=value, for instance train.lr=1e-3")
    try:
        parsed = None if value.strip() == "none" and not key.endswith("_column") else yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise BadRecipe(f"cannot read the value of {change!r}: {' '.join(str(error).split())}") from error
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise BadRecipe(f"cannot set {name!r}: {section} is a value, not a section")
    content[key] = parsed


def problems(error: ValidationError, root: type[BaseModel]) -> Iterator[str]:
    """Yield one line for each thing that is wrong, with the key that was probably meant where one is unknown.

    The keys that there are in a place are listed once.
    """
    listed: set[tuple[str, ...]] = set()
    for problem in error.errors():
        places = [str(part) for part in problem["loc"]]
        *section, key = place = [part for i, part in enumerate(places) if part not in _kinds(root, places[:i])] or [""]
        name = f"{'.'.join(place)}: " if key else ""  # what does not fit together has no place
        if problem["type"] == "extra_forbidden":
            known = _fields(root, places[:-1])
            there = "" if tuple(section) in listed else f"; the keys there are: {', '.join(known)}"
            listed.add(tuple(section))
            yield f"{name}there is no such key{nearest(key, known)}{there}"
        elif problem["type"] == "value_error":  # ours: it says what was wrong and what to do
            yield f"{name}{problem['msg'].removeprefix('Value error, ')}"
        elif problem["type"] == "union_tag_invalid":
            yield f"{name}kind is {problem['ctx']['expected_tags'].replace(',', ' or')}, not {problem['ctx']['tag']!r}"
        else:
            message = problem["msg"]
            got = "" if problem["type"] == "missing" else f", not {problem['input']!r}"
            yield f"{name}{message[0].lower()}{message[1:]}{got}"


def _kinds(model: Any, place: Sequence[str]) -> list[str]:
    """Return the names by which kinds of a section are told apart in a place; none where there is one kind."""
    there = _sections_at(model, place)
    return [section.model_fields["kind"].default for section in there] if len(there) > 1 else []


def _fields(model: Any, place: Sequence[str]) -> list[str]:
    return sorted({name for section in _sections_at(model, place) for name in section.model_fields})


def _sections_at(model: Any, place: Sequence[str]) -> list[type[BaseModel]]:
    """Return the sections that can stand in a place: one, or several kinds of which the last part of it may name one."""
    for part in place:
        there = sections(model)
        named = [section for section in there if part in section.model_fields]
        model = (
            named[0].model_fields[part].annotation
            if named
            else next(section for section in there if section.model_fields["kind"].default == part)
        )
    return sections(model)


def sections(annotation: Any) -> list[type[BaseModel]]:
    """Return the sections that an annotation such as ``Section | None`` speaks of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in sections(part)]
