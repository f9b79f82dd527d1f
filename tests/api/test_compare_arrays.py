"""`sl.compare` of arrays of scores: the verdicts of files, without files."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import stresslens as sl

LABELS = np.random.default_rng(0).integers(0, 3, 200)


def scores(accuracy: float, seed: int) -> NDArray[np.float64]:
    draws = np.random.default_rng(seed)
    found = draws.dirichlet([1, 1, 1], 200) * 0.6
    found[np.arange(200), np.where(draws.random(200) < accuracy, LABELS, (LABELS + 1) % 3)] += 0.7
    return np.asarray(found / found.sum(1, keepdims=True))


A, B = (
    np.stack([scores(accuracy, 10 * k + seed) for seed in range(3)]) for k, accuracy in enumerate((0.7, 0.9))
)


def test_the_verdicts_are_those_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = sl.compare(A, B, LABELS)
    assert list(tmp_path.iterdir()) == []
    files = []
    for name, values in (("a", A), ("b", B)):
        for seed, each in enumerate(values):
            files.append(f"{name}-seed{seed}.csv")
            with open(files[-1], "w", newline="") as file:
                table = csv.writer(file)
                table.writerow(["file", "label", "prob_0", "prob_1", "prob_2"])
                table.writerows([f"{k:03}", LABELS[k], *each[k]] for k in range(len(LABELS)))
    (one,), (other,) = found["contrasts"], sl.compare(*files)["contrasts"]
    assert one == other
    assert one["difference"]["value"] == pytest.approx(
        (B.argmax(2) == LABELS).mean() - (A.argmax(2) == LABELS).mean()
    )


def test_forms_of_scores() -> None:
    by_name = sl.compare({"small": A, "large": B}, LABELS)["contrasts"][0]
    assert (by_name["a"], by_name["b"]) == ("small", "large")
    plain = sl.compare(A, B, LABELS)["contrasts"][0]["difference"]
    for a, b in (
        (A.argmax(2), B.argmax(2)),
        (torch.tensor(A), torch.tensor(B)),
        (np.log(A), np.log(B)),
        (A, B.argmax(2)),
    ):
        assert sl.compare(a, b, labels=LABELS)["contrasts"][0]["difference"] == plain
    single = sl.compare(A[0], B[0], LABELS)["contrasts"][0]
    assert single["difference"]["n"] == 200
    assert single["difference"]["value"] == pytest.approx(
        (B[0].argmax(1) == LABELS).mean() - (A[0].argmax(1) == LABELS).mean()
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((A, LABELS), "scores of two models or more, and then the labels"),
        ((A, B[:, :100], LABELS), r"b has 100 images in each seed, and there are 200 labels"),
        ((A, B[..., :2], LABELS), "different numbers of classes: a has 3, b has 2"),
        ((A, B, LABELS + 1), "with 3 classes they go from 0 to 2"),
        ((A, B, LABELS - 1), "class numbers"),
        ((A, B[0, :, 0], LABELS), r"b has the shape \(200,\); expected scores"),
        ((A * 0.5, B, LABELS), "do not add up to 1"),
        ((A, np.full_like(B, np.nan), LABELS), "no row has scores that are all numbers"),
        ((A, B[:0], LABELS), "expected scores"),
        ((A, "runs/a", LABELS), "compare arrays with arrays"),
        ((A, B[..., :1], LABELS), "one score of each image"),
    ],
)
def test_what_does_not_fit_is_said(given: tuple[Any, ...], said: str) -> None:
    with pytest.raises(sl.StresslensError, match=said):
        sl.compare(*given)


def test_what_needs_images_is_refused() -> None:
    with pytest.raises(sl.ConfigError, match="which arrays of scores do not have"):
        sl.compare(A, B, LABELS, without_copies=True)
    with pytest.raises(sl.ConfigError, match="labels are those of arrays"):
        sl.compare("runs/a", "runs/b", labels=LABELS)
