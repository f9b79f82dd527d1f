"""Which of several variants may be the best: multiple comparisons with the best."""

from __future__ import annotations

from collections.abc import Sequence

from stresslens.comparison.difference import LEVEL, Difference
from stresslens.comparison.schema import BestSet
from stresslens.core.text import enumeration
from stresslens.metrics.random_effects import FEWEST_SEEDS

FEWEST = 3
"""Two are a pair, whose verdict says it."""
NAMED = 6
"""Most variants that a sentence names."""


def best_set(names: Sequence[str], pairs: Sequence[Difference], *, noun: str = "variant") -> BestSet | None:
    """The variants that no other is shown to be better than; `pairs` has the difference of every two.

    A variant is left out where another's one-sided interval over it lies above 0, at level 1 - α / (k - 1):
    the truly best of k is left out with a chance of at most α, because k - 1 comparisons could do it
    (Hsu 1996, section 4.2, with Bonferroni's bound for Dunnett's, which holds whatever the correlations).
    None where two were not compared, or there are fewer than `FEWEST`.
    """
    k = len(names)
    if k < FEWEST or len(pairs) < k * (k - 1) // 2 or any(pair.ends_at is None for pair in pairs):
        return None
    beaten = _beaten(pairs, 1 - 2 * (1 - LEVEL) / (k - 1))
    may_be = [name for name in names if name not in beaten]
    if not may_be:
        return None
    found = BestSet(level=LEVEL, variants=may_be, said=_said(names, may_be, pairs, noun))
    if beaten:
        found.beaten = beaten
    return found


def _beaten(pairs: Sequence[Difference], level: float) -> dict[str, str]:
    """The variants that another is shown to be better than; of several the one that is furthest ahead."""
    by: dict[str, tuple[float, str]] = {}
    for pair in pairs:
        assert pair.ends_at is not None
        low, high = pair.ends_at(level)
        ahead = abs(pair.difference.value)
        loser, winner = (pair.a, pair.b) if pair.measure.is_better(low + high) else (pair.b, pair.a)
        if (low > 0 or high < 0) and ahead > by.get(loser, (0.0, ""))[0]:
            by[loser] = ahead, winner
    return {name: winner for name, (_, winner) in by.items()}


def _said(names: Sequence[str], may_be: Sequence[str], pairs: Sequence[Difference], noun: str) -> str:
    fewest = min(pairs, key=lambda pair: pair.seeds)
    best = f"most robust under {fewest.under}" if fewest.under else "best"
    level = f"{LEVEL:.0%}".replace("%", " %")
    over = f"({level} confidence for the whole list; {fewest.over})"
    if 1 < fewest.seeds < FEWEST_SEEDS and len(may_be) > 1:
        over = f"({fewest.over}; {fewest.seeds} seeds are too few to leave out more)"
    tail = f"; one seed each, so this is about these weights, not about the {noun}s"
    tail = tail if fewest.seeds == 1 and noun != "run" else ""
    if len(may_be) == len(names):
        return f"any of the {len(names)} {noun}s may be the {best}: none is shown to be worse {over}{tail}"
    worse = len(names) - len(may_be)
    others = f"the other{'s' if worse > 1 else ''} {'are' if worse > 1 else 'is'} shown to be worse"
    if len(may_be) == 1:
        return f"the {best} of the {len(names)} {noun}s is {may_be[0]}: {others} {over}{tail}"
    one_of = f"one of {enumeration(may_be, NAMED)}"
    return f"the {best} of the {len(names)} {noun}s is {one_of}; {others} {over}{tail}"
