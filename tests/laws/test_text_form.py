"""Law 6: text form -> object -> text form is the identity; what does not exist is refused with what does."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.examples import everything, plain, values

from guidon.errors import BadValue, UnknownName
from guidon.guidance import CFG, CosineWeight, Interval, LinearWeight
from guidon.noise.grids import Respaced
from guidon.registry import kinds, lookup, names, parse, register, to_text
from guidon.solvers import DDIM

MEMBERS = everything()
IDS = [f"{kind}-{name}" for kind, name, _ in MEMBERS]


@pytest.mark.parametrize(("kind", "name", "member"), MEMBERS, ids=IDS)
def test_round_trip(kind: str, name: str, member: type) -> None:
    assert lookup(kind, name) is member
    assert parse(kind, to_text(plain(name, member))) == plain(name, member)

    @given(st.data())
    def always(data: st.DataObject) -> None:
        value = data.draw(values(name, member))
        text = to_text(value)
        assert parse(kind, text) == value
        assert to_text(parse(kind, text)) == text

    always()


@pytest.mark.parametrize(("kind", "name", "member"), MEMBERS, ids=IDS)
def test_refused(kind: str, name: str, member: type) -> None:
    with pytest.raises(UnknownName) as unknown:
        parse(kind, f"{name}x")
    assert f"did you mean {name!r}" in str(unknown.value) or name in str(unknown.value)
    assert all(known in str(unknown.value) for known in names(kind))
    with pytest.raises(BadValue, match="takes no 'nonsense'"):
        parse(kind, f"{name}(nonsense=1)")
    with pytest.raises(BadValue, match="takes"):
        parse(kind, f"{name}({', '.join('1' * 30)})")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("rule", "cfg(4, when=interval(0.3, 3))", CFG(4.0, when=Interval(0.3, 3))),
        ("rule", "cfg(4, when=interval(0.3))", CFG(4.0, when=Interval(0.3, math.inf))),
        ("rule", "cfg(linear(1, 4))", CFG(LinearWeight(1, 4))),
        ("rule", "cfg([1, 2.5])", CFG((1.0, 2.5))),
        ("rule", " cfg( weight = -1 ) ", CFG(-1.0)),
        ("solver", "ddim", DDIM()),
        ("solver", "ddim()", DDIM()),
        ("solver", "ddim(eta=0.5)", DDIM(0.5)),
        ("grid", "respaced('10,15,20')", Respaced("10,15,20")),
        ("grid", "respaced('a-b c-d')", Respaced("a-b c-d")),
        ("grid", 'respaced("it\'s a-b")', Respaced("it's a-b")),
        ("rule", "cfg(cosine(1, 4))", CFG(CosineWeight(1, 4))),  # there is a process cosine too
    ],
)
def test_read(kind: str, text: str, value: Any) -> None:
    assert parse(kind, text) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("rule", "cfg(abc)"),
        ("rule", "cfg('abc')"),
        ("rule", "cfg(inf)"),
        ("rule", "cfg"),
        ("rule", "cfg(4"),
        ("rule", "4"),
        ("rule", ""),
        ("rule", "cfg(4, when=3)"),
        ("rule", "cfg(4).weight"),
        ("rule", "cfg(4) | 3"),
        ("rule", "cfg(4) | euler"),
        ("rule", "cfg(none)"),
        ("rule", "cfg([])"),
        ("rule", "cfg(euler)"),
        ("rule", "cfg(**{})"),
        ("rule", "cfg(4, 4, weight=4)"),
        ("rule", "__import__('os')"),
        ("when", "interval(3, 0.3)"),
        ("solver", "ddim(eta=2)"),
        ("solver", "ddim('x')"),
        ("solver", "ddpm('huge')"),
        ("solver", "cfg(4)"),
        ("process", "vp-table('square')"),
        ("process", "vp-table(steps=0)"),
        ("process", "vp-table(steps='many')"),
        ("process", "vp-table(steps=2.5)"),
        ("process", "edm(sigma_min=3, sigma_max=2)"),
        ("process", "edm(sigma_min=none)"),
        ("process", "cosine(max_log_snr=-1)"),
        ("output", "edm(0)"),
        ("grid", "karras(rho=0)"),
        ("grid", "karras(rho='seven')"),
        ("weight", "linear('a', 'b')"),
        ("nonsense", "x"),
    ],
)
def test_bad_text(kind: str, text: str) -> None:
    with pytest.raises(BadValue) as refused:
        parse(kind, text)
    assert len(str(refused.value)) > 20


def test_names_are_taken_once() -> None:
    with pytest.raises(BadValue, match="two members"):
        register("solver", "ddim")(object())
    assert {"rule", "solver", "grid", "process", "output"} <= set(kinds())
