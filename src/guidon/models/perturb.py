"""How a network is weakened: which layers a `Perturbation` means, and the few tensor operations behind it.

Perturbed and plain rows share a forward, so everything here acts on some rows of a batch and leaves the others alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from guidon.errors import BadValue, NotSupported, nearest
from guidon.perturbation import Perturbation

Perturbed = Sequence[tuple[Perturbation, slice]]
"""Which rows of a batch are weakened, and how."""


def layers_of(network: nn.Module, perturbation: Perturbation) -> tuple[str, ...]:
    """Return the names of the layers that a perturbation of a network weakens; none where it does not act on layers.

    Args:
        network: lists the layers it offers in ``perturbations`` and has a ``suggested(name)``; without them it offers none.
        perturbation: what is asked of it.

    Raises:
        NotSupported: the network does not offer the perturbation, or not in these layers.
        BadValue: the amount is negative or not a number (for noise: not finite).
    """
    offers: Mapping[str, tuple[str, ...]] = getattr(network, "perturbations", {})
    kind, name, wanted = type(network).__name__, perturbation.name, perturbation.layers
    if name not in offers:
        offered = (
            f"it offers: {', '.join(offers)}" if offers else "it offers none; use another rule, or a network that does"
        )
        raise NotSupported(f"{kind} does not offer the perturbation {name!r}{nearest(name, offers)}; {offered}")
    if not perturbation.amount >= 0 or (name == "time-noise" and math.isinf(perturbation.amount)):
        raise BadValue(f"the amount of {name!r} is a number from 0 on, got {perturbation.amount}")
    if wanted is None:
        return network.suggested(name)  # type: ignore[operator]
    if wanted and not offers[name]:
        raise NotSupported(f"{name!r} of {kind} acts on no layers, but {', '.join(wanted)} are named; leave layers out")
    if unknown := [layer for layer in wanted if layer not in offers[name]]:
        raise NotSupported(
            f"{kind} cannot apply {name!r} to {', '.join(unknown)}{nearest(unknown[0], offers[name])}; "
            f"it can to: {', '.join(offers[name])}"
        )
    if offers[name] and not wanted:
        raise NotSupported(
            f"{name!r} with no layer weakens nothing; name some of {', '.join(offers[name])}, or leave it out"
        )
    return tuple(dict.fromkeys(wanted))


def by_layer(network: nn.Module, perturbed: Perturbed) -> dict[str, list[tuple[Perturbation, slice]]]:
    """Return for every weakened layer of a network how its rows are weakened; raises as `layers_of` does."""
    weak: dict[str, list[tuple[Perturbation, slice]]] = {}
    for perturbation, rows in perturbed:
        for layer in layers_of(network, perturbation):
            weak.setdefault(layer, []).append((perturbation, rows))
    return weak


def with_rows(x: Tensor, rows: slice, new: Tensor) -> Tensor:
    """Return ``x`` (B, ...) with some of its rows replaced."""
    x = x.clone()
    x[rows] = new.to(x.dtype)
    return x


def blur(query: Tensor, size: Sequence[int], deviation: float) -> Tensor:
    """Blur queries over the positions of an image.

    Args:
        query: (B, heads, H W, d), row by row.
        size: (H, W).
        deviation: of the Gaussian, in positions, >= 0; infinite: every query becomes the mean of all.

    Source: Hong, arXiv 2408.00760; kernel as in the authors' code: three deviations to each side, cut to half
    the grid, the border reflected.
    """
    if math.isinf(deviation):
        return query.mean(dim=2, keepdim=True).expand_as(query)
    rows, columns = (_blur_matrix(side, deviation).to(query) for side in size)
    grid = query.unflatten(2, tuple(size))  # (B, heads, H, W, d)
    return torch.einsum("hi,wj,bnijd->bnhwd", rows, columns, grid).flatten(2, 3)


def _blur_matrix(side: int, deviation: float) -> Tensor:
    """Return the blur of a line of positions as a matrix (side, side) in float64, the border reflected."""
    reach = math.ceil(min(6 * deviation, side)) // 2
    offsets = torch.arange(-reach, reach + 1)
    taps = torch.exp(-0.5 * (offsets.double() / (deviation or 1.0)).square())
    source = (torch.arange(side)[:, None] + offsets).abs()  # (side, taps), reflected at the first position
    source = torch.minimum(source, 2 * (side - 1) - source)  # and at the last
    matrix = torch.zeros(side, side, dtype=torch.float64)
    return matrix.scatter_add(1, source, (taps / taps.sum()).expand(side, -1))


def with_time_noise(embedding: Tensor, perturbed: Perturbed) -> Tensor:
    """Add noise to the time embedding (B, E) of rows that are weakened by "time-noise".

    Its deviation is ``amount`` times that of the row's own embedding, so that an amount means the same in every network.

    The noise is a function of seed and width alone: the same for every row, so that an image does not depend on its batch.

    Source: Sadat et al., arXiv 2407.02687; ``amount`` is s t^alpha, the scaling by the embedding theirs too.
    """
    for perturbation, rows in perturbed:
        if perturbation.name == "time-noise":
            generator = torch.Generator().manual_seed(perturbation.seed)
            noise = torch.randn(embedding.shape[1], generator=generator, dtype=torch.float32)
            weak = embedding[rows]
            deviation = perturbation.amount * weak.std(1, keepdim=True)
            embedding = with_rows(embedding, rows, weak + deviation * noise.to(weak))
    return embedding
