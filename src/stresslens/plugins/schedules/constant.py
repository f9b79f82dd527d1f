from __future__ import annotations

from typing import Any

from stresslens.core.types import Scheduler


def constant() -> Scheduler:
    """A constant learning rate."""
    return Constant()


class Constant:
    """A schedule without changes, which avoids the cost of a torch scheduler at every step."""

    def step(self) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        pass
