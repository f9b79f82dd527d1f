"""Rank and world size of this process, from torchrun's environment variables.

This module does not import torch, so it can be used before torch is loaded.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Rank:
    """Process `rank` of `world`, and process `local_rank` of the `local_world` on its machine."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1


def rank_of_process() -> Rank:
    """The rank of this process; a single process if torchrun did not start it."""
    if any(name not in os.environ for name in VARIABLES):
        return Rank()
    return Rank(*(int(os.environ[name]) for name in VARIABLES[:4]))
