from __future__ import annotations

from typing import Any

from stresslens.core.types import Scheduler


def constant() -> Scheduler:
    """The learning rate as given, all along."""
    return Constant()


class Constant:
    """A schedule that never moves, without a torch scheduler's cost at every step."""

    def step(self) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass
