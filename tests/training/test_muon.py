from __future__ import annotations

import pytest
import torch
from torch import nn

from guidon.training.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(3, 24, 24), (2, 16, 40), (2, 40, 16)])
def test_the_factor_keeps_directions_and_brings_singular_values_near_one(shape):
    u, _, vh = torch.linalg.svd(torch.randn(shape, generator=torch.Generator().manual_seed(0)), full_matrices=False)
    matrices = u @ torch.diag(torch.linspace(0.1, 3, min(shape[1:]))) @ vh
    factor = orthogonal(matrices).float()
    along = u.mT @ factor @ vh.mT  # diagonal where the directions are kept
    values = torch.diagonal(along, dim1=1, dim2=2)
    assert values.min() > 0.5
    assert values.max() < 1.4
    assert (along - torch.diag_embed(values)).abs().max() < 0.1


def test_a_kernel_is_a_matrix_of_its_outputs_in_any_memory_layout():
    generator = torch.Generator().manual_seed(0)
    start, gradient = (torch.randn(8, 4, 3, 3, generator=generator) for _ in range(2))
    steps = []
    for layout in (torch.contiguous_format, torch.channels_last):
        kernel = nn.Parameter(start.clone(memory_format=layout))
        kernel.grad = gradient.clone(memory_format=layout)
        Muon([kernel], lr=0.1).step()
        steps.append(kernel.detach() - start)
    torch.testing.assert_close(steps[0], steps[1], atol=5e-3, rtol=0)
    expected = -0.1 * orthogonal(gradient.flatten(1)[None])[0].float().view_as(start)
    torch.testing.assert_close(steps[0], expected, atol=5e-3, rtol=0)


def test_weights_of_one_shape_do_not_mix():
    generator = torch.Generator().manual_seed(0)
    weights = [nn.Parameter(torch.randn(6, 6, generator=generator)) for _ in range(3)]
    alone = nn.Parameter(weights[1].detach().clone())
    for weight in weights:
        weight.grad = torch.randn(6, 6, generator=generator)
    alone.grad = weights[1].grad.clone()
    for optimizer in (Muon(weights, weight_decay=0.1), Muon([alone], weight_decay=0.1)):
        for _ in range(3):
            optimizer.step()
    torch.testing.assert_close(weights[1], alone, atol=1e-3, rtol=0)
