"""Lists of findings and of rows that show themselves in short."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from stresslens.core.cards import card, folded, sentences
from stresslens.core.tables import Cell, ResultTable, Tabular
from stresslens.core.text import brief, counted
from stresslens.core.types import Finding

NAMED = 3
"""Serious signs that a line names."""


class Findings(list[Finding], Tabular):
    """A list of findings. It shows those that are a sign of a problem, serious ones first."""

    @property
    def signs(self) -> Findings:
        """The findings that are a sign of a problem, serious ones first."""
        signs = [finding for finding in self if finding.status == "sign"]
        return Findings(sorted(signs, key=lambda finding: finding.rank))

    @property
    def sentences(self) -> list[str]:
        """The findings that are a sign, serious ones first, as lines."""
        return [finding.sentence for finding in self.signs]

    @property
    def warning(self) -> str:
        """The serious signs in words, at most `NAMED` of them by name, as the end of a line; empty where
        there is none."""
        names = [brief(finding.audit, 40) for finding in self.signs if finding.severity == "serious"]
        more = ", …" if len(names) > NAMED else ""
        return f"; {counted(len(names), 'serious sign')}: {', '.join(names[:NAMED])}{more}" if names else ""

    @property
    def _said(self) -> str:
        serious = sum(finding.severity == "serious" for finding in self.signs)
        counts = {status: sum(f.status == status for f in self) for status in ("no sign", "not checked")}
        rest = "".join(f", {n} {status}" for status, n in counts.items() if n)
        return f"{counted(len(self), 'check')}: {len(self.signs)} with a sign ({serious} serious){rest}"

    def __repr__(self) -> str:
        names = ", ".join(brief(finding.audit, 40) for finding in self.signs[:4])
        names += ", …" if len(self.signs) > 4 else ""
        return f"Findings({self._said}{': ' if names else ''}{names})"

    def _repr_html_(self) -> str:
        remedies = [f"{f.audit}: {f.remedy}" for f in self.signs if f.remedy]
        do = Markup("<p>What to do:</p>{}").format(sentences(remedies, 4)) if remedies else ""
        each = [finding.sentence for finding in sorted(self, key=lambda finding: finding.rank)]
        return card(self._said, sentences(self.sentences, 5), do, folded("What each check found", each))

    def _table(self) -> ResultTable:
        cells = [(f.audit, f.status, f.severity, f.n, f.evidence, f.remedy) for f in self]
        return ResultTable(("audit", "status", "severity", "n", "evidence", "remedy"), cells)


class RowList(list[dict[str, Any]], Tabular):
    """A list of rows, dictionaries with the same keys. It shows the first and the last of them."""

    def __repr__(self) -> str:
        return (
            f"RowList({counted(len(self), 'row')} of {brief(', '.join(self[0]), 300) if self else 'nothing'})"
        )

    def _repr_html_(self) -> str:
        ends = self if len(self) <= 10 else [*self[:5], *self[-5:]]
        left_out = f"{len(self) - 10} rows between the fifth and the last five: to_frame() has all."
        return card(counted(len(self), "row"), _table_of(ends).html(), left_out if len(self) > 10 else "")

    def _table(self) -> ResultTable:
        return _table_of(self)


def _table_of(rows: list[dict[str, Any]]) -> ResultTable:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells: list[list[Cell]] = [[row.get(column) for column in columns] for row in rows]
    return ResultTable(columns, cells)
