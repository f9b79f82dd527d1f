"""Which of how many processes this one is, by what torchrun says in the environment. Needs no
torch, so it can be asked first."""

from __future__ import annotations

import os
from dataclasses import dataclass

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Rank:
    """The `rank`-th of `world` processes, and the `local_rank`-th of the `local_world` on its machine."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1


def rank_of_process() -> Rank:
    """This process's place among those that torchrun started together; alone where it did not start it."""
    if any(name not in os.environ for name in VARIABLES):
        return Rank()
    return Rank(*(int(os.environ[name]) for name in VARIABLES[:4]))
