"""Claimed figures against the runs that they are about."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from stresslens.comparison.folders import compare_folders, figure_of
from stresslens.core.errors import ConfigError
from stresslens.core.types import Estimate, Finding
from stresslens.labs.agreement import differs, equal, remark
from stresslens.labs.part import ClaimTable

NUMBER = re.compile(r"(-?\d+(?:\.\d*)?|-?\.\d+)\s*(%?)(?:\s*(?:±|\(|\[|\+/-).*)?")
NOT_SHARES = ("cross_entropy", "brier", "calibration_error", "ece", "no_answer")
"""Scores that are not given in percent."""


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
    scale = 1.0 if score in NOT_SHARES else 100.0
    claimed, grain = _number(values.get("claimed", ""), scale, table.percent)
    unit = " %" if scale == 100 else ""
    name = f"{values['run']}: {score} {_said(values['claimed'])}"
    low, high = estimate.low - grain / 2, estimate.high + grain / 2
    of_run = f"the run has {_interval(estimate, scale, unit)}"
    if abs(claimed - estimate.value) <= grain / 2 * (1 + 1e-9) + 1e-12:
        return equal(name, f"holds: {of_run}", estimate.n)
    if low <= claimed <= high:
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
    if contrast.difference.value < 0:
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


def _number(text: str, scale: float, percent: bool) -> tuple[float, float]:
    """The number and the unit of its last digit; of a share, both of 1."""
    number = NUMBER.fullmatch(text.strip())
    if number is None:
        raise ConfigError(f"claimed is {text!r}; expected a number such as 98.7 % or 0.987")
    decimals = len(number[1].partition(".")[2])
    value, grain = float(number[1]), 10.0**-decimals
    if scale == 100 and (percent or number[2] or value > 1):
        return value / 100, grain / 100
    return value, grain


def _word(score: str) -> str:
    return score.strip().lower().replace("top-5", "top5").replace(" ", "_")


def _said(claimed: str) -> str:
    return claimed.partition("(")[0].strip()


def _interval(e: Estimate, scale: float, unit: str) -> str:
    digits = 1 if scale == 100 else 4
    value, low, high = (f"{scale * v:.{digits}f}" for v in (e.value, e.low, e.high))
    return f"{value}{unit} ({low} to {high}; n = {e.n:,}, {e.unit})"
