"""Which settings matter: from trials or runs with their settings and how well they did to shares
with intervals, and to words."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from stresslens.comparison.schema import ImportanceTable, SettingImportance
from stresslens.config.dotted_keys import settings
from stresslens.config.schema import COMPUTE_KEYS, MONITORING_KEYS, RESUME_SAFE_KEYS
from stresslens.config.study_record import read_study_record
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.record import read_record
from stresslens.metrics.importance import Importance, importances, ranks
from stresslens.metrics.intervals import Floats

LEAST = 8
"""Trials below which nothing is said."""
FEW = 20
"""Trials below which only a setting that decides nearly everything can be told."""
TRAINED = ("data", "input", "model", "train")
"""The sections of a recipe that a trained model depends on."""
LEFT_OUT = (*COMPUTE_KEYS, *MONITORING_KEYS, *RESUME_SAFE_KEYS)
"""What is measured, or says how the work is done, is no setting to choose."""
MOST = 0.5
"""From this share on a setting explains most of the differences."""

Standing = tuple[float, ...]
"""How well a trial did: the higher of two is better."""


def importance_verdicts(
    settings: Sequence[Mapping[str, Any]], standings: Sequence[Standing], *, of: str = "trials"
) -> ImportanceTable:
    """The settings from the most important down, and what their shares say.

    Trials are compared by their order, so that one that diverged or was left out early counts as
    worse and not as a number, and a few disasters do not drown the rest. Settings that were the
    same in every trial are left out.
    """
    # the same settings, trained again from the same seed, are a copy and no evidence
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
        few = f"{n} different {of} are too few to tell which settings matter; {LEAST} are the least, {FEW} are better"
        return ImportanceTable(n=n, rows=[], said=[few])
    order = {standing: place for place, standing in enumerate(sorted(set(standings)))}
    found = importances(columns, ranks(np.array([order[each] for each in standings], dtype=float)))
    rows = sorted(found.items(), key=lambda row: -row[1].share.value)
    table = [
        SettingImportance(setting=key, share=i.share, p=i.p, p_holm=i.p_holm, real=i.real) for key, i in rows
    ]
    return ImportanceTable(n=n, rows=table, said=_said(rows, n, of))


def study_setting_importance(folder: Path) -> ImportanceTable | None:
    """The same for the runs of a study: which of the settings they differ in matter, by the mean
    over seeds of the accuracy on validation at the epoch chosen. None where fewer than `LEAST`
    networks have one, or fewer than two settings differ.

    Runs that are trained on unequal sizes of data, or on other data, differ in that as in a setting.
    """
    asked: list[dict[str, Any]] = []
    standings: list[Standing] = []
    for name in read_study_record(folder).runs:
        found = [RunFolder(path.parent) for path in sorted((folder / name).glob("seed-*/record.json"))]
        scores = [read_record(each).scores.get("validation", {}).get("accuracy") for each in found]
        known = [score.value for score in scores if score is not None and not math.isnan(score.value)]
        if known and found[0].weights.is_file():
            config = yaml.safe_load(found[0].config.read_text(encoding="utf-8"))
            own = {key: value for key, value in settings(config) if key.partition(".")[0] in TRAINED}
            asked.append({key: value for key, value in own.items() if key.rpartition(".")[2] not in LEFT_OUT})
            standings.append((sum(known) / len(known),))
    differing = [
        key
        for key in dict.fromkeys(key for each in asked for key in each)
        if len({str(a.get(key)) for a in asked}) > 1
    ]
    if len(asked) < LEAST or len(differing) < 2:
        return None
    return importance_verdicts(
        [{key: each.get(key) for key in differing} for each in asked], standings, of="runs"
    )


def _said(rows: Sequence[tuple[str, Importance]], n: int, of: str) -> list[str]:
    said = []
    for key, each in rows:
        share = each.share
        interval = f"({share.value:.2f}, {share.low:.2f} to {share.high:.2f}, over {n} {of})"
        if each.real and share.low >= MOST:
            said.append(f"{key} explains most of the differences in how {of} did {interval}")
        elif each.real:
            said.append(f"{key} explains a part of the differences in how {of} did {interval}")
    unclear = [key for key, each in rows if not each.real]
    if unclear:
        verb = "is" if len(unclear) == 1 else "are"
        said.append(
            f"{', '.join(unclear)} {verb} not distinguishable from settings of no influence (over {n} {of})"
        )
    if n < FEW:
        said.append(
            f"with {n} {of} only a setting that decides nearly everything can be told; {FEW} or more tell the rest"
        )
    return said


def _column(key: str, settings: Sequence[Mapping[str, Any]]) -> Floats | None:
    """A setting as columns (n, k): numbers by their order, anything else one column for each value;
    None where it never varies."""
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
