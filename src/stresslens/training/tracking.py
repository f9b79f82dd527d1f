"""Experiment tracking: sends the progress of a training to its trackers.

A tracker cannot change the training, and one that fails does not stop the run.
"""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from inspect import signature
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.config.dotted_keys import settings
from stresslens.config.run_names import safe
from stresslens.config.schema import PluginValue
from stresslens.core.errors import Notice, first_line
from stresslens.core.files import write_bytes
from stresslens.core.run_folder import RunFolder
from stresslens.core.tracking import Entry, Histogram, Histograms, Scalars, Text, Tracker

POINTS = 1000
"""Iterations of a whole training that are logged, at most."""
EPOCHS_OF_WEIGHTS = 100
"""Epochs of a whole training whose weights are logged as histograms, at most."""
BINS = 40
"""Bins of a histogram."""
LOG_FILE = "tracking.jsonl"


@dataclass
class Tracking:
    """The trackers of the run in `folder`. They receive nothing before `begin`.

    `names` are the trackers of the configuration, with their options; `config` holds the run's
    settings; paths to your own trackers are relative to `base`. `given` are the caller's own
    (`given_tracker`).
    """

    names: Sequence[PluginValue] = ()
    folder: RunFolder = field(default_factory=lambda: RunFolder(Path()))
    base: Path = Path()
    config: Mapping[str, Any] = field(default_factory=dict)
    given: Sequence[Any] = ()
    failed: bool = field(default=False, init=False)
    _trackers: dict[str, Tracker] = field(default_factory=dict, init=False)
    _own_folders: list[str] = field(default_factory=list, init=False)
    _begun: bool = field(default=False, init=False)
    _every: int = field(default=1, init=False)
    _weights_every: int = field(default=1, init=False)

    def begin(
        self, *, epoch: float = math.inf, step: float = math.inf, epochs: int = 1, steps: int = 1
    ) -> None:
        """Opens the trackers and sends them the settings and everything that was logged up to
        `epoch` and iteration `step`.

        What was logged beyond is forgotten, since training repeats it. `epochs` and `steps` are those
        of the whole training. A second call does nothing.
        """
        if self._begun or not (self.names or self.given):
            return
        self._begun = True
        self._every, self._weights_every = math.ceil(steps / POINTS), math.ceil(epochs / EPOCHS_OF_WEIGHTS)
        for value in self.names:
            name = registry.name_and_options("trackers", value)[0]
            self._add(name, partial(self._opened, name, value))
        for number, tracker in enumerate(self.given, 1):
            called = getattr(tracker, "__name__", type(tracker).__name__)
            given = partial(given_tracker, tracker, self._folder_for(called), self.config)
            self._add(f"{called} ({number})", given)
        self.tell(Text("settings", table(dict(settings(self.config)))))
        log = TrackingLog(self.folder)
        entries = self._guarded(LOG_FILE, lambda: log.cut(epoch, step))
        if entries is not None:
            for entry in entries:
                self.tell(entry)
            self._trackers[LOG_FILE] = log

    def after_step(self, step: int, loss: float, lr: float) -> None:
        """Logs the loss and the learning rate of at most `POINTS` iterations."""
        if self._trackers and step % self._every == 0:
            self.tell(Scalars("step", step, {"loss": loss, "lr": lr}))

    def after_epoch(self, step: int, line: Mapping[str, Any], net: nn.Module) -> None:
        """Logs the epoch's line of metrics.jsonl, and histograms of the weights of the evaluated net."""
        if not self._trackers:
            return
        figures = of_epoch(line)
        self.tell(figures)
        accuracies = {name: value for name, value in figures.values.items() if name.endswith("accuracy")}
        if accuracies:
            self.tell(Scalars("step", step, accuracies))
        if figures.at % self._weights_every == 0:
            self.tell(
                Histograms(
                    figures.at, {name: histogram(p) for name, p in net.named_parameters() if p.numel()}
                )
            )

    def tell(self, entry: Entry) -> None:
        """Sends an entry to all trackers."""
        for name, tracker in list(self._trackers.items()):
            self._guarded(name, lambda tracker=tracker: tracker.log(entry))  # type: ignore[misc]

    def close(self) -> None:
        for name, tracker in list(self._trackers.items()):
            self._guarded(name, tracker.close)
        self._trackers.clear()

    def _opened(self, name: str, value: PluginValue) -> Tracker:
        """A tracker in an empty folder of its own, inside the run's."""
        function = name.rpartition(":")[2]
        folder = self.folder.path / name if function == name else self._folder_for(function)
        _make_empty(folder)
        return _checked(
            registry.resolve("trackers", value, base=self.base)(folder=folder, config=self.config)
        )

    def _folder_for(self, name: str) -> Path:
        """A folder for a tracker of this name; a second one of the same name gets another."""
        own = f"tracker-{safe(name)}"
        self._own_folders.append(own)
        number = self._own_folders.count(own)
        return self.folder.path / (own if number == 1 else f"{own}-{number}")

    def _add(self, name: str, opened: Callable[[], Tracker]) -> None:
        if (tracker := self._guarded(name, opened)) is not None:
            self._trackers[name] = tracker

    def _guarded(self, name: str, call: Callable[[], Any]) -> Any:
        """The result of a call of a tracker. After an error it warns, leaves the tracker out from then
        on, and returns None."""
        try:
            with torch.random.fork_rng(devices=[]):
                return call()
        except (Exception, SystemExit) as error:  # clients of some services end the process
            self.failed = True
            self._trackers.pop(name, None)
            reason = f"{type(error).__name__}: {first_line(error)}"
            warnings.warn(
                f"{self.folder.path}: the tracker {name} is left out and the run continues ({reason}). When "
                "this is fixed, run the same command again: it sends everything to the tracker",
                Notice,
                stacklevel=2,
            )
            return None


@dataclass(frozen=True)
class _EntryFunction:
    """A tracker that calls a function with each entry."""

    function: Callable[[Entry], object]

    def log(self, entry: Entry) -> None:
        self.function(entry)

    def close(self) -> None:
        pass


def given_tracker(tracker: Any, folder: Path, config: Mapping[str, Any]) -> Tracker:
    """A tracker that the caller gives: an object with `log(entry)` and `close()`, a function of one
    entry, or what makes a tracker, as the plug-ins do: a class or function of `folder`, which is made
    empty, and `config`, or of one of them.

    Raises TypeError for anything else."""
    if not isinstance(tracker, type) and hasattr(tracker, "log"):
        return _checked(tracker, "is")
    if not callable(tracker):
        raise TypeError(
            f"it is {tracker!r:.60}; expected a function of an entry, or an object with log and close"
        )
    known: dict[str, Any] = {"folder": folder, "config": config}
    try:
        names = [name for name in signature(tracker).parameters if name in known]
    except (TypeError, ValueError):  # a function of C that does not tell
        names = []
    if "folder" in names:
        _make_empty(folder)
    if isinstance(tracker, type) or names:
        return _checked(tracker(**{name: known[name] for name in names}))
    return _EntryFunction(tracker)


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _checked(tracker: Any, how: str = "returned") -> Tracker:
    if not all(callable(getattr(tracker, part, None)) for part in ("log", "close")):
        raise TypeError(f"it {how} {tracker!r:.60}; expected an object with log and close")
    return tracker  # type: ignore[no-any-return]


class TrackingLog:
    """tracking.jsonl in a run folder: the scalars and histograms that were logged, one in each line,
    so that a tracker can receive them again.

    It is itself the last of the trackers. Where it is missing, the epochs are taken from
    metrics.jsonl: an earlier attempt ran without trackers.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.file = folder, folder.path / LOG_FILE

    def cut(self, epoch: float, step: float) -> list[Scalars | Histograms]:
        """The entries up to an epoch and an iteration; the others are removed from the file."""
        entries: list[Scalars | Histograms]
        if self.file.exists():
            entries = [_entry(line) for line in self.folder.read_lines(self.file)]
        else:
            entries = [of_epoch(line) for line in self.folder.read_lines(self.folder.metrics)]
        kept = list(takewhile(lambda entry: _before(entry, epoch, step), entries))
        text = "".join(_line(entry) for entry in kept)
        write_bytes(self.file, text.encode())
        return kept

    def log(self, entry: Entry) -> None:
        if isinstance(entry, Scalars | Histograms):
            with self.file.open("ab") as file:
                file.write(_line(entry).encode())

    def close(self) -> None:
        pass


def _line(entry: Entry) -> str:
    """An entry as a line of tracking.jsonl."""
    if isinstance(entry, Histograms):
        weights = {
            name: {"counts": h.counts.tolist(), "edges": [h.edges[0], h.edges[-1]]}
            for name, h in entry.of.items()
        }
        return json.dumps({"epoch": entry.epoch, "weights": weights}) + "\n"
    assert isinstance(entry, Scalars)
    return json.dumps({entry.by: entry.at, "values": dict(entry.values)}) + "\n"


def _entry(line: Mapping[str, Any]) -> Scalars | Histograms:
    """The entry of a line of tracking.jsonl."""
    if "weights" in line:
        histograms = {
            name: Histogram(np.array(h["counts"]), _edges(*h["edges"])) for name, h in line["weights"].items()
        }
        return Histograms(line["epoch"], histograms)
    by: Literal["epoch", "step"] = "epoch" if "epoch" in line else "step"
    return Scalars(by, line[by], line["values"])


def _before(entry: Scalars | Histograms, epoch: float, step: float) -> bool:
    if isinstance(entry, Histograms):
        return entry.epoch <= epoch
    return entry.at <= (epoch if entry.by == "epoch" else step)


def of_epoch(line: Mapping[str, Any]) -> Scalars:
    """The scalars of a line of metrics.jsonl."""
    return Scalars("epoch", line["epoch"], {name: value for name, value in slashed(line) if name != "epoch"})


def histogram(values: Tensor) -> Histogram:
    """The finite values in `BINS` bins of equal width."""
    values = torch.view_as_real(values) if values.is_complex() else values
    x = values.detach().float().cpu().numpy().ravel()
    x = x[np.isfinite(x)]
    low, high = (float(x.min()), float(x.max())) if len(x) else (0.0, 0.0)
    edges = _edges(low, high) if low < high else _edges(low - 0.5, high + 0.5)
    return Histogram(np.histogram(x, BINS, (edges[0], edges[-1]))[0], edges)


def _edges(low: float, high: float) -> np.ndarray:
    return np.linspace(low, high, BINS + 1)


def slashed(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in nested values, with names such as `validation/accuracy`."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from slashed(value, f"{prefix}{key}/")
        else:
            yield prefix + key, value


def table(rows: Mapping[str, Any]) -> str:
    """A Markdown table with two columns."""
    return "\n".join(
        ["| setting | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    )
