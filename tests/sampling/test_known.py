from __future__ import annotations

import pytest
import torch
from support.text_models import text_model
from torch import Tensor

from guidon.guidance.rule import Guided
from guidon.model import Model
from guidon.noise import Level
from guidon.noise.prediction import Prediction
from guidon.sampling.known import Known


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LEVEL = Level(0.5, 0.6, 1.7)
MASK = (drawn(2, 1, 4, 4, seed=9) > 0).double()
KNOWN = Known(drawn(2, 3, 4, 4, seed=8) * MASK, MASK)


def test_known_pixels_are_believed_and_the_noise_follows() -> None:
    x0, eps = drawn(2, 3, 4, 4, seed=1), drawn(2, 3, 4, 4, seed=2)
    kept = KNOWN.kept(Guided(x0, eps), LEVEL)
    torch.testing.assert_close(kept.x0 * MASK, KNOWN.pixels)
    torch.testing.assert_close(kept.x0 * (1 - MASK), x0 * (1 - MASK))
    torch.testing.assert_close(LEVEL.alpha * kept.x0 + LEVEL.sigma * kept.eps, LEVEL.alpha * x0 + LEVEL.sigma * eps)


def test_the_noise_of_another_estimate_follows_that_estimate() -> None:
    x, x0, other = drawn(2, 3, 4, 4, seed=3), drawn(2, 3, 4, 4, seed=1), drawn(2, 3, 4, 4, seed=4)
    given = Prediction.from_x0(x, other, LEVEL)
    kept = KNOWN.kept(Guided(x0, given.eps, noise_x0=other, given=given), LEVEL)
    assert kept.noise_x0 is not None and kept.given is not None
    torch.testing.assert_close(kept.noise_x0 * MASK, KNOWN.pixels)
    torch.testing.assert_close(LEVEL.alpha * kept.noise_x0 + LEVEL.sigma * kept.eps, x)
    torch.testing.assert_close(kept.given.x0 * MASK, KNOWN.pixels)


@pytest.fixture(scope="module")
def model() -> Model:
    return text_model("cross", architecture={"spatial_channels": 2}, inpaint=True)


RULES = ["cfg(3)", "cfg(4) | dynamic-threshold", "cfg(4) | apg | rescale(0.7)", "cfg(3) | cfg-zero", "cfg(4) | cads"]


@pytest.mark.parametrize("solver", ["ddim", "dpmpp-2m", "heun"])
@pytest.mark.parametrize("rule", [*RULES, "cfgpp(0.6)"])
def test_known_pixels_stay_under_any_rule_at_every_step(model: Model, rule: str, solver: str) -> None:
    if rule.startswith("cfgpp") and solver == "heun":
        pytest.skip("CFG++ goes with other solvers")
    picture = drawn(1, 1, 8, 8, seed=5).float().clamp(-1, 1)
    repaint = (drawn(1, 1, 8, 8, seed=6) > 0).float()
    seen: list[Tensor] = []
    samples = model.sample(
        ["a red circle", "two green triangles"],
        rule=rule,
        solver=solver,
        steps=5,
        inpaint=picture,
        repaint=repaint,
        on_step=lambda step, steps, x0: seen.append(x0),
    )
    known = (1 - repaint).expand(2, -1, -1, -1).bool()
    for x0 in (*seen[:-1], samples.x):
        torch.testing.assert_close(x0[known], picture.expand(2, -1, -1, -1)[known], rtol=0, atol=1e-4)
    free = model.sample(["a red circle", "two green triangles"], rule=rule, solver=solver, steps=5)
    assert (free.x[known] - samples.x[known]).abs().max() > 0.1
