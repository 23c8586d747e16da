from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from guidon.errors import BadValue
from guidon.registry import parse, to_text
from guidon.training.ema import (
    Average,
    Decay,
    HalfLife,
    Power,
    Snapshot,
    gamma_of_length,
    length_of_gamma,
    reconstruct,
    shares,
)

PROFILES = [Decay(0.9), HalfLife(1000), HalfLife(1000, ramp=None), Power(0.05), Power(0.2)]


def follow(profile, path, batch=10):
    """Average a path of one-number weights."""
    model = nn.Linear(1, 1, bias=False)
    average = Average(model, profile)
    for step, value in enumerate(path):
        model.weight.data.fill_(value)
        average.update(model, step * batch, batch)
    return average.model.weight.item()


@pytest.mark.parametrize("profile", PROFILES, ids=str)
def test_weights_that_stand_still_are_their_own_average(profile):
    assert follow(profile, [0.7] * 50) == pytest.approx(0.7, rel=1e-6)


@pytest.mark.parametrize("profile", PROFILES, ids=str)
def test_the_text_form_goes_both_ways(profile):
    assert parse("average", to_text(profile)) == profile


def test_decay_is_the_plain_exponential_average():
    expected = 1.0
    for value in (2.0, 4.0):
        expected = 0.9 * expected + 0.1 * value
    assert follow(Decay(0.9), [1.0, 2.0, 4.0]) == pytest.approx(expected)


def test_half_of_the_weight_is_forgotten_in_a_half_life():
    path = [1.0] * 101 + [0.0] * 100  # 100 steps of 10 images are the half-life
    assert follow(HalfLife(1000, ramp=None), path) == pytest.approx(0.5, rel=1e-3)
    assert follow(HalfLife(1000), [5.0, 1.0]) == pytest.approx(1.0, abs=1e-5)  # the ramp forgets the start


def test_the_half_life_does_not_depend_on_the_batch_size():
    path = np.sin(np.linspace(0, 3, 400))
    small = follow(HalfLife(500), np.repeat(path, 2), batch=5)
    assert small == pytest.approx(follow(HalfLife(500), path, batch=10), abs=2e-3)


def test_a_power_average_has_the_length_it_is_named_for():
    # average the path t and the path t^2: their means give the standard deviation of the profile over t
    time = np.linspace(0, 1, 4000)
    mean, square = follow(Power(0.1), time), follow(Power(0.1), time**2)
    assert math.sqrt(square - mean**2) == pytest.approx(0.1, rel=0.01)


@pytest.mark.parametrize(("gamma", "length"), [(0.0, 1 / math.sqrt(12)), (6.94, 0.1), (16.97, 0.05)])
def test_length_and_exponent_of_the_paper(gamma, length):
    """The paper's section 3.1 gives gamma = 6.94 for 10 % and 16.97 for 5 %."""
    assert length_of_gamma(gamma) == pytest.approx(length, rel=1e-3)
    assert gamma_of_length(length) == pytest.approx(gamma, abs=0.01)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 2.0, 25.0])
def test_exponent_and_length_are_inverse(gamma):
    assert gamma_of_length(length_of_gamma(gamma)) == pytest.approx(gamma, abs=1e-6)


def snapshots_of(path, lengths, every, batch=10):
    """Follow a path of weight vectors with several power averages, storing each now and then."""
    model = nn.Linear(path.shape[1], 1, bias=False)
    averages = [Average(model, Power(length)) for length in lengths]
    stored = []
    for step, weights in enumerate(path):
        model.weight.data.copy_(torch.tensor(weights)[None])
        for length, average in zip(lengths, averages, strict=True):
            average.update(model, step * batch, batch)
            if (step + 1) % every == 0:
                state = {name: value.clone() for name, value in average.model.state_dict().items()}
                stored.append(Snapshot((step + 1) * batch, length, state))
    return stored


@pytest.fixture(scope="module")
def path():
    """A path as training has it: settling, oscillating and noisy."""
    time = np.linspace(0, 1, 2000)[:, None]
    noise = np.random.default_rng(0).normal(size=(2000, 6)).cumsum(0) / 50
    return np.concatenate([np.exp(-3 * time), np.sin(9 * time), time**2, noise[:, :3]], axis=1).astype(np.float32)


@pytest.mark.parametrize("length", [0.06, 0.08, 0.15])
def test_two_profiles_reconstruct_a_third_that_was_tracked_directly(path, length):
    stored = snapshots_of(path, [0.05, 0.10], every=100)
    direct = snapshots_of(path, [length], every=2000)[0].tensors["weight"]
    made = reconstruct(stored, length)["weight"]
    scale = float(torch.tensor(path).std(0).mean())
    assert float((made - direct).abs().max()) < 0.01 * scale
    earlier = snapshots_of(path[:1000], [length], every=1000)[0].tensors["weight"]
    assert float((reconstruct(stored, length, images=10_000)["weight"] - earlier).abs().max()) < 0.02 * scale


def test_a_stored_profile_reconstructs_itself_and_constants_stay(path):
    stored = snapshots_of(path[:400], [0.05, 0.10], every=100)
    torch.testing.assert_close(reconstruct(stored, 0.10)["weight"], stored[-1].tensors["weight"], rtol=1e-4, atol=1e-5)
    assert shares(stored, 0.07, 4000).sum() == pytest.approx(1.0)


def test_what_cannot_be_is_refused(path):
    stored = snapshots_of(path[:100], [0.05], every=100)
    for call in (
        lambda: reconstruct([], 0.1),
        lambda: reconstruct(stored, 0.1, images=1001),
        lambda: Power(0.3),
        lambda: Decay(1.0),
        lambda: HalfLife(0),
        lambda: length_of_gamma(-1),
    ):
        with pytest.raises(BadValue):
            call()
