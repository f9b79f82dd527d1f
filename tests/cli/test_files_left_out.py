"""Files that are left out are told by every command and every function that reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import stresslens as sl
from stresslens.cli.main import app
from stresslens.core.errors import Notice
from stresslens.core.files import read_json


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve images of each of two classes, an empty class, and files that are not read."""
    monkeypatch.chdir(tmp_path)
    for label, name in enumerate(("dark", "light")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for k in range(12):
            pixels = np.random.default_rng([label, k]).integers(0, 100, (8, 8, 3)) + 150 * label
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / name / f"{k}.png")
    (tmp_path / "photos" / "red").mkdir()
    (tmp_path / "photos" / "dark" / "raw.NEF").write_bytes(b"x")
    (tmp_path / "photos" / "dark" / "page.pdf").write_bytes(b"x")
    return tmp_path / "photos"


SAID = (
    "2 files are not image files by their names and were left out (.nef 1, .pdf 1)",
    "for example dark/raw.NEF and dark/page.pdf",
    "convert camera raw files to JPEG or PNG; convert documents to PNG",
)
EMPTY = "class folders without an image, which are no classes here: red"


def test_the_data_commands(photos: Path) -> None:
    for command in ("check", "stats"):
        result = CliRunner().invoke(app, ["data", command, "photos"])
        assert result.exit_code == 0
        assert all(said in result.output for said in (*SAID, EMPTY))
        assert result.output.count(SAID[0]) == 1
    found = json.loads(CliRunner().invoke(app, ["data", "check", "photos", "--json"]).stdout)
    assert {"files left out", "empty class folders"} <= {finding["audit"] for finding in found}
    stats = json.loads(CliRunner().invoke(app, ["data", "stats", "photos", "--json"]).stdout)
    assert {"files left out", "empty class folders"} == {finding["audit"] for finding in stats["findings"]}


def test_train_and_predict(photos: Path) -> None:
    result = CliRunner().invoke(app, ["train", "photos", "linear", "train.epochs=1", "--out", "runs"])
    assert result.exit_code == 0, result.output
    (run,) = Path("runs").glob("train/*/seed-0")
    findings = {finding["audit"] for finding in read_json(run / "record.json")["data"]["findings"]}
    assert {"files left out", "empty class folders"} <= findings
    assert SAID[0] in (run / "report.html").read_text(encoding="utf-8")
    said = result.output
    assert f"data: {SAID[0]}, {SAID[1]}; {SAID[2]}" in said
    assert f"data: {EMPTY}" in said
    assert said.count(SAID[0]) == 1
    result = CliRunner().invoke(app, ["predict", str(run), "photos"])
    assert result.exit_code == 0
    assert f"{SAID[0]}, for example photos/dark/raw.NEF and photos/dark/page.pdf; {SAID[2]}" in result.output
    result = CliRunner().invoke(app, ["predict", str(run), "photos", "--json"])
    assert json.loads(result.stdout)["left_out"] == ["photos/dark/page.pdf", "photos/dark/raw.NEF"]
    (photos / "only").mkdir()
    (photos / "dark" / "raw.NEF").rename(photos / "only" / "raw.NEF")
    result = CliRunner().invoke(app, ["predict", str(run), "photos/only"])
    assert "holds no image file" in str(result.exception)
    assert "convert camera raw files" in str(result.exception)


def test_from_python(photos: Path) -> None:
    with pytest.warns(Notice) as told:
        sl.train("linear", photos, epochs=1)
    left_out = f"data: {SAID[0]}, {SAID[1]}; {SAID[2]}"
    assert sorted(str(each.message).partition("; add")[0] for each in told) == [left_out, f"data: {EMPTY}"]
    Path("study.yaml").write_text(
        "data: {folder: {path: photos}}\nruns: {a: {model: linear}}\ntrain: {epochs: 1}\n"
    )
    with pytest.warns(Notice) as told:
        sl.run("study.yaml", "repeats=[1]")
    assert sorted(str(each.message).partition("; add")[0] for each in told) == [left_out, f"data: {EMPTY}"]
