"""Tables of how prediction sets, answers and thresholds do on a split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from stresslens.cli.terminal import print_table

if TYPE_CHECKING:
    from stresslens.core.types import Estimate
    from stresslens.evaluation.guarantee_scores import GuaranteeScores


def print_guarantee_scores(found: GuaranteeScores, classes: Sequence[str], title: str) -> None:
    """Print how sets and thresholds do on a split, then what they mean."""
    if found.sets:
        _print_sets(found, classes, title)
    if found.answered is not None:
        assert found.share is not None
        rows = [[_percent(found.share), _percent(found.answered), f"{found.answered.n:,}"]]
        print_table(["answered, %", "of these wrong, %", "n"], rows, f"{title}: answers where it is sure")
    if found.recall:
        rows = [
            [classes[k], f"{at.threshold:.4g}", *(_percent(each) for each in at.scores.values())]
            for k, at in found.recall.items()
        ]
        columns = ["class", "threshold", "recall, %", "precision, %", "specificity, %"]
        print_table(columns, rows, f"{title}: classes found at a recall")
    for sentence in found.sentences:
        print(sentence)


def _print_sets(found: GuaranteeScores, classes: Sequence[str], title: str) -> None:
    from stresslens.core.format import plain

    rows, by_size = [], []
    for name, scores in found.sets.items():
        worst = scores.worst_class
        rows.append(
            [
                name,
                _percent(scores.coverage),
                plain(scores.size),
                f"{scores.empty:,}",
                f"{max(scores.sizes):,}",
                f"{classes[worst]} {_percent(scores.by_class[worst])}",
            ]
        )
        sizes = [f"{size}: {_percent(each)} of {each.n:,}" for size, each in scores.by_size.items()]
        by_size.append([name, "\n".join(sizes)])
    n = next(iter(found.sets.values())).coverage.n
    columns = ["sets", "coverage, %", "mean size", "empty", "largest", "class of the lowest coverage, %"]
    print_table(columns, rows, f"{title}: sets at {100 * found.coverage:g} % on {n:,} images")
    print_table(["sets", "coverage by size of the set, %"], by_size, f"{title}: coverage by size")


def _percent(estimate: Estimate) -> str:
    from stresslens.core.format import percent

    return percent(estimate)
