"""A run is a folder of plain files: written whole or not at all, by one process at a time."""

from __future__ import annotations

import fcntl
import io
import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from torch import Tensor

from stresslens.core.errors import ConfigError, StresslensError, first_line
from stresslens.core.files import UnreadableRun, read_arrays, read_json, write_atomically
from stresslens.core.image_files import Fit

FORMAT = 1


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class ModelCard:
    """How to build the net that `model.safetensors` belongs to (`model.json`), checked when it is read."""

    format: Literal[1]
    model: str | dict[str, Any]
    shape: tuple[int, int, int]
    classes: list[str]
    size: tuple[int, int] | None
    gain: list[Any]
    shift: list[Any]
    seed: int
    fit: Fit = "crop"
    """How pictures of another shape are brought to this one."""
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    @property
    def seen(self) -> tuple[int, int, int]:
        """The shape of what the net is given: after resizing, and of grey images as many channels
        as it was made for."""
        height, width = self.size or self.shape[1:]
        return (len(self.gain), height, width)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class EstimatorCard:
    """How to build the estimator that `estimator.npz` belongs to (`estimator.json`), checked when
    it is read."""

    format: Literal[1]
    estimator: str | dict[str, Any]
    shape: tuple[int, int, int]
    classes: list[str]
    seed: int
    fit: Fit = "crop"


_model_card, _estimator_card = TypeAdapter(ModelCard), TypeAdapter(EstimatorCard)


class RunFolder:
    """`runs/<study>/<run>/seed-<k>`: what lies where, and who may write."""

    def __init__(self, path: Path) -> None:
        self.path = path

    config = cached_property(lambda self: self.path / "config.yaml")
    record = cached_property(lambda self: self.path / "record.json")
    environment = cached_property(lambda self: self.path / "environment.json")
    weights = cached_property(lambda self: self.path / "model.safetensors")
    card = cached_property(lambda self: self.path / "model.json")
    estimator = cached_property(lambda self: self.path / "estimator.npz")
    estimator_card = cached_property(lambda self: self.path / "estimator.json")
    metrics = cached_property(lambda self: self.path / "metrics.jsonl")
    timings = cached_property(lambda self: self.path / "timings.jsonl")
    checkpoint = cached_property(lambda self: self.path / "checkpoint.pt")
    likeness = cached_property(lambda self: self.path / "likeness.npz")
    previous_checkpoint = cached_property(lambda self: self.path / "checkpoint.previous.pt")

    def predictions(self, split: str) -> Path:
        return self.path / "predictions" / f"{split}.npz"

    @property
    def begun(self) -> bool:
        """Whether anything was trained or fitted here that another configuration would overwrite."""
        return any(path.exists() for path in (self.checkpoint, self.weights, self.estimator, self.metrics))

    @property
    def examples(self) -> Path:
        return self.path / "examples"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Refuses a second process on the same folder; the lock falls with the process, however it ends."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("a")
        except OSError as error:
            raise ConfigError(
                f"cannot write to {self.path}: {error.strerror}; choose another place with --out"
            ) from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise ConfigError(
                    f"{self.path} is being written by another process; wait for it, or use another --out"
                ) from None
            for partial in self.path.rglob(".*.[0-9]*"):  # what a kill left of write_atomically
                partial.unlink(missing_ok=True)
            yield

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Writes the state whole, keeping the one before it as the previous."""
        fresh = self.path / "checkpoint.new.pt"
        write_atomically(fresh, lambda file: torch.save(state, file))
        if self.checkpoint.exists():
            self.checkpoint.replace(self.previous_checkpoint)
        fresh.replace(self.checkpoint)

    def load_checkpoint(self) -> tuple[dict[str, Any] | None, str | None]:
        """The newest whole checkpoint and, if one had to be passed over, why; never executes what a
        file may hold."""
        passed_over = None
        for path in (self.path / "checkpoint.new.pt", self.checkpoint, self.previous_checkpoint):
            if not path.exists():
                continue
            try:
                content = io.BytesIO(path.read_bytes())
            except (OSError, MemoryError) as error:
                raise StresslensError(
                    f"{path} cannot be read: {first_line(error)}; nothing was changed, try again"
                ) from error
            try:
                state = torch.load(content, map_location="cpu", weights_only=True)
                if isinstance(state, dict) and "position" in state:
                    return state, passed_over
                reason = "not a checkpoint of stresslens"
            except Exception as error:
                reason = first_line(error)[:200]
            passed_over = f"{path.name} could not be read ({reason}); it is kept as {path.name}.unreadable"
            path.replace(path.with_name(f"{path.name}.unreadable"))
        return None, passed_over

    def load_card(self) -> ModelCard | EstimatorCard:
        """What was trained or fitted here."""
        fitted = self.estimator_card.is_file()
        card: Path = self.estimator_card if fitted else self.card
        values = read_json(card)
        try:
            return _estimator_card.validate_python(values) if fitted else _model_card.validate_python(values)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise UnreadableRun(
                f"{card} is not a model description of format {FORMAT}: {place}: {first['msg']}"
            ) from None

    def load_predictions(self, split: str) -> dict[str, np.ndarray]:
        absent = f"{self.path} has no predictions for {split}; `stresslens evaluate` makes them"
        return read_arrays(self.predictions(split), absent)

    def read_lines(self, path: Path) -> list[dict[str, Any]]:
        """A jsonl file's objects; a last line that was cut off by a kill is left out."""
        if not path.exists():
            return []
        lines = path.read_bytes().split(b"\n")[:-1]
        try:
            return [json.loads(line) for line in lines]
        except (ValueError, RecursionError) as error:
            raise UnreadableRun(f"{path} is damaged: {error}") from error


def run_folders(root: Path) -> list[RunFolder]:
    """Every run below a folder, in the order of their names."""
    records = (
        [root / "record.json"]
        if (root / "record.json").is_file()
        else sorted(root.glob("**/seed-*/record.json"))
    )
    return [RunFolder(record.parent) for record in records]


def command_line() -> list[str]:
    """What was typed; `python -m stresslens` is the command stresslens."""
    program = Path(sys.argv[0])
    return ["stresslens" if program.name == "__main__.py" else program.name, *sys.argv[1:]]


def environment(compute: dict[str, Any]) -> dict[str, Any]:
    """What a run ran on, for its environment.json."""
    from importlib.metadata import version

    packages = (
        "stresslens",
        "torch",
        "torchvision",
        "numpy",
        "scipy",
        "scikit-learn",
        "opencv-python-headless",
    )
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor_count": os.cpu_count(),
        "packages": {name: version(name) for name in packages},
        "command": command_line(),
        "commit": _commit(),
        **compute,
    }


def _commit() -> str | None:
    """The commit checked out in the working folder, read from the files of git."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        head = folder / ".git" / "HEAD"
        if head.is_file():
            text = head.read_text().strip()
            if not text.startswith("ref: "):
                return text
            name = text.removeprefix("ref: ")
            loose, packed = folder / ".git" / name, folder / ".git" / "packed-refs"
            if loose.is_file():
                return loose.read_text().strip()
            lines = packed.read_text().splitlines() if packed.is_file() else []
            return next((line.split()[0] for line in lines if line.endswith(f" {name}")), None)
    return None


def on_cpu(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}
