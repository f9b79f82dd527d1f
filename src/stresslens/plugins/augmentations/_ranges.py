"""Options that are a range, (lowest, highest)."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import AfterValidator, Field
from torch import Tensor

from stresslens.core.draws import Draws


def _rising(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError("the first number must not be larger than the second")
    return ends


PositiveRange = Annotated[
    tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]], AfterValidator(_rising)
]
ShareRange = Annotated[
    tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]], AfterValidator(_rising)
]


def boxes(
    draws: Draws,
    size: tuple[int, int],
    share: tuple[float, float],
    ratio: tuple[float, float],
    attempts: int = 10,
) -> tuple[Tensor, Tensor, Tensor]:
    """Heights and widths (N, attempts) of boxes in images of this size, before rounding, and the two
    numbers (N, 2) in [0, 1) that place a box.

    A box has a uniform share of the area, and its ratio of the first side to the second is uniform
    on a logarithmic scale.
    """
    area = draws.uniform(attempts, low=share[0], high=share[1]).double() * (size[0] * size[1])
    low, high = torch.tensor(ratio, dtype=torch.float64).log().tolist()
    shape = draws.uniform(attempts, low=low, high=high).double().exp()
    return (area * shape).sqrt(), (area / shape).sqrt(), draws.uniform(2).double()


def first(fits: Tensor) -> Tensor:
    """(N,) the number of the first attempt (N, attempts) that fits; the last where none does."""
    return (fits.cumsum(1) == 0).sum(1).clamp_max(fits.shape[1] - 1)


def start(place: Tensor, free: Tensor) -> Tensor:
    """(N,) a uniform start 0 … `free`, from a number `place` in [0, 1)."""
    return (place * (free + 1)).long()
