"""A classifier goes through the same engine as a model: what it minimises, resuming, and what a run leaves behind."""

from __future__ import annotations

import dataclasses
import json
import math
import signal

import pytest
import torch
import torch.nn.functional as F
import yaml
from training.tiny_classifier import tiny_classifier_recipe

from guidon.classifier_request import load_classifier
from guidon.errors import BadRecipe
from guidon.noise import Level
from guidon.training.calibrate import calibrate, read_report
from guidon.training.classifier_recipe import ClassifierRecipe
from guidon.training.classify import ClassifierLoss, NoiseDraw, draw_noise
from guidon.training.loop import train
from guidon.training.optimizer import build_optimizers
from guidon.training.recipe import load_recipe
from guidon.training.state import read_notes
from guidon.training.trainer import Trainer


class Flat(torch.nn.Module):
    """Tells the class from the first pixel that it is shown, and the second class's logit is the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x, time):
        return torch.stack([self.weight * x[:, 0, 0, 0], time / 1000], 1)


@pytest.mark.parametrize("process", ["cosine", "edm"])
def test_the_loss_is_the_cross_entropy_of_noisy_images_at_unit_size(process):
    classifier = tiny_classifier_recipe({"process": process}).build((1, 8, 8), ["a", "b"])
    classifier.network = Flat()
    times = torch.tensor([0.2, 0.9, 0.5], dtype=torch.float64)
    level = classifier.process.level(times)
    images, noise = torch.randn(3, 1, 8, 8), torch.randn(3, 1, 8, 8)
    labels = torch.tensor([0, 1, 1])
    loss = ClassifierLoss(classifier)
    got = loss(images, labels, NoiseDraw(level, noise))
    expected, right = [], 0
    for i in range(3):
        alpha, sigma = float(level.alpha[i]), float(level.sigma[i])
        pixel = (alpha * images[i, 0, 0, 0].item() + sigma * noise[i, 0, 0, 0].item()) / math.hypot(alpha, sigma)
        logits = [pixel, float(classifier.process.clock(float(times[i]))) / 1000]
        expected.append(math.log(sum(math.exp(v) for v in logits)) - logits[int(labels[i])])
        right += logits.index(max(logits)) == int(labels[i])
    torch.testing.assert_close(got, torch.tensor(expected))
    assert loss.also["accuracy"].item() == pytest.approx(right / 3)


def test_noise_levels_are_spread_over_the_training_times_and_the_draw_depends_on_seed_and_step_alone():
    process = tiny_classifier_recipe({"process": "flow(logit_std=none)"}).build((1, 8, 8), ["a", "b"]).process
    shape, cpu = torch.Size((50, 1, 8, 8)), torch.device("cpu")
    draws = [
        draw_noise(process, shape, seed=seed, step=step, device=cpu) for seed, step in ((0, 3), (0, 3), (0, 4), (1, 3))
    ]
    assert torch.equal(draws[0].level.t, draws[1].level.t)
    assert torch.equal(draws[0].noise, draws[1].noise)
    for other in draws[2:]:
        assert not torch.equal(draws[0].level.t, other.level.t)
        assert not torch.equal(draws[0].noise, other.noise)
    for draw in draws:
        assert (draw.level.t.sort()[0] * 50).floor().tolist() == list(range(50))  # one in each part
        assert draw.noise.std().item() == pytest.approx(1, abs=0.05)
    part = draws[0].take(slice(10, 20))
    assert isinstance(part.level, Level)
    assert torch.equal(part.level.sigma, draws[0].level.sigma[10:20])
    assert torch.equal(part.noise, draws[0].noise[10:20])


def test_a_stop_between_any_two_steps_changes_nothing(tmp_path):
    recipe = tiny_classifier_recipe(
        data={"flip": True, "crop": 1}, steps=4, precision="bf16", optimizer="muon", accumulate=2
    )
    whole = Trainer(recipe)
    losses = [(step.loss, step.also) for step in whole.steps()]
    for stop in range(1, 4):
        first, second = Trainer(recipe), Trainer(recipe.model_copy(deep=True))
        steps = first.steps()
        for _ in range(stop):
            next(steps)
        first.save(tmp_path / str(stop))
        second.resume(tmp_path / str(stop))
        torch.manual_seed(stop)  # global randomness is no part of the state
        assert [(step.loss, step.also) for step in second.steps()] == losses[stop:]
        for one, other in ((whole.model, second.model), (whole.average.model, second.average.model)):
            assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_ctrl_c_leaves_a_checkpoint_and_the_resumed_run_ends_in_the_same_classifier(tmp_path):
    def press(step):
        if step.step == 3:
            signal.raise_signal(signal.SIGINT)

    recipe = tiny_classifier_recipe(steps=5)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "run", progress=False, on_step=press)
    assert read_notes(tmp_path / "run/checkpoint")["step"] == 3
    stopped = train(recipe, tmp_path / "run", resume=True, progress=False)
    straight = train(recipe, tmp_path / "straight", progress=False)
    assert all(torch.equal(stopped.state_dict()[name], value) for name, value in straight.state_dict().items())
    assert stopped.config.calibration == straight.config.calibration


def test_both_optimizers_together_hold_every_parameter_once():
    classifier = tiny_classifier_recipe().build((1, 8, 8), ["a", "b"])
    optimizers = build_optimizers(classifier, tiny_classifier_recipe(optimizer="muon").train)
    held = [p for optimizer in optimizers.values() for group in optimizer.param_groups for p in group["params"]]
    assert sorted(map(id, held)) == sorted(map(id, classifier.parameters()))
    assert optimizers["muon"].param_groups[0]["weight_decay"] == 0.05
    by_muon = {id(p) for p in optimizers["muon"].param_groups[0]["params"]}
    assert id(classifier.network.input_blocks[0][0].weight) not in by_muon
    assert id(classifier.network.middle_block[0].in_layers[2].weight) in by_muon


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    recipe = tiny_classifier_recipe(
        data={"limit": 600}, steps=150, batch_size=32, lr=5e-3, log_every=10, trackers=["tensorboard"]
    )
    steps = []
    return out, recipe, train(recipe, out, progress=False, on_step=steps.append), steps


def test_a_run_learns_and_leaves_a_classifier_with_its_measurements(run):
    out, recipe, classifier, steps = run
    loaded = load_classifier(out)  # the run's folder stands for the model in it
    for name, value in classifier.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert loaded.config == classifier.config
    report = read_report(out)
    assert (report.images, report.chance) == (60, 0.1)
    assert report.rows[0].accuracy > 0.6
    assert abs(report.rows[-1].accuracy - 0.1) < 0.2
    assert loaded.config.calibration == report.calibration
    held = recipe.open().held_out
    again = calibrate(loaded, held.images, held.labels, seed=0)
    for one, other in zip(again.rows, report.rows, strict=True):
        assert dataclasses.asdict(one) == pytest.approx(dataclasses.asdict(other), rel=1e-3, abs=1e-4)
    levels, temperatures = loaded.config.calibration.noise_levels, loaded.config.calibration.temperatures
    x = held.images[:7]
    at = loaded.process.level_at(levels[5])
    plain, tempered = loaded.logits(x, at), loaded.calibrated().log_probs(x, at)
    torch.testing.assert_close(tempered, F.log_softmax(plain / temperatures[5], 1))
    torch.testing.assert_close(loaded.log_probs(x, at), plain.log_softmax(1))  # only if asked
    account = json.loads((out / "train.json").read_text())
    assert (account["steps"], account["images"]) == (150, 4800)
    assert loaded.config.training == account
    assert ClassifierRecipe.read(yaml.safe_load((out / "recipe.yaml").read_text())) == recipe
    assert sum(step.also["accuracy"] for step in steps[-30:]) > sum(step.also["accuracy"] for step in steps[:30]) + 3
    assert not (out / "samples").exists()


def test_loss_and_accuracy_are_logged(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out, _, _, steps = run
    events = EventAccumulator(str(out / "logs"))
    events.Reload()
    for name, values in (("loss", [s.loss for s in steps]), ("accuracy", [s.also["accuracy"] for s in steps])):
        logged = {event.step: event.value for event in events.Scalars(name)}
        assert sorted(logged) == list(range(10, 151, 10))
        assert logged[50] == pytest.approx(sum(values[:50]) / 50, rel=1e-4)
        assert logged[150] == pytest.approx(sum(values[50:]) / 100, rel=1e-4)


def test_resuming_with_another_recipe_names_what_differs(tmp_path):
    train(tiny_classifier_recipe(steps=1), tmp_path / "run", progress=False)
    other = tiny_classifier_recipe({"process": "flow"}, data={"crop": 1, "hold_out": 0.2}, steps=1)
    with pytest.raises(BadRecipe, match=r"data\.crop, data\.hold_out, model\.process"):
        train(other, tmp_path / "run", resume=True, progress=False)
    with pytest.raises(BadRecipe, match=r"is the recipe of a classifier; give it to `guidon train-classifier`"):
        load_recipe(tmp_path / "run/recipe.yaml")
