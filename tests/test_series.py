"""`make results`: its commands exist, what ended well is not run again, a failure is named."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

import stresslens as sl

ROOT = Path(__file__).parents[1]


@pytest.fixture
def series(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/series.py, which keeps what is printed in `tmp_path`."""
    spec = importlib.util.spec_from_file_location("series", ROOT / "benchmarks" / "series.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "series", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "PRINTED", tmp_path / "printed")
    monkeypatch.setattr(module, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(module, "MEASURED", tmp_path / "measured.md")
    monkeypatch.chdir(ROOT)
    return module


def test_every_command_has_its_file_and_a_name_of_its_own(series: ModuleType) -> None:
    lines = series.COMMANDS.strip().splitlines()
    files = [line.split()[2 if line.startswith("stresslens") else 1] for line in lines]
    assert [file for file in files if not (ROOT / file).is_file()] == []
    assert len({series.Measurement(line).name for line in lines}) == len(lines)


def test_every_study_is_run_or_needs_what_cannot_be_reached(series: ModuleType) -> None:
    studies = {file.name for file in (ROOT / "studies").glob("*.yaml")}
    left = {name for name in studies if f"studies/{name}" not in series.COMMANDS}
    needs_published_weights = {"cifar-transfer.yaml", "cifar-zeroshot.yaml", "photos-transfer.yaml"}
    assert left == {*needs_published_weights, "quickstart.yaml"}


def test_what_ended_well_is_kept_and_a_failure_is_named(
    series: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    good.write_text("import sys; print('found', sys.argv[1:])")
    bad.write_text("raise SystemExit('it broke')")
    lines = [f"python {good} one", f"python {good} photos", f"python {bad}"]
    monkeypatch.setattr(series, "COMMANDS", "\n".join(lines))
    monkeypatch.setattr(sys, "argv", ["series.py"])
    values = {
        "study": "small",
        "data": {"digits": {"subset": 100}},
        "model": "linear",
        "runs": {"a": {}, "b": {}},
    }
    sl.run({**values, "train": {"epochs": 1, "precision": "float32"}}, out=tmp_path / "runs", progress=False)
    for _ in range(2):
        with pytest.raises(SystemExit, match=r"failed:\n.*bad.py: see"):
            series.main()
    said = capsys.readouterr().out
    assert said.count("good.py one …") == 1
    assert "left out, it needs --photos FOLDER" in said
    kept = series.Measurement(lines[0]).file.read_text(encoding="utf-8")
    assert kept.startswith(f"$ {lines[0]}\n# ")
    assert kept.endswith("found ['one']\n")
    measured = (tmp_path / "measured.md").read_text(encoding="utf-8")
    assert "## small" in measured
    assert "| b | " in measured
    assert "found ['one']" in measured
    assert "it broke" in series.Measurement(lines[2]).file.read_text(encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["series.py", "photos", "--photos", str(tmp_path)])
    series.main()
    assert f"found ['{tmp_path}']" in series.Measurement(lines[1]).file.read_text(encoding="utf-8")
