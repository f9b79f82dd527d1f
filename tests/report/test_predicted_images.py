"""The page of predicted images: what it shows of one run, of several, and of odd files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stresslens.evaluation.classify_files import Prediction
from stresslens.report import predicted_images
from stresslens.report.predicted_images import write_predictions


def picture(path: Path, mode: str = "RGB", size: tuple[int, int] = (20, 10)) -> str:
    draws = np.random.default_rng(0)
    width, height = size
    array = draws.integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(array).convert(mode).save(path)
    return str(path)


def page_of(path: Path, *runs: tuple[str, list[Prediction]]) -> str:
    file = write_predictions(
        path / "page.html", [(name, rows, f"{name} is calibrated.") for name, rows in runs]
    )
    return file.read_text()


def test_two_runs_stand_side_by_side(tmp_path: Path) -> None:
    """A caption that a run does not rank has a dash in its column."""
    file = picture(tmp_path / "apple.png")
    text = page_of(
        tmp_path,
        ("vit", [Prediction(file, (("an apple", 0.9), ("a banana", 0.1)), 0.5, False)]),
        ("rn50", [Prediction(file, (("a banana", 0.8), ("a pear", 0.2)), 0.01, True)]),
    )
    rows = [line for line in text.splitlines() if line.startswith('<tr><th scope="row">')]
    assert [row.count("<td") for row in rows] == [2, 2, 2]
    assert [name in row for name, row in zip(("an apple", "a banana", "a pear"), rows)] == [True] * 3
    assert "90.0" in rows[0]
    assert "<td>–</td>" in rows[0]
    assert "<bdi>vit</bdi>: <b><bdi>an apple</bdi></b>" in text
    assert "Out of distribution for <bdi>rn50</bdi>:" in text
    assert "rn50: rn50 is calibrated." in text
    assert text.count("data:image/webp") == 1


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK"])
@pytest.mark.parametrize("size", [(1, 1), (20, 10), (900, 300)], ids=str)
def test_pictures_of_every_kind_are_shown(mode: str, size: tuple[int, int], tmp_path: Path) -> None:
    file = picture(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), mode, size)
    text = page_of(tmp_path, ("run", [Prediction(file, (("cat", 1.0),))]))
    assert "data:image/webp" in text
    assert "cannot be shown" not in text


def test_names_are_text_and_lost_files_are_said(tmp_path: Path) -> None:
    text = page_of(tmp_path, ("<b>run</b>", [Prediction("<script>.png", (("<i>cat</i>", 1.0),))]))
    assert "<i>cat" not in text
    assert "<b>run" not in text
    assert "<script>.png" not in text
    assert "its file cannot be read any more" in text


def test_unreadable_files_are_left_out_and_long_lists_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predicted_images, "MOST", 2)
    file = picture(tmp_path / "a.png")
    rows = [Prediction(file + "?", unreadable="broken"), Prediction(file), Prediction("b"), Prediction("c")]
    text = page_of(tmp_path, ("run", rows))
    assert text.count('<section class="predicted">') == 2
    assert "1 more images were classified" in text
    assert "no answer (not finite)" in text
