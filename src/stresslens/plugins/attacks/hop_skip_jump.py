from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import Watch
from stresslens.core.ball import LinfOrL2Ball
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
from stresslens.core.pieces import FLOAT, at_most
from stresslens.core.types import Count, NonNegative, Positive
from stresslens.plugins.attacks._decisions import Decisions

TOGETHER = 16
"""Directions of each image that are asked about in one pass. Another number gives other draws."""
COPIES = 16
"""Copies of every direction that are in memory at a time: draws, directions, points."""
FEWEST = 8
"""An image with queries for fewer directions than this is done."""
RESERVE = 12
"""Queries that an estimate leaves for the step and the way back to the boundary."""
HALVINGS = 12
FIRST_TOLERANCE, TOLERANCE = 0.05, 0.01
"""How close to the boundary the first bisection goes at most, and later ones in the first iteration; later
iterations divide it by their number. All go as close as random directions reach (`_reach`)."""


# long: options are spelled out, one a line, and the steps read in one piece
def hop_skip_jump(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: LinfOrL2Ball,
    draws: Draws,
    watch: Watch,
    target: Tensor | None,
    start: Tensor | None,
    *,
    queries: Count = 5000,
    initial_queries: Count = 50,
    growth: NonNegative = 0.5,
    step_decay: NonNegative = 0.5,
    spread: Positive = 0.2,
    tries: Count = 100,
) -> Tensor:
    """HopSkipJump: minimises the perturbation from predicted classes alone (Chen et al. 2020).

    See algorithm 2 of the paper; in linf and l2. Iteration t asks about `initial_queries`·t^`growth`
    random directions from an adversarial image at the boundary, estimates the boundary's normal from
    the answers (equation 16), steps along it (in linf along its sign) by the size of the perturbation
    times t^-`step_decay`, halves the step until the model is fooled, and goes back to the boundary by
    bisection. Each image gets at most `queries` passes, the first for the image itself.

    It starts from `start`, or from up to `tries` random points of the box, coarse and fine; where none
    fools the model (with a `target`: is classified as it), the image comes back as it is.
    Returns the smallest adversarial image if it is inside the ball, or else its projection onto the
    ball. Differences from the paper, for small budgets: random directions at a shorter distance are
    tried before the first iteration; directions have the length `spread` times the size of the
    perturbation, not its share 1/d of d pixels; 50 of them in the first iteration, not 100; an iteration
    that does not shorten the perturbation is not taken. Raises ConfigError for l1.
    """
    if ball.norm == "l1":
        raise ConfigError(f"hop_skip_jump is an attack of linf and l2, not of {ball.norm}")
    decisions = Decisions(model, x, y, ball, watch, target, queries)
    rows = decisions.started(draws, start, tries)
    z, reach = x.clone(), spread * _reach(ball, x)
    z[rows] = decisions.bisected(rows, decisions.nearest.found[rows], min(FIRST_TOLERANCE, reach))
    iteration = 0
    while len(rows := decisions.asking(rows)):
        iteration += 1
        planned = int(initial_queries * iteration**growth)
        room = decisions.left[rows] - RESERVE
        count = torch.where(room < 1.5 * planned, room, planned)  # what is too little for another iteration
        rows, count = rows[count >= FEWEST], count[count >= FEWEST]
        if not len(rows):
            break
        size = ball.size(z[rows] - x[rows])
        step = _direction(decisions, draws.fork(2, iteration), rows, z[rows], spread * size, count)
        length = size * iteration**-step_decay
        moved = _stepped(decisions, rows, z[rows], ball.steepest(step), length)
        moved = decisions.bisected(rows, moved, min(TOLERANCE / iteration, reach))
        shorter = ball.size(moved - x[rows]) < size
        z[rows[shorter]] = moved[shorter]
    return decisions.nearest.x_adv()


def needs_gradient() -> bool:
    return False


def _reach(ball: LinfOrL2Ball, x: Tensor) -> float:
    """How far random directions of length 1 reach across the boundary, as a share of a perturbation of size
    1. With d pixels their part along its normal is 1/√d; and the perturbation, whose every pixel moves by 1
    in linf, is √d long there. An image farther from the boundary gets the same answer for all of them."""
    d = x.shape[1:].numel()
    return 1 / d if ball.norm == "linf" else d**-0.5


def _direction(
    decisions: Decisions, draws: Draws, rows: Tensor, z: Tensor, length: Tensor, count: Tensor
) -> Tensor:
    """(n, C, H, W) the estimated normal of the boundary at the images z of `rows`, towards images that
    fool the model, from `count` (n,) directions of this `length` (n,); not normalised."""
    at_once = at_most(len(rows), COPIES * FLOAT * TOGETHER * z[0].numel())
    parts = zip(*(values.split(at_once) for values in (rows, z, length, count)))
    return torch.cat([_direction_of_piece(decisions, draws, *part) for part in parts])


def _direction_of_piece(
    decisions: Decisions, draws: Draws, rows: Tensor, z: Tensor, length: Tensor, count: Tensor
) -> Tensor:
    answered, balance = torch.zeros_like(length), torch.zeros_like(length)
    signed, plain = torch.zeros_like(z), torch.zeros_like(z)
    tiny, reach = torch.finfo(z.dtype).tiny, length.reshape(-1, 1, 1, 1, 1)
    for first in range(0, int(count.max()), TOGETHER):
        directions = draws.fork(first).select(rows)
        shape = (TOGETHER, *z.shape[1:])
        move = (
            directions.normal(*shape)
            if decisions.ball.norm == "l2"
            else directions.uniform(*shape, low=-1.0, high=1.0)
        ).to(z.device, z.dtype)
        norm = torch.linalg.vector_norm(move.flatten(2), dim=2).clamp_min(tiny)
        points = (z[:, None] + reach * move / norm[:, :, None, None, None]).clamp(0, 1)
        move = points - z[:, None]
        wanted = torch.arange(first, first + TOGETHER, device=z.device) < count[:, None]
        wanted &= (decisions.left[rows] > 0)[:, None]
        image, which = wanted.nonzero().T
        fooled = decisions.ask(rows[image], points[image, which])
        sign = torch.zeros_like(norm)
        sign[image, which] = 2 * fooled.to(z.dtype) - 1
        answered, balance = answered + wanted.sum(1), balance + sign.sum(1)
        signed += (sign[:, :, None, None, None] * move).sum(1)
        plain += (wanted[:, :, None, None, None] * move).sum(1)
    mean = (balance / answered.clamp_min(1)).reshape(-1, 1, 1, 1)
    return torch.where(mean.abs() == 1, signed, signed - mean * plain)


def _stepped(decisions: Decisions, rows: Tensor, z: Tensor, step: Tensor, length: Tensor) -> Tensor:
    """The images z of `rows` after a step of `length` (n,), or of half of it, a quarter, …: the first
    that fools the model; z where none does."""
    moved, going = z.clone(), torch.ones_like(rows, dtype=torch.bool)
    for _ in range(HALVINGS):
        at = (going & (decisions.left[rows] > 0)).nonzero().flatten()
        if not len(at):
            break
        tried = (z[at] + length[at].reshape(-1, 1, 1, 1) * step[at]).clamp(0, 1)
        fooled = decisions.ask(rows[at], tried)
        moved[at[fooled]] = tried[fooled]
        going[at[fooled]] = False
        length = length / 2
    return moved
