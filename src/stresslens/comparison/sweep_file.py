"""sweep.json: a sweep's configuration and all its trials. The process that owns the sweep writes it
beside the seeds of a run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator

from stresslens.comparison.schema import ImportanceTable
from stresslens.config.selection_rules import RuleName
from stresslens.core.json_file import Figure, JsonFile

TrialStatus = Literal["running", "finished", "left out", "diverged", "failed"]


class Trial(JsonFile):
    """One trial: its settings, and its validation score at the chosen epoch, or the reason why it
    failed."""

    LATER_KEYS = frozenset({"reason"})

    number: int
    settings: dict[str, Any] = {}
    status: TrialStatus = "running"
    reason: str = ""
    epochs: int | None = None
    seconds: float | None = None
    value: Figure | None = None
    reads_of_test: int = 0


class SearchedSpace(JsonFile):
    """The search space of a sweep and its constraints, from the section `sweep` of a study file."""

    space: dict[str, Any] | None = None
    where: list[str] = []


class SweepFile(JsonFile):
    """sweep.json. `asked` is the configuration that identifies this sweep; `arithmetic` is what the
    trials are computed with (device, precision, threads, memory format)."""

    format: Literal[1] = 1
    run: str = ""
    method: str = ""
    metric: RuleName = "accuracy"
    size: int = 0
    asked: dict[str, Any] = {}
    arithmetic: dict[str, Any] = {}
    best: int | None = None
    trials: list[Trial] = []
    importance: ImportanceTable | None = None

    @field_validator("asked")
    @classmethod
    def _with_a_space(cls, asked: dict[str, Any]) -> dict[str, Any]:
        SearchedSpace.model_validate(asked.get("sweep", {}))
        return asked

    @property
    def searched(self) -> SearchedSpace:
        return SearchedSpace.model_validate(self.asked.get("sweep", {}))

    @property
    def tie(self) -> str:
        """That other trials are as good as the best, in words; empty if none is."""
        values = {t.number: t.value.value for t in self.trials if t.value and t.status == "finished"}
        equal = sum(value == values[self.best] for value in values.values()) - 1 if self.best in values else 0
        return f", the first of {equal + 1} that are equally good" if equal else ""
