from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import Best, Watch, batched_mean_logits, margins, narrowed
from stresslens.core.ball import Ball
from stresslens.core.draws import Draws
from stresslens.core.types import Count, Share

HALVED_AT = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After so many of 10,000 queries the share of pixels that a query changes is halved."""


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
    """Random search with squares, without a gradient: a change of one square is kept where it
    lowers the margin (Andriushchenko et al. 2020, algorithms 1 to 3; in l1 algorithm 3 with its
    lengths added up instead of their squares, Croce & Hein 2021).

    `queries` per image, the first for vertical stripes (in l2 and l1 a grid of bumps) or for
    `start`; `p_init` is the share of the pixels that the first square covers. Driven at a `target`,
    the margin of that class is raised. A query that would change nothing is made with the opposite
    sign.
    """
    rows, best = torch.arange(len(x), device=x.device), Best(x, y, target)
    if not len(x):
        return best.x_adv

    def high(logits: Tensor) -> Tensor:
        return margins(logits, y[rows]) if target is None else -margins(logits, target[rows])

    logits = batched_mean_logits(model, x)
    keep = watch(rows, x, logits)
    best.update(rows, x, logits)
    own, origin, around = draws, x, ball
    z = _first(origin, around, own) if start is None else start
    reached, current = z, torch.full((len(x),), torch.inf, dtype=x.dtype, device=x.device)
    for query in range(queries):
        go_on = narrowed(keep)
        if go_on is not None:
            rows, origin, z, reached, current = (v[go_on] for v in (rows, origin, z, reached, current))
            around, own = around.select(go_on), own.select(go_on)
        if not len(rows):
            break
        if query:
            side = _side(p_init, query / queries, x.shape, 3 if ball.norm != "linf" else 1)
            change = _flipped if ball.norm == "linf" else _moved
            z = change(reached, origin, around, own, side)
        logits = batched_mean_logits(model, z)
        keep = watch(rows, z, logits)
        best.update(rows, z, logits)
        value = high(logits)
        lower = value < current
        reached = torch.where(lower.reshape(-1, 1, 1, 1), z, reached)
        current = torch.where(lower, value, current)
    return best.x_adv


def _side(p_init: float, progress: float, shape: torch.Size, least: int) -> int:
    """The side of the square at this point of the search, in pixels."""
    share = p_init / 2 ** sum(progress * 10_000 > step for step in HALVED_AT)
    height, width = shape[2:]
    side: int = round((share * height * width) ** 0.5)
    return min(max(side, least), height, width)


def _windows(x: Tensor, draws: Draws, side: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Where a square stands in each image: the index that gathers it, (n, C, side, side)."""
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
    """linf: one square of ±ε, of one sign for each channel."""
    window = _windows(origin, draws, side)
    move = _signs(origin, draws, origin.shape[1], 1, 1) * ball.radius(origin)
    before, centre = reached[window], origin[window]
    after = (centre + move).clamp(0, 1)
    idle = (after == before).flatten(1).all(1).reshape(-1, 1, 1, 1)
    return reached.index_put(window, torch.where(idle, (centre - move).clamp(0, 1), after))


def _first(x: Tensor, ball: Ball, draws: Draws) -> Tensor:
    """linf: vertical stripes of ±ε. l2 and l1: a grid of bumps, five to a side, together of the
    radius's size."""
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
    """x + δ with δ scaled to the radius, inside the box."""
    tiny = torch.finfo(x.dtype).tiny
    return (x + delta * (ball.radius(x) / ball.size(delta).clamp_min(tiny).reshape(-1, 1, 1, 1))).clamp(0, 1)


def _moved(reached: Tensor, origin: Tensor, ball: Ball, draws: Draws, side: int) -> Tensor:
    """l2 and l1: the size of one window is moved into another, with what was left of the radius, as
    a bump that is mixed with what that window held."""
    power = 2 if ball.norm == "l2" else 1
    tiny = torch.finfo(origin.dtype).tiny
    delta = reached - origin
    channels = origin.shape[1]
    to, source = _windows(origin, draws, side), _windows(origin, draws, side)

    def spent(part: Tensor) -> Tensor:
        return part.abs().pow(power).sum((2, 3), keepdim=True)

    held = delta[to]
    nothing = torch.zeros((), dtype=delta.dtype, device=delta.device)
    rest = delta.index_put(source, nothing).index_put(to, nothing)
    total = spent(delta)
    free = total - spent(rest)
    unused = (ball.radius(origin) ** power - total.sum(1, keepdim=True)).clamp_min(0) / channels
    size = spent(held).sum(1, keepdim=True).clamp_min(tiny) ** (1 / power)
    bump = _bump(side, origin)
    turned = torch.where(draws.integers(2).to(origin.device).bool().reshape(-1, 1, 1, 1), bump.t(), bump)
    fresh = turned * _signs(origin, draws, channels, 1, 1) + held / size
    fresh = fresh * ((free + unused) / spent(fresh).clamp_min(tiny)) ** (1 / power)
    return _filled(origin, rest.index_put(to, fresh), ball)


def _bump(side: int, like: Tensor) -> Tensor:
    """(side, side) of length 1: two hills of opposite signs, side by side (equation 2 of the paper)."""
    left = side - side // 2
    bump = torch.cat([_hill(side, left, like), -_hill(side, side - left, like)], 1)
    length: Tensor = torch.linalg.vector_norm(bump)
    return bump / length


def _hill(height: int, width: int, like: Tensor) -> Tensor:
    """Σ over k ≤ M(r, c) of 1/(n + 1 − k)², where n = ⌊height/2⌋ and M is n less the distance from
    the middle."""
    down = (torch.arange(height, device=like.device) - height // 2).abs()[:, None]
    across = (torch.arange(width, device=like.device) - width // 2).abs()[None]
    n = height // 2
    terms = torch.arange(n + 1, 0, -1, device=like.device, dtype=like.dtype) ** -2.0
    return terms.cumsum(0)[n - torch.maximum(down, across)]
