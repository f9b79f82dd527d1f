"""Differences against a margin that was asked for: the same within it, or not worse by more than it.

Both follow from the interval of a `Difference` at other levels, whatever its metric.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stresslens.comparison.difference import Difference
from stresslens.comparison.schema import Contrast, MarginVerdict
from stresslens.config.contrasts import WIDEST_MARGIN
from stresslens.core.errors import ConfigError
from stresslens.core.format import points
from stresslens.core.spelling import closest
from stresslens.core.text import enumeration
from stresslens.core.types import Estimate
from stresslens.metrics.equivalence import ALPHA, Ends, p_above, p_within, room, widened
from stresslens.metrics.intervals import Floats
from stresslens.metrics.paired import holm
from stresslens.metrics.random_effects import FEWEST_SEEDS, POWER, Goal

FIRST = "first"
"""In place of a baseline's name."""


@dataclass(frozen=True)
class Margins:
    """What is asked of the contrasts. `same` is the margin of sameness, or one for each contrast by its
    name; `not_worse` the margin by which the second of a pair may be worse."""

    same: float | Mapping[str, float] = field(default_factory=dict)
    not_worse: float | None = None

    def same_of(self, contrast: str) -> float | None:
        return self.same.get(contrast) if isinstance(self.same, Mapping) else self.same


@dataclass(frozen=True)
class NotWorseGate:
    """The baseline that the others must not be worse than by more than `margin` (a share). It is named by
    its folder, by the end of it, or by its name; `FIRST` is the first that was given."""

    baseline: str
    margin: float

    def baseline_of(self, folders: Mapping[str, Path], own_names: Mapping[str, str] | None = None) -> str:
        """The name of the baseline among these. Raises ConfigError."""
        if self.baseline in folders:
            return self.baseline
        if self.baseline == FIRST and folders:
            return next(iter(folders))
        own = own_names or {}
        wanted = Path(self.baseline).resolve()
        parts = Path(self.baseline).parts
        found = [
            name
            for name, folder in folders.items()
            if own.get(name) == self.baseline
            or folder.resolve() == wanted
            or any(at.parts[-len(parts) :] == parts for at in (folder.resolve(), folder.resolve().parent))
        ]
        if len(found) == 1:
            return found[0]
        if found:
            raise ConfigError(f"the baseline {self.baseline} may be {enumeration(found)}; give more of it")
        names = [own.get(name, name) for name in folders]
        raise ConfigError(
            f"the baseline {self.baseline} is none of those compared; {closest(self.baseline, names)}"
        )


@dataclass(frozen=True)
class MarginQuestion:
    """What is asked about margins: `same_within` (a share) of each contrast, and the `gate`."""

    same_within: float | None = None
    gate: NotWorseGate | None = None

    def margins(self, stated: Mapping[str, float]) -> Margins:
        """`stated` are a study's own margins of sameness by contrast."""
        same = stated if self.same_within is None else self.same_within
        return Margins(same, self.gate.margin if self.gate else None)


def margin_of(value: Any, what: str) -> float:
    """A margin as a share. Raises ConfigError, in the words of the option or parameter `what`."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or math.isnan(value) or value <= 0:
        raise ConfigError(f"{what} {value}: expected a share above 0; 0.005 is half a point")
    if value > WIDEST_MARGIN:
        hint = f"; for {value:g} points give {value / 100:g}" if value <= 100 * WIDEST_MARGIN else ""
        raise ConfigError(
            f"{what} {value:g}: a margin is a share of at most {WIDEST_MARGIN:g}; 0.005 is half a point{hint}"
        )
    return float(value)


def with_margins(differences: Sequence[Difference], margins: Margins | None) -> list[Contrast]:
    """The contrasts of the differences, each with what its margins say. Holm's correction is over the
    pairs of each question."""
    contrasts = [difference.as_contrast() for difference in differences]
    if margins is None:
        return contrasts
    asked = {
        "same": [margins.same_of(difference.contrast) for difference in differences],
        "not_worse": [margins.not_worse] * len(differences),
    }
    for name, kind in (("same", _Same), ("not_worse", _NotWorse)):
        tests = {k: kind(d, m) for k, (d, m) in enumerate(zip(differences, asked[name])) if m is not None}
        corrected = holm({(*_pair(test.of), test.margin): test.p for test in tests.values()})
        for k, test in tests.items():
            setattr(contrasts[k], name, test.verdict(corrected[(*_pair(test.of), test.margin)]))
    return contrasts


def _pair(of: Difference) -> tuple[str, ...]:
    return of.a, of.b, of.under, of.threat


class _AgainstMargin:
    """A difference, b minus a, asked whether it is inside a margin."""

    kind: Literal["same", "not worse"]
    power: float
    """Of a single one-sided test with which a plan reaches `POWER` where nothing differs."""

    def __init__(self, of: Difference, margin: float) -> None:
        self.of, self.margin = of, margin
        self.ends = _ends_of(of)
        self.p = min(1.0, 2 * float(self._p())) if self.tested else 1.0

    @property
    def tested(self) -> bool:
        return self.ends is not None and not 1 < self.of.seeds < FEWEST_SEEDS

    def _p(self) -> Floats:
        raise NotImplementedError

    def _said(self, shown: bool, interval: Estimate) -> str:
        raise NotImplementedError

    def verdict(self, p_holm: float) -> MarginVerdict:
        """The verdict after Holm's correction: its interval has the level at which the pair is tested."""
        of, shown = self.of, p_holm < 2 * ALPHA
        found = MarginVerdict(
            kind=self.kind, margin=self.margin, shown=shown, p=self.p, p_holm=p_holm, verdict=""
        )
        if not self.tested or self.ends is None:
            few = f"{of.seeds} seeds are too few to show" if self.ends is not None else "nothing here shows"
            found.too_few_seeds = self.ends is not None
            found.verdict = f"{few} that {self._claim}"
            return found
        level = 1 - 2 * ALPHA * (self.p / p_holm if p_holm else 1.0)
        low, high = (float(end) for end in self.ends(np.asarray(level)))
        value = of.difference.value
        after = ", after Holm's correction" if p_holm > self.p else ""
        method = f"{of.difference.method}, with room for images that were not seen{after}"
        found.interval = replace(
            of.difference, low=min(low, value), high=max(high, value), level=level, method=method
        )
        tail = "" if of.seeds > 1 else "; one seed each, so this is about these weights, not the variants"
        found.verdict = self._said(shown, found.interval) + tail
        if not shown and not self._outside(found.interval):
            found.plan = self._plan()
        return found

    def _outside(self, interval: Estimate) -> bool:
        """Whether the interval shows that the difference is beyond the margin."""
        return interval.high < -self.margin or (self.kind == "same" and interval.low > self.margin)

    @property
    def _claim(self) -> str:
        raise NotImplementedError

    def _plan(self) -> str | None:
        if self.of.needs is None:
            return None
        goal = Goal(self.margin, 1 - 2 * ALPHA, self.power, float(room(1, ALPHA)) * self.of.whole)
        takes = self.of.needs(goal)
        if not takes:
            return f"where nothing differs, these {self.of.present} show it in 8 of 10 such comparisons"
        return f"showing it with {POWER:.0%} chance, where nothing differs, would take {takes}".replace(
            "%", " %"
        )

    def _seen(self, interval: Estimate) -> str:
        """`b minus a is +0.10 points (−0.23 to +0.31), 90 % interval; 3 seeds, 360 images`."""
        of = self.of
        return f"{of.b} minus {of.a} is {points(interval, 2)} points, {_level(interval)}; {of.over}"


class _Same(_AgainstMargin):
    kind = "same"
    power = (1 + POWER) / 2

    def _p(self) -> Floats:
        assert self.ends is not None
        return p_within(self.ends, self.margin)

    @property
    def _claim(self) -> str:
        return f"{self.of.a} and {self.of.b} are the same within {in_points(self.margin)}"

    def _said(self, shown: bool, interval: Estimate) -> str:
        of, seen, within = self.of, self._seen(interval), in_points(self.margin)
        if shown and of.real:
            return f"{self._claim}, though the difference is real: {seen}"
        if shown:
            return f"{self._claim}: {seen}"
        if self._outside(interval):
            return f"{of.a} and {of.b} differ by more than {within}: {seen}"
        if of.real:
            return f"{of.a} and {of.b} are not shown to be the same within {within}: {seen}"
        return f"{of.a} and {of.b}: neither a difference nor sameness within {within} is shown: {seen}"


class _NotWorse(_AgainstMargin):
    kind = "not worse"
    power = POWER

    def _p(self) -> Floats:
        assert self.ends is not None
        return p_above(self.ends, -self.margin)

    @property
    def _claim(self) -> str:
        return f"{self.of.b} is not worse than {self.of.a} by more than {in_points(self.margin)}"

    def _said(self, shown: bool, interval: Estimate) -> str:
        of, seen, more = self.of, self._seen(interval), in_points(self.margin)
        better = of.difference.value > 0
        if shown:
            real = f", and really {'better' if better else 'worse, but by less'}" if of.real else ""
            return f"{self._claim}{real}: {seen}"
        if self._outside(interval):
            return f"{of.b} is really worse than {of.a}, by more than {more}: {seen}"
        if of.real and not better:
            return f"{of.b} is really worse than {of.a}, and by more than {more} is not ruled out: {seen}"
        return f"not shown: {of.b} may be worse than {of.a} by more than {more}: {seen}"


def _ends_of(of: Difference) -> Ends | None:
    """The ends of the interval, of skewed seeds if these are further out, with room for images that were not
    seen; None where they are not known."""
    if (ends_at := of.ends_at) is None:
        return None

    def ends(level: Floats) -> tuple[Floats, Floats]:
        low, high = ends_at(float(level))
        if (skewed := of.skewed_ends_at) is not None:
            below, above = skewed(float(level))
            low, high = min(low, below), max(high, above)
        return np.asarray(low), np.asarray(high)

    return widened(ends, of.images / of.whole)


def in_points(share: float) -> str:
    """`0.5 points`, `1 point`."""
    text = f"{100 * share:.3g}"
    return f"{text} point{'' if text == '1' else 's'}"


def _level(interval: Estimate) -> str:
    after = " after Holm's correction" if interval.level > 1 - 2 * ALPHA + 1e-9 else ""
    return f"{100 * interval.level:.3g} % interval{after}"
