from __future__ import annotations

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import Watch
from stresslens.core.ball import L2Ball
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError
from stresslens.core.types import Count, Positive
from stresslens.plugins.attacks._decisions import Decisions
from stresslens.plugins.attacks._random_points import random_point

FIRST_TOLERANCE = 0.05
PATIENCE, LEAST_GAIN = 500, 0.02
"""A walk that came nearer by less than this share within so many queries has ended."""
SHARE_OF_STEPS, SHARE_OF_APPROACHES = 0.5, 0.25
"""The shares of steps along the sphere, and of steps towards the image, that should fool the
model."""


# long: options are spelled out, one a line, and the docstring says where the paper is left
def boundary(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: L2Ball,
    draws: Draws,
    watch: Watch,
    target: Tensor | None,
    start: Tensor | None,
    *,
    queries: Count = 5000,
    spherical_step: Positive = 0.3,
    source_step: Positive = 0.05,
    adaptation: Positive = 1.1,
    tries: Count = 100,
) -> Tensor:
    """Boundary attack: a random walk along the decision boundary towards the image (Brendel et al.
    2018).

    See algorithm 1 of the paper; in l2, from predicted classes alone. Each step draws a direction,
    goes along the sphere around the image by `spherical_step` times the distance, and from there
    towards the image by `source_step` times it, if that still fools the model. Each image gets at most
    `queries` passes, the first for the image itself.

    It starts from `start`, or from up to `tries` random points of the box, coarse and fine; where none
    fools the model (with a `target`: is classified as it), the image comes back as it is.
    Returns the smallest adversarial image if it is inside the ball, or else its projection onto the
    ball. Differences from the paper, for small budgets: the walk begins at the boundary, by bisection;
    both step lengths of an image change after each of its steps by a power of `adaptation`, so that half
    of its spherical steps and a quarter of its approaches succeed, instead of after a hundred of them; a
    walk that no longer comes nearer begins anew at another random point.
    Raises ConfigError for a norm other than l2.
    """
    if ball.norm != "l2":
        raise ConfigError(f"boundary is an attack of l2, not of {ball.norm}; hop_skip_jump knows linf too")
    decisions = Decisions(model, x, y, ball, watch, target, queries)
    begun = decisions.started(draws, start, tries)
    z = x.clone()
    z[begun] = decisions.bisected(begun, decisions.nearest.found[begun], FIRST_TOLERANCE)
    along = torch.full((len(x),), spherical_step, dtype=x.dtype, device=x.device)
    inward = torch.full_like(along, source_step)
    size, left = ball.size(z - x), decisions.left.clone()  # where each walk was PATIENCE queries ago
    index = 0
    while len(rows := decisions.asking(begun)):
        index += 1
        due = rows[left[rows] - decisions.left[rows] >= PATIENCE]
        now = ball.size(z[due] - x[due])
        ended = due[now > (1 - LEAST_GAIN) * size[due]]
        size[due], left[due] = now, decisions.left[due]
        fresh, points = _fresh(decisions, ended, draws.fork(3, index), index)
        z[fresh], along[fresh], inward[fresh], size[fresh] = points, spherical_step, source_step, torch.inf
        rows = decisions.asking(rows)
        origin = x[rows]
        on_sphere = _spherical(z[rows], origin, along[rows], draws.fork(2, index).select(rows))
        fooled = decisions.ask(rows, on_sphere)
        along[rows] *= adaptation ** (fooled.to(x.dtype) - SHARE_OF_STEPS)
        along.clamp_(max=1.0)
        on = fooled & (decisions.left[rows] > 0)
        rows, on_sphere, origin = rows[on], on_sphere[on], origin[on]
        nearer = (origin + (1 - inward[rows].reshape(-1, 1, 1, 1)) * (on_sphere - origin)).clamp(0, 1)
        fooled = decisions.ask(rows, nearer)
        inward[rows] *= adaptation ** (fooled.to(x.dtype) - SHARE_OF_APPROACHES)
        inward.clamp_(max=0.5)
        z[rows] = torch.where(fooled.reshape(-1, 1, 1, 1), nearer, on_sphere)
    return decisions.nearest.x_adv()


def needs_gradient() -> bool:
    return False


def _spherical(z: Tensor, x: Tensor, length: Tensor, draws: Draws) -> Tensor:
    """The images z after a random step of `length` (n,), in parts of their distance to x, on the sphere
    around x; clamped to the box."""
    way = (z - x).flatten(1)
    distance = torch.linalg.vector_norm(way, dim=1, keepdim=True).clamp_min(torch.finfo(z.dtype).tiny)
    outward = way / distance
    move = draws.normal(*z.shape[1:]).to(z.device, z.dtype).flatten(1)
    move = move - (move * outward).sum(1, keepdim=True) * outward
    norm = torch.linalg.vector_norm(move, dim=1, keepdim=True).clamp_min(torch.finfo(z.dtype).tiny)
    step = length[:, None]
    direction = (outward + step * move / norm) / (1 + step.square()).sqrt()
    moved: Tensor = x + (distance * direction).reshape(z.shape)
    return moved.clamp(0, 1)


def _fresh(decisions: Decisions, rows: Tensor, draws: Draws, index: int) -> tuple[Tensor, Tensor]:
    """Those of `rows` that a new random point fools, and the boundary on the way to it."""
    far = random_point(decisions.x[rows], draws.select(rows), index)
    fooled = decisions.ask(rows, far)
    rows, far = rows[fooled], far[fooled]
    return rows, decisions.bisected(rows, far, FIRST_TOLERANCE)
