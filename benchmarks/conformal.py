"""Coverage of prediction sets over many divisions of the same scores, beside MAPIE and TorchCP.

    python benchmarks/conformal.py --scores mnist --draws 2000

The test images of a run are divided at random into calibration images and others, `--draws` times, and
sets are made of the same probabilities by stresslens, MAPIE 1.x and TorchCP 1.x, where these are
installed (`pip install mapie torchcp`). Coverage is the mean over draws, with its standard error, which
must be the wanted one, and the mean size is the smaller the better.

Then the guarantees of answers (`--wrong-at-most`) and of a recall are simulated with the confidences of
the run, where the truth is known: the share of draws in which the error rate of the answers is above,
or the recall below, what was asked for must be at most 5 %.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import stresslens as sl
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.record import read_record
from stresslens.evaluation.scores import Predictions
from stresslens.metrics.conformal import (
    MOST_TUNING,
    TUNING_SHARE,
    CalibrationScores,
    SetRule,
    calibrated_sets,
)
from stresslens.metrics.selective import recall_threshold, selective_threshold

REFERENCE_DRAWS = 100
"""Draws of the other programs, the first ones: they take the longest."""
LEVELS = (0.8, 0.9, 0.95, 0.99)
Sets = Callable[[np.ndarray, np.ndarray, np.ndarray, float, np.random.Generator], np.ndarray]


def scores_of(name: str, out: Path) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated probabilities (N, K) and labels (N,) of the test images of a small net."""
    if name == "mnist":
        run = sl.train("simple_cnn", {"mnist": {"subset": 2000}}, epochs=3, out=out)
    else:
        run = sl.train("simple_cnn", "digits", epochs=3, out=out)
    folder = RunFolder(run.folder)
    found = Predictions.of_arrays(folder.load_predictions("test"))
    return found.calibrated(read_record(folder).temperature).probabilities, found.labels


class Ours:
    """The sets of a rule. Images are ranked once, and not in each draw; each keeps its random number."""

    def __init__(self, rule: SetRule) -> None:
        self.rule = rule
        self.known: dict[int, tuple[CalibrationScores, np.ndarray]] = {}

    def of(self, p: Any, y: Any, held: np.ndarray, rest: np.ndarray, level: float) -> Any:
        if id(p) not in self.known:
            order = np.argsort(np.random.default_rng(0).permutation(len(y)))
            self.known[id(p)] = (CalibrationScores.of(p, y), order)
        whole, place = self.known[id(p)]
        rows = place[held]
        fields = {
            name: getattr(whole, name)[rows]
            for name in ("labels", "of_label", "above", "rank", "confidence", "u")
        }
        assert np.array_equal(fields["labels"], y[held])
        m = min(len(held) // TUNING_SHARE, MOST_TUNING) if self.rule.score == "raps" else 0
        kept = CalibrationScores(**fields, tuning=-np.sort(-p[held[len(held) - m :]], axis=1))
        return calibrated_sets(kept, level, self.rule, p.shape[1]).of(p[rest], whole.u[place[rest]])


class _Given:
    """A fitted classifier whose images are their probabilities."""

    def __init__(self, classes: int) -> None:
        self.classes_ = np.arange(classes)
        self.n_features_in_ = classes

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, x: np.ndarray, y: np.ndarray) -> _Given:
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return x

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self.classes_[x.argmax(1)]


def mapie(name: str) -> Sets:
    from mapie.classification import SplitConformalClassifier
    from sklearn.base import BaseEstimator, ClassifierMixin

    score, _, randomised = name.partition(" ")

    class Given(ClassifierMixin, _Given, BaseEstimator):  # type: ignore[misc]
        def __init__(self, classes: int = 10) -> None:
            self.classes = classes
            _Given.__init__(self, classes)

    def sets(p: np.ndarray, y: np.ndarray, q: np.ndarray, level: float, random: np.random.Generator) -> Any:
        found = SplitConformalClassifier(
            estimator=Given(p.shape[1]),
            confidence_level=level,
            conformity_score=score,
            prefit=True,
            random_state=int(random.integers(2**31)),
        )
        found.conformalize(p, y)
        parameters = {"include_last_label": "randomized"} if randomised else None
        return found.predict_set(q, conformity_score_params=parameters)[1][:, :, 0]

    return sets


def torchcp(score: str) -> Sets:
    import torch
    from torchcp.classification.predictor import ClassConditionalPredictor, SplitPredictor
    from torchcp.classification.score import APS, LAC

    made = {"lac": LAC, "aps": APS}[score.split()[0]](score_type="identity")
    kind = ClassConditionalPredictor if score.endswith("by class") else SplitPredictor

    def sets(p: np.ndarray, y: np.ndarray, q: np.ndarray, level: float, random: np.random.Generator) -> Any:
        torch.manual_seed(int(random.integers(2**31)))
        predictor = kind(made, model=None, alpha=1 - level)
        predictor.calculate_threshold(torch.from_numpy(p), torch.from_numpy(y), 1 - level)
        return predictor.predict_with_logits(torch.from_numpy(q)).numpy().astype(bool)

    return sets


def methods() -> Iterator[tuple[str, Sets | Ours]]:
    for score in ("lac", "aps", "raps"):
        yield f"stresslens {score}", Ours(SetRule(score))  # type: ignore[arg-type]
    yield "stresslens lac by class", Ours(SetRule("lac", by_class=True))
    for name, make, scores in (
        ("MAPIE", mapie, ("lac", "aps", "aps randomised")),
        ("TorchCP", torchcp, ("lac", "aps", "lac by class")),
    ):
        try:
            made = [(f"{name} {score}", make(score)) for score in scores]
        except ImportError:
            print(f"{name} is not installed", file=sys.stderr)
            continue
        yield from made


def rare_class(y: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The images, with a tenth of those of classes 0 to 4."""
    kept = (y >= 5) | (random.random(len(y)) < 0.1)
    return np.flatnonzero(kept)


# long: a table is printed line by line
def coverage_table(
    p: np.ndarray, y: np.ndarray, n: int, draws: int, *, evaluated: int, unbalanced: bool = False
) -> None:
    said = f"{'unbalanced, ' if unbalanced else ''}{n} calibration images, {draws} draws"
    print(f"\n{said} ({min(REFERENCE_DRAWS, draws)} of the other programs): coverage in %, mean size\n")
    heads = [f"{100 * level:g} %" for level in LEVELS]
    print(f"| sets | {' | '.join(heads)} | lowest class at 90 % |")
    print("|---|" + "--:|" * (len(LEVELS) + 1))
    for name, make in methods():
        times = draws if name.startswith("stresslens") else min(REFERENCE_DRAWS, draws)
        cells, worst = [], ""
        for level in LEVELS:
            covered, size = [], []
            hits, of_class = np.zeros(p.shape[1]), np.zeros(p.shape[1])
            for seed in range(times):
                random = np.random.default_rng(seed)
                rows = rare_class(y, random) if unbalanced else np.arange(len(y))
                rows = random.choice(rows, n + evaluated, replace=False)
                held, rest = rows[:n], rows[n : n + evaluated]
                if isinstance(make, Ours):
                    inside = make.of(p, y, held, rest, level)
                else:
                    inside = make(p[held], y[held], p[rest], level, random)
                hit = inside[np.arange(len(rest)), y[rest]]
                covered.append(hit.mean())
                size.append(inside.sum(1).mean())
                if level == 0.9:
                    truth = y[rest]
                    hits += np.bincount(truth, weights=hit, minlength=p.shape[1])
                    of_class += np.bincount(truth, minlength=p.shape[1])
            error = np.std(covered) / np.sqrt(times)
            cells.append(f"{100 * np.mean(covered):.2f} ± {100 * error:.2f}, {np.mean(size):.3f}")
            if level == 0.9:
                worst = f"{100 * np.min(hits / of_class):.1f}"
        print(f"| {name} | {' | '.join(cells)} | {worst} |", flush=True)


def answers_table(p: np.ndarray, sizes: list[int], draws: int) -> None:
    print(f"\nanswers with at most a share of errors, {draws} draws; the confidences are those of the run,")
    print("and an answer of confidence c is wrong with the chance 1 - c\n")
    print(
        "| n | at most | no threshold, % of draws | exceeded, % of draws | answered, % | most possible, % |"
    )
    print("|--:|--:|--:|--:|--:|--:|")
    confidence = p.max(1)
    ordered = np.sort(confidence)[::-1]
    risk_above = np.cumsum(1 - ordered) / np.arange(1, len(ordered) + 1)
    for n in sizes:
        for risk in (0.01, 0.02, 0.05):
            none, exceeded, share = 0, 0, []
            for seed in range(draws):
                random = np.random.default_rng(seed)
                drawn = random.choice(confidence, n)
                found = selective_threshold(drawn, random.random(n) < drawn, risk)
                none += not found.holds
                above = confidence > found.threshold
                exceeded += bool(found.holds and (1 - confidence[above]).mean() > risk)
                share.append(above.mean())
            most = (risk_above <= risk).nonzero()[0].max(initial=-1) + 1
            print(
                f"| {n:,} | {100 * risk:g} % | {100 * none / draws:.1f} | {100 * exceeded / draws:.1f} | "
                f"{100 * np.mean(share):.1f} | {100 * most / len(ordered):.1f} |",
                flush=True,
            )


def recall_table(p: np.ndarray, y: np.ndarray, draws: int) -> None:
    print(f"\nthreshold for a recall of class 8, {draws} draws from the scores of its images\n")
    print("| its images | recall | no threshold, % of draws | short, % of draws | recall reached, % |")
    print("|--:|--:|--:|--:|--:|")
    scores = p[y == 8, 8]
    for n in (30, 60, 100, 300, 1000):
        for recall in (0.9, 0.95):
            none, short, reached = 0, 0, []
            for seed in range(draws):
                found = recall_threshold(np.random.default_rng(seed).choice(scores, n), recall)
                none += not found.holds
                true = (scores >= found.threshold).mean()
                short += true < recall
                reached.append(true)
            print(
                f"| {n:,} | {100 * recall:g} % | {100 * none / draws:.1f} | {100 * short / draws:.1f} | "
                f"{100 * np.mean(reached):.1f} |",
                flush=True,
            )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--scores", choices=("digits", "mnist"), default="mnist")
    arguments.add_argument("--draws", type=int, default=2000)
    arguments.add_argument("--evaluated", type=int, default=300, help="Images with a set in each draw.")
    arguments.add_argument("--part", choices=("sets", "thresholds"), help="Only one part.")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as out:
        p, y = scores_of(chosen.scores, Path(out))
    print(f"{chosen.scores}: {len(y):,} test images, accuracy {100 * (p.argmax(1) == y).mean():.1f} %")
    if chosen.part != "thresholds":
        for n in (n for n in (100, 1000) if n + chosen.evaluated <= len(y)):
            coverage_table(p, y, n, chosen.draws, evaluated=chosen.evaluated)
        if 500 + chosen.evaluated <= len(y) / 2:
            coverage_table(p, y, 500, chosen.draws, evaluated=chosen.evaluated, unbalanced=True)
    if chosen.part != "sets":
        answers_table(p, [300, 1000, 5000], chosen.draws)
        recall_table(p, y, chosen.draws)


if __name__ == "__main__":
    main()
