from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor, nn

from stresslens.core.attack_base import (
    MOST_TARGETS,
    STACK,
    Best,
    Watch,
    batched_mean_logits,
    gradient,
    likely_others,
    narrowed,
)
from stresslens.core.ball import Ball
from stresslens.core.draws import Draws
from stresslens.core.types import Count, Share
from stresslens.plugins.attacks._losses import (
    LossAt,
    dlr,
    dlr_targeted,
    dlr_towards,
    log_odds,
    margin_targeted,
    margin_towards,
)

Choice = Literal["auto", "ce", "dlr", "dlr_targeted", "margin_targeted"]

LARGER = ((3, 0.3), (2, 0.3))
"""In l1 a run begins in larger balls: how many times the radius, and the share of the steps there."""
MOMENTUM = 0.25
"""The weight of the last move in the next move (1 − α in the paper)."""


# long: options are spelled out, one a line, and the docstring says where the paper is left
def apgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ball: Ball,
    draws: Draws,
    watch: Watch,
    target: Tensor | None,
    start: Tensor | None,
    *,
    loss: Choice = "auto",
    steps: Count = 100,
    restarts: Count = 1,
    targets: Count | None = None,
    rho: Share = 0.75,
) -> Tensor:
    """Auto-PGD: gradient steps with momentum and an adaptive step size (Croce & Hein 2020,
    algorithm 1).

    In l1 it takes sparse steps with an adaptive number of entries (Croce & Hein 2021, "Mind the
    box", algorithm 1), among those that the box lets move. It spends three tenths of its steps in a
    ball of three radii, three in one of two radii, and the rest in the ball (section 3.4 there).

    `loss` is one of: `ce`, the log-odds, with the directions of cross-entropy but without its
    vanishing gradient; `dlr`; `dlr_targeted` and `margin_targeted`, which attack each image towards
    its most likely other classes, one after the other. `targets` is their number (by default nine,
    at most all). `auto` is dlr_targeted, which needs four classes. With fewer classes, and for dlr
    with fewer than three, margin_targeted is used. With a `target`, the attack is towards that
    class alone, and its logit is raised over all others. The first restart begins at `start` if it
    is given; all others begin at random points of the ball.

    Differences from the paper: the first step (not in l1) and the last step, from the best iterate,
    go to the point of ball and box that is farthest along the gradient. In linf this is the paper's
    own first step, of twice the radius. Therefore, for a linear model, margin_targeted over all
    other classes finds the lowest margin exactly, in all three norms, whether or not the box is
    active; dlr_targeted finds whether the model can be fooled.
    """
    best, alive = Best(x, y, target), torch.arange(len(x), device=x.device)
    if not len(x):
        return best.x_adv
    clean = batched_mean_logits(model, x)
    keep = watch(alive, x, clean)
    best.update(alive, x, clean)
    alive = alive[keep]
    value_of, aims = _plan(loss, clean, y, target, targets)
    jobs = [(restart, aim) for restart in range(restarts) for aim in aims]
    while jobs and len(alive):
        some, jobs = jobs[: max(1, STACK // len(alive))], jobs[max(1, STACK // len(alive)) :]
        origin, around = x[alive], ball.select(alive)
        begins = [
            start[alive]
            if start is not None and restart == 0
            else around.sample(origin, draws.fork(restart).select(alive))
            for restart, _ in some
        ]
        survives = torch.ones(len(x), dtype=torch.bool, device=x.device)
        z, rows = torch.cat(begins), alive.repeat(len(some))
        aim = torch.cat([aim[alive] for _, aim in some])
        for larger, count in _stages(steps) if ball.norm == "l1" else ((1, steps),):
            goes_on = survives[rows]
            if not goes_on.any():
                break
            z, rows, aim = z[goes_on], rows[goes_on], aim[goes_on]
            stage = replace(ball, eps=larger * ball.eps)
            z = stage.select(rows).project(z, x[rows])
            kept = best if larger == 1 else None
            state = _ascend(model, z, x, y, aim, rows, stage, watch, kept, survives, value_of, count, rho)
            z, rows, aim = state.peak, state.rows, state.aim
        alive = alive[survives[alive]]
    return best.x_adv


def cost(*, loss: Choice, steps: int, restarts: int) -> float:
    return steps * restarts * (MOST_TARGETS if loss in ("auto", "dlr_targeted", "margin_targeted") else 1)


def may_be_flat(*, loss: Choice) -> bool:
    return loss in ("dlr", "dlr_targeted", "margin_targeted")


def _stages(steps: int) -> list[tuple[int, int]]:
    """How many times the radius, and how many steps there, one stage after the other."""
    larger = [(factor, round(share * steps)) for factor, share in LARGER]
    return [*((f, n) for f, n in larger if n), (1, steps - sum(n for _, n in larger))]


def _plan(
    loss: Choice, clean: Tensor, y: Tensor, target: Tensor | None, count: int | None
) -> tuple[LossAt, list[Tensor]]:
    """The loss of (logits, y, aim), and the target classes to attack one after the other."""
    classes = int((~clean.isneginf()).sum(1).min())  # those that are not masked
    if loss == "auto" or (loss == "dlr" and target is not None):
        loss = "dlr_targeted"
    if (loss == "dlr_targeted" and classes < 4) or (loss == "dlr" and classes < 3):
        loss = "margin_targeted"
    if loss == "ce":
        if target is not None:
            return (lambda logits, y, aim: -log_odds(logits, aim)), [target]
        return (lambda logits, y, aim: log_odds(logits, y)), [y]
    if loss == "dlr":
        return (lambda logits, y, aim: dlr(logits, y)), [y]
    scaled = loss == "dlr_targeted"
    if target is not None:
        return dlr_towards if scaled else margin_towards, [target]
    return dlr_targeted if scaled else margin_targeted, likely_others(clean, y, count)


@dataclass
class _State:
    """The state of the ascent for each row; every tensor is (n, …)."""

    rows: Tensor
    origin: Tensor
    y: Tensor
    aim: Tensor
    z: Tensor
    before: Tensor
    """The iterate before z."""
    grad: Tensor
    value: Tensor
    peak: Tensor
    """The iterate with the highest loss so far."""
    peak_grad: Tensor
    """The gradient at the peak."""
    height: Tensor
    """The loss at the peak."""
    length: Tensor
    """(n, 1, 1, 1) step size."""
    risen: Tensor
    """How often the loss rose since the last check."""
    checked_height: Tensor
    """`height` at the last check."""
    shortened: Tensor
    """Whether the last check shortened the step."""
    entries: Tensor
    """In l1, the number of entries that a step changes."""
    differed: Tensor
    """In l1, the number of entries in which peak and image differed at the last check."""

    def select(self, keep: Tensor) -> _State:
        return _State(**{field.name: getattr(self, field.name)[keep] for field in fields(self)})

    def update(self, z: Tensor, value: Tensor, grad: Tensor) -> None:
        """Takes the next iterate z with its loss and gradient."""
        self.before, self.z, self.grad = self.z, z, grad
        self.risen = self.risen + (value > self.value)
        self.value = value
        higher = value > self.height
        mask = higher.reshape(-1, 1, 1, 1)
        self.peak, self.peak_grad = torch.where(mask, z, self.peak), torch.where(mask, grad, self.peak_grad)
        self.height = torch.where(higher, value, self.height)

    def back_to_peak(self, which: Tensor) -> None:
        """Continues from the best iterate in the rows `which` (n,) bool."""
        mask = which.reshape(-1, 1, 1, 1)
        self.z, self.grad = (
            torch.where(mask, self.peak, self.z),
            torch.where(mask, self.peak_grad, self.grad),
        )
        self.value = torch.where(which, self.height, self.value)


# long: the steps of the paper's algorithm in order, with the initial state spelled out
def _ascend(
    model: nn.Module,
    z: Tensor,
    x: Tensor,
    y: Tensor,
    aim: Tensor,
    rows: Tensor,
    ball: Ball,
    watch: Watch,
    best: Best | None,
    survives: Tensor,
    value_of: LossAt,
    steps: int,
    rho: float,
) -> _State:
    """One run from z; `rows` may contain an image several times.

    Without `best`, the ball is larger than that of the attack, and the run only finds a start.
    Returns the last state, and notes in `survives` (N,) the images that are not to be attacked
    further.
    """
    around = ball.select(rows)

    def show(z: Tensor, logits: Tensor, value: Tensor | None = None, grad: Tensor | None = None) -> Tensor:
        if best is not None:
            best.update(state.rows, z, logits)
        keep = watch(state.rows, z, logits, None if best is None else value, grad)
        survives[state.rows[~keep]] = False
        return keep

    logits, value, grad = gradient(model, z, value_of, y[rows], aim)
    sparse = ball.norm == "l1"
    none = torch.zeros_like(rows)
    full = around.radius(z) * (1 if sparse else 2)
    differs = (z - x[rows]).flatten(1).count_nonzero(1)
    # a random start differs everywhere
    first = torch.where(differs < x[0].numel(), (differs / 1.5).long(), x[0].numel() // 5).clamp_min(1)
    state = _State(
        rows,
        x[rows],
        y[rows],
        aim,
        z,
        z,
        grad,
        value,
        z,
        grad,
        value,
        full,
        none,
        value,
        none > 0,
        first,
        differs,
    )
    keep = show(z, logits, value, grad)
    interval, since = max(1, round((0.04 if sparse else 0.22) * steps)), 0
    for step in range(1, steps + 1):
        remaining = narrowed(keep & survives[state.rows])
        if remaining is not None:
            state, around = state.select(remaining), around.select(remaining)
        if not len(state.rows):
            break
        if step == steps and best is not None:
            z = around.farthest(state.peak_grad, state.origin)
            show(z, batched_mean_logits(model, z))
            break
        if sparse:
            z = around.project(
                around.steepest_step(state.grad, state.z, state.length, state.entries[:, None]), state.origin
            )
        else:
            z = around.farthest(state.grad, state.origin) if step == 1 else _with_momentum(state, around)
        logits, value, grad = gradient(model, z, value_of, state.y, state.aim)
        keep = show(z, logits, value, grad)
        state.update(z, value, grad)
        since += 1
        if since == interval:
            if sparse:
                _check_sparsity(state, around)
            else:
                _check_progress(state, rho * interval)
                interval = max(interval - max(1, round(0.03 * steps)), max(1, round(0.06 * steps)))
            since = 0
    return state


def _with_momentum(state: _State, around: Ball) -> Tensor:
    stepped = around.project(state.z + state.length * around.steepest(state.grad), state.origin)
    return around.project(
        state.z + (1 - MOMENTUM) * (stepped - state.z) + MOMENTUM * (state.z - state.before), state.origin
    )


def _check_progress(state: _State, enough: float) -> None:
    """Halves the step and goes back to the peak where progress is too slow.

    That is where the loss rose too seldom, or where neither step nor peak changed since the last
    check (conditions 1 and 2 of the paper).
    """
    stalled = ~state.shortened & (state.height <= state.checked_height)
    shorten = (state.risen < enough) | stalled
    state.length = torch.where(shorten.reshape(-1, 1, 1, 1), state.length / 2, state.length)
    state.back_to_peak(shorten)
    state.shortened, state.checked_height, state.risen = shorten, state.height, torch.zeros_like(state.risen)


def _check_sparsity(state: _State, around: Ball) -> None:
    """Adapts the number of entries and the step size of l1 steps.

    A step changes fewer entries as the best perturbation gets sparser. Where it got sparser, the
    step is full again and begins at the peak; elsewhere the step is shortened.
    """
    differs = (state.peak - state.origin).flatten(1).count_nonzero(1)
    sparser = differs < 0.95 * state.differed
    full = around.radius(state.z)
    shorter = torch.maximum(state.length / 1.5, full / 10)
    state.length = torch.where(sparser.reshape(-1, 1, 1, 1), full, shorter)
    state.entries = (differs / 1.5).long().clamp(1, state.z[0].numel())
    state.differed = differs
    state.back_to_peak(sparser)
