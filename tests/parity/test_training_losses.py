"""Training losses of openai/guided-diffusion, term by term, with their gradients, for every such fixture in the golden folder."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from parity.golden import GOLDEN, settings, tensors, tolerance
from parity.test_adm_unet import load
from parity.test_openai_process import FIXED, LEARNED, chain, table
from support.numbers import agree
from torch import Tensor, nn

from guidon.conditioning import Context
from guidon.model import Model, ModelConfig
from guidon.noise import EpsOutput, Output, X0Output
from guidon.training.objective import DenoisingLoss, Draw, Objective

OUTPUTS: dict[str, Output] = {"epsilon": EpsOutput(), "start_x": X0Output()}
SETS = sorted(path.stem for path in GOLDEN.glob("training_losses*.json"))
CASES = [
    pytest.param(name, case, id=f"{name}-{case['key']}") for name in SETS for case in settings(name).get("cases", [])
]


class Says(nn.Module):
    """A network that says the same whatever it is asked."""

    def __init__(self, said: Tensor) -> None:
        super().__init__()
        self.said = nn.Parameter(said)

    def forward(self, x: Tensor, time: Tensor, context: Context) -> Tensor:
        return self.said


def model_of(shape: tuple[int, int, int], case: dict[str, Any], classes: int | None) -> Model:
    """Return a model to which the network of the case can be given."""
    tiny = {"model_channels": 8, "channel_mult": [1], "num_res_blocks": 1, "attention": [], "in_channels": shape[0]}
    learned = case["var_type"] in LEARNED
    tiny |= {"out_channels": shape[0] * (2 if learned else 1), "vector": None if classes is None else "embedding"}
    names = None if classes is None else tuple(map(str, range(classes)))
    model = Model(ModelConfig(shape=shape, architecture=tiny, classes=names, learned_variance=learned))
    model.denoiser.process = table(case, rescale_clock=case.get("rescale_timesteps", False))
    model.denoiser.output = OUTPUTS[case["mean_type"]]
    return model


@pytest.mark.parametrize(("name", "case"), CASES)
def test_losses(name: str, case: dict[str, Any]) -> None:
    if case["mean_type"] not in OUTPUTS or case["var_type"] not in (*LEARNED, *FIXED):
        pytest.skip(f"no output {case['mean_type']} with variance {case['var_type']}")
    stored, key, source = tensors(name), case["key"], case["inputs"]
    images, noise, index = (stored[f"{source}/{part}"] for part in ("x_start", "noise", "t"))
    labels = stored.get(f"{source}/y")
    network, encoder = None, None
    if f"{source}/model_output" in stored:
        channels = images.shape[1] * (2 if case["var_type"] in LEARNED else 1)
        network = Says(stored[f"{source}/model_output"][:, :channels].clone())
    else:
        network, encoder = load(case["model"].split()[0])
    model = model_of(tuple(images.shape[1:]), case, None if encoder is None else encoder.classes)
    model.denoiser.network, model.encoder = network, encoder

    levels = chain(case, model.process)
    loss = case["loss_type"].replace("_", "-")
    if case["var_type"] in FIXED and loss == "rescaled-mse":
        loss = "mse"  # there is nothing to rescale
    fixed = {"variance": FIXED[case["var_type"]]} if case["var_type"] in FIXED and loss.endswith("kl") else {}
    objective = Objective(loss=loss, **fixed)
    t = torch.tensor([levels[i + 1].t for i in index.tolist()], dtype=torch.float64)
    draw = Draw(model.process.level(t), torch.zeros(len(images), dtype=torch.bool), noise)
    at = draw.level.like(images)
    if f"{source}/x_t" in stored:
        x_t, atol = at.alpha * images + at.sigma * noise, tolerance(name, f"{source}/x_t")
        agree(x_t, stored[f"{source}/x_t"], "x_t", rtol=1e-5, atol=atol)

    loss = DenoisingLoss(model, objective, levels[::-1])
    terms = loss.terms(images, labels, draw)
    total = loss(images, labels, draw)
    for term in case["terms"]:
        got, atol = {**terms, "loss": total}[term], tolerance(name, f"{key}/{term}")
        agree(got.detach(), stored[f"{key}/{term}"], term, rtol=1e-5, atol=atol)
    total.mean().backward()
    grads = {f"grad/{part}": value.grad for part, value in network.named_parameters()}
    if isinstance(network, Says):
        grads["grad_model_output"] = network.said.grad
    if encoder is not None:  # the original has no row for the null
        grads["grad/label_emb.weight"] = encoder.embedding.weight.grad[: encoder.classes]
    every = [value.grad.flatten() for value in model.parameters() if value.grad is not None]
    grads["grad_total_norm"] = torch.cat(every).norm()
    wanted = [part.removeprefix(f"{key}/") for part in stored if part.startswith(f"{key}/grad")]
    assert wanted or case["loss_type"].endswith("kl")
    for part in wanted:  # the original's attention has kernels of length 1 where guidon has matrices
        want = stored[f"{key}/{part}"].reshape(grads[part].shape)
        agree(grads[part], want, part, rtol=1e-5, atol=tolerance(name, f"{key}/{part}"))
