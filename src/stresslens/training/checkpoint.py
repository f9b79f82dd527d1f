"""The checkpoint of a training: when it is written, what it holds, and how training resumes from it."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from stresslens.core.distributed import ProcessGroup
from stresslens.core.errors import ConfigError, StresslensError
from stresslens.core.files import whole_lines
from stresslens.core.run_folder import RunFolder
from stresslens.core.types import Scheduler
from stresslens.core.weights_file import load_state
from stresslens.training.bare_steps import without_import
from stresslens.training.best_epoch import BestEpoch
from stresslens.training.loss_scale import LossScale
from stresslens.training.state import TrainingState


@dataclass
class TrainingParts:
    """Everything that changes during a training, and so everything that its checkpoint holds."""

    state: TrainingState
    net: nn.Module
    average: AveragedModel | None
    optimizer: torch.optim.Optimizer
    schedule: Scheduler
    best: BestEpoch
    objective_state: dict[str, Tensor]
    carried: dict[str, Tensor]
    """An objective's tensors with a row for every place in the batch: this process's rows."""
    loss_scale: LossScale


class Checkpointer:
    """Writes the checkpoint of a training and its logs, and restores them.

    A checkpoint is due every `seconds`; training also saves one on a signal and at its end. The logs
    metrics.jsonl and timings.jsonl are cut back to the checkpoint when training resumes. Of several
    processes only the first writes.
    """

    def __init__(
        self, folder: RunFolder, parts: TrainingParts, *, seconds: float, device: str, group: ProcessGroup
    ) -> None:
        self.folder, self.parts, self.seconds, self.device, self.group = folder, parts, seconds, device, group
        self.writes = group.place.rank == 0
        self._saved_at = time.perf_counter()

    @property
    def due(self) -> bool:
        return time.perf_counter() - self._saved_at >= self.seconds

    def save(self) -> None:
        """Writes a checkpoint. All processes call it together, since its content is gathered from all."""
        with without_import():
            content = self.content()
        if self.writes:
            self.folder.save_checkpoint(content)
        self._saved_at = time.perf_counter()

    def content(self) -> dict[str, Any]:
        """What a checkpoint holds; with several processes the rows of `carried` are those of all."""
        parts, group = self.parts, self.group
        on_gpu = torch.device(self.device).type == "cuda"
        return {
            "position": asdict(parts.state),
            "net": {name: alone(value) for name, value in parts.net.state_dict().items()},
            "average": parts.average.state_dict() if parts.average is not None else None,
            "optimizer": parts.optimizer.state_dict(),
            "schedule": parts.schedule.state_dict(),
            "loss_scale": parts.loss_scale.state(),
            "objective": parts.objective_state,
            "carried": {
                name: group.gather(parts.carried.get(name, torch.empty(0)))
                for name in group.broadcast_object([*parts.carried])
            },
            "best": parts.best.weights,
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state() if on_gpu else None,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Sets all parts to those of a checkpoint, which any number of processes may have written.

        Raises ConfigError where it does not fit the model and the configuration.
        """
        parts = self.parts
        try:
            parts.state.restore(saved["position"])
            load_state(parts.net, saved["net"])
            if parts.average is not None:
                load_state(parts.average, saved["average"])
            with without_import():
                parts.optimizer.load_state_dict(saved["optimizer"])
            parts.schedule.load_state_dict(saved["schedule"])
            parts.loss_scale.restore(saved.get("loss_scale"))
            parts.objective_state.update({k: v.to(self.device) for k, v in saved["objective"].items()})
            rank, world = self.group.part
            parts.carried.update({k: v[rank::world].to(self.device) for k, v in saved["carried"].items()})
            parts.best.weights = saved["best"]
            torch.set_rng_state(saved["random"])
            if saved["cuda_random"] is not None and torch.cuda.is_available():
                torch.cuda.set_rng_state(saved["cuda_random"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise ConfigError(
                f"{self.folder.checkpoint} does not belong to this model and configuration ({error}); "
                "move it away to start anew"
            ) from error

    def start_logs(self) -> None:
        """Removes the logs of an attempt that ended before its first checkpoint."""
        self.folder.metrics.unlink(missing_ok=True)
        self.folder.timings.unlink(missing_ok=True)

    def cut_logs(self) -> str | None:
        """Cuts the logs back to their lengths when the checkpoint was written. Returns, in words, what
        a log has lost since, and None where nothing is missing."""
        lost = []
        for path, size in (
            (self.folder.metrics, self.parts.state.metrics_bytes),
            (self.folder.timings, self.parts.state.timings_bytes),
        ):
            left = path.stat().st_size if path.exists() else 0
            if left > size:
                os.truncate(path, size)
            elif left < size:
                lost.append(f"{path.name} has lost its last {size - left} of {size} bytes")
                _keep_whole_lines(path)
        return f"{'; '.join(lost)}: lines of epochs are missing" if lost else None

    def append(self, log: str, line: dict[str, Any]) -> None:
        """Adds a line to the log `metrics` or `timings`, and notes its length for the checkpoint."""
        if not self.writes:
            return
        path: Path = getattr(self.folder, log)
        try:
            with path.open("ab") as file:
                file.write(json.dumps(line).encode() + b"\n")
                setattr(self.parts.state, f"{log}_bytes", file.tell())
        except OSError as error:
            raise StresslensError(
                f"cannot write {path}: {error.strerror}; the last checkpoint is unharmed"
            ) from error


def alone(value: Tensor) -> Tensor:
    """The tensor, copied if it is a part of a larger one, all of which would be saved with it."""
    return value.clone() if value.untyped_storage().nbytes() > value.nbytes else value


def _keep_whole_lines(path: Path) -> None:
    """Removes a last line that is not complete, so that the next line begins a line."""
    if path.exists():
        os.truncate(path, sum(len(line) + 1 for line in whole_lines(path)))
