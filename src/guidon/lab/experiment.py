"""An experiment: a question about guidance in a world where the answer is known, and what it found."""

from __future__ import annotations

import inspect
import io
import itertools
import json
import os
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch

from guidon import __version__, registry
from guidon.checkpoints.atomic import write_bytes, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

T = TypeVar("T")
Row = Mapping[str, Any]
Track = Callable[[Sequence[T], str], Iterable[T]]


def quietly(parts: Sequence[T], what: str) -> Iterable[T]:
    """Go through the parts of a work without showing how far it is."""
    return parts


@dataclass(frozen=True)
class Findings:
    """What an experiment found.

    Args:
        sees: sentences that say it, with the numbers of this run; in Markdown.
        tables: rows by the name of their table; plain numbers, words and None.
        figures: by the end of their file's name; "" is the picture that stands for the experiment.
    """

    sees: Sequence[str]
    tables: Mapping[str, Sequence[Row]]
    figures: Mapping[str, Figure] = field(default_factory=dict)


class Experiment(ABC):
    """A question with a known answer; a frozen dataclass whose fields are its settings.

    Attributes:
        page: the place of its page among the others, from 1.
        title: of its page, a few words.
        asks: the question, one sentence.
        sources: keys of references.bib.

    The docstring of an experiment, after its first line and before its Args, is the text of its page in Markdown.
    """

    page: ClassVar[int]
    title: ClassVar[str]
    asks: ClassVar[str]
    sources: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def run(self, track: Track[Any] = quietly) -> Findings:
        """Do it.

        Args:
            track: goes through the parts of a long work and shows how far it is: ``for weight in track(weights, "weights")``.
        """

    @classmethod
    def text(cls) -> str:
        """Return what its page says before the findings, in Markdown."""
        body = (inspect.getdoc(cls) or "").partition("\n")[2]
        return body.partition("\nArgs:")[0].strip()


def write(folder: Path, experiment: Experiment, track: Track[Any] = quietly) -> dict[str, Any]:
    """Do an experiment, write ``NAME.json`` and its pictures into a folder, and return the account that the JSON holds.

    Where the folder has findings of the same name with other settings, the files are NAME-2.json and so on.
    """
    began = time.perf_counter()
    findings = experiment.run(track)
    path = _place(folder, experiment)
    pictures = {}
    for end, figure in findings.figures.items():
        pictures[end] = f"{path.stem}-{end}.png" if end else f"{path.stem}.png"
        stream = io.BytesIO()
        figure.savefig(stream, dpi=110)
        write_bytes(folder / pictures[end], stream.getvalue())
    account = {
        "experiment": registry.to_text(experiment),
        "title": experiment.title,
        "asks": experiment.asks,
        "command": f'guidon lab run "{registry.to_text(experiment)}"',
        "guidon": __version__,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "seconds": round(time.perf_counter() - began, 1),
        "files": [path.name, *pictures.values()],
        "pictures": list(pictures.values()),
        "sees": list(findings.sees),
        "tables": {key: [dict(row) for row in rows] for key, rows in findings.tables.items()},
    }
    write_text(path, json.dumps(account, indent=1, ensure_ascii=False) + "\n")
    return account


def done(folder: Path, experiment: Experiment) -> Path | None:
    """Return where a folder holds the findings of an experiment with these settings, made by this version; None where not."""
    path = _place(folder, experiment)
    return path if _account(path).get("guidon") == __version__ else None


def _place(folder: Path, experiment: Experiment) -> Path:
    """Return where findings with these settings are, or are to be: nothing found with others is overwritten."""
    name, text = name_of(experiment), registry.to_text(experiment)
    stems = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    paths = (folder / f"{stem}.json" for stem in stems)
    return next(path for path in paths if not path.exists() or _account(path).get("experiment") == text)


def _account(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def name_of(experiment: Experiment) -> str:
    """Return the name that an experiment is registered under."""
    return registry.to_text(experiment).partition("(")[0]
