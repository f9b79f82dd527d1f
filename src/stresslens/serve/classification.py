"""What a worker process of the service does: it opens runs, and classifies the pictures of a batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np

from stresslens.core.errors import ConfigError, StresslensError
from stresslens.evaluation.classify_files import Classifier, Prediction, Upload
from stresslens.evaluation.guarantees import wanted
from stresslens.evaluation.model_info import ModelInfo
from stresslens.evaluation.predictor import Predictor, open_predictor
from stresslens.explanation.svg import png
from stresslens.serve.processes import begin_worker, forget_garbage, set_threads

COVERAGE = 0.95
"""Of the set of classes, unless the request says another."""
KEPT = 64
"""Sets and thresholds, by run and what is asked, that are kept ready."""


@dataclass(frozen=True)
class ServedRuns:
    """The runs that a process opens, by their names in a request. `threads` are those of a worker; `pixels`
    is the most that an image may have."""

    paths: dict[str, Path]
    trust: bool = False
    threads: int | None = None
    pixels: int = 50_000_000


class BatchQuestion(NamedTuple):
    """What is asked about a picture; pictures of one question are a batch."""

    run: str
    top: int = 5
    coverage: float | None = None
    """Of its set of classes."""
    wrong_at_most: float | None = None
    """Where the model answers at all."""


@dataclass(frozen=True)
class ServedRun:
    """A run that is ready: what its files say, the false-alarm rate of its out-of-distribution mark (None
    without one), and why it has no sets of classes (None where it has)."""

    facts: ModelInfo
    ood_rate: float | None
    no_sets: str | None


class Opened:
    """The runs of a process, each ready to classify."""

    def __init__(self, runs: ServedRuns) -> None:
        """Raises StresslensError, with the run's path, for one that cannot be opened."""
        self.predictors: dict[str, Predictor] = {}
        for name, path in runs.paths.items():
            self.predictors[name] = open_predictor(path, trust=runs.trust)
        self.pixels = runs.pixels
        self.classifier = lru_cache(KEPT)(self._classifier)
        self.facts = {name: self._served(name) for name in self.predictors}

    def classify(self, question: BatchQuestion, pictures: Sequence[Upload]) -> list[Prediction]:
        """Raises ConfigError for guarantees that no image of the run calibrates."""
        run, top, coverage, wrong_at_most = question
        return list(self.classifier(run, coverage, wrong_at_most).classify(pictures, top=top))

    def answer_once(self) -> None:
        """Answers a question about each run: the first answer takes a second more, to import libraries."""
        for name, each in self.facts.items():
            black = png(np.zeros(each.facts.shape[1:], np.uint8), 1)
            coverage = None if each.no_sets else COVERAGE
            self.classify(BatchQuestion(name, coverage=coverage), [Upload("", black)])

    def _classifier(self, run: str, coverage: float | None, wrong_at_most: float | None) -> Classifier:
        asked = wanted(coverage=coverage, wrong_at_most=wrong_at_most)
        return Classifier(self.predictors[run], asked, most_pixels=self.pixels)

    def _served(self, run: str) -> ServedRun:
        predictor, why = self.predictors[run], None
        self.classifier(run, None, None)
        try:
            self.classifier(run, COVERAGE, None)
        except ConfigError as error:
            why = str(error)
        return ServedRun(predictor.facts, predictor.ood.rate if predictor.ood else None, why)


def classify_batches(connection: Connection, runs: ServedRuns) -> None:
    """The loop of a worker process: takes a question and pictures, sends an answer for each, until the other
    end is closed. The first message says what was opened, or why it was not.

    An answer is its JSON as bytes, so that the process of the server only puts answers together.
    """
    begin_worker()
    try:
        opened = Opened(runs)
        set_threads(runs.threads, opened.predictors.values())
        opened.answer_once()
        forget_garbage()
        connection.send(opened.facts)
    except StresslensError as error:
        connection.send(error)
        return
    while True:
        try:
            question, pictures = connection.recv()
        except EOFError:
            return
        try:
            connection.send([_as_bytes(each) for each in opened.classify(question, pictures)])
        except ConfigError as error:
            connection.send(error)
        except (MemoryError, RuntimeError) as error:
            connection.send(StresslensError(f"the model could not be computed: {error}"))


def _as_bytes(prediction: Prediction) -> bytes:
    """A prediction as JSON, without the names of version 0.1."""
    values = prediction.as_json()
    for old in ("unlike", "p_like"):
        values.pop(old, None)
    return json.dumps(values, ensure_ascii=False, allow_nan=False).encode()
