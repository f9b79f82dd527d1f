"""Which images are listed, in which order, what is said of them, and what is counted of planted flips."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from stresslens.core.data import Split
from stresslens.evaluation.label_errors import (
    LabelErrors,
    PlantedFlips,
    found_flips,
    label_errors,
    mean_probabilities,
)
from stresslens.metrics.intervals import wilson

CLASSES = ("cat", "dog", "owl")
TRUTH = np.repeat(np.arange(3), 20)
GIVEN = TRUTH.copy()
GIVEN[[3, 25]] = [1, 2]
"""The label of image 3 is dog and should be cat, that of image 25 is owl and should be dog."""


def probabilities() -> NDArray[np.float64]:
    """(2, 60, 3) of two seeds, which are sure of every second image. The first is not sure enough of image
    25, and the second not of image 3."""
    sure = np.where(np.arange(60) % 2, 0.95, 0.5)[:, None]
    both = np.repeat(((1 - sure) / 2 + (1.5 * sure - 0.5) * np.eye(3)[TRUTH])[None], 2, 0)
    both[:, 25] = [[0.0, 0.6, 0.4], [0.0, 1.0, 0.0]]
    both[1, 3] = [0.6, 0.4, 0.0]
    return both


def found(*planted: PlantedFlips) -> LabelErrors:
    errors = label_errors(GIVEN, probabilities(), CLASSES, [f"{k}.png" for k in range(60)])
    images = torch.arange(60, dtype=torch.uint8)[:, None, None, None].expand(60, 1, 4, 4).clone()
    split = Split(images, torch.from_numpy(GIVEN))
    return LabelErrors("pets", CLASSES, 60, 2, "two models", wilson(58, 60), errors, planted, "", split)


def test_the_mean_is_over_the_seeds_that_answer() -> None:
    two = np.array([[[0.2, 0.8], [np.nan, np.nan]], [[0.6, 0.4], [0.1, 0.9]], [[np.nan, 0.5], [0.3, 0.7]]])
    np.testing.assert_allclose(mean_probabilities(two), [[0.4, 0.6], [0.2, 0.8]])
    assert np.isnan(mean_probabilities(two[:1])[1]).all()


def test_the_images_are_ranked_with_what_the_seeds_say() -> None:
    errors = label_errors(GIVEN, probabilities(), CLASSES, [f"{k}.png" for k in range(60)])
    assert [(e.image, e.given, e.suggested) for e in errors] == [
        ("25.png", "owl", "dog"),
        ("3.png", "dog", "cat"),
    ]
    assert [(e.agreeing, e.seeds) for e in errors] == [(1, 2), (1, 2)]
    assert errors[0].probability == pytest.approx(0.8)
    assert errors[1].given_probability == pytest.approx((0.025 + 0.4) / 2)


def test_an_image_without_an_answer_is_not_listed() -> None:
    none = probabilities()
    none[:, 3] = np.nan
    none[0, 25] = np.nan
    (error,) = label_errors(GIVEN, none, CLASSES, [str(k) for k in range(60)])
    assert (error.image, error.agreeing, error.seeds) == ("25", 1, 1)


def test_planted_flips_are_counted() -> None:
    flipped = GIVEN.copy()
    rows = np.array([10, 45])
    flipped[rows] = [2, 0]
    certain = np.repeat((np.full((60, 3), 0.05) + 0.85 * np.eye(3)[TRUTH])[None], 2, 0)
    certain[:, 45] = [0.8, 0.1, 0.1]  # this flip is believed
    before = np.zeros(60, bool)
    before[3] = True
    counted = found_flips("uniform", GIVEN, flipped, rows, certain, before)
    assert counted == PlantedFlips("uniform", planted=2, found=1, restored=1, flagged=3, before=1)
    assert counted.recall == wilson(1, 2)
    assert counted.precision == wilson(1, 3)
    assert counted.sentence == (
        "Of 2 planted flips (uniform) 1 are found: recall 50.0 % (2.5 to 97.5); for 1 of them the label "
        "from before is suggested. Of 3 flagged then, 1 are planted: precision at least 33.3 % "
        "(1.7 to 86.5); of the other 2, 1 are flagged without planted flips too."
    )
    json.dumps(counted.as_json(), allow_nan=False)


def test_none_says_what_it_would_have_missed() -> None:
    missing = PlantedFlips("confused pairs", planted=36, found=27, restored=27, flagged=30, before=0)
    none = replace(found(missing), errors=())
    assert none.sentence == "None of 60 labels of pets are probably wrong"
    assert none.sentences[-1] == "So none flagged does not mean none wrong: about 25 % are missed."
    nothing = PlantedFlips("uniform", planted=10, found=0, restored=0, flagged=0, before=0)
    assert nothing.sentence == "Of 10 planted flips (uniform) 0 are found: recall 0.0 % (0.0 to 27.8)."
    json.dumps(nothing.as_json(), allow_nan=False)


def test_it_shows_itself() -> None:
    errors = found(PlantedFlips("uniform", 36, 30, 30, 33, 2))
    assert repr(errors) == "LabelErrors(pets: 2 of 60 labels probably wrong)"
    assert len(errors) == 2
    html = errors._repr_html_()
    assert "2 of 60 labels of pets are probably wrong." in html
    assert html.count("<figure>") == 2
    assert "owl → dog" in html
    assert list(errors.to_frame()["image"]) == ["25.png", "3.png"]
    assert errors.pixels(errors.errors[:1])[0].tolist() == [[25] * 4] * 4
    json.dumps(errors.as_json(), allow_nan=False)


def test_the_corrections_are_a_table(tmp_path: Path) -> None:
    path = found().write_corrections(tmp_path / "new" / "corrections.csv")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert [(row["file"], row["given"], row["label"]) for row in rows] == [
        ("25.png", "owl", "dog"),
        ("3.png", "dog", "cat"),
    ]
    assert (rows[0]["probability"], rows[0]["agreeing"], rows[0]["seeds"]) == ("0.8000", "1", "2")
