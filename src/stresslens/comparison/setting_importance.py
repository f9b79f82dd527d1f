"""Hyperparameter importance: which settings explain the differences between trials or runs, as
shares with intervals and in words."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stresslens.comparison.schema import ImportanceTable, SettingImportance
from stresslens.config.dotted_keys import settings
from stresslens.config.run_config import read_run_config
from stresslens.config.schema import COMPUTE_KEYS, MONITORING_KEYS, RESUME_SAFE_KEYS
from stresslens.config.study_record import read_study_record
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.record import read_record
from stresslens.metrics.importance import Importance, importances, ranks
from stresslens.metrics.intervals import Floats

LEAST = 8
"""With fewer trials, no importance is computed."""
FEW = 20
"""With fewer trials, only a setting that decides nearly everything can be detected."""
TRAINED = ("data", "input", "model", "train")
"""The sections of a configuration that a trained model depends on."""
LEFT_OUT = (*COMPUTE_KEYS, *MONITORING_KEYS, *RESUME_SAFE_KEYS)
"""Keys of measurement, computing and saving; they are not settings to choose."""
MOST = 0.5
"""From this share on, a setting explains most of the differences."""

Standing = tuple[float, ...]
"""The rank of a trial's result; the higher of two is better."""


def importance_verdicts(
    settings: Sequence[Mapping[str, Any]], standings: Sequence[Standing], *, of: str = "trials"
) -> ImportanceTable:
    """The settings, the most important first, and what their shares say.

    Trials are compared by rank. A trial that diverged or was stopped early thus counts as worse,
    not as a number, and a few failures do not hide the rest. Settings that are the same in every
    trial are left out.
    """
    # a repeat of the same settings from the same seed is a copy, not new evidence
    distinct = {
        json.dumps(each, sort_keys=True, default=str): (each, standing)
        for each, standing in zip(settings, standings)
    }
    settings, standings = (
        [each for each, _ in distinct.values()],
        [standing for _, standing in distinct.values()],
    )
    n = len(settings)
    columns = {
        key: column
        for key in dict.fromkeys(key for each in settings for key in each)
        if (column := _column(key, settings)) is not None
    }
    if not columns:
        return ImportanceTable(n=n, rows=[], said=["no setting took more than one value"])
    if n < LEAST:
        few = (
            f"{n} different {of} are too few to tell which settings matter; "
            f"{LEAST} are the least, {FEW} are better"
        )
        return ImportanceTable(n=n, rows=[], said=[few])
    order = {standing: rank for rank, standing in enumerate(sorted(set(standings)))}
    by_setting = importances(columns, ranks(np.array([order[each] for each in standings], dtype=float)))
    rows = sorted(by_setting.items(), key=lambda row: -row[1].share.value)
    table = [
        SettingImportance(setting=key, share=i.share, p=i.p, p_holm=i.p_holm, real=i.real) for key, i in rows
    ]
    return ImportanceTable(n=n, rows=table, said=_sentences(rows, n, of))


def study_setting_importance(folder: Path) -> ImportanceTable | None:
    """The same for the variants of a study: which of the settings that they differ in matter. The
    result of a variant is the mean over its seeds of the validation accuracy at the chosen epoch.
    None if fewer than `LEAST` variants have one, or fewer than two settings differ.

    Variants that are trained on other data, or on another amount of it, differ in that as in any
    setting.
    """
    configurations: list[dict[str, Any]] = []
    standings: list[Standing] = []
    for name in read_study_record(folder).runs:
        runs = [RunFolder(path.parent) for path in sorted((folder / name).glob("seed-*/record.json"))]
        scores = [read_record(each).scores.get("validation", {}).get("accuracy") for each in runs]
        known = [score.value for score in scores if score is not None and not math.isnan(score.value)]
        if known and runs[0].weights.is_file():
            config = read_run_config(runs[0].config)
            configurations.append(
                {
                    key: value
                    for key, value in settings(config)
                    if key.partition(".")[0] in TRAINED and key.rpartition(".")[2] not in LEFT_OUT
                }
            )
            standings.append((sum(known) / len(known),))
    differing = [
        key
        for key in dict.fromkeys(key for each in configurations for key in each)
        if len({str(a.get(key)) for a in configurations}) > 1
    ]
    if len(configurations) < LEAST or len(differing) < 2:
        return None
    return importance_verdicts(
        [{key: each.get(key) for key in differing} for each in configurations], standings, of="runs"
    )


def _sentences(rows: Sequence[tuple[str, Importance]], n: int, of: str) -> list[str]:
    sentences = []
    for key, importance in rows:
        share = importance.share
        interval = f"({share.value:.2f}, {share.low:.2f} to {share.high:.2f}, over {n} {of})"
        if importance.real and share.low >= MOST:
            sentences.append(f"{key} explains most of the differences in how {of} did {interval}")
        elif importance.real:
            sentences.append(f"{key} explains a part of the differences in how {of} did {interval}")
    unclear = [key for key, importance in rows if not importance.real]
    if unclear:
        verb = "is" if len(unclear) == 1 else "are"
        sentences.append(
            f"{', '.join(unclear)} {verb} not distinguishable from settings of no influence (over {n} {of})"
        )
    if n < FEW:
        sentences.append(
            f"with {n} {of} only a setting that decides nearly everything can be detected; "
            f"{FEW} or more are needed for the rest"
        )
    return sentences


def _column(key: str, settings: Sequence[Mapping[str, Any]]) -> Floats | None:
    """A setting as columns (n, k): numbers by their rank, anything else as one column per value.
    None if it never varies."""
    values = [each.get(key) for each in settings]
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        numbers = np.array(values, dtype=float)
        return ranks(numbers)[:, None] if len(set(values)) > 1 else None
    words = [json.dumps(value, sort_keys=True) for value in values]
    kinds = sorted(set(words))
    return (
        np.array([[word == kind for kind in kinds] for word in words], dtype=float)
        if len(kinds) > 1
        else None
    )
