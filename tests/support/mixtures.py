"""Example mixtures for tests; what is known of a mixture is in `guidon.lab.mixture`."""

from __future__ import annotations

import torch

from guidon.lab.gaussian import Pair
from guidon.lab.mixture import NULL_LABEL, Exact, ExactClassifier, Mixture, told

__all__ = ["NULL_LABEL", "Exact", "ExactClassifier", "Mixture", "Pair", "field", "plane", "told"]


def plane() -> Mixture:
    """Return two classes of two components each in the plane, with full covariances."""
    cov = [[[0.30, 0.1], [0.1, 0.15]], [[0.2, -0.1], [-0.1, 0.3]], [[0.1, 0.0], [0.0, 0.4]], [[0.25, 0.1], [0.1, 0.1]]]
    means = [[-1.5, 0.4], [-0.6, 1.6], [1.2, 0.5], [1.7, -1.3]]
    return Mixture(
        torch.tensor([0.3, 0.2, 0.2, 0.3]), torch.tensor(means), torch.tensor(cov), torch.tensor([0, 0, 1, 1])
    )


def field() -> Mixture:
    """Return two classes of small images (2, 3, 3), with diagonal covariances."""
    g = torch.Generator().manual_seed(5)
    means, var = torch.randn(3, 2, 3, 3, generator=g), 0.05 + 0.3 * torch.rand(3, 2, 3, 3, generator=g)
    return Mixture(torch.tensor([0.3, 0.3, 0.4]), means, var, torch.tensor([0, 0, 1]))
