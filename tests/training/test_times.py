"""Importance sampling of times: the distribution is that of the losses, the mean stays, and a stop changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from training.tiny import tiny_recipe

import guidon
from guidon.errors import DamagedCheckpoint
from guidon.training.loop import train
from guidon.training.recipe import Recipe, read_recipe
from guidon.training.times import ImportanceTimes
from guidon.training.trainer import Trainer


def filled(sizes: list[float], **options: bool) -> ImportanceTimes:
    """Return what has seen ten losses of every time, with these root mean squares."""
    times = ImportanceTimes(len(sizes), **options)
    for i in range(10):
        share = (1.4, 0.2)[i % 2]  # whose squares are 1 in the mean
        times.update(torch.arange(len(sizes)).double(), torch.tensor(sizes) * share)
    return times


def test_all_times_are_equally_likely_until_each_was_seen_ten_times() -> None:
    times = ImportanceTimes(4)
    every = torch.arange(4).double()
    for i in range(9):
        times.update(every, torch.tensor([1.0, 2.0, 3.0, 4.0]))
        assert torch.equal(times.probabilities, torch.full((4,), 0.25, dtype=torch.float64)), i
    times.update(torch.tensor([0.0, 1.0, 2.0, 0.0, 1.0]), torch.ones(5))
    assert times.probabilities.unique().numel() == 1
    times.update(torch.tensor([3.0]), torch.ones(1))
    assert times.probabilities.unique().numel() == 4


def test_probabilities_are_the_roots_of_the_second_moments() -> None:
    sizes = torch.tensor([1.0, 2.0, 5.0, 0.0], dtype=torch.float64)
    times = filled(sizes.tolist())
    torch.testing.assert_close(times.probabilities, 0.999 * sizes / 8 + 0.001 / 4)
    assert float(times.probabilities.sum()) == pytest.approx(1.0, abs=1e-12)


def test_the_last_ten_losses_count() -> None:
    times = filled([1.0, 1.0])
    for _ in range(10):
        times.update(torch.tensor([0.0]), torch.tensor([3.0]))
    torch.testing.assert_close(times.probabilities[0].item(), 0.999 * 0.75 + 0.0005)


def test_without_any_loss_left_all_times_are_equally_likely() -> None:
    assert filled([0.0, 0.0]).probabilities.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("stratified", [True, False])
def test_weights_keep_the_mean_and_lower_its_variance(stratified: bool) -> None:
    sizes = torch.tensor([0.1, 4.0, 1.0, 0.5, 0.01], dtype=torch.float64)
    even, wise = ImportanceTimes(5, stratified), filled(sizes.tolist(), stratified=stratified)
    means = {}
    for name, sampler in (("even", even), ("wise", wise)):
        estimates = []
        for step in range(2000):
            times, weight = sampler.draw(8, seed=0, step=step)
            estimates.append(float((weight * sizes[times.long()]).mean()))
        means[name] = torch.tensor(estimates)
    for estimates in means.values():
        assert abs(float(estimates.mean() - sizes.mean())) < 4 * float(estimates.std()) / 2000**0.5 + 1e-9
    assert means["wise"].std() < 0.1 * means["even"].std()


@pytest.mark.parametrize("stratified", [True, False])
def test_times_are_visited_as_often_as_is_said(stratified: bool) -> None:
    sampler = filled([1.0, 2.0, 5.0, 0.0], stratified=stratified)
    times, weight = sampler.draw(20_000, seed=3, step=7)
    shares = torch.bincount(times.long(), minlength=4) / 20_000
    torch.testing.assert_close(shares.double(), sampler.probabilities, atol=0.015, rtol=0)
    torch.testing.assert_close(weight, 1 / (4 * sampler.probabilities[times.long()]))


def test_a_draw_is_a_function_of_seed_step_and_what_was_seen() -> None:
    one, other = filled([1.0, 2.0, 5.0]), ImportanceTimes(3)
    other.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
    for seed, step in ((0, 0), (0, 1), (5, 0)):
        assert torch.equal(one.draw(64, seed=seed, step=step)[0], other.draw(64, seed=seed, step=step)[0])
    assert not torch.equal(one.draw(64, seed=0, step=0)[0], one.draw(64, seed=0, step=1)[0])
    assert not torch.equal(one.draw(64, seed=0, step=0)[0], one.draw(64, seed=1, step=0)[0])


def recipe(**train: object) -> Recipe:
    """Return a recipe whose few times have all been seen ten times after a few steps."""
    settings = tiny_recipe({"dropout": 0.0}, steps=8).model_dump(mode="json")
    settings["model"] |= {"process": "vp-table('cosine', steps=4)", "output": "eps", "learned_variance": True}
    settings["train"] |= {"objective": {"loss": "kl", "times": "importance"}, **train}
    return read_recipe(settings)


def test_a_step_weighs_the_losses_of_its_times_and_remembers_them_unweighed() -> None:
    settings = recipe(steps=1)
    trainer, cpu = Trainer(settings), torch.device("cpu")
    assert trainer._times is not None
    trainer._times.load_state_dict(filled([1.0, 2.0, 5.0, 0.1]).state_dict())
    times, weight = trainer._times.draw(16, seed=0, step=0)
    batch = next(trainer.data.batches(16))
    draw = settings.draw(trainer.model, batch.images.shape, step=0, device=cpu)
    draw = replace(draw, level=trainer.model.process.level(times))
    with torch.no_grad():
        each = settings.loss(trainer.model)(batch.images, batch.labels, draw).double()
    (step,) = trainer.steps()
    assert step.loss == pytest.approx(float((each * weight).mean()), rel=1e-4)
    assert step.loss != pytest.approx(float(each.mean()), rel=1e-2)
    expected = filled([1.0, 2.0, 5.0, 0.1])
    expected.update(times, each)
    torch.testing.assert_close(trainer._times.losses, expected.losses, rtol=1e-4, atol=1e-6)


def test_a_stop_between_any_two_steps_changes_nothing(tmp_path: Path) -> None:
    whole = Trainer(recipe())
    losses = [step.loss for step in whole.steps()]
    assert whole._times is not None and whole._times.probabilities.unique().numel() == 4
    for stop in (2, 5):
        first, second = Trainer(recipe()), Trainer(recipe())
        steps = first.steps()
        for _ in range(stop):
            next(steps)
        first.save(tmp_path / str(stop))
        second.resume(tmp_path / str(stop))
        assert [step.loss for step in second.steps()] == losses[stop:]
        assert all(torch.equal(a, b) for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True))
        assert second._times is not None and torch.equal(second._times.losses, whole._times.losses)


def test_what_is_remembered_does_not_depend_on_how_a_batch_is_cut() -> None:
    whole, parts = Trainer(recipe(steps=5)), Trainer(recipe(steps=5, accumulate=4))
    losses = [[step.loss for step in trainer.steps()] for trainer in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert whole._times is not None and parts._times is not None
    torch.testing.assert_close(whole._times.losses, parts._times.losses, rtol=1e-4, atol=1e-6)
    assert torch.equal(whole._times.seen, parts._times.seen) and int(whole._times.seen.sum()) == 5 * 16


def test_a_checkpoint_without_what_was_seen_is_refused(tmp_path: Path) -> None:
    Trainer(recipe(steps=1)).save(tmp_path)
    state = json.loads((tmp_path / "state.json").read_text())
    del state["states"]["times"]
    (tmp_path / "state.json").write_text(json.dumps(state))
    with pytest.raises(DamagedCheckpoint, match="times"):
        Trainer(recipe(steps=1)).resume(tmp_path)


def test_two_processes_see_all_losses(tmp_path: Path) -> None:
    wanted = recipe(steps=6)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(wanted.model_dump(mode="json")))
    alone = train(wanted, tmp_path / "one", progress=False).state_dict()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "guidon"]
    command += ["train", str(tmp_path / "recipe.yaml"), "-o", str(tmp_path / "two")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    accounts = [json.loads((tmp_path / name / "train.json").read_text()) for name in ("one", "two")]
    assert abs(accounts[0]["loss"] - accounts[1]["loss"]) < 1e-4 * accounts[0]["loss"]
    together = guidon.load(tmp_path / "two" / "model").state_dict()
    change = torch.cat([(together[name] - value).abs().flatten() for name, value in alone.items()])
    assert change.mean() < 1e-5
