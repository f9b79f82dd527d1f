"""Wrong labels: which share of planted label flips is found, beside cleanlab.

    python benchmarks/label_errors.py digits mnist          # needs the MNIST files
    python benchmarks/label_errors.py PHOTOGRAPHS           # a folder per class, at 32×32

1, 5 and 10 % of the labels are flipped, uniformly and in confused pairs. Both rules get the same
flipped labels and the same out-of-fold probabilities; cleanlab's is `find_label_issues` with its
defaults. Prints recall and precision with Wilson's intervals. At most 5,000 images are looked at;
labels that were wrong before count against the precision of both.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from stresslens.config.data_sets import loaded_data_set
from stresslens.core.answers import predicted
from stresslens.core.format import percent
from stresslens.core.sampling import sampled_positions
from stresslens.core.splits import pooled
from stresslens.evaluation.label_errors import flagged, mean_probabilities
from stresslens.metrics.intervals import wilson
from stresslens.metrics.planted_flips import FlipKind, planted_flips
from stresslens.study.label_search import FOLDS, fold_model
from stresslens.study.out_of_fold import out_of_fold_probabilities

Rule = Callable[[NDArray[np.int64], NDArray[np.float64]], NDArray[np.bool_]]

IMAGES = 5000
SHARES = (0.01, 0.05, 0.1)
THREAD = "train.threads=1"


@dataclass(frozen=True)
class Case:
    """A data set, and what judges it."""

    data: Any
    model: Any
    seeds: int
    training: tuple[str, ...] = (THREAD,)


MNIST = {"mnist": {"validation": 0}}
CASES = {
    "digits": [Case("digits", "simple_net", 3)],
    "mnist": [Case(MNIST, "knn", 2, ()), Case(MNIST, "simple_cnn", 1, (THREAD, "train.epochs=5"))],
}


def photographs(folder: str) -> Case:
    training = ("train.augment=[flip, crop]", "train.batch_size=64")
    model = {"simple_cnn": {"batch_norm": True}}
    return Case({"folder": {"path": folder, "size": 32}}, model, 1, (THREAD, *training))


def rules() -> dict[str, Rule]:
    """The rules to compare: ours, and that of cleanlab if it is installed."""
    try:
        from cleanlab.filter import find_label_issues
    except ImportError:
        print("cleanlab is not installed: its columns are left out\n")
        return {"stresslens": flagged}
    return {
        "stresslens": flagged,
        "cleanlab": lambda labels, probabilities: np.asarray(
            find_label_issues(labels, probabilities, n_jobs=1)
        ),
    }


def measure(case: Case, compared: dict[str, Rule]) -> None:
    """Prints the table of a data set: a row for each kind and share of flips."""
    data = loaded_data_set(case.data, base=Path.cwd())
    whole = pooled(data)
    whole = whole.select(sampled_positions(len(whole), IMAGES, 0))
    labels, model = whole.labels.numpy(), fold_model(case.data, case.model, case.training)

    def probabilities_by(trained: NDArray[np.int64] | None) -> NDArray[np.float64]:
        found = out_of_fold_probabilities(
            whole, data.classes, model, folds=FOLDS, seeds=case.seeds, labels=trained
        )
        return mean_probabilities(found)

    mean = probabilities_by(None)
    accuracy = wilson(int((predicted(mean) == labels).sum()), len(labels))
    before = ", ".join(f"{rule(labels, mean).sum()} ({name})" for name, rule in compared.items())
    print(
        f"{data.name}, {len(labels):,} images; {case.model}, {' '.join(case.training) or 'defaults'}; "
        f"{FOLDS} folds, seeds: {case.seeds}; {percent(accuracy)} % right; flagged without flips: {before}\n"
    )
    heads = [f"{name}: recall | flagged | precision" for name in compared]
    print(f"| flips | planted | {' | '.join(heads)} |\n|{'---|' * (2 + 3 * len(compared))}")
    for kind in get_args(FlipKind):
        for share in SHARES:
            print(row(kind, share, labels, mean, probabilities_by, compared), flush=True)
    print(flush=True)


def row(
    kind: FlipKind,
    share: float,
    labels: NDArray[np.int64],
    mean: NDArray[np.float64],
    probabilities_by: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    compared: dict[str, Rule],
) -> str:
    """What each rule finds of one kind and share of flips, as a row in Markdown."""
    flipped, chosen = planted_flips(labels, mean, share, kind)
    probabilities = probabilities_by(flipped)
    cells = [f"{kind}, {100 * share:.0f} %", str(len(chosen))]
    for rule in compared.values():
        found = rule(flipped, probabilities)
        hits, marked = int(found[chosen].sum()), int(found.sum())
        cells += [percent(wilson(hits, len(chosen))), str(marked), percent(wilson(hits, marked))]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    compared = rules()
    for name in sys.argv[1:] or CASES:
        for case in CASES.get(name) or [photographs(name)]:
            measure(case, compared)


if __name__ == "__main__":
    main()
