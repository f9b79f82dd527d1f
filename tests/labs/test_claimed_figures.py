"""Claimed figures against runs of known accuracy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stresslens.core.errors import ConfigError
from stresslens.core.files import read_json, write_json
from stresslens.core.run_folder import RunFolder
from stresslens.core.types import Finding
from stresslens.labs.claimed_figures import claim_findings
from stresslens.labs.part import lab_of

Make = Callable[..., RunFolder]


SCORES = {
    "cross_entropy": 0.31,
    "cross_entropy_calibrated": 1.31,
    "ece": 0.032,
    "auroc": 0.98,
    "no_answer": 0.012,
    "macro_f1": 0.9,
    "weighted_f1": 0.012,
}


def right(share: float, n: int = 1000) -> np.ndarray:
    return (np.arange(n) < round(share * n)).astype(float)


@pytest.fixture
def runs(made: Make, tmp_path: Path) -> Path:
    """Variants of one seed with 90, 91 and 70 % of 1,000 images right, and one of two seeds."""
    for name, share in (("a", 0.90), ("b", 0.91), ("c", 0.70)):
        made(name, 0, right(share))
    made("two", 0, right(0.8))
    made("two", 1, right(0.82))
    record = tmp_path / "runs" / "study" / "a" / "seed-0" / "record.json"
    scores = {
        name: {"value": value, "low": value - 0.01, "high": value + 0.01, "n": 1000, "method": "bootstrap"}
        for name, value in SCORES.items()
    }
    write_json(record, read_json(record) | {"scores": {"test": scores}})
    return tmp_path


def found(folder: Path, columns: str, *rows: str) -> list[Finding]:
    text = "\n".join(
        [f"| {columns} |", "|" + "--|" * (columns.count("|") + 1), *(f"| {row} |" for row in rows)]
    )
    (folder / "claims.md").write_text(text)
    (table,) = lab_of(folder / "claims.md").tables
    return [finding for line, cells in table.rows for finding in claim_findings(table, line, cells)]


@pytest.mark.breadth(8)
@pytest.mark.parametrize(
    ("claimed", "severity", "words"),
    [
        ("90.0 %", "none", "holds: the run has 90.0 % (88.0 to 91.7; n = 1,000, images)"),
        ("90", "none", "holds"),
        (".9", "none", "holds"),
        ("0.900", "none", "holds"),
        ("90.0 ± 0.3", "none", "holds"),
        ("90.0 (88 to 92)", "none", "holds"),
        ("90.4", "minor", "not this run's figure, but not distinguishable"),
        ("91.7", "minor", "not distinguishable"),
        ("91.9 %", "serious", "does not hold: the run has 90.0 %"),
        ("0.85", "serious", "does not hold"),
        ("99", "serious", "does not hold"),
        ("90.0 percent", "none", "holds"),
        ("90 points", "none", "holds"),
        ("0.9 ± 0.1 %", "serious", "does not hold"),
        ("0.9 (0.8 to 1.1 %)", "serious", "does not hold"),
        ("0.9 (95 % CI 0.88 to 0.92)", "none", "holds"),
        ("0", "serious", "does not hold"),
    ],
)
def test_an_accuracy(claimed: str, severity: str, words: str, runs: Path) -> None:
    (finding,) = found(runs, "run | claimed", f"runs/study/a/seed-0 | {claimed}")
    assert finding.severity == severity
    assert words in finding.evidence


def test_a_header_in_percent(runs: Path) -> None:
    (right,) = found(runs, "run | claimed (%)", "runs/study/a/seed-0 | 90.0")
    (wrong,) = found(runs, "run | claimed (%)", "runs/study/a/seed-0 | 0.9")
    assert (right.severity, wrong.severity) == ("none", "serious")


def test_other_scores_and_variants(runs: Path) -> None:
    entropy, wrong = found(
        runs,
        "run | score | claimed",
        "runs/study/a/seed-0 | cross entropy | 0.31",
        "runs/study/a/seed-0 | cross_entropy | 1.31",
    )
    assert (entropy.severity, wrong.severity) == ("none", "serious")
    assert "0.3100 (0.3000 to 0.3200" in entropy.evidence
    (variant,) = found(runs, "run | claimed", "runs/study/two | 81.0")
    assert variant.severity == "none"
    assert "both" in variant.evidence  # over seeds and images


@pytest.mark.parametrize(
    ("score", "claimed", "severity"),
    [
        ("cross_entropy_calibrated", "1.31", "none"),
        ("ece", "0.032", "none"),
        ("ece", "3.2 %", "none"),
        ("ece", "3.2", "none"),
        ("auroc", "98.0 %", "none"),
        ("auroc", "0.98", "none"),
        ("no_answer", "1.2 %", "none"),
        ("no_answer", "0.012", "none"),
        ("macro F1", "90.0", "none"),
        ("ece", "32 %", "serious"),
    ],
)
def test_a_score_is_read_in_the_unit_that_it_can_have(
    score: str, claimed: str, severity: str, runs: Path
) -> None:
    (finding,) = found(runs, "run | score | claimed", f"runs/study/a/seed-0 | {score} | {claimed}")
    assert finding.severity == severity


def test_the_percent_of_a_header_is_not_of_a_loss(runs: Path) -> None:
    for score, claimed in (("cross entropy", "0.31"), ("accuracy", "90.0"), ("ece", "3.2")):
        (finding,) = found(runs, "run | score | claimed (%)", f"runs/study/a/seed-0 | {score} | {claimed}")
        assert finding.severity == "none", score


def test_a_figure_without_a_unit_beside_figures_in_percent_is_not_guessed(runs: Path) -> None:
    rows = ["runs/study/a/seed-0 | 90.0", "runs/study/b/seed-0 | 0.9"]
    with pytest.raises(ConfigError, match=r"'0.9', which may be 0.9 % or 90 %; write the one"):
        found(runs, "run | claimed", *rows)


def test_the_better_of_two(runs: Path) -> None:
    shown, opposite = found(
        runs,
        "better | than",
        "runs/study/a/seed-0 | runs/study/c/seed-0",
        "runs/study/c/seed-0 | runs/study/b/seed-0",
    )
    assert (shown.severity, shown.evidence.partition(":")[0]) == ("none", "holds")
    assert "20.0 points" in shown.evidence
    assert opposite.severity == "serious"
    assert opposite.evidence.startswith("the opposite holds")


def test_a_gain_inside_noise_is_not_shown(runs: Path, made: Make) -> None:
    random = np.random.default_rng(0)
    made("d", 0, (random.random(200) < 0.9).astype(float))
    made("e", 0, (random.random(200) < 0.9).astype(float))
    (finding,) = found(runs, "better | than", "runs/study/d/seed-0 | runs/study/e/seed-0")
    assert finding.severity == "serious"
    assert finding.evidence.startswith("not shown")
    assert "images" in finding.remedy  # how many it would take


@pytest.mark.parametrize(
    ("columns", "row", "words"),
    [
        ("run | claimed", "runs/study/z | 90", "there is no folder runs/study/z"),
        ("run | claimed", " | 90", "the column run is empty"),
        ("run | claimed", "runs/study/a/seed-0 | good", "claimed is 'good'; expected a number"),
        ("run | claimed", "runs/study/a/seed-0 | ", "claimed is ''"),
        ("run | claimed", "runs | 90", "not the folder of a run"),
        ("run | claimed", "runs/study/a/seed-0 | 1", "may be 1 % or 100 %"),
        ("run | score | claimed", "runs/study/a/seed-0 | weighted_f1 | 0.9", "may be 0.9 % or 90 %"),
        ("run | score | claimed", "runs/study/a/seed-0 | cross_entropy | 31 %", "cross_entropy is no share"),
        ("run | score | claimed (%)", "runs/study/a/seed-0 | ece | 0.032", "may be 0.032 % or 3.2 %"),
        ("run | score | claimed", "runs/study/a/seed-0 | acuracy | 90", "valid: .*cross_entropy"),
        ("run | score | claimed", "runs/study/two | cross_entropy | 1", "only accuracy is known"),
        ("run | score | claimed", "runs/study/a/seed-0 | robust@0.1 | 1", "was not attacked"),
        ("run | split | claimed", "runs/study/a/seed-0 | valid | 1", "valid"),
        ("better | than", "runs/study/a | runs/study/c/seed-0", "compare runs with runs"),
    ],
)
def test_a_row_that_cannot_be_checked_is_told(columns: str, row: str, words: str, runs: Path) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        found(runs, columns, row)
    assert "claims.md, line 3 of the table" in str(error.value)
