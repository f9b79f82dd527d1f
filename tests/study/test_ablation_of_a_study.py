"""An ablation from the study file to comparison.json, the page, the terminal, Markdown and Python."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stresslens as sl
from stresslens.api.ablations import Ablation as AblationOfStudy
from stresslens.comparison import tested_run
from stresslens.comparison.ablation import corrected_interactions, interaction_of, study_ablation, worth_table
from stresslens.comparison.schema import Ablation as AblationFile
from stresslens.comparison.schema import ComparisonFile
from stresslens.config.study_record import StatedAblation, StatedIngredient
from stresslens.evaluation.record import RunRecord

Type = Callable[..., tuple[int, str, str]]
STUDY = """
data: digits
model: linear
train: {epochs: 2, subset: {images: 600}, threads: 1, precision: float32}
ablate:
  smooth: {train.loss.smoothing: 0.2}
  quick: {train.lr: {with: 0.02, without: 1e-5}}
robustness: {protocol: [fgsm], radii: [0.1], images: 60, audit: false}
metrics: [cross_entropy]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study, carried out once."""
    home = tmp_path_factory.mktemp("ablation")
    (home / "tiny.yaml").write_text(STUDY)
    return sl.ablate(home / "tiny.yaml", repeats=3, out=home / "runs", progress=False).folder


@pytest.fixture
def compared(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "comparison.json").read_text())
    return found


def test_gains_are_the_contrasts_with_their_verdicts(compared: dict[str, Any]) -> None:
    found, of_accuracy = compared["ablation"], compared["contrasts"]
    titles = [table["metric"] for table in found["tables"]]
    assert titles[0] == "accuracy"
    assert titles[1].startswith("robust accuracy under L∞ 0.1")
    assert titles[2] == "cross_entropy"
    first = found["tables"][0]
    gains = [row["left_out"]["difference"]["value"] for row in first["rows"]]
    assert gains == sorted(gains, reverse=True)
    for row in first["rows"]:
        assert row["left_out"] in of_accuracy
        assert row["added"] in of_accuracy
        means = [row[side]["difference"]["value"] for side in ("left_out", "added")]
        assert row["interaction"]["difference"]["value"] == pytest.approx(means[0] - means[1])
    assert first["rows"][0]["ingredient"] == "quick"
    assert first["rows"][0]["verdict"] == "earns its place"
    assert first["together"] in of_accuracy
    losses = [row["left_out"]["difference"]["value"] for row in found["tables"][2]["rows"]]
    assert losses == sorted(losses)
    assert [each["name"] for each in found["ingredients"]] == ["smooth", "quick"]
    assert found["ingredients"][1]["settings"] == "train.lr 0.02 (without it 1e-05)"
    assert found["ingredients"][0]["costs"][0]["measure"] == "seconds to the stop"


def test_the_page_has_one_table_and_one_picture_for_each_metric(folder: Path) -> None:
    page = (folder / "report.html").read_text()
    assert 'href="#ablation"' in page
    section = page.split('<section id="ablation">')[1].split("</section>")[0]
    assert section.count("<table") == 3
    assert section.count("<svg viewBox") == 3
    assert "<strong>earns its place</strong>" in section
    assert "among 5 pairs" in section
    assert "left out of full" not in page.split('<section id="ablation">')[0]


def test_the_terminal_tells_the_table_and_the_plans(folder: Path, type_: Type) -> None:
    code, out, err = type_("ablate", str(folder.parents[1] / "tiny.yaml"), "--out", str(folder.parent))
    assert code == 0, err
    assert "ingredient quick: train.lr 0.02 (without it 1e-05)" in err
    assert "12 runs: 4 variants, seeds [0, 1, 2]" in err
    assert "what each ingredient is worth in accuracy" in out
    assert "earns its place" in out
    assert "all together: full is better than bare" in out
    assert "only_smooth and bare" not in out
    code, out, _ = type_("compare", str(folder), "--markdown")
    assert code == 0
    assert "| ingredient | gain in full, points | gain alone, points |" in out
    code, out, _ = type_("compare", str(folder), "--json")
    assert code == 0
    assert json.loads(out)["ablation"]["tables"][0]["rows"][0]["verdict"] == "earns its place"


def test_python_has_the_table(folder: Path) -> None:
    ablation = sl.Study(folder).ablation
    assert ablation.metrics[0] == "accuracy"
    assert repr(ablation).startswith("Ablation(2 ingredients: quick +")
    rows = ablation._table().rows
    assert len(rows) == 6
    assert rows[0]["ingredient"] == "quick"
    assert rows[0]["gain in full low"] > 0
    assert "<svg" in ablation._repr_html_()
    assert [row["name"] for row in ablation.plot("cross_entropy").rows][:1] != []
    with pytest.raises(sl.ConfigError, match="not by 'acuracy'; did you mean 'accuracy'"):
        ablation.plot("acuracy")


def test_the_dry_run_has_the_ingredients(type_: Type, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("model: linear\ntrain: {ema: 0.9, lr: 0.1}\n")
    code, out, err = type_("ablate", str(tmp_path / "s.yaml"), "--dry-run", "--repeats", "4")
    assert code == 0, err
    found = json.loads(out)
    assert (found["study"], found["seeds"], list(found["runs"])) == (
        "s-ablation",
        [0, 1, 2, 3],
        ["full", "bare"],
    )
    assert found["ablation"]["ingredients"][0]["with_it"] == {"train.ema": 0.9}
    assert "in all runs: train.lr (a number that has no off" in err


def test_a_study_without_an_ablation_has_none(type_: Type, tmp_path: Path) -> None:
    study = sl.run({"model": "linear", "train": {"epochs": 0}}, out=tmp_path, progress=False)
    assert "ablation" not in json.loads((study / "comparison.json").read_text())
    assert study_ablation(study.folder, ComparisonFile()) is None
    with pytest.raises(sl.ConfigError, match="is no ablation"):
        _ = study.ablation


def runs_of(right: np.ndarray) -> dict[str, tested_run.Tested]:
    """Right answers (seeds, images) as runs."""
    labels = np.zeros(right.shape[1], np.int64)
    return {
        f"seed-{k}": tested_run.Tested(row > 0, labels, "test", RunRecord(status="finished", stages={}))
        for k, row in enumerate(right)
    }


def stated(*names: str) -> StatedAblation:
    ingredients = [
        StatedIngredient(name=name, left_out=(f"without {name}", "full"), added=("bare", f"only {name}"))
        for name in names
    ]
    return StatedAblation(full="full", bare="bare", ingredients=ingredients)


def test_an_interaction_is_the_difference_of_the_gains_by_hand() -> None:
    numbers = np.random.default_rng(0)
    shares = {"full": 0.9, "without x": 0.6, "only x": 0.6, "bare": 0.6}
    right = {name: numbers.random((4, 900)) < share for name, share in shares.items()}
    runs = {name: runs_of(each) for name, each in right.items()}
    ablation = stated("x")
    found = interaction_of(ablation.ingredients[0], ablation, runs)
    assert found is not None
    gains = (right["full"].mean() - right["without x"].mean(), right["only x"].mean() - right["bare"].mean())
    assert found.difference.value == pytest.approx(gains[0] - gains[1])
    assert found.difference.low < 0.3 < found.difference.high
    assert found.real or found.p < 0.05
    assert interaction_of(ablation.ingredients[0], ablation, {**runs, "bare": {}}) is None
    seeds = {**runs, "bare": {"seed-9": runs["bare"]["seed-0"]}}
    assert interaction_of(ablation.ingredients[0], ablation, seeds) is None
    assert worth_table(ablation, "accuracy", [], runs).rows == []


def test_interactions_are_corrected_over_the_ingredients() -> None:
    """By hand: sorted p of three are multiplied by 3, 2 and 1; the one interaction of two counts once."""
    numbers, ablation = np.random.default_rng(1), stated("x", "y", "z")
    shares = {"full": 0.9, "bare": 0.6}
    shares |= {
        f"{side} {name}": 0.6 + 0.04 * k for side in ("without", "only") for k, name in enumerate("xyz")
    }
    runs = {name: runs_of(numbers.random((4, 900)) < share) for name, share in shares.items()}
    found = sorted(corrected_interactions(ablation, runs).values(), key=lambda each: each.p)
    by_hand = [min(1.0, factor * each.p) for factor, each in zip((3, 2, 1), found)]
    assert [each.p_holm for each in found] == pytest.approx(np.maximum.accumulate(by_hand))
    pairs = (("only y", "full"), ("bare", "only x")), (("only x", "full"), ("bare", "only y"))
    two = [StatedIngredient(name=n, left_out=left, added=add) for n, (left, add) in zip("xy", pairs)]
    both = corrected_interactions(ablation.model_copy(update={"ingredients": two}), runs)
    assert both["x"].p_holm == both["y"].p_holm == both["x"].p == pytest.approx(both["y"].p)


@pytest.mark.slow
def test_interactions_hold_the_level_where_there_are_none() -> None:
    """Four recipes whose gains add up, seeds that vary: at most about 5 % of the verdicts are false."""
    ablation, wrong, studies = stated("x"), 0, 400
    for study in range(studies):
        numbers = np.random.default_rng(study)
        hard = numbers.normal(size=400)
        means = {"full": 0.9, "without x": 0.6, "only x": 0.6, "bare": 0.3}
        runs = {
            name: runs_of(hard + numbers.normal(size=(5, 400)) < mean + 0.1 * numbers.normal(size=(5, 1)))
            for name, mean in means.items()
        }
        found = interaction_of(ablation.ingredients[0], ablation, runs)
        assert found is not None
        wrong += found.p < 0.05
    assert wrong / studies < 0.075


def test_one_without_a_comparison_is_shown_all_the_same() -> None:
    empty = AblationOfStudy(AblationFile(full="full", bare="bare"))
    assert repr(empty).startswith("Ablation(0 ingredients")
    assert "worth" in empty._repr_html_()


def test_an_ingredient_that_changes_the_test_images_is_refused_before_training(
    type_: Type, tmp_path: Path
) -> None:
    (tmp_path / "study.yaml").write_text(
        "model: linear\ntrain: {epochs: 1}\nablate: {ema: {train.ema: 0.9}, more: {data.test: 0.3}}"
    )
    code, _, refused = type_("ablate", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "runs"))
    assert code == 2
    said = "ablate.more: changes the images by which it would be judged (360 without it, 540 with it)"
    assert said in refused
    assert not list(tmp_path.rglob("record.json"))
