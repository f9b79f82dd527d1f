"""The files of a trained model in its run folder: whether they are whole, and how they are written
again."""

from __future__ import annotations

import hashlib
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from stresslens.core.data import Data
from stresslens.core.errors import Notice, first_line
from stresslens.core.files import UnreadableRun, write_bytes, write_json
from stresslens.core.run_folder import RunFolder, on_cpu
from stresslens.evaluation.record import Note, RunRecord, write_record
from stresslens.study.train_stage import model_card
from stresslens.training.setup import build_model
from stresslens.training.task import Task


def restore_model(task: Task, folder: RunFolder, data: Data, record: RunRecord) -> None:
    """Writes model.safetensors and model.json of a trained run again where they are missing or damaged,
    and notes it in the record. Only the head and the size of the weights are checked.

    Raises UnreadableRun, with what to do, where the last checkpoint does not hold the weights.
    """
    if task.config.estimator is not None:
        if why := _damage(folder.estimator):
            raise UnreadableRun(f"{folder.estimator} {why}; {_remedy(folder)}")
        try:
            folder.load_card()
        except UnreadableRun as error:
            what = f"{folder.estimator_card} is missing or damaged"
            raise UnreadableRun(f"{what}; {_remedy(folder)}") from error
        return
    restored = []
    if why := _damage(folder.weights):
        write_bytes(folder.weights, _weights_of_checkpoint(folder, record, why))
        restored.append(f"{folder.weights.name} {why}, and was written again from the last checkpoint")
    try:
        folder.load_card()
    except UnreadableRun:
        why = "is damaged" if folder.card.is_file() else "is missing"
        write_json(folder.card, model_card(task, data, build_model(task, data)).as_json())
        restored.append(f"{folder.card.name} {why}, and was written again")
    for what in restored:
        warnings.warn(f"{task.run} seed {task.seed}: {what}", Notice, stacklevel=2)
    if restored:
        record.findings = [*record.findings, *(Note(kind="model files", message=what) for what in restored)]
        write_record(folder, record)


def _damage(path: Path) -> str:
    """Why a file of weights or arrays cannot be read, from its head and its size; empty if it can."""
    if not path.is_file():
        return "is missing"
    try:
        if path.suffix == ".safetensors":
            with safetensors.safe_open(path, "pt"):
                return ""
        with zipfile.ZipFile(path):
            return ""
    except Exception as error:  # safetensors has one class of error for all
        return f"is damaged ({first_line(error)})"


def _weights_of_checkpoint(folder: RunFolder, record: RunRecord, why: str) -> bytes:
    """The content of model.safetensors, from the run's last checkpoint."""
    state, unreadable = folder.load_checkpoint()
    if state is None:
        missing = unreadable or f"there is no {folder.checkpoint.name} to write it again from"
        raise UnreadableRun(f"{folder.weights} {why}, and {missing}; {_remedy(folder)}")
    try:
        content: bytes = safetensors.torch.save(_chosen_weights(state))
        ended = state["position"]["epoch"] == record.training.epochs
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        what = f"{folder.checkpoint.name} does not hold what a checkpoint holds"
        raise UnreadableRun(f"{folder.weights} {why}, and {what}; {_remedy(folder)}") from error
    digest = hashlib.sha256(content).hexdigest()[:16]
    if digest != record.weights_digest if record.weights_digest else not ended:
        raise UnreadableRun(
            f"{folder.weights} {why}, and the checkpoint holds other weights than the run had at its end; "
            f"{_remedy(folder)}"
        )
    return content


def _chosen_weights(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights that a checkpoint's training has chosen: those of the best epoch, or else the moving
    average, or else the last."""
    prefix, average = "module.net.", state["average"] or {}
    averaged = {name.removeprefix(prefix): v for name, v in average.items() if name.startswith(prefix)}
    return on_cpu(state["best"] or averaged or state["net"])


def _remedy(folder: RunFolder) -> str:
    return f"copy it from elsewhere, or delete {folder.path} and give the same command to train again"
