"""Members of the registry with values: one plain example of each, and a hypothesis strategy for many."""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from typing import Any

from hypothesis import strategies as st

from guidon.errors import BadValue
from guidon.noise import Flow
from guidon.noise.grids import Ends, Karras, Leading, Trailing
from guidon.noise.sde import VP
from guidon.registry import kinds, members
from guidon.solvers import DPM2, Churn, Euler, Heun

WORDS = {
    ("vp-table", "schedule"): ["linear", "scaled-linear", "cosine"],
    ("channels", "first"): [1],
    ("ddpm", "variance"): ["small", "large", "learned"],
    **{(name, "form"): ["midpoint", "heun"] for name in ("dpmpp-2m", "dpmpp-3m", "dpm-solver-2m", "dpmpp-2m-sde")},
    **{(name, "end"): ["clean", "lower"] for name in ("deis", "dpmpp-2m", "dpmpp-3m", "dpm-solver-2m", "dpmpp-2m-sde")},
    **{(name, "end"): ["lower", "full"] for name in ("dpmpp-singlestep", "unipc")},
    ("deis", "order"): [2, 1, 3],
    ("lms", "order"): [4, 1, 2, 3],
    ("lms", "through"): [False, True],
    ("dpmpp-singlestep", "order"): [2, 1, 3],
    ("unipc", "predictor"): [2, 1, 3],
    ("unipc", "variant"): ["bh2", "bh1"],
    ("unipc", "believes"): ["x0", "eps"],
    ("unipc", "corrector_from"): [0, None],
    ("ends", "at"): ["clean", "least", "last"],
    ("respaced", "spec"): ["", "ddim25", "10,15,20", "fast27"],
    ("classifier", "form"): ["eps", "mean"],
    ("classifier", "base"): ["null", "given"],
    **{
        (name, "space"): ["x0", "eps", "v", "velocity", "score"]
        for name in (
            "rescale",
            "apg",
            "cfg-zero",
            "tcfg",
            "mambo-g",
            "power-law",
            "fdg",
            "adaptive",
            "reuse",
            "linear-ag",
        )
    },
}
GRIDS = st.sampled_from([Karras(), Leading(1), Trailing(), Ends(Leading(spare=1), "least")])
RANGES = {
    **{(name, "grid"): GRIDS for name in ("aligned", "ends", "finite", "shifted")},  # not of all grids: they nest
    ("aligned", "at"): st.sampled_from([(0.3, 3.0), (1.5,)]),
    ("listed", "noise_levels"): st.sampled_from([(80.0, 10.0, 1.0), (math.inf, 0.25)]),
    ("churn", "solver"): st.sampled_from([Heun(), Euler(), DPM2()]),  # not of all solvers: they nest
    ("dpmpp-sde", "r"): st.floats(0.1, 1),
    ("heun", "alpha"): st.floats(0.1, 1),
    ("langevin", "size"): st.floats(0.01, 2),
    ("vp", "eps_s"): st.sampled_from([1e-4, 0.01]),
    ("vp", "t_min"): st.sampled_from([1e-4, 0.01]),
    ("vp-table", "steps"): st.integers(25, 60),
    ("vp-table", "beta_start"): st.sampled_from([0.0001, 0.002]),
    ("vp-table", "beta_end"): st.sampled_from([0.02, 0.3]),
    ("adaptive", "threshold"): st.floats(-1, 1),
    ("cads", "tau1"): st.floats(0, 0.6),
    ("cads", "tau2"): st.floats(0.61, 1),
    ("cads", "mixing"): st.floats(0, 1),
    ("fbg", "share"): st.floats(0.34, 1),
    ("fbg", "t0"): st.none() | st.floats(0, 0.99),
    ("fbg", "most"): st.floats(1.01, 50),
    ("threshold", "low"): st.sampled_from([-2.0, -1.0, 0.0]),
    ("dynamic-threshold", "percentile"): st.floats(0.01, 1),
    ("rescale", "mix"): st.floats(0, 1),
    ("apg", "momentum"): st.floats(-0.9, 0.9),
    ("fdg", "parallel"): st.none() | st.tuples(st.floats(0, 1), st.floats(0, 1)),
    ("fdg", "rescale"): st.none() | st.tuples(st.floats(0, 1), st.floats(0, 1)),
}
NUMBERS = st.floats(0.01, 50).map(lambda v: round(v, 3)) | st.integers(1, 40).map(float)


def dataclasses_of(kind: str) -> list[tuple[str, type]]:
    """Return the members of a kind that have a text form."""
    return [(name, member) for name, member in members(kind) if dataclasses.is_dataclass(member)]


def everything() -> list[tuple[str, str, type]]:
    """Return (kind, name, member) for all that has a text form."""
    return [(kind, name, member) for kind in kinds() for name, member in dataclasses_of(kind)]


def values(name: str, member: type) -> st.SearchStrategy[Any]:
    """Return a strategy for objects of a registered dataclass, with any of its fields left at their defaults."""
    hints, plan = typing.get_type_hints(member), {}
    for field in dataclasses.fields(member):
        if field.init:
            strategy = of_type(name, field.name, hints[field.name])
            has_default = field.default is not dataclasses.MISSING
            plan[field.name] = st.just(field.default) | strategy if has_default else strategy
    return st.fixed_dictionaries(plan).map(lambda kw: make(member, kw)).filter(lambda value: value is not None)


def make(member: type, kw: dict[str, Any]) -> Any:
    try:
        return member(**kw)
    except BadValue:
        return None


def of_type(name: str, field: str, hint: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for the values of a field."""
    if (name, field) in WORDS:
        return st.sampled_from(WORDS[name, field])
    if (name, field) in RANGES:
        return RANGES[name, field]
    if hint is float:
        return NUMBERS
    simple = {int: st.integers(1, 40), bool: st.booleans(), type(None): st.none(), str: st.text("ab -_|('", max_size=5)}
    if hint in simple:
        return simple[hint]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return st.one_of([of_type(name, field, part) for part in typing.get_args(hint)])
    if typing.get_origin(hint) is tuple:
        return st.lists(of_type(name, field, typing.get_args(hint)[0]), min_size=2, max_size=4).map(tuple)
    found = [(n, m) for _, n, m in everything() if isinstance(hint, type) and issubclass(m, hint)]
    assert found, f"tests/support/examples.py has no values for {name}.{field}: {hint}"
    return st.one_of([values(n, m) for n, m in found])


REQUIRED = {
    "channels": {"first": 1},  # of the two that the worlds of the laws have
    "aligned": {"grid": Karras(), "at": (1.5,)},
    "ends": {"grid": Karras()},
    "finite": {"grid": Trailing()},
    "listed": {"noise_levels": (12.0, 3.0, 0.5)},
    "cfg": {"weight": 3.0},
    **{
        name: {"weight": 3.0}
        for name in ("negative", "avoid", "two-scale", "perp-neg", "autoguidance", "pag", "seg", "slg")
    },
    **{name: {"weight": 3.0} for name in ("tsg", "icg", "internal")},
    "classifier": {"weight": 3.0, "folder": "judge"},  # a rule, and a network that metrics see with
    "dynamic-scale": {"weight": 3.0},
    "torchscript": {"file": "network.pt"},
    "cfgpp": {"weight": 0.6},
    "rectified-cfgpp": {"weight": 3.0},
    "conjunction": {"weights": (3.0, 2.0)},
    "fdg": {"weights": (4.0, 2.0)},
    "linear": {"first": 1.0, "last": 4.0},
    "cosine": {"first": 1.0, "last": 4.0},
    "clamp-linear": {"first": 1.0, "last": 4.0, "least": 2.0},
    "power": {"first": 1.0, "last": 4.0, "exponent": 2.0},
    "beta": {"peak": 4.0},
    "interval": {"low": 0.3, "high": 3.0},
}


def plain(name: str, member: type) -> Any:
    """Return one object of a registered dataclass, with its defaults."""
    missing = [f.name for f in dataclasses.fields(member) if f.init and f.default is f.default_factory]
    return member(**{field: REQUIRED[name][field] for field in missing}) if missing else member()


def solvers() -> list[Any]:
    """Return every solver that follows any rule at every evaluation, with its defaults and each other way that it knows."""
    found = [
        Euler(clock=VP()),
        Heun(clock=Flow()),
        Heun(alpha=0.5),
        Churn(noise=1.0),
        Churn(Euler(), amount=10.0, noise=1.0),
    ]
    for name, member in dataclasses_of("solver"):
        if member.particular or name in ("churn", "pcg"):  # type: ignore[attr-defined]
            continue
        usual = plain(name, member)
        found.append(usual)
        for (owner, field), words in WORDS.items():
            if owner == name:
                found += [
                    dataclasses.replace(usual, **{field: word}) for word in words if word != getattr(usual, field)
                ]
        if "eta" in {f.name for f in dataclasses.fields(member)}:
            found += [member(eta=eta) for eta in (0.0, 0.6, 1.0) if member(eta=eta) not in found]
    return found


def processes() -> list[Any]:
    """Return every registered process, and the tables under every schedule."""
    found = [plain(name, member) for name, member in dataclasses_of("process")]
    tables = dict(dataclasses_of("process"))["vp-table"]
    found += [
        tables(s, zero_snr=z)
        for s in WORDS["vp-table", "schedule"]
        for z in (False, True)
        if (s, z) != ("linear", False)
    ]
    return [*found, tables(steps=40, beta_start=0.002, beta_end=0.35, rescale_clock=True)]
