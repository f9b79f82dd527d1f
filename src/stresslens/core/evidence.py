"""What audits read: tables, the smallest broken radius of every image, what an attack left on its
way, and a probe for more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from stresslens.core.ball import Norm

CLEAN = "none"
"""The attack of a table's clean rows."""


@dataclass(frozen=True)
class Row:
    """One line of a table: the share of n images that a model still answers right under an attack
    at a radius.

    `attack` is `CLEAN` where there was none. What a bare table does not say is None.
    """

    model: str
    attack: str
    eps: float
    accuracy: float
    n: int | None = None
    norm: Norm | None = None
    steps: int | None = None
    step_size: float | None = None
    """In pixel units."""
    trained: str = ""
    """On what the model was hardened, if a table tells ("fgsm", "pgd", …)."""
    line: int | None = None
    grain: float = 0.0
    """The unit of the last digit in which the accuracy is given."""
    score: str = ""
    """Which of several accuracies of the same model this is ("top-5"), where a table has several."""


@dataclass(frozen=True)
class Curve:
    """The worst case of every image over all attempts. smallest (n,): the smallest radius of
    `radii` at which it is broken, 0 where it is wrong unattacked, infinite where it survived; by
    (n,): the attempt that broke it, a place in `attacks`, else -1."""

    norm: Norm
    radii: tuple[float, ...]
    smallest: NDArray[np.float64]
    by: NDArray[np.int64]
    attacks: tuple[str, ...]
    asked: int
    """How many images were to be attacked."""
    reported: float | None = None
    """The model's clean accuracy on the same images as its own record has it."""

    def robust(self, eps: float) -> NDArray[np.bool_]:
        """(n,) which images are answered right at every radius up to this."""
        return self.smallest > eps


@dataclass
class Trace:
    """What one attack showed at one radius (the largest of those attacked together)."""

    attack: str
    options: Mapping[str, Any]
    eps: float
    n: int
    """Images attacked: those that nothing had broken before."""
    broke: int = 0
    outside: int = 0
    """Returned images that lie outside the ball or the box."""
    excess: float = 0.0
    """The largest size of a returned perturbation over the radius."""
    silent: int = 0
    """Images of which an iterate inside ball and box fooled the model and the returned image does not."""
    zero_at_start: int = 0
    zero_on_path: int = 0
    """Images whose gradient was exactly zero at the first iterate; at a later one."""
    gradients: int = 0
    """Gradients taken, counted by image; `forwards` counts every image that went through the model."""
    forwards: int = 0
    seconds: float = 0.0
    followed: int = 0
    """Images that were not broken and whose loss was seen at every iterate; 0 where there are too
    few iterates to say more."""
    rising: int = 0
    """Those of them whose best loss still rose in the last iterates."""
    passes: int = 1
    """That the model's answers were averaged over; more than one where it is random."""
    may_be_flat: bool | None = None
    """Whether what the attack raises may have a gradient of exactly zero on its way, though the
    model has one; None where the attack does not say."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"excess": self.excess if math.isfinite(self.excess) else None}

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Trace:
        return Trace(**{**values, "excess": math.inf if values["excess"] is None else values["excess"]})


class Probe(Protocol):
    """More attacks on a fixed sample of the images, for audits that need some. Every call costs
    time; `spent` is the sum.

    images (m, C, H, W), labels (m,), all of them answered right unattacked.
    """

    images: Tensor
    labels: Tensor
    norm: Norm
    radii: tuple[float, ...]
    protocol: Sequence[Any]
    """The attacks that the result rests on, by name and options."""
    longer: Sequence[Any]
    """Those of them that take steps or queries, with twice as many."""
    surrogate: Any
    """Another model for the same images, or None."""
    spent: float
    """Seconds."""
    disturbed: list[str]
    """What attacks left behind that was not so before, in words."""

    def broken(
        self, attacks: Sequence[Any], eps: float, *, to_end: bool = False
    ) -> tuple[NDArray[np.bool_], list[Trace]]:
        """(m,) which images these attacks break at a radius, each on those that the ones before
        left, and what each showed.

        An infinite radius allows every image of the box. With `to_end` no image is dropped once
        broken (and only the first few are attacked), so that what an attack returns can be compared
        with what it met. Nothing that the result found before is made use of.
        """
        ...
