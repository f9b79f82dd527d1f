"""ROC and precision–recall curves of a run's page, from predictions that were written by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from folders import estimate, write_run
from pages import Page, page_of

from stresslens.evaluation.scores import Predictions

HOSTILE = "</td><script>alert(1)</script>"


def run_with(study: Path, scores: np.ndarray, labels: np.ndarray, classes: list[str]) -> Path:
    k = len(classes)
    figures = {name: [estimate(0.9)] * k for name in ("precision", "recall", "f1", "auroc", "auprc")}
    support = np.bincount(labels, minlength=k).tolist()
    confusion = [[support[i] if i == j else 0 for j in range(k)] for i in range(k)]
    run = write_run(
        study,
        "cnn",
        0,
        classes=classes,
        per_class={"test": {**figures, "support": support}},
        confusion={"test": confusion},
    )
    (run / "predictions").mkdir(exist_ok=True)
    Predictions(scores, labels, np.arange(len(labels))).save(run / "predictions" / "test.npz")
    return run


def noisy(n: int, k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = np.arange(n) % k
    return random.normal(size=(n, k)) + 2 * np.eye(k)[labels], labels


def section(run: Path) -> str:
    html, page = page_of(run)
    assert "ranking" in page.sections
    assert HOSTILE not in html
    return html.partition('<section id="ranking">')[2].partition("</section>")[0]


def text_of(html: str) -> str:
    return " ".join(Page(html).text.split())


def test_each_class_has_its_lines_its_areas_and_its_ring(tmp_path: Path) -> None:
    html = section(run_with(tmp_path / "study", *noisy(60, 3), ["ant", HOSTILE, "cat"]))
    assert html.count("<figure") == 2
    assert html.count('class="line') >= 8  # three classes and their mean, twice
    assert html.count('<circle class="ring') == 6
    assert "as predicted: false-positive rate, %" in html
    assert "each class against the rest, on 60 test images" in html
    assert "ant: 0.900" in html


def test_of_two_classes_the_second_is_drawn_with_its_base_rate(tmp_path: Path) -> None:
    labels = np.array([0, 0, 0, 1])
    scores = np.array([[1.0, 0], [1, 0.5], [0, 1], [0, 2]])
    html = section(run_with(tmp_path / "study", scores, labels, ["healthy", "ill"]))
    assert "for the class ill, on 4 test images" in html
    assert html.count('<circle class="ring') == 2
    assert ">mean: " not in html
    assert html.count("by chance") >= 2
    assert "as predicted: false-positive rate, % 33.33: 100" in html
    assert "as predicted: recall, % 100: 50" in html


def test_absent_classes_and_equal_scores_are_named(tmp_path: Path) -> None:
    scores, labels = noisy(40, 2)
    scores = np.concatenate([scores, np.full((40, 1), -9.0)], 1)
    html = section(run_with(tmp_path / "study", scores, labels, ["ant", "bee", "cat"]))
    assert "No curve, since no image is of this class (n = 40): cat" in text_of(html)
    html = section(run_with(tmp_path / "flat", np.zeros((40, 2)), labels, ["ant", "bee"]))
    assert "All images have the same score, which ranks none of them: bee" in html
    html = section(run_with(tmp_path / "alone", scores[:, :2], np.ones(40, np.int64), ["ant", "bee"]))
    assert "No curve, since every image is of this class (n = 40): bee" in text_of(html)
    assert "<figure" not in html


def test_many_classes_show_their_mean_alone(tmp_path: Path) -> None:
    html = section(run_with(tmp_path / "study", *noisy(84, 21), [f"c{k}" for k in range(21)]))
    assert "the mean over 21 classes" in html
    assert '<circle class="ring' not in html


def test_predictions_that_are_damaged_or_of_other_classes_are_a_sentence(tmp_path: Path) -> None:
    run = run_with(tmp_path / "study", *noisy(60, 3), ["ant", "bee", "cat"])
    Predictions(*noisy(60, 4), np.arange(60)).save(run / "predictions" / "test.npz")
    assert "the saved predictions have other classes" in section(run)
    (run / "predictions" / "test.npz").write_bytes(b"no archive")
    assert "The curves are left out" in section(run)


def test_a_run_without_saved_predictions_has_no_such_part(tmp_path: Path) -> None:
    _, page = page_of(write_run(tmp_path / "study", "cnn", 0))
    assert "ranking" not in page.sections
