"""Claimed figures against the runs that they are about."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stresslens.comparison.folders import compare_folders, figure_of
from stresslens.core.errors import ConfigError
from stresslens.core.score_units import is_proportion, is_within_one
from stresslens.core.types import Estimate, Finding
from stresslens.labs.agreement import differs, equal, remark
from stresslens.labs.part import ClaimTable

UNIT = r"(?:%|per ?cent|percentage points|points|pp)"
NUMBER = re.compile(
    rf"(?P<value>-?\d+(?:\.\d*)?|-?\.\d+)\s*(?P<unit>{UNIT})?\s*(?P<spread>(?:±|\(|\[|\+/-).*)?",
    re.IGNORECASE,
)
SPREAD_IN_PERCENT = re.compile(rf"(?:±|\+/-|\bto|\d\s*[-–])\s*[\d.]+\s*[)\]]?\s*{UNIT}[)\]]?", re.IGNORECASE)
"""In what follows a number: "± 0.3 %", "(88 to 92 %)"; not the level of an interval, "(95 % CI …)"."""


@dataclass(frozen=True)
class _Claim:
    """A claimed value and the unit of its last digit, both of a share if the score is one. `said` is
    whether its unit is written, or clear from its size."""

    value: float
    grain: float
    said: bool = True

    def is_of(self, estimate: Estimate) -> bool:
        return abs(self.value - estimate.value) <= self.grain / 2 * (1 + 1e-9) + 1e-12

    def inside(self, estimate: Estimate) -> bool:
        return estimate.low - self.grain / 2 <= self.value <= estimate.high + self.grain / 2

    @property
    def in_percent(self) -> _Claim:
        return _Claim(self.value / 100, self.grain / 100)


def claim_findings(table: ClaimTable, line: int, cells: Sequence[str]) -> list[Finding]:
    """The finding on a row of a table: whether the claimed figure is that of the run, or inside its
    interval; or whether the better of two really is. Raises ConfigError for a row that cannot be
    read."""
    values = {name: cell for name, cell in zip(table.columns, cells) if cell}
    try:
        return [_better(table, values) if "better" in table.columns else _figure(table, values)]
    except ConfigError as error:
        raise ConfigError(f"{table.where}, line {line} of the table: {error}") from None


def _figure(table: ClaimTable, values: Mapping[str, str]) -> Finding:
    score, split = _word(values.get("score", "accuracy")), values.get("split", "test")
    run = _folder(table, values, "run")
    estimate = figure_of(run, split=split, metric=score)
    claim = _claim(values.get("claimed", ""), score, table.percent)
    only_as_percent = claim.in_percent.inside(estimate) and not claim.inside(estimate)
    if not claim.said and (claim.grain == 1 or only_as_percent or _is_in_percent(table)):
        raise ConfigError(
            f"claimed is {values['claimed']!r}, which may be {claim.value:g} % or {100 * claim.value:g} %; "
            "write the one that you mean with its %"
        )
    name = f"{values['run']}: {score} {_said(values['claimed'])}"
    of_run = f"the run has {_interval(estimate, is_proportion(score))}"
    if claim.is_of(estimate):
        return equal(name, f"holds: {of_run}", estimate.n)
    if claim.inside(estimate):
        return remark(name, f"not this run's figure, but not distinguishable from it: {of_run}", estimate.n)
    return differs(
        name, f"does not hold: {of_run}", estimate.n, "give the run's own figure, with its interval"
    )


def _better(table: ClaimTable, values: Mapping[str, str]) -> Finding:
    score, split = _word(values.get("score", "accuracy")), values.get("split", "test")
    better, than = (_folder(table, values, column) for column in ("better", "than"))
    compared = compare_folders([than, better], split=split, metric=score).comparison
    (contrast,) = compared.contrasts
    name = f"{values['better']} is better than {values['than']}"
    said, n = contrast.verdict, contrast.difference.n
    if not contrast.real:
        return differs(name, f"not shown: {said}", n, contrast.plan or "")
    if contrast.better < 0:
        return differs(name, f"the opposite holds: {said}", n)
    return equal(name, f"holds: {said}", n)


def _folder(table: ClaimTable, values: Mapping[str, str], column: str) -> Path:
    """The folder of a run or variant, relative to the file of the table or to the current folder."""
    given = values.get(column)
    if not given:
        raise ConfigError(f"the column {column} is empty; give the folder of a run or of a variant")
    there = [base / given for base in (table.folder, Path()) if (base / given).is_dir()]
    if not there:
        raise ConfigError(
            f"there is no folder {given} beside the file or here; first carry out what makes it, as the "
            "cells of a notebook; `stresslens list runs` shows runs"
        )
    return there[0]


def _claim(text: str, score: str, percent: bool) -> _Claim:
    """The claimed figure of a score; `percent` is what the header of its column says."""
    number = NUMBER.fullmatch(text.strip())
    if number is None:
        raise ConfigError(f"claimed is {text!r}; expected a number such as 98.7 % or 0.987")
    decimals = len(number["value"].partition(".")[2])
    claim = _Claim(float(number["value"]), 10.0**-decimals)
    if number["unit"] or SPREAD_IN_PERCENT.search(number["spread"] or ""):
        if score.startswith("cross_entropy"):
            raise ConfigError(f"claimed is {text!r}, but {score} is no share; give it without a unit")
        return claim.in_percent
    if not is_within_one(score):
        return claim
    if abs(claim.value) > 1 or claim.value == 0 or (percent and is_proportion(score)):
        return claim.in_percent
    return replace(claim, said=not is_proportion(score) and not percent)


def _is_in_percent(table: ClaimTable) -> bool:
    """Whether a table gives shares in percent, as its header says or another of its figures shows."""
    rows = [dict(zip(table.columns, cells)) for _, cells in table.rows]
    return table.percent or any(
        is_proportion(_word(row.get("score") or "accuracy"))
        and (number := NUMBER.fullmatch(row.get("claimed", "").strip())) is not None
        and (number["unit"] is not None or abs(float(number["value"])) > 1)
        for row in rows
    )


def _word(score: str) -> str:
    return score.strip().lower().replace("top-5", "top5").replace(" ", "_")


def _said(claimed: str) -> str:
    return claimed.partition("(")[0].strip()


def _interval(e: Estimate, is_percent: bool) -> str:
    scale, digits, unit = (100, 1, " %") if is_percent else (1, 4, "")
    value, low, high = (f"{scale * v:.{digits}f}" for v in (e.value, e.low, e.high))
    return f"{value}{unit} ({low} to {high}; n = {e.n:,}, {e.unit})"
