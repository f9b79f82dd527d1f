"""The key `repeats:` of a study file as cross-validation: each repeat has another split of the
data."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from stresslens.config.schema import STRICT
from stresslens.core.splits import Division


@dataclass(config=STRICT)
class Repeats:
    """Another split of the data for each repeat: k-fold cross-validation with `folds`, repeated
    `times` times, or `splits` random splits. `only` selects some of the repeats by number."""

    folds: Annotated[int, Field(ge=2, le=1000)] | None = None
    """Number of folds of a cross-validation."""
    times: Annotated[int, Field(ge=1, le=1000)] = 1
    """How often the cross-validation is repeated, each time with other folds."""
    splits: Annotated[int, Field(ge=2, le=10_000)] | None = None
    """Number of random splits, in place of folds."""
    only: list[Annotated[int, Field(ge=0, lt=2**32)]] | None = None
    """Numbers of the repeats to carry out."""

    @property
    def division(self) -> Division:
        return Division(self.folds, self.times)

    def alone(self, seed: int) -> dict[str, Any]:
        """The settings that define this one repeat. They do not depend on the number of repeats."""
        if self.folds is not None:
            return {"folds": self.folds, "times": seed // self.folds + 1, "only": [seed]}
        return {"splits": max(2, seed + 1), "only": [seed]}

    def wrong(self) -> str | None:
        """What is wrong with the settings; None where they are valid."""
        if (self.folds is None) == (self.splits is None):
            return "give either folds or splits"
        if self.splits is not None and self.times != 1:
            return "times applies to folds only; give more splits"
        total = (self.folds or 0) * self.times or self.splits or 0
        if self.only is not None and (
            not self.only or len(set(self.only)) < len(self.only) or max(self.only) >= total
        ):
            return f"only: expected some of the repeats 0 to {total - 1}, each once"
        return None

    @property
    def seeds(self) -> list[int]:
        return (
            list(range((self.folds or 0) * self.times or self.splits or 1))
            if self.only is None
            else self.only
        )
