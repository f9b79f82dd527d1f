"""`stresslens serve --watch`: studies as they grow, and nothing else of the folder."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from servers import serving

import stresslens as sl
from stresslens.core.run_folder import RunFolder
from stresslens.report.load import StudyFolder
from stresslens.serve.watched import SILENT, WatchedStudy, watched_studies


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    data = {"digits": {"subset": 200}}
    run = sl.train("linear", data, epochs=4, precision="float32", out=out / "train", progress=False)
    sl.write_report(run)
    return out


@pytest.fixture
def half(finished: Path, tmp_path: Path) -> RunFolder:
    """The run as it was after two of its four epochs, 3 seconds a epoch."""
    out = tmp_path / "runs"
    shutil.copytree(finished, out)
    folder = RunFolder(next(out.rglob("record.json")).parent)
    record = json.loads(folder.record.read_text())
    for key in ("scores", "stages", "training"):
        record.pop(key, None)
    folder.record.write_text(json.dumps({**record, "status": "running", "message": ""}))
    for name in ("metrics.jsonl", "timings.jsonl"):
        lines = (folder.path / name).read_text().splitlines(keepends=True)
        (folder.path / name).write_text("".join(lines[:2]))
    times = [json.dumps({"epoch": k, "seconds": 3.0 * k}) + "\n" for k in (1, 2)]
    (folder.path / "timings.jsonl").write_text("".join(times))
    return folder


def only(root: Path) -> WatchedStudy:
    (study,) = watched_studies(root)
    assert isinstance(study, WatchedStudy)
    return study


def test_a_run_that_is_trained_says_how_far_it_is(half: RunFolder) -> None:
    study = only(half.path.parents[2])
    (run,) = study.runs
    assert (run.epoch, run.epochs, run.share, run.left) == (2, 4, 0.5, 6.0)
    assert run.status == "epoch 2 of 4, at most 6.0 s left"
    assert run.figure.startswith("validation ")
    assert run.figure.endswith("after epoch 2")
    assert study.growing
    assert study.said == "0 of 1 run ended; at most 6.0 s of training left"


def test_a_run_that_has_not_written_is_silent(half: RunFolder) -> None:
    for file in half.path.iterdir():
        os.utime(file, (1e9, 1e9))
    study = only(half.path.parents[2])
    assert study.runs[0].silent > SILENT
    assert study.runs[0].status.startswith("silent for ")
    assert not study.growing


def test_a_finished_run_has_its_score_and_its_reports(finished: Path) -> None:
    study = only(finished.resolve())
    (run,) = study.runs
    assert (run.status, run.share, run.left) == ("finished", 1.0, None)
    assert run.figure.startswith("test ")
    address = study.report(run.run.folder.path)
    assert address is not None
    assert address.startswith("/reports/train/run,")
    assert address.endswith("/seed-0/report.html")
    assert study.charts is not None


def test_a_folder_that_cannot_be_read_is_named(half: RunFolder) -> None:
    (half.path.parents[1] / "study.json").write_text("{")
    (found,) = watched_studies(half.path.parents[2])
    assert isinstance(found, tuple)
    assert found[0] == "train"
    assert "study.json" in found[1]


def test_a_study_that_has_not_changed_is_not_read_again(half: RunFolder) -> None:
    root, known = half.path.parents[2], dict[Path, tuple[float, StudyFolder]]()
    first, again = (watched_studies(root, known)[0] for _ in range(2))
    os.utime(half.metrics, (2e9, 2e9))
    (changed,) = watched_studies(root, known)
    assert isinstance(first, WatchedStudy)
    assert isinstance(again, WatchedStudy)
    assert isinstance(changed, WatchedStudy)
    assert again.study is first.study
    assert changed.study is not first.study


def test_an_empty_folder_waits_for_runs(tmp_path: Path) -> None:
    assert watched_studies(tmp_path) == []


@pytest.mark.slow
def test_the_page_and_its_reports_and_nothing_else(half: RunFolder) -> None:
    root = half.path.parents[2]
    outside = root.parent / "report.html"
    outside.write_text("outside")
    (root / "linked").symlink_to(root.parent)
    with serving("--watch", root) as server:
        status, page = server.ask("GET", "/watch")
        assert status == 200
        assert b'src="/watch/page.js"' in page
        for name, kind in (("page.css", b"--paper"), ("page.js", b"/watch/studies")):
            status, content = server.ask("GET", f"/watch/{name}")
            assert status == 200
            assert kind in content
        status, told = server.json("GET", "/watch/studies")
        assert status == 200
        assert "epoch 2 of 4" in told["html"]
        assert "<svg" in told["html"]
        again = server.json("GET", f"/watch/studies?have={told['version']}")[1]
        assert "html" not in again
        report = "/reports/" + (half.path / "report.html").relative_to(root).as_posix()
        assert server.ask("GET", report.replace(",", "%2C").replace("=", "%3D"))[0] == 200
        for path in (
            "/reports/../report.html",
            "/reports/%2e%2e/report.html",
            "/reports/linked/report.html",
            "/reports/train/study.json",
            "/reports/" + (half.path / "record.json").relative_to(root).as_posix(),
        ):
            assert server.ask("GET", path)[0] == 404, path
        metrics = half.path / "metrics.jsonl"
        line = json.loads(metrics.read_text().splitlines()[-1])
        with metrics.open("a") as file:
            file.write(json.dumps({**line, "epoch": 3}) + "\n")
        told = server.json("GET", f"/watch/studies?have={told['version']}")[1]
        assert "epoch 3 of 4" in told["html"]
