"""Guidance of whole models: further conditions, weak networks, classifiers, perturbations of real layers, traces."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_model import TINY, tiny
from torch import Tensor

import guidon
from guidon.errors import BadValue, GuidonError, NotSupported, ShapeMismatch, UnknownLabel
from guidon.guidance import CFG, Autoguidance, Internal
from guidon.model import Model
from guidon.noise import Level
from guidon.registry import members

STEPS = 4


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny(architecture=TINY | {"inner_head": True})


def classifier(x: Tensor, level: Level, ids: Tensor) -> Tensor:
    return -((x - ids.to(x).reshape(-1, 1, 1, 1) / 3) ** 2).flatten(1).mean(1)


def needs(model: Model, name: str) -> dict[str, Any]:
    return {
        "negative": {"negative": "dog"},
        "avoid": {"negative": "dog"},
        "perp-neg": {"negative": "dog"},
        "conjunction": {"also": "emu"},
        "two-scale": {"partial": "emu"},
        "autoguidance": {"weak": model.degraded(0.5)},
        "classifier": {"classifier": classifier},
    }.get(name, {})


# text forms of the rules that need values
FORMS = {"conjunction": "conjunction([2, 1])", "fdg": "fdg([3, 2])", "fbg": "fbg"}


@pytest.mark.parametrize("name", [name for name, _ in members("rule")])
def test_every_rule_runs_on_a_real_network_and_an_image_is_its_own(model: Model, name: str) -> None:
    rule = FORMS.get(name, f"{name}(3)")
    solver = "rectified" if name == "rectified-cfgpp" else "euler"

    def run(labels: Any, seed: Any, **more: Any) -> Tensor:
        return model.sample(labels, rule=rule, solver=solver, steps=STEPS, seed=seed, **needs(model, name), **more).x

    together = run(["cat", "dog", "cat"], [3, 4, 5])
    assert not torch.allclose(
        together, model.sample(["cat", "dog", "cat"], rule=1, solver="euler", steps=STEPS, seed=[3, 4, 5]).x
    )
    for other in (
        run(["cat", "dog", "cat"], [3, 4, 5], batching="sequential"),
        run(["cat", "dog", "cat"], [3, 4, 5], max_batch=2),
        torch.cat([run("cat", 3), run("dog", 4), run("cat", 5)]),
    ):
        assert torch.allclose(together, other, atol=1e-5 * together.abs().max().item())


@pytest.mark.parametrize("name", [name for name, _ in members("stage") if name != "channels"])  # these have but one
def test_every_stage_runs_on_a_real_network(model: Model, name: str) -> None:
    plainly = model.sample(["cat", "dog"], rule="cfg(6)", steps=6).x
    x = model.sample(["cat", "dog"], rule=f"cfg(6) | {name}", steps=6).x
    assert torch.isfinite(x).all() and not torch.equal(x, plainly)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"rule": "negative(3)"}, NotSupported, "'negative'.*--negative"),
        ({"rule": "conjunction([1, 1, 1])", "also": "cat"}, NotSupported, "'also-2'"),
        ({"rule": "two-scale(3)"}, NotSupported, "'partial'"),
        ({"rule": "autoguidance(2)"}, NotSupported, "'weak'.*--weak"),
        ({"rule": "classifier(2)"}, NotSupported, "'classifier'|given"),
        ({"rule": "pag(2, layers=['nowhere'])"}, NotSupported, "nowhere.*it can to"),
        ({"rule": "rectified-cfgpp(2)"}, NotSupported, "rectified"),
        ({"rule": "cfgpp(0.5)", "solver": "heun"}, NotSupported, "euler"),
        ({"rule": "apg"}, BadValue, "stands right of a rule"),
        ({"rule": "cfg(3) | rescale | apg"}, BadValue, "left of stages"),
        ({"rule": CFG((1.0, 2.0))}, ShapeMismatch, "2 weights for 1 image"),
        ({"rule": "negative(3)", "negative": "cow"}, UnknownLabel, "cow"),
        ({"rule": "cfg(3)", "negative": "dog"}, BadValue, "no use for 'negative'"),
        ({"rule": "negative(3)", "negative": ["dog", "emu"]}, BadValue, "no use for 'negative-2'"),
        ({"rule": "cfg(3)", "weak": tiny()}, BadValue, "no use for 'weak'"),
        ({"rule": "cfg(3)", "classifier": classifier}, BadValue, "no use for 'classifier'"),
        ({"rule": "classifier(3)", "classifier": classifier, "told": [None]}, BadValue, "towards nothing"),
    ],
)
def test_what_is_missing_is_said_before_the_first_step(
    arguments: dict[str, Any], error: type[GuidonError], says: str
) -> None:
    model, forwards = tiny(), []
    model.denoiser.network.register_forward_hook(lambda *_: forwards.append(1))
    with pytest.raises(error, match=says):
        model.sample(**{"told": "cat"} | arguments)
    # weights for other numbers of images show when they meet the images, after one forward
    assert not forwards or error is ShapeMismatch


def test_a_network_without_an_inner_head_or_attention_says_so() -> None:
    plain = tiny()
    with pytest.raises(NotSupported, match="no inner head"):
        plain.sample("cat", rule="internal(2)")
    assert len(plain.denoiser.network.perturbations["attention-identity"]) > 0


def test_a_perturbation_that_changes_nothing_is_refused() -> None:
    model = tiny()
    with torch.no_grad():
        model.denoiser.network.middle_block[1].proj_out.weight.zero_()  # the attention adds nothing any more
        model.denoiser.network.middle_block[1].proj_out.bias.zero_()
    with pytest.raises(NotSupported, match=r"pag\(2.*changes nothing"):
        model.sample("cat", rule="pag(2, layers=['middle.attention'])", steps=2)


def test_conditions_mean_what_they_say(model: Model) -> None:
    """A negative class is the null of plain guidance when it says nothing, and conjunction of one is plain guidance."""
    plainly = model.sample(["cat", "dog"], rule="cfg(3)", steps=STEPS).x
    for rule, more in (
        ("negative(3)", {"negative": [None]}),
        ("avoid(3, 0)", {}),
        ("avoid(3, 2)", {"negative": [None]}),
        ("conjunction([3])", {}),
        ("conjunction([3, 2])", {"also": [None]}),
        ("perp-neg(3, [0])", {}),
        ("fdg([3, 3])", {}),
    ):
        x = model.sample(["cat", "dog"], rule=rule, steps=STEPS, **more).x
        assert torch.allclose(x, plainly, atol=1e-4 * plainly.abs().max().item()), rule
    same = model.sample(["cat", "cat"], rule="negative(3)", negative="cat", steps=STEPS).x
    plain = model.sample(["cat", "cat"], rule=1, steps=STEPS).x
    assert torch.allclose(same, plain, atol=1e-4 * plain.abs().max().item())


def test_the_random_condition_changes_from_step_to_step_and_seed_to_seed(model: Model) -> None:
    told: list[Tensor] = []
    hook = model.encoder.register_forward_hook(lambda _, args, __: told.append(args[0].ids.clone()))  # type: ignore[union-attr]
    try:
        model.sample("cat", n=12, rule="icg(2)", steps=8)
    finally:
        hook.remove()
    drawn = torch.stack(told[-8:])  # (steps, images)
    assert drawn.shape == (8, 12) and set(drawn.flatten().tolist()) == {0, 1, 2}
    assert all(len(set(row.tolist())) > 1 for row in drawn) and all(len(set(row.tolist())) > 1 for row in drawn.T)


def test_a_weak_model_has_its_own_encoder_and_must_fit(model: Model, tmp_path: Path) -> None:
    weak = model.degraded(0.5, seed=1)
    assert torch.equal(model.degraded(0.5, seed=1).encoder.embedding.weight, weak.encoder.embedding.weight)  # type: ignore[union-attr]
    x = model.sample("cat", rule=Autoguidance(0.0), weak=weak, steps=STEPS).x
    assert torch.allclose(x, weak.sample("cat", rule=1, steps=STEPS).x, atol=1e-5)
    with pytest.raises(BadValue, match="classes"):
        model.sample("cat", rule="autoguidance(2)", weak=tiny(classes=("a", "b")))
    with pytest.raises(BadValue, match="noise"):
        model.degraded(0)


def test_a_classifier_guides_towards_its_class(model: Model) -> None:
    plain = model.sample(["cat", "emu"], rule="classifier(0)", steps=20, classifier=classifier).x
    guided = model.sample(["cat", "emu"], rule="classifier(2)", steps=20, classifier=classifier).x
    level, ids = Level(0.0, 1.0, 0.0), torch.tensor([0, 2])
    assert (classifier(guided, level, ids) > classifier(plain, level, ids)).all()


def test_internal_guidance_costs_one_evaluation(model: Model) -> None:
    samples = model.sample("cat", n=2, rule=Internal(3.0), steps=STEPS)
    assert samples.nfe == STEPS and samples.forwards == STEPS


def test_a_trace_tells_what_happened(model: Model) -> None:
    samples = model.sample(["cat", "dog"], rule="cfg(3, when=interval(0.5, 5))", steps=8, trace=True)
    assert samples.trace is not None
    rows = samples.trace.rows
    assert len(rows) == 8 and sum(row["asked"][0] for row in rows) == samples.nfe
    for row in rows:
        guided = row["noise_level"] is not None and 0.5 < row["noise_level"] <= 5
        assert row["asked"] == [2, 2] if guided else row["asked"] == [1, 1]
        assert row["saved"] == ([0, 0] if guided else [1, 1])
        assert set(row["difference"]) == ({"null"} if guided else set())
        if guided:  # cfg(3) adds twice the difference
            for added, apart in zip(row["guidance"], row["difference"]["null"], strict=True):
                assert math.isclose(added, 2 * apart, rel_tol=1e-4)
            assert all(-1 <= cosine <= 1 for cosine in row["cosine"]["null"])
        assert all(0 <= share <= 1 for share in row["out_of_range"])
    last = rows[-1]["out_of_range"]
    assert torch.allclose(torch.tensor(last), (samples.x.abs() > 1).flatten(1).float().mean(1), atol=1e-6)


def test_any_function_of_the_moment_is_a_weight(model: Model) -> None:
    seen: list[int] = []

    def mine(at: guidon.guidance.Moment) -> float:  # type: ignore[name-defined]
        seen.append(at.index)
        return 1.0 + at.index

    x = model.sample("cat", rule=CFG(mine), steps=3)
    assert torch.allclose(x.x, model.sample("cat", rule="cfg(linear(1, 3))", steps=3).x) and set(seen) == {0, 1, 2}
    assert x.record["rule"] == "cfg(mine)"


def test_arrays_are_sequences_and_none_is_left_out(model: Model) -> None:
    want = model.sample([1, 2], seed=[4, 9], rule="cfg(2)", steps=2).x
    for labels, seeds in ((torch.tensor([1, 2]), torch.tensor([4, 9])), (np.array([1, 2]), np.array([4, 9]))):
        got = model.sample(labels, seed=seeds, rule="cfg(2)", negative=None, also=None, partial=None, steps=2).x
        assert torch.equal(got, want)


def test_sampling_leaves_every_model_as_it_was(model: Model) -> None:
    weak = model.degraded(0.3).train()
    model.sample("cat", rule="autoguidance(2)", weak=weak, steps=1)
    assert weak.training and not model.training
    with torch.inference_mode():
        model.sample("cat", rule="classifier(1)", classifier=classifier, steps=2)


def test_two_clocks_of_different_noise_are_two_branches(model: Model) -> None:
    one, two = (
        model.sample("cat", rule=f"tsg({a}) | tsg({b}) | reuse(2)", steps=4).x
        for a, b in (("2, 0.5", "4, 4"), ("4, 4", "2, 0.5"))
    )
    assert torch.allclose(one, two, atol=1e-4 * one.abs().max().item())
