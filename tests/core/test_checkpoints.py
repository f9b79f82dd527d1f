"""Checkpoints: the newest is used, the one before kept; damaged and hostile ones are passed over."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from mishaps import Hostile, full

from stresslens.core.errors import StresslensError
from stresslens.core.files import UnreadableRun, write_json
from stresslens.core.run_folder import (
    RunFolder,
)

# --- checkpoints --------------------------------------------------------------------------------------------


def state(step: int) -> dict[str, Any]:
    return {"position": {"step": step}, "weights": {"w": torch.full((50,), float(step))}}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run folder with the checkpoints of steps 1 and 2."""
    found = RunFolder(tmp_path)
    found.save_checkpoint(state(1))
    found.save_checkpoint(state(2))
    return found


def step_of(folder: RunFolder) -> int:
    loaded, _ = folder.load_checkpoint()
    assert loaded is not None
    step: int = loaded["position"]["step"]
    assert loaded["weights"]["w"].tolist() == [step] * 50
    return step


def test_the_newest_checkpoint_is_used_and_the_one_before_kept(folder: RunFolder) -> None:
    assert folder.load_checkpoint()[1] is None
    assert step_of(folder) == 2
    assert torch.load(folder.previous_checkpoint)["position"] == {"step": 1}
    assert sorted(file.name for file in folder.path.iterdir()) == ["checkpoint.previous.pt", "checkpoint.pt"]


def test_a_folder_without_checkpoints(tmp_path: Path) -> None:
    assert RunFolder(tmp_path).load_checkpoint() == (None, None)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.99])
def test_a_truncated_checkpoint_is_passed_over_for_the_previous_and_told(
    folder: RunFolder, share: float
) -> None:
    whole = folder.checkpoint.read_bytes()
    folder.checkpoint.write_bytes(whole[: int(share * len(whole))])
    _, passed_over = folder.load_checkpoint()
    assert step_of(folder) == 1
    assert passed_over is not None
    assert passed_over.startswith("checkpoint.pt could not be read (")


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_flipped_bit_of_a_tensor_is_seen_by_its_checksum(folder: RunFolder, share: float) -> None:
    """torch itself does not look at the checksums of its file."""
    whole = bytearray(folder.checkpoint.read_bytes())
    values = torch.full((50,), 2.0).numpy().tobytes()
    whole[whole.find(values) + int(share * len(values))] ^= 0x10
    folder.checkpoint.write_bytes(whole)
    assert torch.load(folder.checkpoint)["weights"]["w"].tolist() != [2.0] * 50
    _, passed_over = folder.load_checkpoint()
    assert "the checksum of its part" in str(passed_over)
    assert step_of(folder) == 1


def test_two_damaged_checkpoints_are_both_named(folder: RunFolder) -> None:
    for file in (folder.checkpoint, folder.previous_checkpoint):
        file.write_bytes(file.read_bytes()[:-40])
    state, passed_over = folder.load_checkpoint()
    assert state is None
    assert "checkpoint.pt could not" in str(passed_over)
    assert "checkpoint.previous.pt could not" in str(passed_over)


def test_other_weights_than_the_record_says_are_refused(tmp_path: Path) -> None:
    found = RunFolder(tmp_path)
    found.weights.write_bytes(bytes(range(200)))
    write_json(found.record, {"weights_digest": found.weights_digest()})
    found.check_weights()
    found.weights.write_bytes(bytes([255, *range(1, 200)]))
    with pytest.raises(UnreadableRun, match="not the file that the training wrote"):
        found.check_weights()
    write_json(found.record, {})  # version 0.1.0
    found.check_weights()


def test_a_kill_between_the_two_renames_loses_nothing(folder: RunFolder) -> None:
    folder.checkpoint.replace(folder.previous_checkpoint)
    torch.save(state(3), folder.path / "checkpoint.new.pt")
    assert step_of(folder) == 3


def test_a_full_disk_keeps_both_checkpoints(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StresslensError, match="the disk is full"):
        folder.save_checkpoint(state(3))
    assert step_of(folder) == 2
    assert folder.previous_checkpoint.exists()


@pytest.mark.parametrize(
    "value", [{"weights": 1}, [1, 2], torch.zeros(3)], ids=["dictionary", "list", "tensor"]
)
def test_another_torch_file_is_not_a_checkpoint(folder: RunFolder, value: Any) -> None:
    torch.save(value, folder.checkpoint)
    state, passed_over = folder.load_checkpoint()
    assert state is not None
    assert state["position"]["step"] == 1
    assert str(passed_over).startswith("checkpoint.pt could not be read (not a checkpoint of stresslens)")
    assert (folder.path / "checkpoint.pt.unreadable").is_file()


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_hostile_checkpoint_is_not_executed(folder: RunFolder, writer: str) -> None:
    made = folder.path / "made"
    hostile = {"position": Hostile(made)}
    if writer == "torch":
        torch.save(hostile, folder.checkpoint)
    else:
        folder.checkpoint.write_bytes(pickle.dumps(hostile))
    _, passed_over = folder.load_checkpoint()
    assert step_of(folder) == 1
    assert passed_over is not None
    assert not made.exists()
    pickle.loads(pickle.dumps(Hostile(made)))  # it would have
    assert made.exists()


@pytest.mark.parametrize(
    "junk", [b"", b"\x80", b"PK\x03\x04", b"\x80\x02.", b"not a checkpoint", b"\0" * 1000], ids=repr
)
def test_junk_in_both_places_starts_anew_and_is_told(folder: RunFolder, junk: bytes) -> None:
    folder.checkpoint.write_bytes(junk)
    folder.previous_checkpoint.write_bytes(junk)
    loaded, passed_over = folder.load_checkpoint()
    assert loaded is None
    assert passed_over is not None
    assert "could not be read" in passed_over
