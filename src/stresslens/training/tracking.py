"""Telling trackers how a training goes. Nothing that they do reaches the training, and none that
fails stops a run."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.config.dotted_keys import settings
from stresslens.config.schema import PluginValue
from stresslens.core.errors import Notice, first_line
from stresslens.core.files import write_atomically
from stresslens.core.run_folder import RunFolder
from stresslens.core.tracking import Entry, Histogram, Histograms, Scalars, Text, Tracker

POINTS = 1000
"""Iterations told of in a whole training, at most."""
EPOCHS_OF_WEIGHTS = 100
"""Epochs whose weights are told as histograms, at most."""
BINS = 40
JOURNAL = "tracking.jsonl"


@dataclass
class Tracking:
    """The trackers of the run in `folder`, which are told nothing before `begin`; of no run, none.

    `config` holds the run's settings; `base` is where paths to own trackers start from.
    """

    asked: Sequence[PluginValue] = ()
    folder: RunFolder = field(default_factory=lambda: RunFolder(Path()))
    base: Path = Path()
    config: Mapping[str, Any] = field(default_factory=dict)
    failed: bool = field(default=False, init=False)
    _trackers: dict[str, Tracker] = field(default_factory=dict, init=False)
    _begun: bool = field(default=False, init=False)
    _every: int = field(default=1, init=False)
    _weights_every: int = field(default=1, init=False)

    def begin(
        self, *, epoch: float = math.inf, step: float = math.inf, epochs: int = 1, steps: int = 1
    ) -> None:
        """Opens the trackers and tells them the settings and all that had been told up to `epoch`
        and iteration `step`.

        What had been told beyond is forgotten: it comes again. `epochs` and `steps` are those of
        the whole training. A second call does nothing.
        """
        if self._begun or not self.asked:
            return
        self._begun = True
        self._every, self._weights_every = math.ceil(steps / POINTS), math.ceil(epochs / EPOCHS_OF_WEIGHTS)
        for value in self.asked:
            self._open(registry.name_and_options("trackers", value)[0], value)
        self.tell(Text("settings", table(dict(settings(self.config)))))
        journal = TrackingLog(self.folder)
        told = self._guarded(JOURNAL, lambda: journal.cut(epoch, step))
        if told is not None:
            for entry in told:
                self.tell(entry)
            self._trackers[JOURNAL] = journal

    def after_step(self, step: int, loss: float, lr: float) -> None:
        if self._trackers and step % self._every == 0:
            self.tell(Scalars("step", step, {"loss": loss, "lr": lr}))

    def after_epoch(self, step: int, line: Mapping[str, Any], net: nn.Module) -> None:
        """`line` is the epoch's in metrics.jsonl, `net` is what was evaluated."""
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
        for name, tracker in list(self._trackers.items()):
            self._guarded(name, lambda tracker=tracker: tracker.log(entry))  # type: ignore[misc]

    def close(self) -> None:
        for name, tracker in list(self._trackers.items()):
            self._guarded(name, tracker.close)
        self._trackers.clear()

    def _open(self, name: str, value: PluginValue) -> None:
        own = name.rpartition(":")[2]
        place = self.folder.path / (name if own == name else f"tracker-{own}")

        def opened() -> Tracker:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            tracker: Tracker = registry.resolve("trackers", value, base=self.base)(
                folder=place, config=self.config
            )
            if not all(callable(getattr(tracker, part, None)) for part in ("log", "close")):
                raise TypeError(f"it returned {tracker!r:.60}; expected an object with log and close")
            return tracker

        if (tracker := self._guarded(name, opened)) is not None:
            self._trackers[name] = tracker

    def _guarded(self, name: str, work: Callable[[], Any]) -> Any:
        """What `work` returns; instead of an error a warning and None, and the tracker is left out
        from then on."""
        try:
            with torch.random.fork_rng(devices=[]):
                return work()
        except (Exception, SystemExit) as error:  # clients of some services end the process
            self.failed = True
            self._trackers.pop(name, None)
            what = f"{type(error).__name__}: {first_line(error)}"
            warnings.warn(
                f"{self.folder.path}: the tracker {name} is left out and the run goes on ({what}). Once that is mended, the same "
                "command tells it everything",
                Notice,
                stacklevel=2,
            )
            return None


class TrackingLog:
    """tracking.jsonl in a run's folder: the scalars and histograms that were told, one a line, so
    that they can be told again.

    It is a tracker itself, and the last to be told. What an untracked attempt left is taken from
    metrics.jsonl.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder, self.file = folder, folder.path / JOURNAL

    def cut(self, epoch: float, step: float) -> list[Scalars | Histograms]:
        """What the journal holds up to an epoch and an iteration; the rest is removed from the file."""
        if self.file.exists():
            told = [_entry(line) for line in self.folder.read_lines(self.file)]
        else:
            told = [of_epoch(line) for line in self.folder.read_lines(self.folder.metrics)]
        kept = list(takewhile(lambda entry: _before(entry, epoch, step), told))
        text = "".join(_line(entry) for entry in kept)
        write_atomically(self.file, lambda file: file.write(text.encode()))
        return kept

    def log(self, entry: Entry) -> None:
        if isinstance(entry, Scalars | Histograms):
            with self.file.open("ab") as file:
                file.write(_line(entry).encode())

    def close(self) -> None:
        pass


def _line(entry: Entry) -> str:
    if isinstance(entry, Histograms):
        of = {
            name: {"counts": h.counts.tolist(), "edges": [h.edges[0], h.edges[-1]]}
            for name, h in entry.of.items()
        }
        return json.dumps({"epoch": entry.epoch, "weights": of}) + "\n"
    assert isinstance(entry, Scalars)
    return json.dumps({entry.by: entry.at, "values": dict(entry.values)}) + "\n"


def _entry(line: Mapping[str, Any]) -> Scalars | Histograms:
    if "weights" in line:
        of = {
            name: Histogram(np.array(h["counts"]), _edges(*h["edges"])) for name, h in line["weights"].items()
        }
        return Histograms(line["epoch"], of)
    return (
        Scalars("epoch", line["epoch"], line["values"])
        if "epoch" in line
        else Scalars("step", line["step"], line["values"])
    )


def _before(entry: Scalars | Histograms, epoch: float, step: float) -> bool:
    if isinstance(entry, Histograms):
        return entry.epoch <= epoch
    return entry.at <= (epoch if entry.by == "epoch" else step)


def of_epoch(line: Mapping[str, Any]) -> Scalars:
    """A line of metrics.jsonl."""
    return Scalars("epoch", line["epoch"], {name: value for name, value in slashed(line) if name != "epoch"})


def histogram(values: Tensor) -> Histogram:
    """The finite ones of some values in `BINS` bins of one width."""
    x = values.detach().float().cpu().numpy().ravel()
    x = x[np.isfinite(x)]
    low, high = (float(x.min()), float(x.max())) if len(x) else (0.0, 0.0)
    edges = _edges(low, high) if low < high else _edges(low - 0.5, high + 0.5)
    return Histogram(np.histogram(x, BINS, (edges[0], edges[-1]))[0], edges)


def _edges(low: float, high: float) -> np.ndarray:
    return np.linspace(low, high, BINS + 1)


def slashed(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Figures of nested values with their names: `validation/accuracy`."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from slashed(value, f"{prefix}{key}/")
        else:
            yield prefix + key, value


def table(rows: Mapping[str, Any]) -> str:
    """Two columns in Markdown."""
    return "\n".join(
        ["| setting | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    )
