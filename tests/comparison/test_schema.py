"""comparison.json, study.json and sweep.json: each is read back as it was written, and older ones
are read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from stresslens.comparison.schema import (
    CONTRAST_COLUMNS,
    AblatedIngredient,
    Ablation,
    BestSet,
    ComparisonByMetric,
    ComparisonFile,
    Contrast,
    Convergence,
    CostRatio,
    DifferenceAtEpoch,
    DifferenceAtRadius,
    DifferenceMatrix,
    ErrorsByClass,
    ImportanceTable,
    IngredientWorth,
    JudgedClaim,
    RobustContrast,
    SettingImportance,
    UncomparedPair,
    WorthTable,
)
from stresslens.comparison.sweep_file import SweepFile, Trial
from stresslens.config.study_record import (
    SizeCurve,
    StatedAblation,
    StatedClaim,
    StatedIngredient,
    StudyRecord,
)
from stresslens.core.errors import ConfigError
from stresslens.core.files import read_json, write_json
from stresslens.core.json_file import JsonFile
from stresslens.core.types import Estimate

MADE_BEFORE = Path(__file__).parents[1] / "made_before" / "study"
NAMED = {"contrast": "c", "a": "x", "b": "y"}
E = Estimate(0.1, -0.05, 0.25, 100, "by hand", unit="both")
EXACT = Estimate(2.0, math.nan, math.nan, 3, "exact", unit="seeds")
CONTRAST: dict[str, Any] = NAMED | {
    "difference": E,
    "p": 0.04,
    "p_holm": 0.08,
    "real": False,
    "verdict": "x and y are not distinguishable",
    "plan": "these are enough",
}
MATRIX: list[list[float | None]] = [[None, 0.1], [-0.1, None]]
IMPORTANCE = ImportanceTable(
    n=9,
    rows=[SettingImportance(setting="train.lr", share=E, p=0.01, p_holm=0.01, real=True)],
    said=["train.lr explains a part"],
)
COMPARISON = ComparisonFile(
    format=1,
    split="test",
    metric="accuracy",
    level=0.95,
    recipes={"x": E, "y": E},
    contrasts=[Contrast(**CONTRAST)],
    errors=[ErrorsByClass(**NAMED, seeds=1, images=[5, 5], only_a=[1, 0], only_b=[0, 1], both=[0, 0])],
    costs=[CostRatio(**NAMED, measure="parameters", ratio=EXACT, p_holm=None, real=True, verdict="more")],
    refused=["x and z were not compared"],
    verdicts=["highest mean accuracy: y"],
    matrix=DifferenceMatrix(
        recipes=["x", "y"],
        difference=MATRIX,
        low=MATRIX,
        high=MATRIX,
        p_holm=MATRIX,
        real=[[None, True], [True, None]],
    ),
    best=BestSet(level=0.95, variants=["y"], beaten={"x": "y"}, said="the best is y"),
    claims=[JudgedClaim(contrast="c", claim="y is better", pairs=["noise"], sentence="It is inside noise.")],
    robustness=[
        RobustContrast(
            **CONTRAST,
            norm="l2",
            protocol="fast",
            eps=0.5,
            curve=[DifferenceAtRadius(eps=0.5, difference=E)],
        ),
        UncomparedPair(**NAMED, verdict="x and y were not compared"),
    ],
    importance=IMPORTANCE,
    pace=[
        Convergence(
            **NAMED,
            seeds=2,
            n=50,
            epochs=[DifferenceAtEpoch(epoch=1, difference=E)],
            start={"x": 0.5, "y": 0.6},
            best={"x": 0.8, "y": 0.9},
            converged={"x": 3, "y": 2},
            said="y starts ahead",
        )
    ],
    by_metric={
        "auroc": ComparisonByMetric(
            asked=True, recipes={"x": E, "y": E}, contrasts=[Contrast(**CONTRAST)], refused=["x and z"]
        )
    },
    ablation=Ablation(
        full="y",
        bare="x",
        ingredients=[AblatedIngredient(name="ema", settings="train.ema 0.9")],
        tables=[
            WorthTable(
                together=Contrast(**CONTRAST),
                rows=[IngredientWorth(ingredient="ema", left_out=Contrast(**CONTRAST), verdict="hurts")],
            )
        ],
        kept={"train.lr": "a number"},
    ),
)
STUDY = StudyRecord(
    format=1,
    name="s",
    runs=["x", "y"],
    own_names={"x": "x", "y-lr-1": "y"},
    overrides={"y-lr-1": ["train.lr=1"]},
    seeds=[0, 1],
    own_seeds={"y": [1]},
    contrasts=[("c", "x", "y")],
    margins={"c": 0.005},
    metrics=["auroc"],
    ablation=StatedAblation(
        full="y",
        bare="x",
        ingredients=[StatedIngredient(name="ema", with_it={"train.ema": 0.9}, left_out=("x", "y"))],
        kept={"train.lr": "a number"},
    ),
    claims=[StatedClaim(contrast="c", claim="y is better", protocol=None, pairs=[("x", "y")])],
    curves=[SizeCurve(name="x", runs=[(100, "x"), (200, "y")])],
    command=["stresslens", "run", "s.yaml"],
    source=None,
    head="stresslens run s.yaml",
)
SWEEP = SweepFile(
    format=1,
    run="x",
    method="random",
    metric="accuracy",
    size=2,
    asked={"sweep": {"space": {"train.lr": [0.1, 1e-5]}, "method": "random", "where": []}, "seed": 0},
    arithmetic={"device": "cpu"},
    best=1,
    trials=[
        Trial(
            number=0,
            settings={"train.lr": 0.1, "train.optimizer": {"adam": {}}},
            status="finished",
            epochs=3,
            seconds=1.5,
            value=E,
            reads_of_test=0,
        ),
        Trial(number=1, settings={}, status="running", epochs=None, seconds=None, value=None),
    ],
    importance=IMPORTANCE,
)


@pytest.mark.parametrize("written", [COMPARISON, STUDY, SWEEP], ids=lambda each: type(each).__name__)
def test_a_file_is_read_back_as_it_was_written(tmp_path: Path, written: JsonFile) -> None:
    file, again = tmp_path / "file.json", tmp_path / "again.json"
    write_json(file, written.as_json())
    read = type(written).read(file)
    write_json(again, read.as_json())
    assert again.read_bytes() == file.read_bytes()
    assert list(read.as_json()) == list(type(written).model_fields)


@pytest.mark.parametrize(("name", "kind"), [("comparison.json", ComparisonFile), ("study.json", StudyRecord)])
def test_files_made_before_are_read_whole(name: str, kind: type[JsonFile]) -> None:
    assert kind.read(MADE_BEFORE / name).as_json() == read_json(MADE_BEFORE / name)


def test_a_bound_that_is_not_finite_is_null_and_read_as_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "comparison.json", COMPARISON.as_json())
    (cost,) = ComparisonFile.read(tmp_path / "comparison.json").costs
    assert cost.as_json()["ratio"]["low"] is None
    assert math.isnan(cost.ratio.low)


def test_robust_pairs_are_told_apart(tmp_path: Path) -> None:
    write_json(tmp_path / "comparison.json", COMPARISON.as_json())
    robust, uncompared = ComparisonFile.read(tmp_path / "comparison.json").robustness
    assert isinstance(robust, RobustContrast)
    assert isinstance(uncompared, UncomparedPair)


@pytest.mark.parametrize("kind", [ComparisonFile, StudyRecord, SweepFile])
def test_what_is_missing_and_what_is_unknown_is_no_mistake(tmp_path: Path, kind: type[JsonFile]) -> None:
    (tmp_path / "file.json").write_text(json.dumps({"later": [1]}))
    assert kind.read(tmp_path / "file.json") == kind()


@pytest.mark.parametrize("kind", [ComparisonFile, StudyRecord, SweepFile])
@pytest.mark.parametrize("text", ['{"format": 2}', "[]", "{", '{"format": "x"}'])
def test_a_damaged_file_is_named(tmp_path: Path, kind: type[JsonFile], text: str) -> None:
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(ConfigError, match=r"file\.json"):
        kind.read(tmp_path / "file.json")


def test_every_column_is_a_field_of_a_contrast() -> None:
    assert {column.field for column in CONTRAST_COLUMNS} <= Contrast.model_fields.keys()
