"""Pictures kept for the report: which, and that their pixels come back from the sheet."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stresslens.core.data import Split
from stresslens.core.errors import DataError
from stresslens.core.files import read_json, write_json
from stresslens.evaluation.example_file import ClassifiedImage, Example
from stresslens.evaluation.example_images import (
    A_CELL,
    IN_CELLS,
    MISTAKES,
    SAMPLES,
    SHEET_BYTES,
    examples_of,
    save_examples,
)
from stresslens.evaluation.scores import Predictions

FILE_KEYS = ("index", "truth", "predicted", "probability", "probabilities", "kind", "file", "box")


def predictions_of(n: int, classes: int, seed: int) -> Predictions:
    random = np.random.default_rng(seed)
    return Predictions(random.normal(size=(n, classes)), random.integers(0, classes, n), np.arange(n))


@given(st.integers(1, 400), st.integers(2, 30), st.integers(0, 2**32 - 1))
def test_the_choice_by_hand(n: int, classes: int, seed: int) -> None:
    predictions = predictions_of(n, classes, seed)
    entries = examples_of(predictions)
    probabilities = predictions.probabilities
    kinds = {kind: [e for e in entries if e.kind == kind] for kind in ("sample", "mistake", "cell")}
    assert len(kinds["sample"]) == min(n, SAMPLES)
    assert len({e.index for e in kinds["sample"]}) == len(kinds["sample"])

    wrong = [i for i in range(n) if probabilities[i].argmax() != predictions.labels[i]]
    surest = sorted(wrong, key=lambda i: (-probabilities[i].max(), i))
    assert [e.index for e in kinds["mistake"]] == surest[:MISTAKES]

    cell_of = {i: (int(predictions.labels[i]), int(probabilities[i].argmax())) for i in wrong}
    seen: Counter[tuple[int, int]] = Counter()
    ranks = []
    for place, i in enumerate(surest):
        if place >= MISTAKES and seen[cell_of[i]] < A_CELL:
            ranks.append((seen[cell_of[i]], place, i))
        seen[cell_of[i]] += 1
    assert [e.index for e in kinds["cell"]] == [i for _, _, i in sorted(ranks)][:IN_CELLS]
    for e in entries:
        assert (e.predicted, e.probability) == (e.probabilities[0][0], e.probabilities[0][1])
        assert [p for _, p in e.probabilities] == sorted(probabilities[e.index], reverse=True)[:3]


def test_every_pair_has_a_picture_before_one_has_two() -> None:
    guess = np.repeat(np.arange(1, 20), 30)
    entries = examples_of(
        Predictions(np.eye(20)[guess] * 9, np.zeros(len(guess), np.int64), np.arange(len(guess)))
    )
    shown = Counter(e.predicted for e in entries if e.kind != "sample")
    assert set(shown) == set(range(1, 20))
    assert sorted(shown.values())[:17] == [A_CELL] * 17


def test_pixels_come_back_from_the_sheet(tmp_path: Path) -> None:
    images = torch.randint(
        0, 256, (50, 3, 8, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    names = np.array([f"cats/{i}.jpg" for i in range(50)])
    predictions = predictions_of(50, 4, 0)
    save_examples(
        tmp_path, Split(images, torch.from_numpy(predictions.labels), columns={"file": names}), predictions
    )
    entries = json.loads((tmp_path / "examples.json").read_text())
    with Image.open(tmp_path / entries[0]["file"]) as sheet:
        for entry in entries:
            left, top, width, height = entry["box"]
            pixels = np.asarray(sheet.crop((left, top, left + width, top + height)))
            assert (pixels == images[entry["index"]].permute(1, 2, 0).numpy()).all()
            assert entry["source"] == f"cats/{entry['index']}.jpg"


def test_entries_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    images = torch.zeros(30, 1, 8, 8, dtype=torch.uint8)
    predictions = predictions_of(30, 4, 0)
    labels, names = torch.from_numpy(predictions.labels), np.array([f"{i}.png" for i in range(30)])
    for columns in ({}, {"file": names}):
        save_examples(tmp_path, Split(images, labels, columns=columns), predictions)
        entries = read_json(tmp_path / "examples.json")
        read = [Example.model_validate(entry) for entry in entries]
        assert [entry.as_json() for entry in read] == entries
        assert [[*entry] for entry in entries] == [[*FILE_KEYS, *(["source"] if columns else [])]] * len(read)
        for entry, image in zip(read, examples_of(predictions), strict=True):
            assert ClassifiedImage(**{key: getattr(entry, key) for key in image.as_json()}) == image


def test_the_entries_of_version_0_1_0_are_kept_byte_by_byte(tmp_path: Path) -> None:
    file = Path(__file__).parents[1] / "made_before/study/run/seed-0/examples/examples.json"
    read = [Example.model_validate(entry) for entry in read_json(file)]
    write_json(tmp_path / "examples.json", [entry.as_json() for entry in read])
    assert (tmp_path / "examples.json").read_bytes() == file.read_bytes()


def test_large_pictures_are_made_smaller_and_the_sheet_stays_in_its_limit(tmp_path: Path) -> None:
    images = torch.randint(
        0, 256, (240, 3, 160, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    predictions = predictions_of(240, 40, 0)
    save_examples(tmp_path, Split(images, torch.from_numpy(predictions.labels)), predictions)
    entries = json.loads((tmp_path / "examples.json").read_text())
    assert {tuple(e["box"][2:]) for e in entries} == {(96, 69)}
    assert (tmp_path / entries[0]["file"]).stat().st_size <= SHEET_BYTES
    assert "source" not in entries[0]


def test_columns_follow_a_selection_and_have_one_entry_for_each_image() -> None:
    images, labels = torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 0])
    split = Split(images, labels, columns={"group": np.array(["a", "b", "c"])})
    assert list(split.select([2, 0]).columns["group"]) == ["c", "a"]
    with pytest.raises(DataError, match="column 'group' has shape"):
        Split(images, labels, columns={"group": np.array(["a", "b"])})
