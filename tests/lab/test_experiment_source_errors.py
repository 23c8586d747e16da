"""Errors of two texts: the numbers that the reference prints, and closed forms of the wrong formulas."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
import torch

from guidon import registry
from guidon.errors import BadValue
from guidon.guidance.cfg import CFG
from guidon.lab.experiment import Findings
from guidon.lab.experiments.source_errors import SourceErrors
from guidon.lab.mixture import Exact, told
from guidon.lab.small_denoiser import SmallDenoiser
from guidon.lab.sources import texts
from guidon.lab.sources.item import TABLE, Number, line, run

BAR = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))


SMALL = SourceErrors(starts=200, training=200, networks=2)


@pytest.fixture(scope="module")
def findings() -> Findings:
    return SMALL.run()


@pytest.fixture(scope="module")
def items(findings: Findings) -> dict[int, list[Number]]:
    """Return the numbers of each error."""
    items: dict[int, list[Number]] = {}
    for item, *number in (row.values() for row in findings.tables["numbers"]):
        items.setdefault(item, []).append(Number(*number))
    return items


def found(numbers: list[Number]) -> dict[str, tuple[float | None, float | None]]:
    return {number.what: (number.source, number.right) for number in numbers}


def test_classifier_guidance_has_the_printed_numbers(items) -> None:
    for number in items[1][:5]:
        for value, printed in ((number.source, number.printed), (number.right, number.printed_right)):
            if printed is not None:
                assert value == pytest.approx(printed, abs=0.02)  # 200 quantiles
    numbers = found(items[1])
    assert numbers["gradient over the right one, 8 images of one class"] == (pytest.approx(8.0), 1.0)
    correlation = numbers["correlation with the right gradient, 4 images each of two classes"][0]
    assert correlation is not None and abs(correlation) < 0.9


def test_all_pairs_are_every_image_with_every_label() -> None:
    log_p = torch.tensor([[1.0, 10.0], [100.0, 1000.0]])
    assert texts.tutorial_picked(log_p, torch.tensor([0, 0])) == 2 * 101
    assert texts.tutorial_picked(log_p, torch.tensor([0, 1])) == 1111


def test_thresholding_the_noise_leaves_the_class(items) -> None:
    numbers = items[4]
    assert numbers[0].right == pytest.approx(0.47, abs=0.005)
    assert numbers[0].source == pytest.approx(4.46, abs=0.25)  # printed from samples with heavy tails
    assert numbers[0].source > numbers[1].source  # the larger batch has the farther quantiles
    assert numbers[2].source > 50 > 4 > numbers[2].right
    assert numbers[3].source > 0.3 and numbers[3].right == 0


def test_a_negative_prompt_has_the_printed_derivative(items) -> None:
    number = items[5][0]
    assert (number.source, number.right) == (number.printed, number.printed_right) == (2.5, 10.5)
    numbers = found(items[5])
    wrong, right = numbers["mean with the class at 1.5, the negative at 0.5"]
    without = numbers["mean without the negative"][1]
    assert wrong < without < right  # 0.5, from which it should move, lies below


def test_cfgpp_knows_no_units_and_is_ddim_with_another_weight(items) -> None:
    numbers = found(items[6])
    one, tenth = numbers["mean over the unit, unit 1"], numbers["mean over the unit, unit 0.1"]
    assert one[1] == pytest.approx(tenth[1], rel=1e-9)
    assert abs(one[0] - tenth[0]) > 0.3
    identity = numbers["largest difference of a step from DDIM's with w = λ / (1 − e^−h), λ = 0.6"]
    assert identity[1] < 1e-13 < 0.1 < identity[0]


def test_the_denoising_step_has_its_closed_recursion(items) -> None:
    """Under N(0, 1) the belief is sqrt(abar) x, so a step takes the variance v to abar^2 v + 1 - abar."""
    numbers = items[7]
    for number, times in (
        (numbers[0], range(999, 0, -1)),
        (numbers[2], np.linspace(999, 0, 50).round()[:-1].astype(int)),
    ):
        v = 1.0
        for t in times:
            v = BAR[t] ** 2 * v + 1 - BAR[t]
        assert number.source == pytest.approx(v, rel=1e-10)
    for number in numbers[:3]:
        assert number.source == pytest.approx(number.printed, abs=0.002)
    # DDIM takes x to (a a' + s s') x; as many steps as its rival, the last to the clean image
    for number, times in (
        (numbers[1], range(999, -1, -1)),
        (numbers[2], np.linspace(999, 0, 50).round().astype(int)),
        (numbers[3], np.linspace(999, -1, 50).round()[:-1].astype(int)),
    ):
        angle = [math.acos(math.sqrt(BAR[t])) for t in times] + [0.0]
        gain = math.prod(math.cos(a - b) for a, b in itertools.pairwise(angle))
        assert number.right == pytest.approx(gain**2, rel=1e-9)
    assert f"{numbers[1].right:.3f} {numbers[2].right:.3f} {numbers[3].right:.3f}" == "0.996 0.928 0.927"
    assert numbers[2].printed_right is None and numbers[3].printed_right == 0.927


def test_the_progressive_schedule(items) -> None:
    for number in items[8]:
        assert number.source == pytest.approx(number.printed, abs=5e-6)
    weights = texts.tutorial_schedule(1000)
    assert bool((weights.diff() > 0).all())  # more weight where it is noisier
    assert number.right == pytest.approx(number.printed_right, abs=0.001)


def test_the_layers(items) -> None:
    numbers = found(items[9])
    assert numbers["scales for 8 channels"] == (16, 8)
    assert numbers["conditions of width d that run, of 1"] == (0, 1)
    assert numbers["conditions of width 2d that run, of 1"] == (0, None)
    assert numbers["change of the features at the start of training"] == (None, 0)
    for wrong, right in found(items[10]).values():
        assert right < 1e-12 < 0.01 < wrong


def test_heads_of_the_tutorial_change_nothing() -> None:
    blocks = []
    for heads in (1, 8):
        torch.manual_seed(0)
        blocks.append(texts.TutorialCrossAttention(16, 6, heads))
    x, tokens = torch.ones(1, 4, 16), torch.arange(18.0).reshape(1, 3, 6)
    assert torch.equal(blocks[0](x, tokens), blocks[1](x, tokens))


def test_bayes_needs_no_expansion(items) -> None:
    number, difference = items[11]
    assert 0 < number.right < number.printed_right < 1 < difference.right


def test_what_a_weight_counts_from(items) -> None:
    assert [(n.source, n.right) for n in items[12]] == [(1, 0), (2, 1)]


def test_the_blogs_ddim_and_its_score(items) -> None:
    mean, variance, conditional, powered = items[13]
    alpha = 1 - np.append(0.0, np.linspace(1e-4, 0.02, 1000))  # from the clean image up
    m, v = 0.0, 1.0  # of x; eps = s (x - 2 a) / (a^2 / 4 + s^2) at the level of the table
    for t in range(999, -1, -1):
        a, s = math.sqrt(BAR[t]), math.sqrt(1 - BAR[t])
        total = a * a / 4 + s * s
        there = math.sqrt(alpha[t] / alpha[t + 1]), math.sqrt(1 - alpha[t])
        eps = there[1] - there[0] * math.sqrt(1 - alpha[t + 1])  # what eps is multiplied with
        gain = there[0] + eps * s / total
        m, v = gain * m - eps * 2 * a * s / total, gain**2 * v
    assert (mean.source, variance.source) == (pytest.approx(m, rel=1e-9), pytest.approx(v, rel=1e-9))
    assert (mean.right, variance.right) == (pytest.approx(2, abs=0.01), pytest.approx(0.25, abs=0.002))
    assert conditional.right == pytest.approx(conditional.printed_right, abs=0.001)
    assert conditional.source == pytest.approx(conditional.printed, abs=0.002)
    assert powered.source == pytest.approx(1 / (3 / 1 - 2 / 2))  # precision 3 / 1 - 2 / 2


def test_lost_lines(items) -> None:
    rate, runs, text = items[14]
    assert rate.source == 0 and rate.right == pytest.approx(0.1, abs=0.01)
    assert (runs.source, runs.right) == (0, None)
    assert text.source is None and text.right > 0.1  # the text's is so by construction
    assert texts.blog_caption([1], [], 1.0, random.Random(0)) == [1]


def test_training_on_another_noise_is_stuck_at_one(items) -> None:
    ended, least = items[2]
    assert ended.source == pytest.approx(1.0, abs=0.05) and ended.right < 0.3
    assert least.source == pytest.approx(1.0, abs=2e-4) and 0.18 < least.right < 0.19 < ended.right


def test_zeros_are_another_condition_than_the_null(items) -> None:
    network = SmallDenoiser(2).double().requires_grad_(False)
    x, at = torch.ones(1, 1, dtype=torch.float64), TABLE.level(400.0)
    told_null, given = told([-1])["given"], told([1])["given"]
    own, of_class = (network(x, at, context).eps for context in (told_null, given))
    network.zero_null = True
    assert not torch.allclose(network(x, at, told_null).eps, own)
    assert torch.equal(network(x, at, given).eps, of_class)
    error, share, mean, spread = (items[3][i : i + 3] for i in range(0, 12, 3))
    for part in (error, share, mean, spread):
        average, least, most = part
        assert least.source < average.source < most.source and least.right < average.right < most.right
        assert average.source == pytest.approx((least.source + most.source) / 2)  # of two networks
    assert error[0].source > error[0].right
    assert abs(share[0].source - 0.5) > abs(share[0].right - 0.5)
    assert "2.182" in mean[0].what and "0.375" in spread[0].what  # of exact beliefs


def test_beliefs_of_one_gaussian() -> None:
    """Under N(0, 1) the noise is sigma x."""
    one = line((0.0,), 1.0)
    level = TABLE.level(300.0)
    x = torch.ones(1, 1, dtype=torch.float64)
    assert one.believe(x, level.alpha, level.sigma, torch.zeros(1))[1].item() == pytest.approx(level.sigma)


def test_runs_begin_at_even_quantiles() -> None:
    ends = run({"main": Exact(line((0.0,), 1.0))}, CFG(1.0), [TABLE.level(999.0), TABLE.level(998.0)], 3)
    assert ends.tolist() == pytest.approx([-0.9674, 0, 0.9674], abs=1e-3)


def test_rows_and_sentences_say_the_numbers(findings, items) -> None:
    assert [row["item"] for row in findings.tables["errors"]] == list(range(1, 15))
    row = findings.tables["errors"][0]
    assert f"share in the class: {items[1][0].source:.3f}" in row["gives"] and row["reference"].startswith("0.197 / 1")
    assert "moves towards the negative class" in findings.sees[4]
    assert f"{items[1][0].source:.1%}" in findings.sees[0]
    assert set(findings.figures) == {"", "training"}


def test_text_form() -> None:
    assert registry.parse("experiment", registry.to_text(SMALL)) == SMALL
    with pytest.raises(BadValue, match="two starts"):
        SourceErrors(starts=1)
    with pytest.raises(BadValue, match="a network or more"):
        SourceErrors(networks=0)
