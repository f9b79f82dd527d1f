from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import nn

from stresslens.core.errors import ConfigError
from stresslens.core.panels import Grid, Panel, Picture, number_pixels
from stresslens.core.spelling import closest
from stresslens.core.types import Count

SHUFFLES = 200
A_ROW = 8
"""Number of single-channel filters in a row of the grid."""


def filters(model: nn.Module, *, layer: str = "first", most: Count = 32) -> Panel:
    """The weights of a convolution: a row for each filter, with all its input channels.

    All have the same colour scale around 0. `layer` is first, last, or a name. At most `most`
    filters and channels are shown. For filters larger than one pixel, a sentence says how much of
    their variation a straight edge explains (a plane fitted to each kernel), compared with the same
    weights at shuffled positions. Raises ConfigError with the valid names.
    """
    convolutions = {name: m for name, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    if not convolutions:
        raise ConfigError("filters: the model has no convolution")
    name = {"first": next(iter(convolutions)), "last": list(convolutions)[-1]}.get(layer, layer)
    if name not in convolutions:
        raise ConfigError(
            f"filters: the model has no convolution {layer!r}; "
            f"{closest(layer, ['first', 'last', *convolutions])}"
        )
    weights = convolutions[name].weight.detach().float().cpu().numpy()  # (out, in, h, w)
    pixels, scale = number_pixels(weights[:most, :most])
    whole = f"{weights.shape[0]} filters of {weights.shape[1]} channels"
    part = "" if max(weights.shape[:2]) <= most else f", the first {most} of each shown"
    cells = [[Picture(cell) for cell in row] for row in pixels]
    if len(cells[0]) == 1:
        single = [Picture(cell.pixels, str(k)) for k, (cell,) in enumerate(cells)]
        in_rows = [single[k : k + A_ROW] for k in range(0, len(single), A_ROW)]
        grid = Grid(f"{name}: {whole}{part}", in_rows, scale=scale)
    else:
        rows, columns = ([str(k) for k in range(count)] for count in (len(cells), len(cells[0])))
        grid = Grid(f"{name}: {whole}{part}; a row for each filter", cells, rows, columns, scale)
    if min(weights.shape[2:]) < 2:
        return Panel([grid])
    edges, shuffled, p = _edges(weights.reshape(-1, *weights.shape[2:]))
    sentence = (
        f"a straight edge explains {100 * edges:.0f} % of the variation within the kernels of {name}; "
        f"with the same weights at shuffled positions {100 * shuffled:.0f} % "
        f"({'p < ' if p <= 1 / SHUFFLES else 'p = '}{p:.3f}, {SHUFFLES} shuffles): "
        + ("they are edges more often than by chance" if p < 0.05 else "no more than by chance")
    )
    return Panel(
        [grid],
        [sentence],
        {"layer": name, "edges": edges, "edges_shuffled": shuffled, "p": p, "kernels": len(weights)},
    )


def _edges(kernels: NDArray[np.float32]) -> tuple[float, float, float]:
    """The share of the kernels' variation that planes explain, the mean after shuffling, and p."""
    count, height, width = kernels.shape
    rows, columns = np.meshgrid(
        np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2, indexing="ij"
    )
    # Orthonormal, with mean 0.
    basis = np.stack([rows.ravel() / np.linalg.norm(rows), columns.ravel() / np.linalg.norm(columns)])
    flat = kernels.reshape(count, -1).astype(float)
    flat = flat - flat.mean(1, keepdims=True)
    total = float(np.square(flat).sum()) or 1.0

    def share(values: NDArray[np.float64]) -> float:
        return float(np.square(values @ basis.T).sum()) / total

    draws = np.random.default_rng(0)
    observed = share(flat)
    shuffled = np.array([share(draws.permuted(flat, axis=1)) for _ in range(SHUFFLES)])
    return observed, float(shuffled.mean()), float((1 + (shuffled >= observed).sum()) / (1 + SHUFFLES))
