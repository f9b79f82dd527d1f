"""Threat model: the norm ball (linf, l2, l1) around an image within [0, 1]; projection, radii."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, get_args

import torch
from torch import Tensor

from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
from stresslens.core.spelling import closest

Norm = Literal["linf", "l2", "l1"]

RELATIVE, ABSOLUTE = 1e-5, 1e-6
"""Tolerance for rounding: a perturbation may have a size of at most ε(1 + RELATIVE) + ABSOLUTE."""


@dataclass(frozen=True)
class Ball:
    """Perturbations whose norm is at most `eps`, in pixel units of images in [0, 1].

    `eps` is one radius, or (N,) one for each image. Raises ConfigError for a radius that is
    negative, not finite, or above 1 in linf.
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
        """The nearest images to x_adv that are inside the ball around x and inside [0, 1], exactly.

        In l2 and l1, projecting onto the ball and then clamping gives a point of both that is not
        the nearest (Croce & Hein 2021, "Mind the box", proposition 2.1 for l1).
        """
        radius = self.radius(x)
        if self.norm == "linf":
            return torch.minimum(torch.maximum(x_adv, x - radius), x + radius).clamp(0, 1)
        delta = x_adv - x
        onto = _onto_l2 if self.norm == "l2" else _onto_l1
        return (x + onto(delta.flatten(1), x.flatten(1), radius.flatten()).reshape(x.shape)).clamp(0, 1)

    def farthest(self, grad: Tensor, x: Tensor) -> Tensor:
        """The image inside ball and box that is farthest along the gradient: it maximises a linear
        loss."""
        radius = self.radius(x)
        if self.norm == "linf":
            return self.project(x + radius * grad.sign(), x)
        if self.norm == "l1":
            return self.steepest_step(grad, x, radius)
        along = _onto_l2(self.steepest(grad).flatten(1), x.flatten(1), radius.flatten(), most=torch.inf)
        return (x + along.reshape(x.shape)).clamp(0, 1)

    def steepest_step(
        self, grad: Tensor, x: Tensor, length: float | Tensor, entries: int | Tensor = 1
    ) -> Tensor:
        """x after a step of size `length` along which a loss with this gradient rises most.

        `length` is a number or (N, 1, 1, 1). In linf and l2 the step may leave the box, and it is
        not projected onto the ball. In l1 it stays in the box: the entries with the largest gradient
        go to their bound, one after the other, until the length is spent. `entries`, a number or
        (N, 1), is how many of them share the length, where the box lets them: each moves by at most
        length/entries (SLIDE, Tramèr & Boneh 2019, section 4.1).
        """
        if self.norm != "l1":
            return x + length * self.steepest(grad)
        along, origin = grad.flatten(1), x.flatten(1)
        length = torch.as_tensor(length, dtype=x.dtype, device=x.device).reshape(-1, 1)
        room = torch.where(along > 0, 1 - origin, origin) * (along != 0)
        order = (along.abs() * (room > 0)).sort(dim=1, descending=True, stable=True).indices
        wide = torch.minimum(room.gather(1, order), length / entries)
        moved = torch.minimum((length - (wide.cumsum(1) - wide)).clamp_min(0), wide)
        return (x + (along.sign() * torch.zeros_like(wide).scatter_(1, order, moved)).reshape(x.shape)).clamp(
            0, 1
        )

    def gradient_step(self, grad: Tensor, x: Tensor, length: float | Tensor) -> Tensor:
        """x after a step whose projection onto the ball raises a loss with this gradient.

        `length` is a number or (N, 1, 1, 1). In linf and l2 it is the steepest step. In l1 it is a
        step of that Euclidean length along the gradient, without the entries that the box stops: the
        projection makes it sparse, with as many entries as the loss's curvature asks for, while the
        steepest step moves one.
        """
        if self.norm != "l1":
            return x + length * self.steepest(grad)
        return x + length * replace(self, norm="l2").steepest(grad, x)

    def steepest(self, grad: Tensor, x: Tensor | None = None) -> Tensor:
        """The perturbation of norm 1 along which a loss with this gradient rises fastest.

        That is the gradient's sign in linf, the gradient over its length in l2, and the sign of its
        largest entry alone in l1; it is zero where the gradient is zero. With the images x, it
        passes over the pixels of x that are at their bound of [0, 1] already and cannot move along
        the gradient. `steepest_step` also regards how far the others can move.
        """
        if x is not None:
            grad = grad * torch.where(grad > 0, x < 1, x > 0)
        if self.norm == "linf":
            return grad.sign()
        flat = grad.flatten(1)
        if self.norm == "l2":
            largest = flat.abs().amax(1, keepdim=True).clamp_min(torch.finfo(grad.dtype).tiny)
            scaled = flat / largest  # the squares of tiny gradients would be zero
            length: Tensor = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
            return (scaled / length.clamp_min(1e-12)).reshape(grad.shape)
        entry = flat.abs().argmax(1, keepdim=True)
        return torch.zeros_like(flat).scatter_(1, entry, flat.gather(1, entry).sign()).reshape(grad.shape)

    def sample(self, x: Tensor, draws: Draws) -> Tensor:
        """An image drawn uniformly from the ball around each image, then clamped to [0, 1]."""
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
        """(N,) whether x_adv is inside [0, 1] and inside the ball around x, up to rounding.

        False for an image that is not finite.
        """
        size = self.size((x_adv - x).double())
        radius = self.radius(x).flatten().double()
        flat = x_adv.flatten(1)
        return (size <= radius * (1 + RELATIVE) + ABSOLUTE) & (flat >= 0).all(1) & (flat <= 1).all(1)

    def select(self, rows: Tensor) -> Ball:
        """The ball with the radii of the images `rows`."""
        return replace(self, eps=self.eps[rows]) if isinstance(self.eps, Tensor) and self.eps.ndim else self


L2Ball = Annotated[Ball, "l2"]
"""The annotation of `ball` in an attack that works in l2 only; other norms are refused early."""
LinfOrL2Ball = Annotated[Ball, "linf", "l2"]
"""The same for an attack that works in linf and l2."""


def check_radius(norm: str, eps: float) -> None:
    """Raises ConfigError for a radius that is not valid; warns if an l2 radius is above 100."""
    if not isinstance(eps, int | float) or isinstance(eps, bool) or not 0 <= eps < float("inf"):
        raise ConfigError(
            f"radius {eps!r}: expected a finite number from 0 up, in pixel units of [0, 1] (8/255 is 0.0314)"
        )
    if norm == "linf" and eps > 1:
        raise ConfigError(
            f"radius {eps:g} in linf: images lie in [0, 1], so a radius is at most 1; "
            f"did you mean {eps:g}/255?"
        )
    if norm == "l2" and eps > 100:
        warnings.warn(f"an l2 radius of {eps:g} lets most images become any other", stacklevel=2)


LONGEST, SHORTEST = 4.0, 0.02
"""The lengths of the first and the last gradient step in l1, in radii."""


def falling(step: int, steps: int) -> float:
    """The length of step 0 … steps - 1 in radii, from `LONGEST` to `SHORTEST`: the default in l1.

    Long steps find the entries, short ones how far each moves.
    """
    return LONGEST * math.pow(SHORTEST / LONGEST, step / max(1, steps - 1))


SAME = 1e-6
"""Two radii are the same if their relative difference is at most this, as rounding may cause."""


def same_radius(a: float, b: float) -> bool:
    """Whether two radii are equal, up to the rounding of a file name or a JSON file."""
    return math.isclose(a, b, rel_tol=SAME, abs_tol=1e-9)


def parse_radius(value: float | str) -> float:
    """A radius as a number or a fraction such as "8/255". Raises ConfigError."""
    if isinstance(value, str):
        try:
            over, slash, under = value.partition("/")
            return float(over) / float(under) if slash else float(value)
        except (ValueError, ZeroDivisionError):
            raise ConfigError(f"radius {value!r}: expected a number or a fraction such as 8/255") from None
    return value


def single_radius(value: Any) -> float:
    """One radius: a number, text such as "8/255", or an array, a tensor or a list that holds one. Raises
    ConfigError."""
    one = value[0] if isinstance(value, list | tuple) and len(value) == 1 else value
    try:
        one = one.item() if hasattr(one, "item") else one
        if not isinstance(one, bool):
            return parse_radius(one) if isinstance(one, str) else float(one)
    except (TypeError, ValueError, RuntimeError):
        pass
    raise ConfigError(f"radius {value!r}: expected a number or a fraction such as 8/255")


def parse_radii(value: str | float | Sequence[float | str], norm: Norm) -> list[float]:
    """Parses radii; returns them in ascending order, each once.

    `value` is a list, or text such as "0.05", "0,2/255,8/255" or "0:0.1:0.01" (start, stop, step;
    both ends are included). Raises ConfigError.
    """
    if isinstance(value, str) and ":" in value:
        parts = [parse_radius(part) for part in value.split(":")]
        if len(parts) != 3 or not all(map(math.isfinite, parts)) or parts[2] <= 0 or parts[1] < parts[0]:
            raise ConfigError(f"radii {value!r}: expected START:STOP:STEP, for example 0:0.1:0.01")
        steps = round(min((parts[1] - parts[0]) / parts[2], 1e9))
        if abs(parts[0] + steps * parts[2] - parts[1]) > 1e-9 or steps > 1000:
            raise ConfigError(
                f"radii {value!r}: {parts[1]:g} is not a whole number of steps from {parts[0]:g} "
                "(at most 1,000)"
            )
        radii = [round(parts[0] + i * parts[2], 12) for i in range(steps + 1)]
    elif isinstance(value, str):
        radii = [parse_radius(part) for part in value.split(",")]
    else:
        radii = [parse_radius(part) for part in (value if isinstance(value, Sequence) else [value])]
    if not radii:
        raise ConfigError("radii: give at least one")
    for eps in radii:
        check_radius(norm, eps)
    return sorted(set(radii))


def _onto_l2(delta: Tensor, x: Tensor, radius: Tensor, most: float = 1.0) -> Tensor:
    """(N, D) the nearest perturbations of length ≤ radius with x + δ in [0, 1].

    The solution is sign(δ)·min(s|δ|, room), where `room` is the distance to the box and s ≤ `most`
    is as large as the radius allows. Newton's method finds s from below: the entries that have
    reached their room are fixed, s is computed from the others, and this is repeated until no
    further entry reaches its room.
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

    The solution is sign(δ)·clamp(|δ| - λ, 0, room). Its sum is piecewise linear in λ, with
    breakpoints at |δ| and at |δ| - room; sorting them gives λ.
    """
    room = torch.where(delta > 0, 1 - x, x)
    length = delta.abs()
    inside = torch.minimum(length, room)
    value, order = torch.cat([length, length - room], 1).sort(1, descending=True)
    sign = torch.ones_like(value)
    sign[order >= delta.shape[1]] = -1
    count, total = sign.cumsum(1), (sign * value).cumsum(1)
    reached = total - count * value  # Σ of the solution with λ at this breakpoint
    # The last breakpoint whose sum stays below the radius.
    first = (reached < radius[:, None]).sum(1, keepdim=True).clamp(1, value.shape[1]) - 1
    slope = count.gather(1, first)
    between = (total.gather(1, first) - radius[:, None]) / slope.clamp_min(1)
    # Where the sum is constant, any λ of that piece is a solution.
    shrink = torch.where(slope > 0, between, value.gather(1, first)).clamp_min(0)
    shrunk = torch.minimum((length - shrink).clamp_min(0), room)
    return delta.sign() * torch.where((inside.sum(1) <= radius)[:, None], inside, shrunk)
