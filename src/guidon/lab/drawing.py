"""What the pictures of the lab share: panels with plain axes, densities on the line and in the plane, images."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = ("#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#17becf", "#e377c2", "#7f7f7f", "#bcbd22")
TRUTH = "0.25"  # what is true is grey
Extent = tuple[float, float, float, float]  # left, right, bottom, top


def color(index: int) -> str:
    """Return the colour of the n-th rule, class or solver of a picture."""
    return COLORS[index % len(COLORS)]


def panels(rows: int, columns: int, *, width: float = 3.0, height: float = 2.7, **shared: Any) -> tuple[Figure, Any]:
    """Return a figure and its panels, an array (rows, columns) of axes.

    Args:
        rows, columns: how many panels.
        width, height: of a panel, in inches; nine inches are the width of a page.
        shared: passed on, such as ``sharex=True``.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **shared)


def plain(axes: Any, title: str = "", x: str = "", y: str = "", *, legend: bool = False) -> None:
    """Give axes a title and names, take away what says nothing, and show a legend if wanted."""
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(x, fontsize=8)
    axes.set_ylabel(y, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if legend:
        axes.legend(fontsize=7, frameon=False)


def curve(axes: Any, density: Callable[[Tensor], Tensor], low: float, high: float, **style: Any) -> None:
    """Draw a density on the line, grey and filled unless the style says otherwise.

    Args:
        density: of points (N,), float64.
        low, high: where to draw it.
        style: of the line.
    """
    x = torch.linspace(low, high, 400, dtype=torch.float64)
    y = density(x)
    axes.plot(x, y, **{"color": TRUTH, "linewidth": 1.2, **style})
    if "color" not in style:
        axes.fill_between(x, y, color="0.9", linewidth=0)


def histogram(axes: Any, samples: Tensor, low: float, high: float, *, bins: int = 80, **style: Any) -> None:
    """Draw the density of samples (N,) on the line as steps; samples outside count, but are not seen."""
    counts, edges = np.histogram(samples.numpy(), bins=bins, range=(low, high))
    axes.stairs(counts / (len(samples) * np.diff(edges)), edges, **{"linewidth": 1.2, **style})


def lattice(extent: Extent, points: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return x (points,), y (points,) and all their pairs (points * points, 2), row by row of y, float64."""
    left, right, bottom, top = extent
    x, y = (torch.linspace(low, high, points, dtype=torch.float64) for low, high in ((left, right), (bottom, top)))
    return x, y, torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)


def shade(axes: Any, log_density: Callable[[Tensor], Tensor], extent: Extent, *, points: int = 160) -> None:
    """Shade a density in the plane, evenly in its square root, so that what is rare is seen.

    Args:
        log_density: of points (N, 2), up to a number.
        extent: the part of the plane.
        points: along each side.
    """
    x, y, pairs = lattice(extent, points)
    values = log_density(pairs).reshape(points, points)
    root = ((values - values.max()) / 2).exp()
    axes.contourf(x, y, root, levels=np.linspace(0.03, 1, 9), cmap="Greys", vmax=1.5)
    square(axes, extent)


def outline(axes: Any, log_density: Callable[[Tensor], Tensor], extent: Extent, **style: Any) -> None:
    """Draw the lines at which a density in the plane has fallen to 1/2, 1/10 and 1/100 of its peak."""
    x, y, pairs = lattice(extent, 160)
    values = log_density(pairs).reshape(160, 160)
    levels = [float(values.max()) + float(np.log(share)) for share in (0.01, 0.1, 0.5)]
    axes.contour(x, y, values, levels=levels, **{"colors": TRUTH, "linewidths": 0.7, "linestyles": "solid", **style})
    square(axes, extent)


def square(axes: Any, extent: Extent) -> None:
    """Show a part of the plane, with one scale for both axes and no ticks."""
    axes.set_xlim(*extent[:2])
    axes.set_ylim(*extent[2:])
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])


def picture(axes: Any, image: Tensor) -> None:
    """Show an image (1 or 3, H, W) with values in [-1, 1]; what lies beyond is clipped."""
    pixels = ((image.double() + 1) / 2).clamp(0, 1).permute(1, 2, 0).numpy()
    axes.imshow(
        pixels[..., 0] if pixels.shape[2] == 1 else pixels, cmap="gray", vmin=0, vmax=1, interpolation="nearest"
    )
    bare(axes)


def bare(axes: Any) -> None:
    """Take ticks and frame away."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def tiles(images: Tensor) -> Tensor:
    """Return images (rows, columns, C, H, W) as one (C, ., .), a pixel of white between them."""
    rows, columns, channels, height, width = images.shape
    whole = torch.ones(channels, rows * (height + 1) - 1, columns * (width + 1) - 1, dtype=images.dtype)
    for r in range(rows):
        for c in range(columns):
            top, left = r * (height + 1), c * (width + 1)
            whole[:, top : top + height, left : left + width] = images[r, c]
    return whole
