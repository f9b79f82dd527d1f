"""One difference over several data sets: studies with the same variants, each on another data set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stresslens.comparison.difference import LEVEL
from stresslens.comparison.folders import compare_folders, folder_kind
from stresslens.comparison.schema import Contrast
from stresslens.config.study_record import read_study_record
from stresslens.core.errors import ConfigError
from stresslens.core.format import p_value, points, signed
from stresslens.core.json_file import Figure, JsonFile
from stresslens.core.run_folder import run_folders
from stresslens.core.text import enumeration
from stresslens.core.types import Estimate
from stresslens.evaluation.record import DataRecord, read_record
from stresslens.metrics.intervals import Floats
from stresslens.metrics.measures import measure_of
from stresslens.metrics.meta_analysis import FEWEST_SETS, Pooled, pooled_effects
from stresslens.metrics.paired import holm

NORMAL = 1.959963984540054
"""The 97.5 % quantile: half the width of an interval, over the standard error that it stands for."""


class DifferenceOnSet(JsonFile):
    """The difference on one data set, of the study in `folder`; `shrunken` is its estimate together with the
    other data sets."""

    data_set: str
    folder: str
    difference: Figure
    shrunken: float | None = None


class PairAcrossSets(JsonFile):
    """b minus a over several data sets.

    `average` is the mean difference over data sets such as these, `new` the true difference on one more of
    them. `spread` is the standard deviation between data sets as a share, `i2` the share of what is seen that
    chance does not explain, `q_p` the p of equal differences on all. `without` has the average without each
    data set; `decides` are those without which the verdict is another.
    """

    contrast: str
    a: str
    b: str
    sets: list[DifferenceOnSet]
    average: Figure | None = None
    p: float | None = None
    p_holm: float | None = None
    real: bool = False
    new: Figure | None = None
    spread: float | None = None
    i2: float | None = None
    q_p: float | None = None
    without: dict[str, Figure] = {}
    decides: list[str] = []
    verdict: str = ""
    notes: list[str] = []


class DataSetsFile(JsonFile):
    """What `stresslens compare --across --json` prints; `left_out` says what could not be compared."""

    kind: Literal["data sets"] = "data sets"
    format: Literal[1] = 1
    split: str = "test"
    metric: str = "accuracy"
    level: float = LEVEL
    pairs: list[PairAcrossSets]
    left_out: list[str] = []

    def as_json(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


@dataclass(frozen=True)
class _Study:
    """A study's data set, and its contrasts by the variants' own names."""

    folder: Path
    data_set: str
    pairs: Mapping[tuple[str, str], Contrast]

    def find(self, a: str, b: str) -> Estimate | None:
        """b minus a, also where the study has a minus b."""
        if (found := self.pairs.get((a, b))) is not None:
            return found.difference
        if (turned := self.pairs.get((b, a))) is not None:
            e = turned.difference
            return Estimate(-e.value, -e.high, -e.low, e.n, e.method, e.level, e.unit)
        return None


def compare_data_sets(
    folders: Sequence[Path], *, split: str = "test", metric: str = "accuracy"
) -> DataSetsFile:
    """Compare the variants of studies (by their own names) over their data sets.

    The model is a random-effects meta-analysis: the data sets are a sample. Raises ConfigError for fewer than
    two studies, what is no study, one data set that is given twice, studies without a common pair, and a
    metric that is not in percent.
    """
    if not measure_of(metric).is_share:
        raise ConfigError(
            f"a comparison over data sets is of scores in percent, such as the accuracy; {metric} is none"
        )
    if len(folders) < 2:
        raise ConfigError("--across compares over several data sets; give two studies or more, one for each")
    for folder in folders:
        if (kind := folder_kind(folder)) != "study":
            raise ConfigError(f"--across takes studies (runs/STUDY); {folder} is a {kind}")
    studies = _studies(folders, split, metric)
    pairs: list[PairAcrossSets] = []
    left_out: list[str] = []
    for a, b in dict.fromkeys(pair for study in studies for pair in study.pairs):
        if any((pair.a, pair.b) == (b, a) for pair in pairs):
            continue
        sets = [
            DifferenceOnSet(data_set=study.data_set, folder=str(study.folder), difference=e)
            for study in studies
            if (e := study.find(a, b)) is not None
        ]
        if missing := [study.data_set for study in studies if study.find(a, b) is None]:
            left_out.append(f"{a} and {b} were not compared on {enumeration(missing)}")
        if len(sets) > 1:
            name = next(study.pairs[a, b].contrast for study in studies if (a, b) in study.pairs)
            pairs.append(PairAcrossSets(contrast=name, a=a, b=b, sets=sets))
    if not pairs:
        raise ConfigError(
            "the studies have no pair of variants in common; they need the same names: "
            + "; ".join(f"{study.folder} compares {_listed(study)}" for study in studies)
        )
    _judge(pairs)
    return DataSetsFile(split=split, metric=metric, pairs=pairs, left_out=left_out)


def _studies(folders: Sequence[Path], split: str, metric: str) -> list[_Study]:
    data = [_data_of(folder) for folder in folders]
    names = [record.name or folder.name for folder, record in zip(folders, data)]
    if len(set(names)) < len(names):
        names = [folder.resolve().name for folder in folders]
    places: dict[str, Path] = {}
    studies = []
    for folder, record, name in zip(folders, data, names):
        images = record.splits.get(split, record.fingerprint)
        if images and images in places:
            raise ConfigError(
                f"{places[images]} and {folder} were tested on the same images: --across takes each data set "
                "once"
            )
        places[images] = folder
        own = read_study_record(folder).own_names
        compared = compare_folders([folder], split=split, metric=metric).comparison
        pairs: dict[tuple[str, str], Contrast] = {}
        for contrast in compared.contrasts:
            pairs.setdefault((own.get(contrast.a, contrast.a), own.get(contrast.b, contrast.b)), contrast)
        studies.append(_Study(folder, name, pairs))
    return studies


def _data_of(folder: Path) -> DataRecord:
    """What the first finished run of a study says of its data. Raises ConfigError."""
    for run in run_folders(folder):
        record = read_record(run)
        if record.usable:
            return record.data
    raise ConfigError(f"{folder} has no finished run")


def _listed(study: _Study) -> str:
    return enumeration([f"{a} and {b}" for a, b in study.pairs], 3) or "nothing"


def _judge(pairs: Sequence[PairAcrossSets]) -> None:
    """Fill in the averages, the verdicts and what to make of them. Holm's correction is over the pairs."""
    analyses = {k: _pooled(pair.sets) for k, pair in enumerate(pairs) if len(pair.sets) >= FEWEST_SETS}
    corrected = holm({k: float(analysis.p) for k, analysis in analyses.items()})
    for k, pair in enumerate(pairs):
        if k not in analyses:
            pair.verdict = (
                f"{pair.a} and {pair.b}: {len(pair.sets)} data sets are too few for a verdict on average; "
                f"{FEWEST_SETS} show how much data sets vary"
            )
            continue
        found = analyses[k]
        pair.average, pair.p, pair.p_holm = _average(found), float(found.p), corrected[k]
        pair.real = corrected[k] < 1 - LEVEL and not pair.average.low <= 0 <= pair.average.high
        pair.new = _estimate(found, found.new_margin(LEVEL), "prediction interval")
        pair.spread, pair.i2, pair.q_p = math.sqrt(float(found.tau2)), float(found.i2), float(found.q_p)
        for each, value in zip(pair.sets, found.shrunken):
            each.shrunken = float(value)
        pair.verdict = _verdict(pair, pair.average)
        _leave_one_out(pair, corrected[k] / pair.p if pair.p else 1.0)
        pair.notes = [_on_new(pair, pair.new), _on_spread(pair), *_on_leaving_out(pair)]
        if any(each.difference.unit == "images" for each in pair.sets):
            pair.notes.append("one seed on some data sets: there it is about these weights, not the variants")


def _pooled(sets: Sequence[DifferenceOnSet]) -> Pooled:
    """The analysis of the differences. A standard error is that of a normal interval as wide as the
    difference's, so that few seeds count for less."""
    values = np.array([each.difference.value for each in sets])
    errors = [(each.difference.high - each.difference.low) / (2 * NORMAL) for each in sets]
    return pooled_effects(values, np.square(errors))


def _average(found: Pooled) -> Estimate:
    method = f"Student's t over {found.sets} data sets"
    return _estimate(found, found.margin(LEVEL), method)


def _estimate(found: Pooled, margin: Floats, method: str) -> Estimate:
    mean, half = float(found.mean), float(margin)
    low, high = max(-1.0, mean - half), min(1.0, mean + half)
    return Estimate(mean, low, high, found.sets, method, LEVEL, "data sets")


def _verdict(pair: PairAcrossSets, average: Estimate) -> str:
    over = f"over {len(pair.sets)} data sets"
    seen = f"{pair.b} minus {pair.a} is {points(average)} points"
    if pair.real:
        better, worse = (pair.b, pair.a) if average.value > 0 else (pair.a, pair.b)
        return f"{better} is better than {worse} on average {over}: {seen}"
    after = ", after Holm's correction" if not average.low <= 0 <= average.high else ""
    return f"{pair.a} and {pair.b} are not distinguishable on average {over}{after}: {seen}"


def _on_new(pair: PairAcrossSets, new: Estimate) -> str:
    where = f"on a new data set like these, {pair.b} minus {pair.a} would be between"
    between = f"{where} {signed(new.low)} and {signed(new.high)} points"
    if new.low > 0 or new.high < 0:
        return f"{between}: {pair.b if new.low > 0 else pair.a} would be better there too"
    return f"{between}: either may be better there"


def _on_spread(pair: PairAcrossSets) -> str:
    assert pair.q_p is not None
    assert pair.i2 is not None
    assert pair.spread is not None
    p = p_value(pair.q_p)
    if pair.q_p >= 1 - LEVEL:
        return f"that the difference is another on some data sets is not shown (Cochran's Q, p {p})"
    return (
        f"the difference is not the same on all data sets (Cochran's Q, p {p}): it has a standard deviation "
        f"of {100 * pair.spread:.1f} points between them, and I² is {100 * pair.i2:.0f} %"
    )


def _leave_one_out(pair: PairAcrossSets, corrected: float) -> None:
    if len(pair.sets) <= FEWEST_SETS:
        return
    for each in pair.sets:
        rest = _pooled([other for other in pair.sets if other is not each])
        average = _average(rest)
        pair.without[each.data_set] = average
        real = float(rest.p) * corrected < 1 - LEVEL
        if real != pair.real or (real and pair.average and average.value * pair.average.value < 0):
            pair.decides.append(each.data_set)


def _on_leaving_out(pair: PairAcrossSets) -> list[str]:
    if not pair.without:
        return [f"{len(pair.sets)} data sets are too few to leave one out and look again"]
    if not pair.decides:
        return ["no single data set decides: the verdict stays when any one of them is left out"]
    alone = len(pair.decides) == 1
    decides, one = ("decides", "it") if alone else ("decide", "any one of these")
    return [f"{enumeration(pair.decides)} {decides}: without {one} the verdict is another"]
