"""Run folder: paths of its files, lock, checkpoints, model card, record and environment facts."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from filelock import lock_descriptor
from pydantic import ConfigDict, ValidationError
from torch import Tensor

from stresslens.core.array_file import FLOAT, INTEGER, TEXT, ArrayFile, Form
from stresslens.core.bit_depth import WHITE
from stresslens.core.errors import ConfigError, StresslensError, first_line
from stresslens.core.files import UnreadableRun, read_json, whole_lines, write_atomically
from stresslens.core.image_files import Fit
from stresslens.core.json_file import JsonFile, OrderedJsonFile, first_problem
from stresslens.core.pieces import BUDGET, budget
from stresslens.core.temporary_files import remove_leftovers

FORMAT: Final = 1


class Card(JsonFile):
    """The card of a model or estimator. A card with an unknown key is refused: what it describes may
    be something else."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    LATER_KEYS = frozenset({"white", "crop", "members"})


class ModelCard(Card):
    """model.json: how to build the net of `model.safetensors`."""

    format: Literal[1]
    model: str | dict[str, Any]
    shape: tuple[int, int, int]
    classes: list[str]
    size: tuple[int, int] | None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    gain: list[Any]
    shift: list[Any]
    seed: int
    fit: Fit = "crop"
    """How image files of another size are fitted to `shape`."""
    white: int = WHITE
    """The value of white in image files of more than 8 bits."""
    crop: tuple[int, int] | None = None
    """The middle part of the image, after resizing to `size`, that the net gets; None: the whole."""
    members: list[ModelCard | EstimatorCard] = []
    """The cards of the members of an ensemble."""

    @property
    def seen(self) -> tuple[int, int, int]:
        """The shape that the net gets: after resizing and the centre crop, and with the channels that
        it was made for."""
        height, width = self.crop or self.size or self.shape[1:]
        return (len(self.gain), height, width)


class EstimatorCard(Card):
    """estimator.json: how to build the estimator of `estimator.npz`."""

    format: Literal[1]
    estimator: str | dict[str, Any]
    shape: tuple[int, int, int]
    classes: list[str]
    seed: int
    fit: Fit = "crop"
    white: int = WHITE


PREDICTIONS = {
    "scores": Form(FLOAT, ("images", "classes")),
    "labels": Form(INTEGER, ("images",), least=0, below="classes"),
    "index": Form(INTEGER, ("images",), least=0),
    "kind": Form(TEXT, ()),
}
"""The arrays of predictions/<split>.npz. Scores that are not finite are no answer."""


class Environment(OrderedJsonFile):
    """environment.json: the machine, the package versions and the command of a run, and how it was
    computed. `commit` is that of the working folder, None without a repository."""

    python: str = ""
    platform: str = ""
    processor_count: int | None = None
    packages: dict[str, str] = {}
    command: list[str] = []
    commit: str | None = None
    device: str = ""
    precision: str = ""
    threads: int | None = None
    memory_format: str = ""
    compile: bool = False
    recompute: bool = False
    processes: int = 1
    backend: str = ""
    """Of several processes: gloo or nccl."""
    piece_bytes: int | None = None
    """The bytes that a piece of images may take (`core.pieces`), if they were set."""

    plugins: dict[str, str] = {}
    """The installed packages whose plug-ins the run uses, with their versions."""

    LATER_KEYS = frozenset({"piece_bytes", "plugins", "compile", "recompute"})


class RunFolder:
    """The folder of one run, `runs/<study>/<run>/seed-<k>`: its paths, and a lock for writing."""

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

    def member(self, number: int) -> RunFolder:
        """Where the run of an ensemble keeps what an estimator among its members has learned."""
        return RunFolder(self.path / "members" / str(number))

    def predictions(self, split: str) -> Path:
        return self.path / "predictions" / f"{split}.npz"

    @property
    def begun(self) -> bool:
        """Whether the folder holds a trained or fitted model, or a part of its training."""
        return any(path.exists() for path in (self.checkpoint, self.weights, self.estimator, self.metrics))

    @property
    def examples(self) -> Path:
        return self.path / "examples"

    def slices(self, split: str) -> Path:
        """The pictures of slices that were found in a split."""
        return self.path / "slices" / split

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the folder against other processes; the lock ends with the process, even if killed.

        Raises ConfigError if another process holds the lock, or if the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("a")
        except OSError as error:
            raise ConfigError(
                f"cannot write to {self.path}: {error.strerror}; choose another place with --out"
            ) from error
        with lock:
            held = False
            with suppress(OSError):
                held = lock_descriptor(lock.fileno(), blocking=False)
            if not held:
                raise ConfigError(
                    f"{self.path} is being written by another process; wait for it, or use another --out"
                )
            remove_leftovers(self.path, below=True)
            yield

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Writes a checkpoint atomically and keeps the one before it as the previous checkpoint."""
        fresh = self.path / "checkpoint.new.pt"
        write_atomically(fresh, lambda file: torch.save(state, file))
        if self.checkpoint.exists():
            self.checkpoint.replace(self.previous_checkpoint)
        fresh.replace(self.checkpoint)

    def load_checkpoint(self) -> tuple[dict[str, Any] | None, str | None]:
        """The newest undamaged checkpoint and, if others were skipped, the reasons.

        The checksum of every tensor is checked. No code of the files is executed. Raises
        StresslensError if a file cannot be read now.
        """
        skipped: list[str] = []
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
                damaged = _damaged_part(content)
                state = torch.load(content, map_location="cpu", weights_only=True)
                if isinstance(state, dict) and "position" in state and damaged is None:
                    return state, "; ".join(skipped) or None
                reason = damaged or "not a checkpoint of stresslens"
            except Exception as error:
                reason = first_line(error)[:200]
            skipped.append(f"{path.name} could not be read ({reason}); it is kept as {path.name}.unreadable")
            path.replace(path.with_name(f"{path.name}.unreadable"))
        return None, "; ".join(skipped) or None

    def weights_digest(self) -> str:
        """16 hexadecimal digits of model.safetensors, which has no checksum of its own."""
        with self.weights.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]

    def check_weights(self) -> None:
        """Raises UnreadableRun if model.safetensors is not the file that the training wrote.

        Runs of version 0.1.0 and exported folders do not say which file that is.
        """
        if not self.record.is_file() or not self.weights.is_file():
            return
        record = read_json(self.record)
        written = record.get("weights_digest") if isinstance(record, dict) else None
        if written and written != self.weights_digest():
            raise UnreadableRun(
                f"{self.weights} is not the file that the training wrote: it is damaged, or was replaced. "
                "Copy it from elsewhere, or delete it and give the command of the run again, which writes it "
                "from the last checkpoint"
            )

    def load_card(self) -> ModelCard | EstimatorCard:
        """The card of the model or estimator. Raises UnreadableRun if it is missing or not
        valid."""
        fitted = self.estimator_card.is_file()
        if not fitted and not self.card.is_file() and (source := self._source()):
            raise UnreadableRun(
                f"{self.path} has predictions that were read from {source}, and no model; train or load the "
                "model with stresslens for this"
            )
        card: Path = self.estimator_card if fitted else self.card
        whose = "the run" if self.record.is_file() else "the export"
        aside = f" set {self.record.name} aside, and" if fitted and self.record.is_file() else ""
        remedy = f"to make it anew,{aside} give the command of {whose} again"
        values = read_json(card, remedy)
        try:
            return EstimatorCard.model_validate(values) if fitted else ModelCard.model_validate(values)
        except ValidationError as error:
            raise UnreadableRun(
                f"{card} is not a model description of format {FORMAT}: {first_problem(error)}; {remedy}"
            ) from None

    def _source(self) -> str:
        """The file of another program that the predictions were read from; empty for other runs."""
        with suppress(UnreadableRun, TypeError, AttributeError):
            return str(read_json(self.record).get("source", ""))
        return ""

    def load_predictions(self, split: str) -> dict[str, np.ndarray]:
        """The saved predictions of a split: `PREDICTIONS`. Raises UnreadableRun."""
        absent = f"{self.path} has no predictions for {split}; `stresslens evaluate` makes them"
        remedy = f"`stresslens evaluate {self.path} --split {split}` makes it anew"
        return ArrayFile(PREDICTIONS, remedy).read(self.predictions(split), absent)

    def read_lines(self, path: Path) -> list[dict[str, Any]]:
        """The objects of a jsonl file, without a last line that is not complete.

        Raises UnreadableRun if another line is damaged.
        """
        try:
            return [json.loads(line) for line in whole_lines(path)]
        except (ValueError, RecursionError) as error:
            raise UnreadableRun(f"{path} is damaged: {error}") from error


def _damaged_part(content: io.BytesIO) -> str | None:
    """The part of a file of torch whose checksum is wrong, in words; None if all are right."""
    with zipfile.ZipFile(content) as archive:
        part = archive.testzip()
    content.seek(0)
    return None if part is None else f"the checksum of its part {part} is wrong"


def run_folders(root: Path) -> list[RunFolder]:
    """All runs below a folder, sorted by name."""
    records = (
        [root / "record.json"]
        if (root / "record.json").is_file()
        else sorted(root.glob("**/seed-*/record.json"))
    )
    return [RunFolder(record.parent) for record in records]


def command_line() -> list[str]:
    """The command line that the user typed; `python -m stresslens` becomes `stresslens`."""
    program = Path(sys.argv[0])
    return ["stresslens" if program.name == "__main__.py" else program.name, *sys.argv[1:]]


def environment(compute: Mapping[str, Any]) -> Environment:
    """The environment of this process; `compute` says how the run is computed (device and the like)."""
    packages = (
        "stresslens",
        "torch",
        "torchvision",
        "numpy",
        "scipy",
        "scikit-learn",
        "opencv-python-headless",
    )
    return Environment(
        python=platform.python_version(),
        platform=platform.platform(),
        processor_count=os.cpu_count(),
        packages={name: found for name in packages if (found := _version(name)) is not None},
        command=command_line(),
        commit=_commit(),
        piece_bytes=budget() if budget() != BUDGET else None,
        **compute,
    )


def _version(package: str) -> str | None:
    """The version of an installed package."""
    from importlib.metadata import PackageNotFoundError, version

    with suppress(PackageNotFoundError):
        return version(package)
    return None


def _commit() -> str | None:
    """The commit that is checked out in the working folder, read from git's files; None if none."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        head = folder / ".git" / "HEAD"
        if head.is_file():
            text = head.read_text(encoding="utf-8").strip()
            if not text.startswith("ref: "):
                return text
            name = text.removeprefix("ref: ")
            loose, packed = folder / ".git" / name, folder / ".git" / "packed-refs"
            if loose.is_file():
                return loose.read_text(encoding="utf-8").strip()
            lines = packed.read_text(encoding="utf-8").splitlines() if packed.is_file() else []
            return next((line.split()[0] for line in lines if line.endswith(f" {name}")), None)
    return None


def on_cpu(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().contiguous() for name, value in state.items()}
