from __future__ import annotations

import errno
import json
import math
import os
import signal
import time
from itertools import islice

import pytest
import torch
import yaml
from PIL import Image
from training.tiny import tiny_recipe

import guidon.training.state
from guidon.errors import BadRecipe, BadValue, NumericalError, SaveFailed
from guidon.model import Model
from guidon.training.loop import train
from guidon.training.optimizer import build_optimizers, share_of_peak
from guidon.training.recipe import read_recipe
from guidon.training.snapshots import read_snapshots, reconstruct_model
from guidon.training.state import read_notes
from guidon.training.threads import fastest_threads
from guidon.training.trainer import Trainer

DOORS = {
    "adagn": {"vector": "embedding"},
    "film": {"vector": "film"},
    "cross": {"vector": None, "tokens": "cross", "token_width": 8, "attention": [1]},
    "append": {"vector": None, "tokens": "append", "token_width": 8, "attention": [1]},
    "concat": {"vector": None, "spatial_channels": 4},
}


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    recipe = tiny_recipe(
        steps=6,
        sample_every=3,
        log_every=2,
        trackers=["tensorboard"],
        power_averages=[0.05, 0.1],
        snapshot_every=2,
        sample_weights=[0, 1, 3],
    )
    steps = []
    model = train(recipe, out, progress=False, on_step=steps.append)
    return out, recipe, model, steps


def test_a_run_leaves_all_that_it_promises(run):
    out, recipe, model, steps = run
    assert [step.step for step in steps] == list(range(1, 7))
    assert steps[-1].images == 96
    assert steps[-1].progress == 1.0
    assert read_recipe(yaml.safe_load((out / "recipe.yaml").read_text())) == recipe
    assert list((out / "logs").glob("events.out.tfevents*"))
    assert sorted(path.name for path in (out / "samples").iterdir()) == ["step-0000003.png", "step-0000006.png"]
    width, height = Image.open(out / "samples" / "step-0000006.png").size
    assert width > height > 3 * 60
    account = json.loads((out / "train.json").read_text())
    assert (account["steps"], account["images"], account["skipped"]["count"]) == (6, 96, 0)
    assert account["loss"] == pytest.approx(sum(step.loss for step in steps) / 6)
    assert account["images_per_second"] == pytest.approx(96 / account["seconds"], rel=0.1)
    loaded = Model.from_pretrained(out / "model")
    assert torch.equal(weights(loaded), weights(model))
    assert loaded.config.training["steps"] == 6
    assert loaded.sample([3], steps=2).x.shape == (1, 1, 8, 8)


def test_the_model_is_the_average_and_not_the_raw_weights():
    trainer = Trainer(tiny_recipe(steps=4, average="decay(0.5)"))
    seen = [weights(trainer.model) for _ in trainer.steps()]
    expected = seen[0]
    for raw in seen[1:]:
        expected = 0.5 * expected + 0.5 * raw
    torch.testing.assert_close(weights(trainer.average.model), expected)
    assert not torch.equal(expected, seen[-1])


def test_power_averages_are_stored_and_reconstruct_a_model(run):
    out, *_ = run
    assert [(snapshot.images, snapshot.length) for snapshot in read_snapshots(out / "snapshots")] == [
        (32, 0.05), (32, 0.1), (64, 0.05), (64, 0.1), (96, 0.05), (96, 0.1)
    ]  # fmt: skip
    model = reconstruct_model(out, 0.08)
    assert torch.isfinite(weights(model)).all()
    with pytest.raises(BadValue, match="up to 96 images"):
        reconstruct_model(out, 0.08, images=1000)


@pytest.mark.parametrize("way", DOORS)
def test_overfitting_drives_the_loss_down_and_the_condition_matters(way):
    recipe = tiny_recipe(DOORS[way] | {"dropout": 0.0}, steps=40, lr=1e-2, schedule="constant", warmup=0)
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"limit": 16})})
    trainer = Trainer(recipe)
    losses = [step.loss for step in trainer.steps()]
    assert sum(losses[-8:]) < 0.75 * sum(losses[:8])
    model = trainer.model
    one, other = (model.sample([label], rule=1, steps=3, seed=[0]).x for label in (0, 1))
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("output", ["eps", "x0", "v", "velocity", "edm"])
def test_every_objective_learns(output):
    recipe = tiny_recipe({"dropout": 0.0}, steps=30, lr=1e-2, warmup=0, objective={"weighting": "min-snr"})
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"output": output})})
    losses = [step.loss for step in Trainer(recipe).steps()]
    assert sum(losses[-8:]) < 0.8 * sum(losses[:8])


def test_cutting_a_batch_into_parts_changes_nothing_but_memory():
    whole, parts = (Trainer(tiny_recipe({"dropout": 0.0}, steps=3, accumulate=n)) for n in (1, 4))
    for a, b in zip(whole.steps(), parts.steps(), strict=True):
        assert a.loss == pytest.approx(b.loss, rel=1e-5)
        assert a.gradient == pytest.approx(b.gradient, rel=1e-4)
    torch.testing.assert_close(weights(whole.model), weights(parts.model), rtol=1e-4, atol=1e-4)


def test_the_gradient_is_clipped():
    free, bound = (Trainer(tiny_recipe(steps=1, clip=clip)) for clip in (1e9, 1e-3))
    one, other = next(free.steps()), next(bound.steps())
    assert one.gradient == pytest.approx(other.gradient)
    moments = [
        sum(s["exp_avg"].square().sum() for s in t._optimizers[0].optimizer.state.values()).sqrt()
        for t in (free, bound)
    ]
    assert float(moments[1]) == pytest.approx(1e-3 * (1 - 0.9), rel=1e-3)
    assert float(moments[0]) == pytest.approx(one.gradient * (1 - 0.9), rel=1e-3)


def test_a_budget_ends_the_run_with_a_finished_model(tmp_path):
    recipe = tiny_recipe(steps=None, budget="1s")
    begun = time.monotonic()
    steps = []
    train(recipe, tmp_path / "run", progress=False, on_step=steps.append)
    assert steps[-1].seconds >= 1 > steps[-2].seconds
    assert time.monotonic() - begun < 10
    assert steps[-1].progress == 1.0
    assert steps[-2].lr < 0.2 * max(step.lr for step in steps)  # the schedule ends with the budget
    Model.from_pretrained(tmp_path / "run" / "model")
    more = []  # the time before a stop counts
    train(recipe, tmp_path / "run", resume=True, budget="1.5s", progress=False, on_step=more.append)
    assert more[0].step == steps[-1].step + 1
    assert more[0].seconds > steps[-1].seconds
    assert more[-1].seconds - steps[-1].seconds < 1


@pytest.mark.parametrize(
    ("schedule", "expected"), [("constant", [1, 1, 1]), ("linear", [1, 0.5, 0]), ("cosine", [1, 0.5, 0])]
)
def test_learning_rate_schedules(schedule, expected):
    settings = tiny_recipe(schedule=schedule, warmup=4).train
    assert [share_of_peak(settings, 100, p) for p in (0.0, 0.5, 1.0)] == pytest.approx(expected)
    assert [share_of_peak(settings, step, 0.0) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_both_optimizers_together_hold_every_parameter_once():
    model = Trainer(tiny_recipe(steps=1)).model
    optimizers = build_optimizers(model, tiny_recipe(steps=1, optimizer="muon").train)
    held = [p for optimizer in optimizers.values() for group in optimizer.param_groups for p in group["params"]]
    assert sorted(map(id, held)) == sorted(map(id, model.parameters()))
    by_muon = {id(p) for p in optimizers["muon"].param_groups[0]["params"]}
    network = model.denoiser.network
    assert all(
        id(p) not in by_muon
        for p in (network.input_blocks[0][0].weight, network.out[2].weight, model.encoder.embedding.weight)
    )
    assert id(network.middle_block[0].in_layers[2].weight) in by_muon


def test_a_loss_that_is_not_finite_stops_the_run_before_it_spoils_the_weights(tmp_path):
    trainer = Trainer(tiny_recipe(steps=9))
    steps = trainer.steps()
    for _ in islice(steps, 2):
        pass
    before = weights(trainer.model)
    trainer.model.denoiser.network.register_forward_hook(lambda module, args, out: out * math.nan)
    with pytest.raises(NumericalError, match=r"at step 3 the loss is nan.*lower train\.lr"):
        next(steps)
    assert torch.equal(weights(trainer.model), before)


def test_a_full_disk_leaves_the_checkpoint_that_was_there(tmp_path, monkeypatch):
    recipe = tiny_recipe(steps=6, checkpoint_every=2)
    real, calls = guidon.training.state.write_tensors, []

    def fills_up(path, tensors):
        calls.append(path)
        if len(calls) == 3:  # the one of step 4, after those of the start and of step 2
            path.write_bytes(b"as much as fits")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, tensors)

    monkeypatch.setattr(guidon.training.state, "write_tensors", fills_up)
    with pytest.raises(SaveFailed, match=r"No space left.*untouched.*--resume"):
        train(recipe, tmp_path / "run", progress=False)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["checkpoint", "recipe.yaml"]
    steps = []
    train(recipe, tmp_path / "run", resume=True, progress=False, on_step=lambda s: steps.append(s.step))
    assert steps == [3, 4, 5, 6]


def test_a_batch_that_does_not_divide_and_an_unknown_tracker_are_refused(tmp_path):
    with pytest.raises(BadRecipe, match="trackers"):
        train(tiny_recipe(trackers=["tensorbored"]), tmp_path / "run", progress=False)


def test_another_precision_in_the_same_process():
    for precision in ("fp32", "bf16", "fp32"):
        next(Trainer(tiny_recipe(steps=1, precision=precision)).steps())


def test_the_fastest_thread_count_is_found_and_the_current_one_kept():
    before, used = torch.get_num_threads(), []

    def work() -> None:
        used.append(torch.get_num_threads())
        time.sleep({1: 0.03, 2: 0.005, 3: 0.02}[torch.get_num_threads()])

    assert fastest_threads(work, 3) == 2
    assert used == [1] * 4 + [2] * 4 + [3] * 4
    assert torch.get_num_threads() == before
    assert fastest_threads(lambda: time.sleep(0.01), 2) == 1  # no gain: the fewest


def test_an_unconditional_model_trains_and_samples(tmp_path):
    model = train(tiny_recipe({"vector": None}, steps=2, sample_every=1), tmp_path / "run", progress=False)
    assert model.classes is None
    assert model.sample(n=2, rule=1, steps=2).x.shape == (2, 1, 8, 8)


def test_ctrl_c_finishes_the_step_and_leaves_a_checkpoint_of_it(tmp_path):
    def press(step):
        if step.step == 4:
            signal.raise_signal(signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_recipe(steps=6), tmp_path / "run", progress=False, on_step=press)
    assert signal.getsignal(signal.SIGINT) is before
    assert read_notes(tmp_path / "run/checkpoint")["step"] == 4
    stopped = train(tiny_recipe(steps=6), tmp_path / "run", resume=True, progress=False).state_dict()
    straight = train(tiny_recipe(steps=6), tmp_path / "straight", progress=False).state_dict()
    assert all(torch.equal(stopped[name], value) for name, value in straight.items())
