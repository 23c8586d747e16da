"""An exact denoiser: what a perfect network would believe about a mixture of Gaussians, in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from guidon.conditioning.condition import Context
from guidon.noise import Level, Output, Prediction

NULL_LABEL = -1


class Mixture:
    """Components N(mean, cov) with weights, each of one class; conditional on a class only its components count.

    Args:
        weights: (K,).
        means: (K, *shape).
        cov: (K, D, D) with D the product of shape, or the variances (K, *shape) of diagonal ones.
        component_class: (K,), whole numbers from 0.
    """

    def __init__(self, weights: Tensor, means: Tensor, cov: Tensor, component_class: Tensor) -> None:
        self.shape = means.shape[1:]
        self.log_weights = weights.double().log()
        self.means = means.double().flatten(1)
        self.component_class = component_class.long()
        if cov.shape == means.shape and cov.ndim != 3:
            self.axes, self.variances = None, cov.double().flatten(1)
        else:  # in the axes of its own covariance a component is diagonal
            self.variances, self.axes = torch.linalg.eigh(cov.double())

    @staticmethod
    def read(tensors: Mapping[str, Tensor], prefix: str) -> Mixture:
        """Read the mixture stored under ``prefix`` of a golden file."""
        cov = tensors.get(f"{prefix}/cov", tensors.get(f"{prefix}/var"))
        assert cov is not None
        return Mixture(
            *(tensors[f"{prefix}/{name}"] for name in ("weights", "means")), cov, tensors[f"{prefix}/component_class"]
        )

    @property
    def classes(self) -> int:
        return int(self.component_class.max()) + 1

    def believe(self, x: Tensor, alpha: Tensor | float, sigma: Tensor | float, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return E[x0 | x] and E[eps | x] for states (B, *shape); label -1 is no class."""
        a, s = (torch.as_tensor(v, dtype=torch.float64).reshape(-1, 1, 1) for v in (alpha, sigma))
        away = x.double().flatten(1)[:, None] - a * self.means  # (B, K, D)
        away = away if self.axes is None else torch.einsum("kij,bki->bkj", self.axes, away)
        total = a**2 * self.variances + s**2
        pull = away / total
        log_r = self.log_weights - 0.5 * (total.log() + away * pull).sum(-1)
        allowed = (labels[:, None] == self.component_class) | (labels[:, None] == NULL_LABEL)
        r = torch.softmax(log_r.masked_fill(~allowed, -torch.inf), dim=1)[..., None]
        turned = a * self.variances * pull, s * pull
        if self.axes is not None:
            turned = tuple(torch.einsum("kij,bkj->bki", self.axes, part) for part in turned)  # type: ignore[assignment]
        x0, eps = (r * (self.means + turned[0])).sum(1), (r * turned[1]).sum(1)
        return x0.reshape(x.shape).to(x.dtype), eps.reshape(x.shape).to(x.dtype)

    def sample(self, n: int, label: int, generator: torch.Generator) -> Tensor:
        """Draw ``n`` clean points (n, *shape) of a class, or of all with -1."""
        allowed = (self.component_class == label) | (label == NULL_LABEL)
        k = torch.multinomial(self.log_weights.exp() * allowed, n, replacement=True, generator=generator)
        spread = (
            torch.randn(n, self.means.shape[1], generator=generator, dtype=torch.float64) * self.variances[k].sqrt()
        )
        if self.axes is not None:
            spread = torch.einsum("nij,nj->ni", self.axes[k], spread)
        return (self.means[k] + spread).reshape(n, *self.shape)


class Exact:
    """The perfect network of a mixture, through any output; fits the engine's `Denoises`.

    Args:
        mixture: what it knows.
        output: the parameterisation its raw tensor goes through; None gives clean image and noise as they are.
        fraction: the variance fraction that it claims to have learned.

    Attributes:
        forwards, rows: calls so far, and rows in them.
    """

    def __init__(self, mixture: Mixture, output: Output | None = None, fraction: float | None = None) -> None:
        self.mixture, self.output, self.fraction = mixture, output, fraction
        self.forwards = self.rows = 0

    def __call__(self, x: Tensor, level: Level, context: Context) -> Prediction:
        self.forwards += 1
        self.rows += x.shape[0]
        assert context.vector is not None
        x0, eps = self.mixture.believe(x, level.alpha, level.sigma, context.vector[:, 0].long())
        fraction = None if self.fraction is None else torch.full_like(x, self.fraction)
        if self.output is None:
            return Prediction(x, level, x0, eps, fraction)
        return self.output.read(x, self.output.target(x0, eps, level), level, fraction)


def told(labels: Sequence[int] | Tensor) -> dict[str, Context]:
    """Return the contexts of a trajectory whose images have these labels."""
    given = torch.as_tensor(labels).double().reshape(-1, 1)
    return {"given": Context(vector=given), "null": Context(vector=torch.full_like(given, NULL_LABEL))}


class Pair(Mixture):
    """Two unrelated Gaussians: class 0 and "no class", for closed forms where p(x) is not a mixture of the classes."""

    def __init__(self, mean: float, std: float, mean_all: float, std_all: float) -> None:
        means, stds = (
            torch.tensor([[mean], [mean_all]], dtype=torch.float64),
            torch.tensor([std, std_all], dtype=torch.float64),
        )
        super().__init__(torch.ones(2) / 2, means, (stds**2)[:, None, None], torch.tensor([0, 1]))

    def believe(self, x: Tensor, alpha: Tensor | float, sigma: Tensor | float, labels: Tensor) -> tuple[Tensor, Tensor]:
        return super().believe(x, alpha, sigma, torch.where(labels == NULL_LABEL, 1, labels))


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
