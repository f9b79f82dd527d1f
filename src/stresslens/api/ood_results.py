"""Detectors of out-of-distribution images compared on sets, as `run.detect_ood` returns them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from stresslens.core.cards import card, sentences
from stresslens.core.tables import Percent, ResultTable, Tabular
from stresslens.core.text import counted
from stresslens.evaluation.ood_detectors import set_rows
from stresslens.evaluation.ood_record import OODRecord, OODSetRecord

Cell: TypeAlias = str | float | Percent | None


@dataclass(frozen=True, repr=False)
class DetectorComparison(Tabular):
    """The detectors on each set, with intervals; `found.refused` says which are not possible, and why."""

    found: OODRecord

    @property
    def sets(self) -> dict[str, OODSetRecord]:
        """What was found on each set, by its name."""
        return self.found.sets

    @property
    def verdicts(self) -> dict[str, str]:
        """Which detector is really better than which, by the name of the set."""
        return {name: each.verdict for name, each in self.found.sets.items()}

    def __repr__(self) -> str:
        return f"DetectorComparison({counted(len(self.sets), 'set')}: {', '.join(self.sets)})"[:300]

    def _repr_html_(self) -> str:
        said = [f"{name}: {verdict}." for name, verdict in self.verdicts.items()]
        lead = f"{self.found.n:,} {self.found.split} images beside {counted(len(self.sets), 'set')}"
        return card(lead, self._table().html(), sentences(said))

    def _table(self) -> ResultTable:
        columns = ("set", "detector", "auroc", "aupr", "fpr95", "images")
        rows = [
            (
                name,
                detector,
                scores.auroc.value,
                scores.aupr.value,
                None if scores.fpr95 is None else Percent(scores.fpr95),
                self.sets[name].n,
            )
            for name, detector, scores in set_rows(self.found)
        ]
        return ResultTable(columns, rows)
