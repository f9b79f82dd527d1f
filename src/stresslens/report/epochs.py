"""The figures of each epoch as tables: those of a run, and one quantity of all variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stresslens.core.format import number
from stresslens.core.text import counted
from stresslens.report.curves import CURVES, SHARES, Logged
from stresslens.report.load import Run

ROWS = 60
"""Epochs of a table; of more, these are evenly spaced, and the chosen one is always there."""
COLUMNS = 12
"""Variants of a table."""


@dataclass(frozen=True)
class EpochRow:
    """One epoch with its figures as text, a dash where there is none."""

    epoch: str
    figures: Sequence[str]
    chosen: bool = False


@dataclass(frozen=True)
class EpochTable:
    """`columns` are the names of the figures; `note` says what was left out."""

    title: str
    columns: Sequence[str]
    rows: Sequence[EpochRow]
    note: str


def run_epochs(run: Run) -> EpochTable | None:
    """Every logged quantity of a run, epoch by epoch; None if nothing was logged."""
    columns: dict[str, Mapping[float, str]] = {}
    for title, keys in CURVES:
        accuracy = keys[-1] in SHARES
        line = {epoch: _written(value, accuracy) for epoch, value in run.curve(*keys)}
        if line:
            columns[f"{title}, %" if accuracy else title] = line
    if rates := run.curve("lr"):
        columns["Learning rate"] = {epoch: f"{value:.3g}" for epoch, value in rates}
    return _table("Figures of each epoch", columns, run.record.training.chosen_epoch) if columns else None


def study_epochs(logged: Logged) -> list[EpochTable]:
    """For each logged quantity, a column for each variant: the mean over its finished seeds."""
    tables = []
    for title, is_percent, series in logged:
        columns = {
            each.name: {x: f"{y:.1f}" if is_percent else number(y) for x, y in each.points}
            for each in series[:COLUMNS]
        }
        left_out = len(series) - len(columns)
        table = _table(f"{title}, %" if is_percent else title, columns, None)
        more = (
            f" {counted(left_out, 'more variant is', 'more variants are')} on their runs' own pages."
            if left_out
            else ""
        )
        tables.append(EpochTable(table.title, table.columns, table.rows, (table.note + more).strip()))
    return tables


def _written(value: float, accuracy: bool) -> str:
    return f"{100 * value:.1f}" if accuracy else number(value)


def _table(title: str, columns: Mapping[str, Mapping[float, str]], chosen: int | None) -> EpochTable:
    epochs = sorted({epoch for line in columns.values() for epoch in line})
    shown = epochs
    if len(epochs) > ROWS:
        kept = {epochs[round(k * (len(epochs) - 1) / (ROWS - 1))] for k in range(ROWS)}
        shown = [epoch for epoch in epochs if epoch in kept or epoch == chosen]
    rows = [
        EpochRow(f"{epoch:g}", [line.get(epoch, "–") for line in columns.values()], epoch == chosen)
        for epoch in shown
    ]
    left_out = len(epochs) - len(shown)
    note = f"{len(shown)} of {len(epochs)} epochs; all are in metrics.jsonl." if left_out else ""
    return EpochTable(title, list(columns), rows, note)
