"""Mixtures of Gaussians, of which everything is known at every noise level: beliefs, densities, classes.

What a perfect network would answer is a formula, so guidance can be judged without the errors of a trained one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from guidon.conditioning.condition import Context
from guidon.errors import BadValue, NotSupported, ShapeMismatch
from guidon.noise import Level, Output, Prediction
from guidon.noise.level import Number

NULL_LABEL = -1


class Truth(Protocol):
    """What is known exactly: the beliefs about clean image and noise."""

    def believe(self, x: Tensor, alpha: Number, sigma: Number, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return E[x0 | x] and E[eps | x] at states (B, *shape), given labels (B,); -1 is no class."""
        ...


class Classifies(Protocol):
    """What knows the classes of noisy images exactly."""

    def log_posterior(self, x: Tensor, level: Level, labels: Tensor) -> Tensor:
        """Return log p(label | x_t), (B,), for states (B, *shape)."""
        ...


class Mixture:
    """Components N(mean, cov) with weights, each of one class; given a class only its components count.

    Everything is computed in float64 and takes states (B, *shape), alpha and sigma of a level (one, or one a state) and
    labels (B,), -1 for no class.

    Args:
        weights: (K,), > 0; they are scaled to sum to 1.
        means: (K, *shape).
        cov: (K, D, D) with D the product of shape, or the variances (K, *shape) of diagonal ones.
        component_class: (K,), whole numbers from 0.

    Raises:
        ShapeMismatch: the parts do not go together.
    """

    def __init__(self, weights: Tensor, means: Tensor, cov: Tensor, component_class: Tensor) -> None:
        self.shape, self.means = means.shape[1:], means.double().flatten(1)
        self.log_weights = torch.log_softmax(weights.double().log(), 0)
        self.component_class = component_class.long()
        components, dimensions = self.means.shape
        if not len(weights) == len(component_class) == len(cov) == components:
            raise ShapeMismatch(
                f"a mixture needs a weight, a mean, a covariance and a class for each component; got {len(weights)}, "
                f"{components}, {len(cov)} and {len(component_class)}"
            )
        self.axes: Tensor | None = None
        if cov.shape == means.shape:
            self.variances = cov.double().flatten(1)
        elif cov.shape[1:] == (dimensions, dimensions):  # in the axes of its own covariance a component is diagonal
            self.variances, self.axes = torch.linalg.eigh(cov.double())
        else:
            raise ShapeMismatch(
                f"covariances are (K, {dimensions}, {dimensions}), or variances {tuple(means.shape)}; "
                f"these are {tuple(cov.shape)}"
            )

    @staticmethod
    def read(tensors: Mapping[str, Tensor], prefix: str) -> Mixture:
        """Read the mixture whose parts are named ``prefix/weights``, ``/means``, ``/component_class``, and ``/cov`` or ``/var``.

        Raises:
            BadValue: a part is missing.
        """
        spread = "cov" if f"{prefix}/cov" in tensors else "var"
        names = [f"{prefix}/{name}" for name in ("weights", "means", spread, "component_class")]
        if missing := [name for name in names if name not in tensors]:
            raise BadValue(f"a mixture is missing {', '.join(missing)}; give another prefix")
        return Mixture(*(tensors[name] for name in names))

    @property
    def classes(self) -> int:
        """The number of classes."""
        return int(self.component_class.max()) + 1

    def believe(self, x: Tensor, alpha: Number, sigma: Number, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return E[x0 | x] and E[eps | x], (B, *shape) each, in the type of ``x``."""
        a, s = rows(alpha, x, 3), rows(sigma, x, 3)
        away, total = self._away(x, a, s)
        pull = away / total
        log_r = self.log_weights - 0.5 * (total.log() + away * pull).sum(-1)
        r = torch.softmax(log_r.masked_fill(~self._allowed(labels), -torch.inf), dim=1)[..., None]
        clean, noise = a * self.variances * pull, s * pull
        if self.axes is not None:
            clean, noise = (torch.einsum("kij,bkj->bki", self.axes, part) for part in (clean, noise))
        x0, eps = (r * (self.means + clean)).sum(1), (r * noise).sum(1)
        return x0.reshape(x.shape).to(x.dtype), eps.reshape(x.shape).to(x.dtype)

    def score(self, x: Tensor, alpha: Number, sigma: Number, labels: Tensor) -> Tensor:
        """Return the gradient of `log_density` at ``x``, (B, *shape)."""
        return -self.believe(x, alpha, sigma, labels)[1] / rows(sigma, x, x.ndim).to(x.dtype)

    def log_density(self, x: Tensor, alpha: Number, sigma: Number, labels: Tensor) -> Tensor:
        """Return log p(x_t | class), float64 (B,), differentiable in ``x``."""
        allowed = self._allowed(labels)
        share = self.log_weights.expand(allowed.shape).masked_fill(~allowed, -torch.inf).logsumexp(1)
        return self._log_joint(x, alpha, sigma).masked_fill(~allowed, -torch.inf).logsumexp(1) - share

    def log_posterior(self, x: Tensor, level: Level, labels: Tensor) -> Tensor:
        """Return log p(class | x_t), float64 (B,), differentiable in ``x``."""
        log_joint = self._log_joint(x, level.alpha, level.sigma)
        return log_joint.masked_fill(~self._allowed(labels), -torch.inf).logsumexp(1) - log_joint.logsumexp(1)

    def sample(self, n: int, label: int, generator: torch.Generator) -> Tensor:
        """Draw ``n`` clean points, float64 (n, *shape), of a class, or of all with -1."""
        allowed = self._allowed(torch.tensor([label]))[0]
        k = torch.multinomial(self.log_weights.exp() * allowed, n, replacement=True, generator=generator)
        normal = torch.randn(n, self.means.shape[1], generator=generator, dtype=torch.float64)
        spread = normal * self.variances[k].sqrt()
        if self.axes is not None:
            spread = torch.einsum("nij,nj->ni", self.axes[k], spread)
        return (self.means[k] + spread).reshape(n, *self.shape)

    def _allowed(self, labels: Tensor) -> Tensor:
        """Return which components count for each label, (B, K)."""
        labels = labels.long()
        if bool((labels < NULL_LABEL).any()) or bool((labels >= self.classes).any()):
            raise NotSupported(f"the mixture has the classes 0 to {self.classes - 1}, and -1 for none; got {labels}")
        return (labels[:, None] == self.component_class) | (labels[:, None] == NULL_LABEL)

    def _away(self, x: Tensor, a: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """Return the way from each component's mean, in its axes, and its noisy variances, (B, K, D)."""
        away = x.double().flatten(1)[:, None] - a * self.means
        away = away if self.axes is None else torch.einsum("kij,bki->bkj", self.axes, away)
        return away, a**2 * self.variances + s**2

    def _log_joint(self, x: Tensor, alpha: Number, sigma: Number) -> Tensor:
        """Return log p(component, x_t), (B, K)."""
        away, total = self._away(x, rows(alpha, x, 3), rows(sigma, x, 3))
        return self.log_weights - 0.5 * ((2 * torch.pi * total).log() + away**2 / total).sum(-1)


def rows(value: Number, x: Tensor, axes: int) -> Tensor:
    """Return one number, or one for each row of ``x`` (B, ...), as float64 of so many axes on the device of ``x``."""
    return torch.as_tensor(value, dtype=torch.float64, device=x.device).reshape(-1, *[1] * (axes - 1))


class Exact:
    """The perfect network of what is known exactly; fits the engine's `Denoises`.

    Args:
        truth: what it knows: a `Mixture`, `Gaussians`, an `Empirical`.
        output: the parameterisation its raw tensor goes through; None gives clean image and noise as they are.
        fraction: the variance fraction that it claims to have learned, in [0, 1].

    Attributes:
        forwards, rows: calls so far, and rows in them.
    """

    def __init__(self, truth: Truth, output: Output | None = None, fraction: float | None = None) -> None:
        self.truth, self.output, self.fraction = truth, output, fraction
        self.forwards = self.rows = 0

    def __call__(self, x: Tensor, level: Level, context: Context) -> Prediction:
        """Return what is believed at ``x`` (B, *shape); the context's vector holds the labels first."""
        self.forwards += 1
        self.rows += x.shape[0]
        x0, eps = self.truth.believe(x, level.alpha, level.sigma, labels_of(context))
        fraction = None if self.fraction is None else torch.full_like(x, self.fraction)
        if self.output is None:
            return Prediction(x, level, x0, eps, fraction)
        return self.output.read(x, self.output.target(x0, eps, level), level, fraction)


class ExactClassifier:
    """The perfect classifier of noisy images; fits the engine, under the name "classifier".

    Args:
        truth: what it knows: a `Mixture` or an `Empirical`.
    """

    def __init__(self, truth: Classifies) -> None:
        self.truth = truth

    def log_prob(self, x: Tensor, level: Level, context: Context) -> Tensor:
        """Return log p(class | x_t), float64 (B,), differentiable in ``x`` (B, *shape)."""
        return self.truth.log_posterior(x, level, labels_of(context))


def told(labels: Sequence[int] | Tensor) -> dict[str, Context]:
    """Return the contexts of a trajectory whose images have these labels."""
    given = torch.as_tensor(labels).double().reshape(-1, 1)
    return {"given": Context(vector=given), "null": Context(vector=torch.full_like(given, NULL_LABEL))}


def labels_of(context: Context) -> Tensor:
    """Return the labels (B,) that `told` put into a context."""
    if context.vector is None:
        raise NotSupported("an exact network reads the label in the vector of its context; make contexts with told")
    return context.vector[:, 0].long()
