"""Chart axes: ticks that enclose the values, their labels, and the position of a value between the
first and the last tick."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

HUGE = 1e250
"""Values beyond this are not drawn, so that no sum, quotient or power of drawn values overflows."""


@dataclass(frozen=True)
class Axis:
    """Ticks with their labels. `place` gives the position of a value: 0 at the first tick, 1 at the
    last."""

    ticks: Sequence[float]
    labels: Sequence[str] = field(default=())
    log: bool = False

    def place(self, value: float) -> float:
        low, high = self.ticks[0], self.ticks[-1]
        if self.log:
            return (math.log10(value) - math.log10(low)) / (math.log10(high) - math.log10(low))
        return (value - low) / (high - low)

    def holds(self, value: float) -> bool:
        """Whether the value can be drawn. A log axis draws only positive values."""
        return abs(value) <= HUGE and (not self.log or value >= 1 / HUGE)


def linear_axis(values: Sequence[float], *, count: int = 5) -> Axis:
    """Ticks at 1, 2 or 5 times a power of ten. The first and the last enclose the values; without
    values, the axis goes from 0 to 1."""
    finite = [min(max(v, -HUGE), HUGE) for v in values if math.isfinite(v)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    size = max(abs(low), abs(high))
    if high - low <= 1e-9 * size or high - low < 1 / HUGE:
        pad = size / 10 if size > 1 / HUGE else 0.5
        low, high = low - pad, high + pad
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * nice for nice in (1, 2, 5, 10) if power * nice >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    first -= first * step > low
    last += last * step < high
    ticks = [k * step for k in range(first, last + 1)]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    labels = [_minus(f"{tick:.{decimals}f}") for tick in ticks]
    far = max(abs(ticks[0]), abs(ticks[-1])) >= 1e4 or decimals > 4
    brief = [short_number(tick) for tick in ticks]
    return Axis(
        ticks, brief if far and (len(set(brief)) == len(ticks) or max(map(len, labels)) > 12) else labels
    )


def log_axis(values: Sequence[float]) -> Axis:
    """Ticks at 1, 2 and 5 times a power of ten, enclosing the positive values; only powers of ten
    if there would be many ticks."""
    positive = [min(max(v, 1 / HUGE), HUGE) for v in values if math.isfinite(v) and v > 0] or [1.0]
    first, last = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    last = max(last, first + 1)
    if last - first > 3:
        stride = math.ceil((last - first) / 6)
        last = first + stride * math.ceil((last - first) / stride)
        ticks = [10.0**k for k in range(first, last + 1, stride)]
    else:
        fine = [nice * 10.0**k for k in range(first, last + 1) for nice in (1, 2, 5)]
        start = max(i for i, tick in enumerate(fine) if tick <= min(positive) or i == 0)
        stop = min(i for i, tick in enumerate(fine) if tick >= max(positive) and i > start)
        ticks = fine[start : stop + 1]
    return Axis(ticks, [short_number(tick) for tick in ticks], log=True)


def epoch_axis(xs: Sequence[float]) -> Axis:
    """From the first to the last x, with ticks at whole numbers between them."""
    low, high = (min(xs), max(xs)) if xs else (0.0, 1.0)
    if low == high:
        pad = max(0.5, abs(low) / 10)
        return Axis([low - pad, low, low + pad], ["", _epoch(low), ""])
    nice = [t for t in linear_axis([low, high], count=6).ticks if low < t < high and t == round(t)]
    gap = (high - low) / 12
    inner = [t for t in nice if t - low > gap and high - t > gap]
    return Axis([low, *inner, high], [_epoch(t) for t in (low, *inner, high)])


def _epoch(value: float) -> str:
    return short_number(value) if value >= 1e4 and value % 100 == 0 else f"{value:g}"


def short_number(value: float) -> str:
    """A tick of a log axis: `0.02`, `500`, `20 k`, `5 M`, `1e−07`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if size <= value < 1000 * size:
            return f"{value / size:.3g}\u202f{letter}"
    return _minus(f"{value:.3g}")


def _minus(text: str) -> str:
    return text.replace("-", "−")


PERCENT = linear_axis([0, 100])
"""From 0 to 100."""
