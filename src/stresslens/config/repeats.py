"""The key `repeats:` of a study file, where every repeat divides the data anew."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from stresslens.config.schema import STRICT
from stresslens.core.splits import Division


@dataclass(config=STRICT)
class Repeats:
    """Another division of the data for every repeat: k-fold, `times` over, or so many random
    splits. `only` picks some of them."""

    folds: Annotated[int, Field(ge=2, le=1000)] | None = None
    times: Annotated[int, Field(ge=1, le=1000)] = 1
    splits: Annotated[int, Field(ge=2, le=10_000)] | None = None
    only: list[Annotated[int, Field(ge=0, lt=2**32)]] | None = None

    @property
    def division(self) -> Division:
        return Division(self.folds, self.times)

    def alone(self, seed: int) -> dict[str, Any]:
        """What defines one repeat and nothing else, so that more of them change nothing about it."""
        if self.folds is not None:
            return {"folds": self.folds, "times": seed // self.folds + 1, "only": [seed]}
        return {"splits": max(2, seed + 1), "only": [seed]}

    def wrong(self) -> str | None:
        if (self.folds is None) == (self.splits is None):
            return "give either folds or splits"
        if self.splits is not None and self.times != 1:
            return "times belongs to folds; give more splits"
        most = (self.folds or 0) * self.times or self.splits or 0
        if self.only is not None and (
            not self.only or len(set(self.only)) < len(self.only) or max(self.only) >= most
        ):
            return f"only: expected some of the repeats 0 to {most - 1}, each once"
        return None

    @property
    def seeds(self) -> list[int]:
        return (
            list(range((self.folds or 0) * self.times or self.splits or 1))
            if self.only is None
            else self.only
        )
