"""Slices that find themselves after a run: a planted one is found, recorded, shown on the page and kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import stresslens as sl
from stresslens.plugins.datasets.digits import digits

Type = Callable[..., tuple[int, str, str]]


def marked(share: float = 0.2) -> tuple[sl.Data, np.ndarray]:
    """Digits; a share of the test images have a white square in a corner, and random labels. Also which
    they are."""
    data = digits()
    assert data.test is not None
    random = np.random.default_rng(0)
    member = random.random(len(data.test)) < share
    images, labels = data.test.images[:].clone(), data.test.labels.clone()
    images[torch.from_numpy(member), :, :2, :2] = 16
    labels[torch.from_numpy(member)] = torch.from_numpy(random.integers(0, 10, member.sum()))
    return replace(data, test=replace(data.test, images=images, labels=labels), name="marked digits"), member


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> sl.Run:
    return sl.train("simple_cnn", marked()[0], epochs=4, lr=0.003, out=tmp_path_factory.mktemp("slices"))


def test_a_planted_slice_is_found_once_and_kept(run: sl.Run) -> None:
    reads = sl.open(run.folder).record["reads_of_test"]
    found = run.find_slices()
    first = found.slices[0]
    member = marked()[1]
    assert first.features == "pictures"
    assert np.mean([member[each.index] for each in first.members]) > 0.8
    assert first.accuracy.high < first.rest.low
    assert first.p_holm < 0.001
    assert sum(n for _, n in first.classes) <= first.accuracy.n
    assert all(truth != answer for truth, answer, _ in first.mistakes)
    assert found.sentence.startswith(f"{len(found)} slice")
    assert run.find_slices().search == found.search
    opened = sl.open(run.folder)
    assert opened.record["reads_of_test"] == reads + 1, "the second call reads the record"
    assert opened.results().found_slices.search == found.search
    assert opened.results("validation").found_slices is None
    rows = list(found)
    assert [row["images"] for row in rows] == [each.accuracy.n for each in found.slices]
    assert found.sentence in found._repr_html_()


def test_the_page_shows_its_pictures_from_files_alone(run: sl.Run) -> None:
    run.find_slices()
    folder = run.folder / "slices" / "test"
    entries = json.loads((folder / "examples.json").read_text())
    page = (run.folder / "report.html").read_text()
    assert page.count("sheet90 ") == 0
    assert page.count('sheet90"') == len(entries)
    assert "Found by features" in page
    assert "accuracy is that of the tested images" in page.lower()
    (run.folder / "model.safetensors").rename(run.folder / "away")
    sheet = (folder / "pictures.png").read_bytes()
    (folder / "pictures.png").write_bytes(b"damaged")
    again = sl.write_report(run.folder).read_text()
    (folder / "pictures.png").write_bytes(sheet)
    (run.folder / "away").rename(run.folder / "model.safetensors")
    assert 'sheet90"' not in again
    assert "Found by features" in again


@pytest.mark.slow
def test_the_command_prints_and_gives_them(type_: Type) -> None:
    code, _, err = type_("train", "digits", "knn", "--name", "a", "--out", "runs")
    assert code == 0, err
    before = json.loads(Path("runs/train/a/seed-0/record.json").read_text())
    assert "found_slices" not in before
    code, out, err = type_("evaluate", "runs/train/a", "--find-slices")
    assert code == 0, err
    said = " ".join(out.split())
    assert "no slice of lower accuracy found by features" in said
    assert "points lower than that of the rest." in said
    code, out, err = type_("evaluate", "runs/train/a", "--find-slices", "--split", "validation", "--json")
    assert code == 0, err
    found = json.loads(out)["found_slices"]
    assert (found["looked"], found["tested"], found["slices"]) == (179, 180, [])
    code, _, err = type_("evaluate", "runs/train/a", "--find-slices", "--tta", "flip")
    assert (code, "--find-slices is of the image alone" in " ".join(err.split())) == (2, True)


def test_the_table_of_a_slice(run: sl.Run, capsys: pytest.CaptureFixture[str]) -> None:
    from stresslens.cli.evaluate import _print_slices

    found = run.find_slices()
    _print_slices(found.search, list(found.classes))
    said = " ".join(capsys.readouterr().out.split())
    assert f"slice 1: test[{found.slices[0].members[0].index}], test[" in said
    assert found.search.missed in said


def test_too_few_images(tmp_path: Path) -> None:
    few = sl.train("knn", {"digits": {"subset": 100, "test": 30}}, out=tmp_path)
    found = few.find_slices()
    assert len(found) == 0
    assert found.sentence == "no slices were searched: 30 images are too few; 40 is the least"
    assert "no slices were searched" in (few.folder / "report.html").read_text()
