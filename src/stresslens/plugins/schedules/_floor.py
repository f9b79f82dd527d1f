"""Shared by schedules: courses of the learning rate that end at a floor."""

from __future__ import annotations

from collections.abc import Callable

import torch


def lowest_share(optimizer: torch.optim.Optimizer, floor: float) -> float:
    """The share of its own learning rate that each layer falls to: `floor` belongs to `train.lr`."""
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    return floor / float(optimizer.defaults.get("lr", max(rates)))


def above(lowest: float, share: Callable[[int], float]) -> Callable[[int], float]:
    """The course from 1 to `lowest` that goes as one from 1 to 0."""
    return lambda step: lowest + (1 - lowest) * share(step)
