"""Rules and stages in a row, against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from support.numbers import agree
from torch import Tensor

from guidon.errors import BadValue
from guidon.guidance import (
    APG,
    CADS,
    CFG,
    GIVEN,
    NULL,
    PAG,
    Adaptive,
    Autoguidance,
    Branch,
    CFGpp,
    CFGZero,
    Chain,
    ClassifierGuidance,
    Conjunction,
    DynamicScale,
    Guided,
    Internal,
    Moment,
    Negative,
    RectifiedCFGpp,
    Rescale,
    Reuse,
    Rule,
)
from guidon.guidance.contrast import Pull
from guidon.guidance.rule import Predictions, State
from guidon.guidance.stage import Relay, Reshape, Shape
from guidon.noise import Level, Prediction

HERE = Level(0.5, 0.8, 0.6)
AT = Moment(HERE, Level(0.4, 0.9, 0.4))
NEGATIVE, WEAK, ALSO = Branch("negative"), Branch("given", "weak"), Branch("also")


@dataclass(frozen=True)
class Shift(Shape):
    """Moves what one steers away from, and counts how often."""

    by: float = 1.0

    def init(self) -> State:
        return 0

    def shape(self, pull: Pull, at: Moment, state: State) -> tuple[Prediction, State]:
        away = pull.away
        return replace(away, x0=away.x0 + self.by, eps=away.eps + 10 * self.by), state + 1


@dataclass(frozen=True)
class Lift(Reshape):
    """Adds a part of the given belief to what is guided, keeps what it saw, and counts how often."""

    part: float = 0.5
    seen: list[Prediction] = field(default_factory=list, compare=False)

    def init(self) -> State:
        return 100

    def reshape(self, guided: Prediction, given: Prediction, at: Moment, state: State) -> tuple[Prediction, State]:
        self.seen.append(guided)
        moved = replace(guided, x0=guided.x0 + self.part * given.x0, eps=guided.eps + self.part * given.eps)
        return moved, state + 1


@dataclass(frozen=True)
class Instead(Relay):
    """Asks one branch in place of another, for some images."""

    wanted: Branch
    asked: Branch
    images: tuple[int, ...] | None = None

    def init(self) -> State:
        return 0

    def ask(self, wanted: tuple[Branch, ...], at: Moment, state: State) -> tuple[Branch, ...]:
        return tuple(self.asked if branch == self.wanted else branch for branch in wanted)

    def rows(self, branch: Branch, wanted: tuple[Branch, ...], at: Moment, state: State) -> tuple[int, ...] | None:
        return self.images if branch == self.asked and self.wanted in wanted else None

    def answer(
        self, wanted: tuple[Branch, ...], predictions: Predictions, at: Moment, state: State
    ) -> tuple[Predictions, State]:
        return {b: predictions[self.asked if b == self.wanted else b] for b in wanted}, state + 1


@dataclass(frozen=True)
class Remembering(Rule):
    """Asks another branch once it remembers something."""

    def init(self) -> State:
        return "nothing"

    def branches(self, at: Moment, state: State) -> tuple[Branch, ...]:
        return (NULL,) if state == "something" else (GIVEN,)

    def combine(self, predictions: Predictions, at: Moment, state: State) -> tuple[Guided, State]:
        return Guided.plain(predictions[self.branches(at, state)[0]]), "something"


# clean image, noise and claimed variance of every branch; they need not fit together
TOLD = {
    GIVEN: (5, -1, 0.1),
    NULL: (1, 2, 0.2),
    NEGATIVE: (2, 4, 0.3),
    WEAK: (4, -3, 0.4),
    ALSO: (3, 6, 0.5),
    Branch("given", "classifier", gradient=True): (0, 3, 0.6),
}


def beliefs(*branches: Branch, images: int = 1) -> dict[Branch, Prediction]:
    def all_of(value: float) -> Tensor:
        return torch.full((images, 3), float(value), dtype=torch.float64)

    return {b: Prediction(all_of(1.0), HERE, *(all_of(v) for v in TOLD[b])) for b in branches}


def guide(rule: Rule, images: int = 1, state: Any = None) -> tuple[list[float], list[float], Guided, Any]:
    """Return clean image and noise of each image, that are the same all over it, and all that a rule told."""
    state = rule.init() if state is None else state
    guided, after = rule.combine(beliefs(*rule.branches(AT, state), images=images), AT, state)
    assert guided.x0.shape == guided.eps.shape == (images, 3)
    for view in (guided.x0, guided.eps):
        agree(view, view[:, :1].expand(images, 3), "an image")
    return guided.x0[:, 0].tolist(), guided.eps[:, 0].tolist(), guided, after


CFG3 = Conjunction((3.0,))  # the same as cfg(3), but no contrast
BY_HAND = [
    # contrasts add w - 1 times their difference
    (CFG(3.0), 13, -7),
    (CFG(3.0) | Negative(2.0), 16, -12),
    (CFG(3.0) | Negative(2.0) | Autoguidance(4.0), 19, -6),
    (CFG(1.0) | Negative(2.0), 8, -6),
    (CFG(3.0) | Negative(1.0), 13, -7),
    (CFG(3.0) | Negative(0.0), 10, -2),
    (CFG(0.0) | Negative(2.0), 4, -3),
    (CFG3 | Negative(2.0), 16, -12),
    (CFG3 | Negative(0.0), 10, -2),
    # a shape changes every difference left of it: 5 + 2 (5 - 1 - 1), and another 5 - 2 - 1
    (CFG(3.0) | Shift(), 11, -27),
    (CFG(3.0) | Shift() | Shift(), 9, -47),
    (CFG(3.0) | Negative(2.0) | Shift(), 13, -42),
    (CFG(3.0) | Shift() | Negative(2.0), 14, -32),
    (CFG3 | Negative(2.0) | Shift(), 15, -22),
    (CFG3 | Negative(2.0) | Autoguidance(4.0) | Shift(), 15, -46),
    (CFG(1.0) | Shift(), 5, -1),
    (CFG(1.0) | Negative(2.0) | Shift(), 7, -16),
    # images of weight 0 are the other branch; what is added at weight 0 is a difference like any other
    (CFG(0.0) | Shift(), 1, 2),
    (CFG(3.0) | Negative(0.0) | Shift(), 9, -12),
    # a reshape acts on what stands left of it, and a shape right of it on what comes then
    (CFG(3.0) | Lift(), 15.5, -7.5),
    (CFG(3.0) | Lift() | Lift(), 18, -8),
    (CFG(3.0) | Lift() | Negative(2.0), 18.5, -12.5),
    (CFG(3.0) | Negative(2.0) | Lift(), 18.5, -12.5),
    (CFG(3.0) | Lift() | Negative(2.0) | Shift(), 17.5, -22.5),
    (CFG(3.0) | Shift() | Lift(), 13.5, -27.5),
    (CFG(0.0) | Lift(), 1.5, 3),
    (CFG(1.0) | Lift(), 7.5, -1.5),
    (CFG3 | Lift(), 15.5, -7.5),
    # a relay changes what is asked
    (CFG(3.0) | Instead(NULL, NEGATIVE), 11, -11),
    (CFG(3.0) | Instead(NULL, NEGATIVE) | Instead(NEGATIVE, ALSO), 9, -15),
    (CFG(3.0) | Instead(NULL, NEGATIVE) | Negative(2.0) | Shift(), 11, -46),
    (CFG3 | Instead(NULL, ALSO) | Lift(), 11.5, -15.5),
]


@pytest.mark.parametrize(("rule", "x0", "eps"), BY_HAND, ids=[str(i) for i in range(len(BY_HAND))])
def test_by_hand(rule: Rule, x0: float, eps: float) -> None:
    clean, noise, guided, _ = guide(rule)
    assert clean == pytest.approx([x0])
    assert noise == pytest.approx([eps])
    # the variance is that of the given branch, of another one where that is not asked
    first = next(b for b in (GIVEN, NULL) if b in rule.branches(AT, rule.init()))
    assert guided.variance_fraction is not None
    weight = getattr(rule.links[0] if isinstance(rule, Chain) else rule, "weight", None)
    assert guided.variance_fraction[0, 0] == TOLD[NULL if weight == 0 else first][2]


def test_weights_of_each_image() -> None:
    for rule, x0, eps in (
        (CFG((0.0, 3.0)) | Negative(2.0), [4, 16], [-3, -12]),
        (CFG((0.0, 3.0)) | Shift(), [1, 11], [2, -27]),
        (CFG((1.0, 3.0)) | Shift(), [5, 11], [-1, -27]),
        (CFG((2.0, 3.0)) | Shift(), [8, 11], [-14, -27]),
        (CFG(3.0) | Negative((0.0, 2.0)) | Shift(), [9, 13], [-12, -42]),
        (CFG(1.0) | Negative((0.0, 3.0)) | Shift(), [3, 9], [14, -31]),
        (CFG((0.0, 3.0)) | Lift(), [1.5, 15.5], [3, -7.5]),  # of its own belief
        (DynamicScale((0.0, 3.0), base=1 + 1e-6) | Shift(), [1, 11], [2, -27]),  # |x| is 1
        (CFG((1e-60, 3.0)) | Shift(), [2, 11], [12, -27]),  # next to nothing is not nothing
    ):
        clean, noise, guided, _ = guide(rule, images=2)
        assert clean == pytest.approx(x0), rule
        assert noise == pytest.approx(eps), rule
        assert guided.variance_fraction is not None
        zero = 0.0 in rule.links[0].weight if isinstance(rule.links[0].weight, tuple) else False  # type: ignore[union-attr]
        assert guided.variance_fraction[:, 0].tolist() == [0.2 if zero else 0.1, 0.1], rule


def test_a_weight_next_to_nothing_is_not_0_in_half_precision() -> None:
    told = {
        b: Prediction(p.x.half(), HERE, p.x0.half(), p.eps.half()) for b, p in beliefs(GIVEN, NULL, images=2).items()
    }
    rule = CFG((1e-30, 3.0)) | Shift()
    guided, _ = rule.combine(told, AT, rule.init())
    assert guided.x0[:, 0].tolist() == [2, 11]


def test_cfgpp_counts_from_the_null_branch() -> None:
    """1 + 0.5 (5 - 1), and 1 + 0.5 (5 - 1 - 1) where it is shaped; the noise is that of null at the end."""
    for rule, x0, within in (
        (CFGpp(0.5) | Lift(0.0), 3, 0.5),
        (CFGpp(0.5) | Shift() | Lift(0.0), 2.5, -4.5),
        (CFGpp(0.5) | Lift(), 5.5, 0.5),
    ):
        clean, noise, guided, _ = guide(rule)
        assert clean == pytest.approx([x0])
        assert noise == [2]
        assert guided.noise_x0 is not None
        assert guided.noise_x0[0, 0] == 1
        (seen,) = rule.links[-1].seen  # type: ignore[union-attr]
        agree(seen.eps, torch.full_like(seen.eps, within), "noise before the end")
        assert seen.variance_fraction is not None
        assert seen.variance_fraction[0, 0] == 0.1


def test_what_a_reshape_is_told() -> None:
    for rule, variance in (
        (CFG(3.0), 0.1),
        (CFG(0.0), 0.2),
        (Negative(0.0), 0.3),
        (Conjunction((3.0, 1.0)), 0.1),
        (ClassifierGuidance(2.0), 0.2),
        (ClassifierGuidance(2.0) | CFG(2.0), 0.2),
        (ClassifierGuidance(2.0) | Lift() | CFG(2.0), 0.2),
    ):
        chain = rule | Shift() | Lift() if isinstance(rule, CFG) else rule | Lift()
        guide(chain)
        looks = [link.seen for link in chain.links if isinstance(link, Lift)]
        assert looks
        for (seen,) in looks:
            assert seen.level is HERE
            assert seen.x[0, 0] == 1
            assert seen.variance_fraction is not None
            assert seen.variance_fraction[0, 0] == variance


@pytest.mark.parametrize("rule", [CFG(3.0), CFG3, Conjunction((0.0, 2.0)), Conjunction((0.0, 0.0)), CFG(0.0)])
def test_a_chain_leaves_the_variance_of_its_rule(rule: Rule) -> None:
    alone, chained = guide(rule)[2], guide(rule | Lift(0.0))[2]
    agree(chained.x0, alone.x0, "x0")
    assert alone.variance_fraction is not None
    assert chained.variance_fraction is not None
    agree(chained.variance_fraction, alone.variance_fraction, "variance")


def test_every_link_has_a_state_of_its_own_and_a_shape_one_for_each_difference() -> None:
    rule = CFG(3.0) | Shift() | Lift() | Negative(1.0) | Autoguidance(2.0) | Shift() | Instead(NULL, NEGATIVE)
    before = rule.init()
    assert before == (None, (0,), 100, None, None, (0, 0, 0), 0)
    # what is reshaped already and what is neutral has no difference left
    assert guide(rule)[3] == (None, (1,), 101, None, None, (0, 0, 1), 1)
    later = guide(rule, state=(None, (4,), 200, None, None, (5, 6, 7), 50))[3]
    assert later == (None, (5,), 201, None, None, (5, 6, 8), 51)
    weighted = CFG(0.0) | Negative(2.0) | Shift()
    assert guide(weighted)[3] == (None, None, (0, 1)), "no difference to shape at weight 0"


def test_the_first_is_told_its_own_state() -> None:
    rule = Remembering() | Lift()
    assert rule.branches(AT, rule.init()) == (GIVEN,)
    x0, _, _, after = guide(rule)
    assert x0 == [7.5]
    assert after == ("something", 101)
    assert rule.branches(AT, after) == (NULL,)
    assert guide(rule, state=after)[0] == [1.5]


def test_asks_each_branch_once() -> None:
    for rule, asked in (
        (CFG(3.0) | Negative(2.0) | CFG(2.0), (GIVEN, NULL, NEGATIVE)),
        (CFG(1.0) | Negative(2.0), (GIVEN, NEGATIVE)),
        (CFG(0.0) | Negative(1.0), (NULL,)),
        (CFG(0.0) | Negative(0.0), (NULL, GIVEN, NEGATIVE)),
        (CFG(3.0) | Negative(1.0), (GIVEN, NULL)),
        (CFG(3.0) | Negative(2.0) | Instead(NULL, NEGATIVE), (GIVEN, NEGATIVE, NEGATIVE)),
        (CFG(3.0) | Instead(NULL, ALSO) | Lift() | Instead(ALSO, WEAK), (GIVEN, WEAK)),
    ):
        assert rule.branches(AT, rule.init()) == asked


def test_images_are_asked_about_where_every_relay_wants_them() -> None:
    rule = CFG(3.0) | Lift()
    assert rule.rows(NULL, AT, rule.init()) is None
    rule = CFG(3.0) | Instead(NULL, ALSO, (3, 1, 2))
    assert rule.rows(ALSO, AT, rule.init()) == (1, 2, 3)
    assert rule.rows(GIVEN, AT, rule.init()) is None
    both = CFG(3.0) | Instead(NULL, ALSO, (0, 1, 2)) | Instead(ALSO, ALSO, (1, 2, 3))
    assert both.rows(ALSO, AT, both.init()) == (1, 2)


def test_stands_for_its_first_rule() -> None:
    assert (CFGpp(0.5) | Lift()).only_with == CFGpp.only_with
    assert (CFG(2.0) | Lift()).only_with == ()
    drift = ClassifierGuidance(2.0, form="mean") | Lift()
    assert drift.only_with == ("ddpm",)


def test_a_shape_needs_a_difference_right_of_the_last_reshape() -> None:
    for rule in (
        CFG(3.0) | APG(),
        CFG(3.0) | Rescale() | PAG(2.0) | APG(),
        CFG(3.0) | Rescale() | PAG(2.0) | Rescale() | Negative(2.0) | APG(),
        CFG3 | PAG(2.0) | APG(),
    ):
        assert isinstance(rule, Chain)
    for rule in (
        CFG(3.0) | Rescale(),
        CFG(3.0) | PAG(2.0) | Rescale(),
        CFG(3.0) | Rescale() | PAG(2.0) | Rescale(),
        CFG3,
    ):
        with pytest.raises(BadValue, match="none of that form"):
            rule | APG()


def test_what_cannot_be_chained() -> None:
    with pytest.raises(BadValue, match="stage: it stands right of a rule"):
        Chain((Rescale(), CFG(3.0)))
    with pytest.raises(BadValue, match="let it stand first"):
        CFG(3.0) | Conjunction((2.0,))
    with pytest.raises(BadValue, match="let it stand first"):
        CFG(3.0) | CFGpp(0.5)
    for first, stage in ((CFGpp(0.5), CFGZero()), (RectifiedCFGpp(3.0), CFGZero()), (RectifiedCFGpp(3.0), CADS())):
        with pytest.raises(BadValue, match="cannot follow"):
            first | stage
    assert isinstance(CFGpp(0.5) | CADS(), Chain)
    with pytest.raises(BadValue, match="none that could be saved"):
        Internal(2.0) | Reuse(2)
    with pytest.raises(BadValue, match="none that could be saved"):
        ClassifierGuidance(2.0) | Reuse(2)
    assert isinstance(Internal(2.0) | CFG(2.0) | Reuse(2), Chain)
    with pytest.raises(TypeError):
        CFG(3.0) | 2  # type: ignore[operator]


def test_what_saves_evaluations_does_not_invent_images_of_weight_0() -> None:
    for rule in (
        CFG((0.0, 3.0)) | Adaptive(),
        CFG((0.0, 3.0)) | CADS() | Adaptive(),
        CFG(0.0) | PAG(2.0) | Adaptive(),
        Conjunction(((0.0, 3.0),)) | Reuse(),
        DynamicScale((0.0, 3.0)) | Reuse(),
    ):
        with pytest.raises(BadValue, match="an image of weight 0 consists of"):
            rule.branches(AT, rule.init())
    for rule in (CFG(0.0) | Adaptive(), CFG((1.0, 3.0)) | Adaptive(), CFG((0.0, 3.0)) | CADS()):
        assert rule.branches(AT, rule.init())
