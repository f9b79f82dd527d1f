"""Pictures of attacked images: which are kept, and that original, change and adversarial come back
from the sheet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stresslens.robustness.example_file import AttackedImage
from stresslens.robustness.example_images import (
    EXAMPLES,
    FIRST,
    SHEET_BYTES,
    adversarial_rows,
    save_adversarial_examples,
)


def arrays_of(n: int, seed: int, classes: int = 10) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    smallest = random.choice([0, 0.01, 0.02, 0.05, np.inf], n)
    rows = np.flatnonzero(np.isfinite(smallest))
    return {
        "index": random.permutation(10 * n)[:n],
        "labels": random.integers(0, classes, n),
        "clean_prediction": random.integers(0, classes, n),
        "clean_confidence": random.random(n),
        "smallest": smallest,
        "by": np.where(np.isfinite(smallest) & (smallest > 0), random.integers(0, 2, n), -1),
        "names": np.array(["fgsm", "pgd 20"]),
        "steps": random.integers(0, 50, n),
        "rows": rows,
        "adversarial_prediction": random.integers(0, classes, len(rows)),
        "adversarial_confidence": random.random(len(rows)),
        "size": random.random(len(rows)),
    }


def known(**changes: Any) -> AttackedImage:
    whole = {"truth": 0, "clean_prediction": 0, "clean_confidence": 0.9, "prediction": 1, "confidence": 0.5}
    return AttackedImage.model_validate(whole | {"eps": 0.1} | changes)


@given(st.integers(0, 200), st.integers(0, 2**32 - 1))
def test_the_choice(n: int, seed: int) -> None:
    arrays = arrays_of(n, seed)
    places, facts = adversarial_rows(arrays)
    broken = [k for k, row in enumerate(arrays["rows"]) if arrays["smallest"][row] > 0]
    assert len(places) == len(set(places)) == len(facts) == min(EXAMPLES, len(broken))
    assert set(places) <= set(broken)
    assert [fact.kind for fact in facts] == (["first"] * FIRST + ["spread"] * EXAMPLES)[: len(places)]
    in_order = sorted(broken, key=lambda k: arrays["index"][arrays["rows"][k]])
    assert places[:FIRST] == in_order[:FIRST]
    for place, fact in zip(places, facts):
        row = arrays["rows"][place]
        assert fact.index == arrays["index"][row]
        assert fact.truth == arrays["labels"][row]
        assert fact.eps == arrays["smallest"][row]
        assert fact.prediction == arrays["adversarial_prediction"][place]
        assert fact.attack == arrays["names"][arrays["by"][row]]
    json.dumps([fact.as_json() for fact in facts], allow_nan=False)


def test_radii_and_classes_are_spread() -> None:
    arrays = arrays_of(4000, 1)
    _, facts = adversarial_rows(arrays)
    spread = [fact for fact in facts if fact.kind == "spread"]
    counts = [sum(fact.eps == eps for fact in spread) for eps in (0.01, 0.02, 0.05)]
    assert max(counts) - min(counts) <= 1
    shown = np.bincount([fact.truth for fact in facts], minlength=10)
    assert shown.min() >= 2


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_come_back_and_the_change_is_magnified_around_grey(tmp_path: Path, channels: int) -> None:
    random = np.random.default_rng(0)
    originals = random.integers(0, 256, (20, channels, 8, 12)) / 255
    adversarials = np.clip(originals + random.choice([-0.04, 0.04], originals.shape), 0, 1)
    facts = [known(index=k) for k in range(20)]
    save_adversarial_examples(tmp_path, originals, adversarials.astype(np.float32), facts)
    entries = json.loads((tmp_path / "examples.json").read_text())
    assert [entry["index"] for entry in entries] == list(range(20))
    with Image.open(tmp_path / entries[0]["file"]) as sheet:

        def part(box: list[int]) -> np.ndarray:
            left, top, width, height = box
            pixels = np.asarray(sheet.crop((left, top, left + width, top + height)))
            return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)

        for k, entry in enumerate(entries):
            assert entry["scale"] == 10
            assert entry["reduced"] is False
            assert (part(entry["original"]) == np.round(255 * originals[k])).all()
            assert (part(entry["adversarial"]) == np.round(255 * adversarials[k])).all()
            change = 0.5 + 10 * (adversarials[k] - originals[k])
            assert np.abs(part(entry["change"]) - 255 * change).max() <= 0.51


def test_no_change_is_grey_and_the_largest_is_never_cut_off(tmp_path: Path) -> None:
    originals = np.stack([np.zeros((1, 4, 4)), np.zeros((1, 4, 4)), np.full((1, 4, 4), 0.5)])
    adversarials = originals + np.array([0.0, 1.0, 0.3]).reshape(3, 1, 1, 1)
    save_adversarial_examples(tmp_path, originals, adversarials, [known()] * 3)
    entries = json.loads((tmp_path / "examples.json").read_text())
    assert [entry["scale"] for entry in entries] == [1.0, 0.5, 1.0]


def test_large_pictures_are_made_smaller_and_say_so(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    originals = random.random((24, 3, 160, 320))
    save_adversarial_examples(tmp_path, originals, np.clip(originals + 0.03, 0, 1), [known()] * 24)
    entries = json.loads((tmp_path / "examples.json").read_text())
    assert {tuple(entry["original"][2:]) for entry in entries} == {(128, 64)}
    assert all(entry["reduced"] for entry in entries)
    assert (tmp_path / entries[0]["file"]).stat().st_size <= SHEET_BYTES


def test_none_to_show_writes_nothing_and_unequal_lengths_are_refused(tmp_path: Path) -> None:
    save_adversarial_examples(tmp_path / "a", np.zeros((0, 1, 2, 2)), np.zeros((0, 1, 2, 2)), [])
    assert not (tmp_path / "a").exists()
    with pytest.raises(ValueError, match="1 originals, 1 adversarials and 2 facts"):
        save_adversarial_examples(tmp_path, np.zeros((1, 1, 2, 2)), np.zeros((1, 1, 2, 2)), [known()] * 2)


def test_the_same_picture_is_kept_once(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    original = np.repeat(random.random((1, 1, 6, 6)), 10, axis=0)
    adversarials = np.clip(original + np.arange(10).reshape(10, 1, 1, 1) / 20, 0, 1)
    save_adversarial_examples(tmp_path, original, adversarials, [known(kind="ladder")] * 10)
    entries = json.loads((tmp_path / "examples.json").read_text())
    assert len({tuple(entry["original"]) for entry in entries}) == 1
    assert entries[0]["adversarial"] == entries[0]["original"]
    assert len({tuple(entry["adversarial"]) for entry in entries}) == 10
