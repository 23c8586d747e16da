"""The experiments of the lab, one a file; every file of this folder is found by itself."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Sequence

from guidon import registry
from guidon.errors import BadValue
from guidon.lab.experiment import Experiment


def experiments() -> list[tuple[str, type[Experiment]]]:
    """Return every experiment by name, in the order of their pages."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return sorted(registry.members("experiment"), key=lambda found: found[1].page)


def chosen(names: Sequence[str], data: str | None = None) -> list[Experiment]:
    """Return the experiments that names stand for.

    Args:
        names: text forms such as "orders" or "fields(rule='apg')"; "all" for every one.
        data: images for those that look at some.

    Raises:
        UnknownName: there is no such experiment.
        BadValue: data for experiments none of which looks at images.
    """
    known = experiments()
    wanted = [n for name in names for n in ([k for k, _ in known] if name == "all" else [name])]
    found: list[Experiment] = [registry.parse("experiment", text) for text in wanted]
    if data is None:
        return found
    if not any(hasattr(experiment, "data") for experiment in found):
        raise BadValue(f"no experiment among {', '.join(names)} looks at images; leave the data out")
    return [
        dataclasses.replace(experiment, data=data) if hasattr(experiment, "data") else experiment  # type: ignore[type-var]
        for experiment in found
    ]
