"""A run that is killed, at whatever moment, and resumed ends with the very same bits as one that was not."""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training.tiny import StepCounter, tiny_recipe

from guidon.errors import BadRecipe, BadValue, DamagedCheckpoint, MissingFile
from guidon.training.loop import train
from guidon.training.recipe import Recipe
from guidon.training.state import read_notes
from guidon.training.trainer import Trainer

STEPS = 24


def recipe_for_kills() -> Recipe:
    """Everything that has state: dropout in the network, flips, power averages, two groups of the optimizer, several layouts."""
    recipe = tiny_recipe(
        optimizer="muon",
        steps=STEPS,
        checkpoint_every=3,
        weight_decay=0.1,
        power_averages=[0.05, 0.1],
        snapshot_every=12,
        accumulate=2,
        schedule="linear",
    )
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"flip": True})})


def contents(run: Path) -> dict[str, torch.Tensor]:
    files = sorted(run.glob("**/*.safetensors"))
    return {f"{file.relative_to(run)}:{name}": value for file in files for name, value in load_file(file).items()}


def assert_same_bits(one: Path, other: Path) -> None:
    a, b = contents(one), contents(other)
    assert a.keys() == b.keys()
    assert len({name.split(":")[0] for name in a}) == 6  # checkpoint, model, two snapshots of two lengths
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def test_killed_at_random_moments_and_resumed_ends_in_the_same_bits(tmp_path):
    context = multiprocessing.get_context("forkserver")  # imports once; every run is a process of its own
    context.set_forkserver_preload(["guidon.training.loop", "torch._dynamo"])  # optimizers import the second late
    recipe, whole, killed = recipe_for_kills(), tmp_path / "whole", tmp_path / "killed"
    reached = context.Value("i", 0)

    def start(out: Path) -> multiprocessing.process.BaseProcess:
        options = {"resume": out.exists(), "progress": False, "on_step": StepCounter(reached)}
        process = context.Process(target=train, args=(recipe, out), kwargs=options, daemon=True)
        process.start()
        return process

    process = start(whole)
    process.join()
    assert process.exitcode == 0
    took = json.loads((whole / "train.json").read_text())["seconds"] / STEPS

    chance = random.Random(0)
    for more in (0, 4, 7, 1, 5):  # steps to let pass; then a moment within the next ones
        reached.value = before = -1 if more == 0 else _stored_step(killed)
        process = start(killed)
        while process.is_alive() and reached.value - before < more:
            time.sleep(0.001)
        time.sleep(took * chance.uniform(0, 1.5))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    process = start(killed)
    process.join()
    assert process.exitcode == 0
    assert_same_bits(whole, killed)


def _stored_step(run: Path) -> int:
    notes = read_notes(run / "checkpoint") if run.exists() else None
    return notes["step"] if notes else 0


def test_a_stop_between_any_two_steps_changes_nothing(tmp_path):
    """The same law at every step, in one process; bfloat16 included."""
    recipe = tiny_recipe(steps=4, precision="bf16")
    whole = Trainer(recipe)
    losses = [step.loss for step in whole.steps()]
    for stop in range(1, 4):
        first, second = Trainer(recipe), Trainer(recipe.model_copy(deep=True))
        steps = first.steps()
        for _ in range(stop):
            next(steps)
        first.save(tmp_path / str(stop))
        second.resume(tmp_path / str(stop))
        torch.manual_seed(stop)  # global randomness is no part of the state
        assert [step.loss for step in second.steps()] == losses[stop:]
        for one, other in ((whole.model, second.model), (whole.average.model, second.average.model)):
            assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_resuming_with_another_recipe_names_what_differs(tmp_path):
    train(tiny_recipe(steps=2), tmp_path / "run", progress=False)
    with pytest.raises(BadRecipe, match=r"train\.lr, train\.objective\.dropout"):
        train(tiny_recipe(steps=2, lr=2e-3, objective={"dropout": 0.2}), tmp_path / "run", resume=True, progress=False)
    with pytest.raises(BadRecipe, match=r"model\.architecture\.model_channels"):
        train(tiny_recipe({"model_channels": 16}, steps=2), tmp_path / "run", resume=True, progress=False)


def test_a_run_may_go_on_for_longer_than_was_planned(tmp_path):
    train(tiny_recipe(steps=2, schedule="constant"), tmp_path / "run", progress=False)
    done = []
    train(
        tiny_recipe(steps=4, schedule="constant"),
        tmp_path / "run",
        resume=True,
        progress=False,
        on_step=lambda s: done.append(s.step),
    )
    assert done == [3, 4]


def test_what_cannot_be_resumed_is_refused_with_the_remedy(tmp_path):
    recipe = tiny_recipe(steps=1)
    with pytest.raises(MissingFile, match="no run to resume"):
        train(recipe, tmp_path / "nothing", resume=True, progress=False)
    train(recipe, tmp_path / "run", progress=False)
    with pytest.raises(BadValue, match=r"is not empty.*--resume"):
        train(recipe, tmp_path / "run", progress=False)
    state = tmp_path / "run" / "checkpoint" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(DamagedCheckpoint, match="cut short"):
        train(recipe, tmp_path / "run", resume=True, progress=False)


def test_the_thread_count_of_a_run_is_taken_up_again(tmp_path):
    recipe = tiny_recipe(steps=1, threads=None)
    first = Trainer(recipe, threads=1)
    first.save(tmp_path)
    assert read_notes(tmp_path)["threads"] == 1
