"""Run folders: written whole or not at all, by one process, and never trusted when read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch
from mishaps import Hostile, full

from stresslens.core.errors import ConfigError, StresslensError
from stresslens.core.files import UnreadableRun, read_json, write_atomically, write_json
from stresslens.core.run_folder import (
    Environment,
    EstimatorCard,
    ModelCard,
    RunFolder,
    environment,
    on_cpu,
    run_folders,
)

MADE_BEFORE = Path(__file__).parents[1] / "made_before"

# --- writing ------------------------------------------------------------------------------------------------


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "record.json"
    write_json(path, {"value": 1, "name": "Größe"})
    write_json(path, {"value": 2})
    assert read_json(path) == {"value": 2}
    assert [file.name for file in path.parent.iterdir()] == ["record.json"]


def test_a_full_disk_leaves_the_old_file_and_no_scraps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record.json"
    write_json(path, {"value": 1})
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        StresslensError, match=r"cannot write .*record\.json: the disk is full.*old file is unchanged"
    ):
        write_json(path, {"value": 2})
    assert read_json(path) == {"value": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]


def test_torch_reporting_a_full_disk_in_its_own_way(tmp_path: Path) -> None:
    def write(file: IO[bytes]) -> None:
        file.write(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0\nframe #0")

    with pytest.raises(StresslensError, match=r"cannot write .*: \[enforce fail"):
        write_atomically(tmp_path / "checkpoint.pt", write)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error", [ValueError("not JSON"), KeyboardInterrupt()], ids=["value error", "interrupt"]
)
def test_whatever_stops_the_writing_leaves_no_scraps(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "a").write_text("old")

    def write(file: IO[bytes]) -> None:
        file.write(b"half")
        raise error

    with pytest.raises(type(error)):
        write_atomically(tmp_path / "a", write)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"a": "old"}


def test_a_file_where_a_folder_should_be_is_a_message(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(StresslensError, match="cannot write"):
        write_json(tmp_path / "runs" / "record.json", {})
    with (
        pytest.raises(ConfigError, match=r"cannot write to .*choose another place with --out"),
        RunFolder(tmp_path / "runs").locked(),
    ):
        pass


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "record.json", {"value": float("nan")})
    assert not list(tmp_path.iterdir())


# --- the lock -----------------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from stresslens.core.results import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_process_is_refused_until_the_first_ends_however_it_ends(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder.path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(ConfigError, match="is being written by another process"), folder.locked():
                pass
        finally:
            holder.send_signal(signal.SIGKILL)
    with (
        folder.locked(),
        pytest.raises(ConfigError, match="another process"),
        RunFolder(folder.path).locked(),
    ):
        pass
    with folder.locked():  # and again, once it was let go
        assert folder.path.is_dir()


# --- reading what others wrote ------------------------------------------------------------------------------

CARD: dict[str, Any] = {
    "format": 1,
    "model": {"mlp": {"widths": [3]}},
    "shape": [1, 8, 8],
    "classes": ["a", "b"],
    "size": None,
    "gain": [[[1.0]]],
    "shift": [[[0.0]]],
    "seed": 0,
}


def test_a_model_card_is_read_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write_json(folder.card, CARD)
    card = folder.load_card()
    assert (card.shape, card.classes, card.model, card.size) == (
        (1, 8, 8),
        ["a", "b"],
        {"mlp": {"widths": [3]}},
        None,
    )


@pytest.mark.parametrize(
    "card",
    [
        ModelCard(**CARD | {"size": (4, 6), "interpolation": "bicubic", "fit": "pad"}),
        ModelCard(**CARD),
        EstimatorCard(
            format=1, estimator={"knn": {"k": 3}}, shape=(1, 8, 8), classes=["a"], seed=2, fit="stretch"
        ),
    ],
    ids=["resized", "plain", "estimator"],
)
def test_a_card_is_read_back_as_it_was_written(tmp_path: Path, card: ModelCard | EstimatorCard) -> None:
    folder = RunFolder(tmp_path)
    path = folder.estimator_card if isinstance(card, EstimatorCard) else folder.card
    write_json(path, card.as_json())
    assert folder.load_card() == card


def test_the_cards_of_version_0_1_0_are_kept_byte_by_byte(tmp_path: Path) -> None:
    folder = RunFolder(MADE_BEFORE / "study" / "run" / "seed-0")
    write_json(tmp_path / "model.json", folder.load_card().as_json())
    assert (tmp_path / "model.json").read_bytes() == folder.card.read_bytes()
    write_json(tmp_path / "environment.json", Environment.read(folder.environment).as_json())
    assert (tmp_path / "environment.json").read_bytes() == folder.environment.read_bytes()


HOSTILE: dict[str, Any] = {
    "an unknown key": {**CARD, "colour": "red"},
    "a list": [],
    "null": None,
    "a number": 3,
    "another format": {**CARD, "format": 2},
    "no format": {k: v for k, v in CARD.items() if k != "format"},
    "a shape of two": {**CARD, "shape": [8, 8]},
    "a shape of words": {**CARD, "shape": ["a", "b", "c"]},
    "classes of numbers": {**CARD, "classes": [1, 2]},
    "a model that is a list": {**CARD, "model": ["mlp"]},
    "no gain": {**CARD, "gain": None},
}


@pytest.mark.parametrize("values", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_card_is_unreadable(tmp_path: Path, values: Any) -> None:
    folder = RunFolder(tmp_path)
    write_json(folder.card, values)
    with pytest.raises(UnreadableRun, match=r"model\.json is not a model description of format 1"):
        folder.load_card()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"format": 1', b"\xff\xfe", b"[" * 100_000, b"9" * 5000, b'{"format": 1}x'],
    ids=["empty", "brace", "cut", "not text", "deep", "long number", "trailing"],
)
def test_a_file_that_is_not_json_is_unreadable(tmp_path: Path, content: bytes) -> None:
    folder = RunFolder(tmp_path)
    for path in (folder.record, folder.card):
        path.write_bytes(content)
    with pytest.raises(UnreadableRun, match=r"record\.json cannot be read as JSON"):
        read_json(folder.record)
    with pytest.raises(UnreadableRun, match=r"model\.json cannot be read as JSON"):
        folder.load_card()


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableRun, match=r"there is no .*record\.json"):
        read_json(tmp_path / "record.json")
    with pytest.raises(UnreadableRun, match="cannot be read"):
        read_json(tmp_path)


def test_predictions_that_are_not_there_name_the_way_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(UnreadableRun, match="no predictions for test; `stresslens evaluate` makes them"):
        RunFolder(tmp_path).load_predictions("test")


def saved_predictions(tmp_path: Path) -> Path:
    path = RunFolder(tmp_path).predictions("test")
    path.parent.mkdir()
    scores, labels = np.arange(3000.0).reshape(5, 600), np.arange(5)
    np.savez_compressed(path, scores=scores, labels=labels, index=labels, kind="logits")
    return path


def test_predictions_are_read_back(tmp_path: Path) -> None:
    saved_predictions(tmp_path)
    arrays = RunFolder(tmp_path).load_predictions("test")
    assert arrays["labels"].tolist() == [0, 1, 2, 3, 4]
    assert arrays["scores"].shape == (5, 600)


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # numpy leaves a file that is no archive open
@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.5, 0.99])
def test_truncated_predictions_are_unreadable(tmp_path: Path, share: float) -> None:
    path = saved_predictions(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UnreadableRun, match=r"test\.npz cannot be read"):
        RunFolder(tmp_path).load_predictions("test")


def test_predictions_with_flipped_bytes_are_unreadable(tmp_path: Path) -> None:
    path = saved_predictions(tmp_path)
    content = bytearray(path.read_bytes())
    content[100:130] = b"\xff" * 30
    path.write_bytes(content)
    with pytest.raises(UnreadableRun, match=r"test\.npz cannot be read"):
        RunFolder(tmp_path).load_predictions("test")


def test_predictions_of_another_kind_of_file_are_unreadable(tmp_path: Path) -> None:
    path = saved_predictions(tmp_path)
    with path.open("wb") as file:
        np.save(file, np.arange(3))
    with pytest.raises(UnreadableRun, match=r"test\.npz holds one array"):
        RunFolder(tmp_path).load_predictions("test")


def test_hostile_predictions_are_not_executed(tmp_path: Path) -> None:
    path = saved_predictions(tmp_path)
    made = tmp_path / "made"
    np.savez(path, scores=np.array([Hostile(made)], dtype=object))
    with pytest.raises(UnreadableRun, match=r"test\.npz cannot be read"):
        RunFolder(tmp_path).load_predictions("test")
    assert not made.exists()
    assert zipfile.is_zipfile(path)


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.read_lines(folder.metrics) == []
    folder.metrics.write_text('{"epoch": 1}\n{"epoch": 2}\n{"epo')
    assert folder.read_lines(folder.metrics) == [{"epoch": 1}, {"epoch": 2}]
    folder.metrics.write_text('{"epoch": 1}\n{"epoch": 2}')
    assert folder.read_lines(folder.metrics) == [{"epoch": 1}]


def test_a_line_cut_inside_a_letter_is_left_out(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics.write_bytes('{"epoch": 1}\n{"name": "ö'.encode()[:-1])
    assert folder.read_lines(folder.metrics) == [{"epoch": 1}]


@pytest.mark.parametrize(
    "content", [b"nonsense\n", b'{"a": \n{"a": 1}\n', b"\xff\xfe\n"], ids=["word", "cut", "not text"]
)
def test_lines_that_are_not_json_are_unreadable(tmp_path: Path, content: bytes) -> None:
    folder = RunFolder(tmp_path)
    folder.metrics.write_bytes(content)
    with pytest.raises(UnreadableRun, match=r"metrics\.jsonl"):
        folder.read_lines(folder.metrics)


# --- finding ------------------------------------------------------------------------------------------------


def test_runs_are_found_below_a_folder_and_in_it(tmp_path: Path) -> None:
    for place in ("b/seed-0", "a/seed-1", "a/seed-0"):
        write_json(tmp_path / place / "record.json", {})
    write_json(tmp_path / "a" / "elsewhere" / "record.json", {})
    found = [str(folder.path.relative_to(tmp_path)) for folder in run_folders(tmp_path)]
    assert found == ["a/seed-0", "a/seed-1", "b/seed-0"]
    assert [folder.path for folder in run_folders(tmp_path / "b" / "seed-0")] == [tmp_path / "b" / "seed-0"]


def test_the_environment_is_plain_values() -> None:
    found = json.loads(json.dumps(environment({"precision": "float32"}).as_json()))
    assert (
        found["packages"]["torch"] == torch.__version__.split("+")[0]
        or found["packages"]["torch"] == torch.__version__
    )
    assert found["precision"] == "float32"
    assert found["python"].startswith("3.")


def test_the_environment_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    written = environment({"device": "cpu", "threads": 2, "processes": 2, "backend": "gloo"})
    write_json(tmp_path / "environment.json", written.as_json())
    read = Environment.read(tmp_path / "environment.json")
    assert read == written
    assert [*read.as_json()][-4:] == ["device", "threads", "processes", "backend"]
    assert "precision" not in read.as_json()


def test_weights_are_saved_apart_from_the_graph() -> None:
    weight = torch.nn.Parameter(torch.randn(4, 3).t())
    saved = on_cpu({"w": weight})["w"]
    assert saved.is_contiguous()
    assert not saved.requires_grad
    assert torch.equal(saved, weight)
