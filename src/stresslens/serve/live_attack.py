"""The smallest change of one image that changes its prediction, found step by step while somebody looks."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.config.schema import PluginValue
from stresslens.config.threat_model import FAST
from stresslens.core.answers import predicted
from stresslens.core.attack_base import BatchedModel, attacked
from stresslens.core.ball import Ball, Norm
from stresslens.core.draws import Draws, mix
from stresslens.core.format import plugin_text
from stresslens.core.gradient_free import why_no_gradient
from stresslens.core.text import enumeration
from stresslens.robustness.attack_batch import AttackBatch, VerdictModel, verdict_model

FIRST: tuple[PluginValue, ...] = (FAST[1],)
"""PGD halves the radius."""
LIVE: tuple[PluginValue, ...] = FAST[1:3]
"""Then PGD and Auto-PGD try below what was found: what of the protocol `fast` takes less than a second."""
BY_ANSWERS: tuple[PluginValue, ...] = ({"hop_skip_jump": {"queries": 1000}},)
"""For models without a gradient. It looks for the smallest change itself, so no radius is halved."""
BISECTIONS, PASSES = 4, 2
"""How often the radius is halved, and how often all attacks try below what was found."""
NEXT = 0.95
"""The next radius after a change was found, as a share of its size."""


@dataclass(frozen=True)
class AttackGoal:
    """What is looked for: a change of at most `radius` that makes the prediction another class, or the class
    `target`."""

    norm: Norm
    radius: float
    target: int | None = None


@dataclass(frozen=True)
class Attempt:
    """What is known after a search at one radius. `x_adv` (1, C, H, W) is the best image so far, and `size`
    its change; None before one is found. `none_at` is the last radius at which nothing was found, by the
    attacks `none_by`; 0 before."""

    radius: float
    x_adv: Tensor | None = None
    size: float | None = None
    by: str = ""
    none_at: float = 0.0
    none_by: str = ""


class LiveAttack:
    """A search on an image x (1, C, H, W) in [0, 1] that the model classifies as y."""

    def __init__(self, model: nn.Module, x: Tensor, y: int, goal: AttackGoal) -> None:
        self.model, self.x, self.y, self.goal = model, x, torch.tensor([y]), goal
        by_answers = bool(why_no_gradient(model))
        self.protocol = BY_ANSWERS if by_answers else LIVE
        self.bisections = 0 if by_answers else BISECTIONS
        self.target = None if goal.target is None else torch.tensor([goal.target])

    def attempts(self) -> Generator[Attempt, None, None]:
        """What is known after each attempt; the last one says where nothing was found. The model is frozen
        until the iterator is closed."""
        with attacked(self.model):
            best = Attempt(self.goal.radius)
            for _ in range(self.bisections):
                radius = best.radius if best.size is None else (best.none_at + best.size) / 2
                best = self._tried(replace(best, radius=radius), FIRST)
                if best.size is None or best.none_at >= NEXT * best.size:
                    break
                yield best
            for _ in range(PASSES):
                radius = self.goal.radius if best.size is None else NEXT * best.size
                before, best = best.size, self._tried(replace(best, radius=radius), self.protocol)
                if best.size == before:
                    break
                yield best
            yield best

    def _tried(self, best: Attempt, protocol: Sequence[PluginValue]) -> Attempt:
        """What is known after these attacks at the radius of `best`."""
        ball = Ball(self.goal.norm, best.radius)
        verdict = _of_few(verdict_model(self.model))
        options: dict[str, Any] = {"target": self.target, "targeted_success": self.target is not None}
        start = None if best.x_adv is None else ball.project(best.x_adv, self.x)
        for number, value in enumerate(protocol):
            batch = AttackBatch(verdict, self.x, self.y, ball, **options)
            draws = Draws(mix(0, number), torch.zeros(1, dtype=torch.int64))
            name = registry.name_and_options("attacks", value)[0]
            attack = registry.resolve("attacks", value)
            batch.attack_unbroken(attack, BatchedModel(self.model), draws, name=name, start=start)
            if bool(batch.is_adversarial[0]) and self._holds(batch.x_adv):
                size = float(ball.size(batch.x_adv - self.x)[0])
                if best.size is None or size < best.size:
                    found = replace(best, x_adv=batch.x_adv, size=size, by=_told(value))
                    return found if size > best.none_at else replace(found, none_at=0.0, none_by="")
        return replace(best, none_at=best.radius, none_by=enumeration(list(map(_told, protocol))))

    def _holds(self, x_adv: Tensor) -> bool:
        """Whether the image alone is classified as wanted: in a batch the last digits may be others."""
        with torch.no_grad():
            answer = int(predicted(self.model(x_adv))[0])
        return answer == self.goal.target if self.target is not None else answer != int(self.y[0])


def _of_few(verdict: VerdictModel) -> VerdictModel:
    """The same, computed once for all copies of the first image, with which a batch is filled up."""

    def logits(x: Tensor) -> Tensor:
        others = (x != x[:1]).flatten(1).any(1)
        found = verdict(torch.cat([x[:1], x[others]]))
        every = found[:1].repeat(len(x), 1)
        every[others] = found[1:]
        return every

    return logits


def _told(value: PluginValue) -> str:
    """An attack with its options, in words: `pgd (steps 20, momentum 0.5)`."""
    return plugin_text(*registry.name_and_options("attacks", value))
