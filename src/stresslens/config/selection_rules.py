"""Model selection: the one table of the rules that choose the best epoch and the best trial of a
sweep.

A new rule is a new row of `RULES`. The values of `train.select` and `sweep.metric`, the units of a
sweep's figures and their names all follow from the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError
from pydantic_core.core_schema import no_info_after_validator_function

from stresslens.core.spelling import closest


def _same(figure: float) -> float:
    return figure


@dataclass(frozen=True)
class SelectionRule:
    """A rule that ranks epochs by their figures on the validation split.

    `figures` are the keys in a line of metrics.jsonl that the rule reads: accuracy, loss, or robust
    (the robust accuracy, which is measured only where the rule reads it). `combine` computes one
    value from them. The rule `tie_breaker` decides between epochs of equal value.
    """

    name: str
    title: str
    """The name of the value in a sentence."""
    figures: tuple[str, ...]
    tie_breaker: str
    combine: Callable[..., float] = _same
    higher_is_better: bool = True
    is_share: bool = True
    """Whether the value is a share of images: it is shown in percent and has a Wilson interval."""

    @property
    def needs_robust_accuracy(self) -> bool:
        return "robust" in self.figures

    @property
    def needs_equal_losses(self) -> bool:
        """Whether models are comparable only if they were trained with the same loss."""
        return "loss" in self.figures

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is."""
        return 1 if self.higher_is_better else -1

    @property
    def unit(self) -> str:
        """The label of a figure's axis."""
        return f"{self.title}, %" if self.is_share else self.title

    def value(self, validation: Mapping[str, float]) -> float:
        return float(self.combine(*(validation[figure] for figure in self.figures)))

    def rank(self, validation: Mapping[str, float]) -> tuple[float, float]:
        """A pair that is larger for a better epoch; the second number breaks ties. A figure that is
        NaN is worse than all others."""
        values = [rule.sign * rule.value(validation) for rule in (self, RULES[self.tie_breaker])]
        first, second = (-math.inf if math.isnan(value) else value for value in values)
        return first, second


RULES: dict[str, SelectionRule] = {
    rule.name: rule
    for rule in (
        SelectionRule("accuracy", "accuracy", ("accuracy",), tie_breaker="loss"),
        SelectionRule(
            "loss", "loss", ("loss",), tie_breaker="accuracy", higher_is_better=False, is_share=False
        ),
        SelectionRule("robust", "robust accuracy", ("robust",), tie_breaker="accuracy"),
    )
}


class _RuleOr:
    """Accepts the name of a rule or one of `others`. The table is read when a value is checked."""

    def __init__(self, *others: str) -> None:
        self.others = others

    @property
    def valid(self) -> list[str]:
        return [*RULES, *self.others]

    def check(self, name: str) -> str:
        if name not in self.valid:
            hint = closest(name, self.valid)
            raise PydanticCustomError("unknown_rule", "unknown rule ({hint})", {"hint": hint})
        return name

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {**handler(schema), "enum": self.valid}


Select = Annotated[str, _RuleOr("auto", "last")]
"""A value of `train.select`: a rule, `last` (the last epoch) or `auto`."""
SweepMetric = Annotated[str, _RuleOr("auto")]
RuleName = Annotated[str, _RuleOr()]
