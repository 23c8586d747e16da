"""The bundle of a noisy classifier, and models of every kind that it leads."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from test_model import TINY, tiny
from torch import Tensor

import guidon
from guidon.classifier import Calibration, Classifier, ClassifierConfig
from guidon.conditioning import Context
from guidon.errors import BadValue, DamagedCheckpoint, NotSupported, ShapeMismatch, UnknownLabel
from guidon.model import Model
from guidon.noise import EDM, Cosine, Level, VPTable
from guidon.sampling import PerImageNoise

ARCHITECTURE = {
    "size": 8,
    "in_channels": 1,
    "out_channels": 3,
    "model_channels": 16,
    "channel_mult": (1, 2),
    "num_res_blocks": 1,
    "attention": (2,),
    "head_channels": 8,
}
UNCONDITIONAL = {"architecture": TINY | {"vector": None}, "classes": None}


def small(**changes: Any) -> Classifier:
    torch.manual_seed(1)
    settings = {"shape": (1, 8, 8), "architecture": ARCHITECTURE, "classes": ("cat", "dog", "emu")} | changes
    classifier = Classifier(ClassifierConfig(**settings))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.normal_(std=0.3)
    return classifier.eval().requires_grad_(False)


def images(n: int = 4) -> Tensor:
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(3))


def test_it_survives_the_disk(tmp_path: Path) -> None:
    judge = small(calibration=Calibration(noise_levels=(0.1, 1.0), temperatures=(2.0, 0.5)))
    judge.save_pretrained(tmp_path / "c")
    again = guidon.load_classifier(tmp_path / "c")
    level = judge.process.level(0.4)
    assert again.config == judge.config and torch.equal(again.logits(images(), level), judge.logits(images(), level))
    assert not any(parameter.requires_grad for parameter in again.parameters())
    (tmp_path / "c" / "model.safetensors").write_bytes((tmp_path / "c" / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(DamagedCheckpoint):
        guidon.load_classifier(tmp_path / "c")


def test_models_and_classifiers_are_not_mixed_up(tmp_path: Path) -> None:
    small().save_pretrained(tmp_path / "c")
    tiny().save_pretrained(tmp_path / "m")
    with pytest.raises(BadValue, match=r"holds a classifier.*--classifier"):
        guidon.load(tmp_path / "c")
    with pytest.raises(BadValue, match="no classifier but a model"):
        guidon.load_classifier(tmp_path / "m")


def test_it_sees_the_same_whatever_the_process() -> None:
    """The same noise level is the same picture to it: what it is shown has the size of a variance-preserving state."""
    table, edm = small(process="vp-table(steps=1000)"), small(process="edm")
    seen: list[tuple[Tensor, Tensor]] = []
    for judge in (table, edm):
        judge.network.forward = lambda x, time: seen.append((x, time)) or torch.zeros(len(x), 3)  # type: ignore[assignment, func-returns-value]
    x0, eps, tau = images(), images().flip(0), 1.7
    for judge in (table, edm):
        at = judge.process.level_at(tau)
        judge.logits(at.alpha * x0 + at.sigma * eps, at)
    (a, time_a), (b, time_b) = seen
    torch.testing.assert_close(a, (x0 + tau * eps) / math.hypot(1, tau))
    torch.testing.assert_close(b, a)
    assert time_a.tolist() == [pytest.approx(table.process.time_at(tau))] * 4
    assert time_b.tolist() == [pytest.approx(250 * math.log(tau))] * 4


def test_log_prob_is_that_of_the_classes_told_and_sums_to_1() -> None:
    judge, x = small(), images()
    level = judge.process.level(torch.tensor([0.1, 0.4, 0.7, 0.9]))
    logs = judge.log_probs(x, level)
    torch.testing.assert_close(logs.exp().sum(1), torch.ones(4))
    told = judge.log_prob(x, level, Context(vector=torch.tensor([[0.0], [2.0], [1.0], [2.0]])))
    torch.testing.assert_close(told, torch.stack([logs[0, 0], logs[1, 2], logs[2, 1], logs[3, 2]]))
    assert logs[0].std() > 0.1


def test_temperatures_divide_the_logits_between_levels_in_log_noise_level() -> None:
    judge = small(calibration=Calibration(noise_levels=(0.1, 10.0), temperatures=(1.0, 3.0)))
    level, x = judge.process.level_at(1.0), images()  # halfway in the logarithm: 2
    torch.testing.assert_close(judge.calibrated().log_probs(x, level), (judge.logits(x, level) / 2).log_softmax(1))
    torch.testing.assert_close(judge.log_probs(x, level), judge.logits(x, level).log_softmax(1))
    assert judge.config.calibration is not None
    outside = judge.config.calibration.at(torch.tensor([1e-3, 1e3]))
    assert outside.tolist() == [1.0, 3.0]
    with pytest.raises(NotSupported, match="no fitted temperatures"):
        small().calibrated()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"noise_levels": (1.0, 0.1), "temperatures": (1.0, 1.0)}, "rise"),
        ({"noise_levels": (0.1,), "temperatures": (1.0, 1.0)}, "one temperature for each"),
        ({"noise_levels": (0.1,), "temperatures": (0.0,)}, "finite and > 0"),
        ({"noise_levels": (0.0,), "temperatures": (1.0,)}, "> 0 that rise"),
    ],
)
def test_calibrations_that_make_no_sense(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Calibration(**wrong)


@pytest.mark.parametrize("base", [{}, UNCONDITIONAL], ids=["conditional", "unconditional"])
def test_it_leads_models_with_and_without_classes(base: dict[str, Any]) -> None:
    model, judge = tiny(**base), small()
    settings: dict[str, Any] = {"classifier": judge, "solver": "euler", "steps": 1, "seed": 5}
    plain, samples = (model.sample(["cat", "emu"], rule=f"classifier({w})", **settings) for w in (0, 4))
    level = model.process.level(model.process.t_max)
    x = PerImageNoise([5, 6], (1, 8, 8))().requires_grad_()
    judge.log_prob(x, level, Context(vector=torch.tensor([[0.0], [2.0]]))).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(samples.x - plain.x, 4 * level.sigma**2 / level.alpha * x.grad, rtol=1e-3, atol=1e-4)
    assert samples.record["labels"] == ["cat", "emu"] and samples.labels == (0, 2)
    assert samples.record["classifier"] == {"name": "unnamed", "calibrated": False}
    assert samples.nfe == 2
    if not base:
        return
    right = model.sample(["cat", "emu"], rule="cfg(1) | classifier(4)", **settings).x
    assert torch.equal(samples.x, right)
    with pytest.raises(NotSupported, match="without classes it changes nothing"):
        model.sample("cat", rule="classifier(1) | cfg(3)", classifier=judge, steps=2)


def test_any_function_leads_a_model_without_classes() -> None:
    model, judge = tiny(**UNCONDITIONAL), small()

    def mine(x: Tensor, level: Level, ids: Tensor) -> Tensor:
        return judge.log_probs(x, level).gather(1, ids[:, None])[:, 0]

    settings: dict[str, Any] = {"rule": "classifier(3)", "steps": 5, "seed": 2}
    own = model.sample([0, 2], classifier=mine, **settings)
    assert torch.equal(own.x, model.sample(["cat", "emu"], classifier=judge, **settings).x)
    assert own.labels == (0, 2)
    with pytest.raises(BadValue, match="guide towards nothing; give every image a label"):
        model.sample(n=2, classifier=mine, **settings)


def test_a_threshold_left_of_the_push_clips_the_belief_and_not_the_push() -> None:
    model, judge = tiny(**UNCONDITIONAL), small()
    x = [
        model.sample("cat", rule=rule, classifier=judge, solver="ddim", steps=4).x
        for rule in ("cfg(1) | threshold(-0.2, 0.2) | classifier(9)", "cfg(1) | classifier(9) | threshold(-0.2, 0.2)")
    ]
    assert x[1].abs().max() <= 0.2 < x[0].abs().max()


def test_the_networks_graph_is_not_kept_and_the_classifier_runs_in_chunks() -> None:
    """What autograd saves in a guided step is what the classifier alone saves, and of one chunk at a time."""
    model, judge = tiny(**UNCONDITIONAL), small()
    model.requires_grad_(True)
    saved: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    def bytes_of(run: Any) -> int:
        saved.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            run()
        return sum(saved)

    def alone(rows: int) -> int:
        x, level = torch.randn(rows, 1, 8, 8, requires_grad=True), judge.process.level(0.5)
        return bytes_of(lambda: judge.log_prob(x, level, Context(vector=torch.zeros(rows, 1))).sum())

    largest: list[int] = []
    whole = judge.network.forward
    judge.network.forward = lambda x, time: largest.append(len(x)) or whole(x, time)  # type: ignore[assignment, func-returns-value]

    def guided(**settings: Any) -> Any:
        return model.sample(
            [0, 1, 2, 0, 1, 2], rule="classifier(2)", classifier=judge, steps=2, solver="euler", **settings
        )

    one = alone(6)
    assert bytes_of(guided) <= 2 * one  # two steps
    largest.clear()
    chunked = guided(max_batch=2)
    assert largest == [2] * 6 and bytes_of(lambda: guided(max_batch=2)) <= 6 * alone(2)
    torch.testing.assert_close(chunked.x, guided().x, rtol=1e-4, atol=1e-4)


def test_frozen_parameters_save_memory() -> None:
    x, level = images().requires_grad_(), Cosine().level(0.5)
    sizes = []
    for frozen in (True, False):
        judge, saved = small().requires_grad_(not frozen), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=saved: s.append(t.numel()) or t, lambda t: t):  # type: ignore[misc]
            judge.log_probs(x, level)
        sizes.append(sum(saved))
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize(
    ("classifier", "base", "says"),
    [
        ({"classes": ("cat", "dog", "fox")}, {}, "'fox' the other has 'emu'"),
        (
            {"classes": ("cat", "dog"), "architecture": ARCHITECTURE | {"out_channels": 2}},
            {},
            "2 classes and the model 3",
        ),
        ({"process": "edm"}, UNCONDITIONAL, "noise of edm and the model that of cosine"),
        ({"process": "cosine"}, UNCONDITIONAL | {"process": "vp-table('cosine')"}, "same process"),
        ({"shape": (1, 16, 16), "architecture": ARCHITECTURE | {"size": 16}}, UNCONDITIONAL, "same size"),
    ],
)
def test_a_classifier_of_other_classes_sizes_or_noise_is_refused(
    classifier: dict[str, Any], base: dict[str, Any], says: str
) -> None:
    with pytest.raises(BadValue, match=says):
        tiny(**base).sample("cat", rule="classifier(1)", classifier=small(**classifier), steps=2)


def test_how_often_training_visits_a_noise_level_does_not_matter() -> None:
    assert EDM().agrees(EDM(p_mean=-0.4)) and VPTable().agrees(VPTable(rescale_clock=True))
    assert not VPTable().agrees(VPTable("cosine")) and not EDM().agrees(Cosine())
    assert not VPTable(steps=500).agrees(VPTable(steps=1000))


def test_a_bundle_whose_parts_do_not_fit_is_refused() -> None:
    with pytest.raises(ShapeMismatch, match="3 classes of images"):
        small(architecture=ARCHITECTURE | {"out_channels": 4})
    with pytest.raises(BadValue, match="architecture of the classifier"):
        small(architecture=ARCHITECTURE | {"pool": "max"})


def test_a_model_that_never_learned_to_do_without_a_class() -> None:
    model = tiny(null=False)
    assert model.encoder is not None and model.encoder.embedding.num_embeddings == 3
    model.sample("cat", rule=1, steps=2)
    with pytest.raises(NotSupported, match=r"'null'.*never learned to do without"):
        model.sample("cat", rule=3, steps=2)
    with pytest.raises(UnknownLabel, match="give every image one"):
        model.sample([None], rule=1, steps=2)
    model.sample("cat", rule="classifier(2, base='given')", classifier=small(), steps=2)


def enlarging() -> Model:
    return tiny(architecture=TINY | {"spatial_channels": 1}, low_res=(4, 4))


def test_a_super_resolution_model_is_shown_its_image_enlarged_bilinearly() -> None:
    model, low = enlarging(), torch.linspace(-1, 1, 16).reshape(1, 1, 4, 4)
    seen: list[Context] = []
    forward = model.network.forward
    model.network.forward = lambda x, time, context: seen.append(context) or forward(x, time, context)  # type: ignore[assignment, func-returns-value]
    model.sample("cat", n=2, image=low, rule=2, steps=1)
    (context,) = seen
    assert context.spatial is not None and context.spatial.shape == (4, 1, 8, 8)  # two images, given and null
    want = torch.nn.functional.interpolate(low, scale_factor=2, mode="bilinear", align_corners=False)
    assert all(torch.equal(row, want[0]) for row in context.spatial)
    assert float(want[0, 0, 0, 0]) == -1.0 and float(want[0, 0, 0, 1]) == pytest.approx(-1 + 0.25 * 2 / 15)


def test_every_image_has_its_own_small_image() -> None:
    model = enlarging()
    low = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)])
    together = model.sample("cat", n=2, image=low, steps=3, seed=[7, 7]).x
    for i in range(2):
        alone = model.sample("cat", image=low[i : i + 1], steps=3, seed=7).x
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(together[0], together[1])


def test_small_images_that_do_not_fit() -> None:
    model, low = enlarging(), torch.zeros(1, 1, 4, 4)
    for image, says in [
        (None, "--image"),
        (torch.zeros(1, 1, 5, 4), "4x4"),
        (torch.zeros(3, 1, 4, 4), "one for each image"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.uint8), "divide by 127.5"),
        ([], "no image is given"),
    ]:
        with pytest.raises(BadValue, match=says):
            model.sample("cat", n=2, image=image, steps=1)
    with pytest.raises(BadValue, match="enlarges no image"):
        tiny().sample("cat", image=low, steps=1)
    with pytest.raises(ShapeMismatch, match="spatial door of 1 channels"):
        tiny(low_res=(4, 4))


def test_a_classifier_is_told_classes_and_nothing_else() -> None:
    """What a network is told of no class, or of a random one, is no class id."""
    model, judge = tiny(), small()
    for condition in ("null", "random"):
        with pytest.raises(NotSupported, match=f"tells the classifier '{condition}', which it cannot"):
            model.sample("cat", rule=f"cfg(1) | classifier(2, condition='{condition}')", classifier=judge, steps=2)
    with pytest.raises(NotSupported, match="'negative'"):
        model.sample(
            "cat", rule="cfg(1) | classifier(2, condition='negative')", negative=[None], classifier=judge, steps=2
        )
    x = model.sample("cat", rule="negative(2) | classifier(2)", negative=[None], classifier=judge, steps=2).x
    assert torch.equal(x, model.sample("cat", rule="cfg(2) | classifier(2)", classifier=judge, steps=2).x)


@pytest.mark.parametrize(
    "rule", ["classifier(2) | pag(2)", "pag(2) | classifier(2)", "autoguidance(2) | classifier(2)"]
)
def test_what_needs_no_class_goes_with_a_classifier_on_a_model_without(rule: str) -> None:
    model = tiny(**UNCONDITIONAL)
    settings: dict[str, Any] = {"classifier": small(), "steps": 3, "weak": model.degraded() if "auto" in rule else None}
    assert torch.isfinite(model.sample("cat", rule=rule, **settings).x).all()


def test_a_models_own_default_is_kept_unless_it_needs_a_class() -> None:
    settings = {"steps": 3, "rule": "cfg(1) | threshold(-0.1, 0.1)"}
    clipped = tiny(**UNCONDITIONAL, sample=settings)
    assert clipped.sample(n=2, solver="euler", grid="karras").x.abs().max() <= 0.1
    assert clipped.sample(n=1).record["rule"] == "cfg(1) | threshold(-0.1, 0.1)"
    assert tiny(**UNCONDITIONAL).sample(n=1, steps=1).record["rule"] == "cfg(1)"
