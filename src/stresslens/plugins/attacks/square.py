from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import Best, Watch, batched_mean_logits, margins, narrowed
from stresslens.core.ball import Ball
from stresslens.core.draws import Draws
from stresslens.core.types import Count, Share

HALVED_AT = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""The share of pixels that a query changes is halved after so many of 10,000 queries."""


def square(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    draws: Draws,
    watch: Watch,
    target: Tensor | None,
    start: Tensor | None,
    *,
    queries: Count = 5000,
    p_init: Share = 0.8,
) -> Tensor:
    """Square attack: random search without gradients (Andriushchenko et al. 2020, algorithms 1 to
    3).

    Each query changes one square, and the change is kept if it lowers the margin. In l1 it is
    algorithm 3 with lengths added instead of their squares (Croce & Hein 2021). Each image gets
    `queries`; the first is for vertical stripes (in l2 and l1 a grid of bumps) or for `start`.
    `p_init` is the share of the pixels that the first square covers. With a `target`, the margin of
    that class is raised. A query that would change nothing is made with the opposite sign.
    """
    rows, best = torch.arange(len(x), device=x.device), Best(x, y, target)
    if not len(x):
        return best.x_adv

    def margin(logits: Tensor) -> Tensor:
        return margins(logits, y[rows]) if target is None else -margins(logits, target[rows])

    logits = batched_mean_logits(model, x)
    keep = watch(rows, x, logits)
    best.update(rows, x, logits)
    own_draws, origin, around = draws, x, ball
    z = _first(origin, around, own_draws) if start is None else start
    reached, current = z, torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
    for query in range(queries):
        remaining = narrowed(keep)
        if remaining is not None:
            rows, origin, z, reached, current = (v[remaining] for v in (rows, origin, z, reached, current))
            around, own_draws = around.select(remaining), own_draws.select(remaining)
        if not len(rows):
            break
        if query:
            side = _side(p_init, query / queries, x.shape, 3 if ball.norm != "linf" else 1)
            change = _flipped if ball.norm == "linf" else _moved
            z = change(reached, origin, around, own_draws, side)
        logits = batched_mean_logits(model, z)
        keep = watch(rows, z, logits)
        best.update(rows, z, logits)
        value = margin(logits)
        lower = value < current
        reached = torch.where(lower.reshape(-1, 1, 1, 1), z, reached)
        current = torch.where(lower, value, current)
    return best.x_adv


def needs_gradient() -> bool:
    return False


def _side(p_init: float, progress: float, shape: torch.Size, least: int) -> int:
    """The side of the square in pixels, when `progress` of all queries are done."""
    share = p_init / 2 ** sum(progress * 10_000 > step for step in HALVED_AT)
    height, width = shape[2:]
    side: int = round((share * height * width) ** 0.5)
    return min(max(side, least), height, width)


def _windows(x: Tensor, draws: Draws, side: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """An index that gathers a random square from each image, (n, C, side, side)."""
    n, channels, height, width = x.shape
    top, left = (
        draws.integers(room - side + 1).to(x.device).reshape(-1, 1, 1, 1) for room in (height, width)
    )
    along = torch.arange(side, device=x.device)
    return (
        torch.arange(n, device=x.device).reshape(-1, 1, 1, 1),
        torch.arange(channels, device=x.device).reshape(1, -1, 1, 1),
        top + along.reshape(1, 1, -1, 1),
        left + along.reshape(1, 1, 1, -1),
    )


def _signs(x: Tensor, draws: Draws, *shape: int) -> Tensor:
    return (2 * draws.integers(2, *shape) - 1).to(x.device, x.dtype)


def _flipped(reached: Tensor, origin: Tensor, ball: Ball, draws: Draws, side: int) -> Tensor:
    """linf: one square of ±ε, with one sign for each channel."""
    window = _windows(origin, draws, side)
    move = _signs(origin, draws, origin.shape[1], 1, 1) * ball.radius(origin)
    before, centre = reached[window], origin[window]
    after = (centre + move).clamp(0, 1)
    idle = (after == before).flatten(1).all(1).reshape(-1, 1, 1, 1)
    return reached.index_put(window, torch.where(idle, (centre - move).clamp(0, 1), after))


def _first(x: Tensor, ball: Ball, draws: Draws) -> Tensor:
    """The first query. linf: vertical stripes of ±ε.

    l2 and l1: a grid of bumps, five on each side, scaled so that their norm is the radius.
    """
    channels, height, width = x.shape[1:]
    if ball.norm == "linf":
        return (x + _signs(x, draws, channels, 1, width) * ball.radius(x)).clamp(0, 1)
    side = max(1, min(height, width) // 5)
    down, across = height // side, width // side
    signs = _signs(x, draws, channels, down, across).repeat_interleave(side, 2).repeat_interleave(side, 3)
    delta = torch.zeros_like(x)
    top, left = (height - down * side) // 2, (width - across * side) // 2
    bumps = _bump(side, x).repeat(down, across)
    delta[:, :, top : top + down * side, left : left + across * side] = signs * bumps
    return _filled(x, delta, ball)


def _filled(x: Tensor, delta: Tensor, ball: Ball) -> Tensor:
    """x + δ, clamped to the box, with δ scaled to the radius."""
    tiny = torch.finfo(x.dtype).tiny
    return (x + delta * (ball.radius(x) / ball.size(delta).clamp_min(tiny).reshape(-1, 1, 1, 1))).clamp(0, 1)


def _moved(reached: Tensor, origin: Tensor, ball: Ball, draws: Draws, side: int) -> Tensor:
    """l2 and l1: moves the perturbation of one window into another.

    The other window gets the norm of both windows and the unused part of the radius, as a bump
    mixed with the window's old content.
    """
    power = 2 if ball.norm == "l2" else 1
    tiny = torch.finfo(origin.dtype).tiny
    delta = reached - origin
    channels = origin.shape[1]
    to, source = _windows(origin, draws, side), _windows(origin, draws, side)

    def norm_power(part: Tensor) -> Tensor:
        return part.abs().pow(power).sum((2, 3), keepdim=True)

    content = delta[to]
    nothing = torch.zeros((), dtype=delta.dtype, device=delta.device)
    rest = delta.index_put(source, nothing).index_put(to, nothing)
    total = norm_power(delta)
    free = total - norm_power(rest)
    unused = (ball.radius(origin) ** power - total.sum(1, keepdim=True)).clamp_min(0) / channels
    size = norm_power(content).sum(1, keepdim=True).clamp_min(tiny) ** (1 / power)
    bump = _bump(side, origin)
    turned = torch.where(draws.integers(2).to(origin.device).bool().reshape(-1, 1, 1, 1), bump.t(), bump)
    fresh = turned * _signs(origin, draws, channels, 1, 1) + content / size
    fresh = fresh * ((free + unused) / norm_power(fresh).clamp_min(tiny)) ** (1 / power)
    return _filled(origin, rest.index_put(to, fresh), ball)


def _bump(side: int, like: Tensor) -> Tensor:
    """(side, side) of length 1: two hills of opposite signs, side by side (equation 2 of the
    paper)."""
    left = side - side // 2
    bump = torch.cat([_hill(side, left, like), -_hill(side, side - left, like)], 1)
    length: Tensor = torch.linalg.vector_norm(bump)
    return bump / length


def _hill(height: int, width: int, like: Tensor) -> Tensor:
    """Σ over k ≤ M(r, c) of 1/(n + 1 − k)², with n = ⌊height/2⌋ and M = n − distance from the
    middle."""
    down = (torch.arange(height, device=like.device) - height // 2).abs()[:, None]
    across = (torch.arange(width, device=like.device) - width // 2).abs()[None]
    n = height // 2
    terms = torch.arange(n + 1, 0, -1, device=like.device, dtype=like.dtype) ** -2.0
    return terms.cumsum(0)[n - torch.maximum(down, across)]
