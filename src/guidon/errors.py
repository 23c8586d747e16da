"""Every error guidon raises on purpose; each message says what was wrong and what to do about it.

GuidonError
├── BadValue              a value out of its range or of the wrong type
│   ├── UnknownName       a name that is not in the registry (lists what is)
│   ├── UnknownLabel      a class the model was not told about
│   ├── BadRecipe         a recipe that does not fit its schema
│   └── ShapeMismatch     tensors or images that cannot go together
├── DataError             a data set that cannot be read, or holds nothing to read
├── CheckpointError
│   ├── MissingFile       a folder without a file it must have
│   ├── DamagedCheckpoint a file that is cut short or not what it says
│   └── SaveFailed        a save that could not be finished (what was there before is untouched)
├── NotSupported          a rule, solver or network asked for something the other side does not offer
└── NumericalError        a NaN or infinity where a number should be

Where work goes on all the same, a `GuidonWarning` says what was left out.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GuidonWarning(UserWarning):
    """Something was left out and the rest was done; the command line prints it as a note."""


class GuidonError(Exception):
    """Base of all errors that guidon raises on purpose."""


class BadValue(GuidonError, ValueError):
    """A value is out of its range or of the wrong type."""


class UnknownName(BadValue):
    """A name is not among those that exist.

    Args:
        kind: what was looked up, for instance "solver".
        name: what was asked for.
        known: every name that exists.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        super().__init__(f"there is no {kind} {name!r}{nearest(name, self.known)}; there are: {', '.join(self.known)}")


class UnknownLabel(BadValue):
    """A class label is not one of the model's."""


class BadRecipe(BadValue):
    """A recipe does not fit its schema."""


class ShapeMismatch(BadValue):
    """Tensors or images have shapes that cannot go together."""


class DataError(GuidonError):
    """A data set cannot be read, or holds nothing that can be read."""


class CheckpointError(GuidonError):
    """A checkpoint cannot be read or written."""


class MissingFile(CheckpointError, FileNotFoundError):
    """A folder lacks a file that it must have."""


class DamagedCheckpoint(CheckpointError):
    """A checkpoint file is cut short or is not what it says it is."""


class SaveFailed(CheckpointError, OSError):
    """A save could not be finished; what was there before is untouched."""


class NotSupported(GuidonError):
    """One side asked for something that the other side does not offer."""


class NumericalError(GuidonError, ArithmeticError):
    """A NaN or an infinity stands where a number should be."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the first close name that begins so, or else the closest, or an empty string."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=len(names) or 1, cutoff=0.55)
    begun = [other for other in names if other in close and other.startswith(name)]
    return f" (did you mean {(begun or close)[0]!r}?)" if close else ""
