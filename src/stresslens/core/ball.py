"""The threat model: which images lie within a radius of an image, under a norm, and inside the box [0, 1]."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Annotated, Literal, get_args

import torch
from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError, closest

Norm = Literal["linf", "l2", "l1"]

RELATIVE, ABSOLUTE = 1e-5, 1e-6
"""How far rounding may carry a perturbation beyond the radius: ε(1 + RELATIVE) + ABSOLUTE."""


@dataclass(frozen=True)
class Ball:
    """Perturbations of size at most `eps` (one radius, or (N,) one for each image), in pixel units
    of images in [0, 1].

    Raises ConfigError for a radius that is negative, not finite, or in linf above 1.
    """

    norm: Norm
    eps: float | Tensor

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm):
            raise ConfigError(f"norm {self.norm!r}: {closest(str(self.norm), list(get_args(Norm)))}")
        if not isinstance(self.eps, Tensor):
            check_radius(self.norm, self.eps)

    def radius(self, like: Tensor) -> Tensor:
        """The radius of each image, (N, 1, 1, 1) in the type of `like` (N, C, H, W)."""
        eps = torch.as_tensor(self.eps, dtype=like.dtype, device=like.device)
        return eps.expand(len(like)).reshape(-1, *[1] * (like.ndim - 1))

    def size(self, delta: Tensor) -> Tensor:
        """(N,) the norm of each perturbation."""
        flat = delta.flatten(1)
        return (
            flat.abs().amax(1)
            if self.norm == "linf"
            else torch.linalg.vector_norm(flat, 1 if self.norm == "l1" else 2, dim=1)
        )

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """The nearest images inside the ball around x and inside [0, 1], exactly: projecting and
        then clamping would in l2 and l1 give a point of both that is not the nearest (Croce & Hein
        2021, "Mind the box", proposition 2.1 for l1)."""
        radius = self.radius(x)
        if self.norm == "linf":
            return torch.minimum(torch.maximum(x_adv, x - radius), x + radius).clamp(0, 1)
        delta = x_adv - x
        onto = _onto_l2 if self.norm == "l2" else _onto_l1
        return (x + onto(delta.flatten(1), x.flatten(1), radius.flatten()).reshape(x.shape)).clamp(0, 1)

    def farthest(self, grad: Tensor, x: Tensor) -> Tensor:
        """The image in ball and box farthest along the gradient: where a linear loss is highest."""
        radius = self.radius(x)
        if self.norm == "linf":
            return self.project(x + radius * grad.sign(), x)
        along, origin = self.steepest(grad).flatten(1) if self.norm == "l2" else grad.flatten(1), x.flatten(1)
        if self.norm == "l2":
            return (x + _onto_l2(along, origin, radius.flatten(), most=torch.inf).reshape(x.shape)).clamp(
                0, 1
            )
        room = torch.where(along > 0, 1 - origin, origin) * (along != 0)
        order = along.abs().sort(dim=1, descending=True, stable=True).indices
        wide = room.gather(1, order)
        moved = torch.minimum((radius.flatten()[:, None] - (wide.cumsum(1) - wide)).clamp_min(0), wide)
        return (x + (along.sign() * torch.zeros_like(wide).scatter_(1, order, moved)).reshape(x.shape)).clamp(
            0, 1
        )

    def steepest(self, grad: Tensor) -> Tensor:
        """The perturbation of size 1 along which a loss of this gradient rises fastest: the
        gradient's sign in linf, the gradient over its length in l2, its largest entry alone in l1;
        zero where the gradient is."""
        if self.norm == "linf":
            return grad.sign()
        flat = grad.flatten(1)
        if self.norm == "l2":
            largest = flat.abs().amax(1, keepdim=True).clamp_min(torch.finfo(grad.dtype).tiny)
            scaled = flat / largest  # the squares of tiny gradients would be zero
            length: Tensor = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
            return (scaled / length.clamp_min(1e-12)).reshape(grad.shape)
        place = flat.abs().argmax(1, keepdim=True)
        return torch.zeros_like(flat).scatter_(1, place, flat.gather(1, place).sign()).reshape(grad.shape)

    def sample(self, x: Tensor, draws: Draws) -> Tensor:
        """An image drawn uniformly from the ball around each, then brought into [0, 1]."""
        shape, dimensions = x.shape[1:], x.shape[1:].numel()
        radius = self.radius(x)
        if self.norm == "linf":
            return (x + (2 * draws.uniform(*shape).to(x.dtype) - 1) * radius).clamp(0, 1)
        if self.norm == "l2":
            direction = draws.normal(*shape).to(x.dtype)
        else:  # exponential entries with random signs (Barthe et al. 2005)
            direction = -torch.log1p(-draws.uniform(*shape).to(x.dtype)) * (
                2.0 * draws.integers(2, *shape).to(x.dtype) - 1
            )
        size = self.size(direction).clamp_min(torch.finfo(x.dtype).tiny).reshape(radius.shape)
        share = draws.uniform().to(x.dtype).reshape(radius.shape) ** (1 / dimensions)
        return (x + direction / size * share * radius).clamp(0, 1)

    def holds(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """(N,) whether each image lies in [0, 1] and in the ball around its original, up to
        rounding; False where not finite."""
        size = self.size((x_adv - x).double())
        radius = self.radius(x).flatten().double()
        flat = x_adv.flatten(1)
        return (size <= radius * (1 + RELATIVE) + ABSOLUTE) & (flat >= 0).all(1) & (flat <= 1).all(1)

    def select(self, rows: Tensor) -> Ball:
        """The ball of some of the images."""
        return replace(self, eps=self.eps[rows]) if isinstance(self.eps, Tensor) and self.eps.ndim else self


L2Ball = Annotated[Ball, "l2"]
"""What an attack annotates its ball with that knows only one norm; others are refused before
anything is computed."""


def check_radius(norm: str, eps: float) -> None:
    """Raises ConfigError for a radius that cannot be meant; warns of one that reaches everything."""
    if not isinstance(eps, int | float) or isinstance(eps, bool) or not 0 <= eps < float("inf"):
        raise ConfigError(
            f"radius {eps!r}: expected a finite number from 0 up, in pixel units of [0, 1] (8/255 is 0.0314)"
        )
    if norm == "linf" and eps > 1:
        raise ConfigError(
            f"radius {eps:g} in linf: images lie in [0, 1], so a radius is at most 1; did you mean {eps:g}/255?"
        )
    if norm == "l2" and eps > 100:
        warnings.warn(f"an l2 radius of {eps:g} lets most images become any other", stacklevel=2)


SAME = 1e-6
"""Radii that differ by a smaller share of themselves are the same, once rounded to be written."""


def same_radius(a: float, b: float) -> bool:
    """Whether two radii are one, but for the rounding of a name or a JSON file."""
    return math.isclose(a, b, rel_tol=SAME, abs_tol=1e-9)


def parse_radius(value: float | str) -> float:
    """A radius as a number or a fraction such as "8/255". Raises ConfigError."""
    if isinstance(value, str):
        try:
            return float(Fraction(value.replace(" ", ""))) if "/" in value else float(value)
        except (ValueError, ZeroDivisionError):
            raise ConfigError(f"radius {value!r}: expected a number or a fraction such as 8/255") from None
    return value


def parse_radii(value: str | float | Sequence[float | str], norm: Norm) -> list[float]:
    """Radii in ascending order, each once: a list, or text such as "0.05", "0,2/255,8/255" or
    "0:0.1:0.01" (both ends in).

    Raises ConfigError.
    """
    if isinstance(value, str) and ":" in value:
        parts = [parse_radius(part) for part in value.split(":")]
        if len(parts) != 3 or parts[2] <= 0 or parts[1] < parts[0]:
            raise ConfigError(f"radii {value!r}: expected START:STOP:STEP, for example 0:0.1:0.01")
        steps = round((parts[1] - parts[0]) / parts[2])
        if abs(parts[0] + steps * parts[2] - parts[1]) > 1e-9 or steps > 1000:
            raise ConfigError(
                f"radii {value!r}: {parts[1]:g} is not a whole number of steps from {parts[0]:g} (at most 1,000)"
            )
        found = [round(parts[0] + i * parts[2], 12) for i in range(steps + 1)]
    elif isinstance(value, str):
        found = [parse_radius(part) for part in value.split(",")]
    else:
        found = [parse_radius(part) for part in (value if isinstance(value, Sequence) else [value])]
    if not found:
        raise ConfigError("radii: give at least one")
    for eps in found:
        check_radius(norm, eps)
    return sorted(set(found))


def _onto_l2(delta: Tensor, x: Tensor, radius: Tensor, most: float = 1.0) -> Tensor:
    """(N, D) the nearest perturbations of length ≤ radius with x + δ in [0, 1].

    The answer is sign(δ)·min(s|δ|, room), with s ≤ `most` as large as the radius allows. Newton's
    method from below: with those entries at their room that are there already, s follows; more of
    them reach their room, until none does.
    """
    length = delta.abs()
    room, square = torch.where(delta > 0, 1 - x, x), length.square()
    limit, tiny = radius.square(), torch.finfo(x.dtype).tiny
    share = (limit / square.sum(1).clamp_min(tiny)).sqrt().clamp_max(most)
    for _ in range(delta.shape[1]):
        full = length * share[:, None] > room
        if not full.any():
            break
        left = (limit - (room.square() * full).sum(1)).clamp_min(0)
        longer = (left / (square * ~full).sum(1).clamp_min(tiny)).sqrt().clamp_max(most)
        grows = longer > share
        share = torch.where(grows, longer, share)
        if not grows.any():
            break
    return delta.sign() * torch.minimum((length * share[:, None]).nan_to_num(torch.inf), room)


def _onto_l1(delta: Tensor, x: Tensor, radius: Tensor) -> Tensor:
    """(N, D) the nearest perturbations with Σ|δ| ≤ radius and x + δ in [0, 1].

    The answer is sign(δ)·clamp(|δ| - λ, 0, room), whose sum falls in straight pieces as λ rises; they break at |δ| and at
    |δ| - room, so the sorted breakpoints give λ.
    """
    room = torch.where(delta > 0, 1 - x, x)
    length = delta.abs()
    inside = torch.minimum(length, room)
    value, order = torch.cat([length, length - room], 1).sort(1, descending=True)
    sign = torch.ones_like(value)
    sign[order >= delta.shape[1]] = -1
    count, total = sign.cumsum(1), (sign * value).cumsum(1)
    reached = total - count * value  # Σ of the answer with λ at this breakpoint
    first = (reached < radius[:, None]).sum(1, keepdim=True).clamp(
        1, value.shape[1]
    ) - 1  # the last one that stays below
    slope = count.gather(1, first)
    between = (total.gather(1, first) - radius[:, None]) / slope.clamp_min(1)
    shrink = torch.where(slope > 0, between, value.gather(1, first)).clamp_min(
        0
    )  # where it is level, any λ there will do
    shrunk = torch.minimum((length - shrink).clamp_min(0), room)
    return delta.sign() * torch.where((inside.sum(1) <= radius)[:, None], inside, shrunk)
