"""Numbers as text, as the report writes them; its templates use these functions as filters."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from stresslens.core.text import brief as brief
from stresslens.core.types import Estimate

UNITS = {"images": "images", "seeds": "seeds", "both": "images and seeds", "data sets": "data sets"}


def percent(estimate: Estimate | None) -> str:
    """`98.2 (97.1 to 99.0)`; a missing figure is a dash, a missing interval is named."""
    return _written(estimate, lambda value: f"{100 * value:.1f}")


def percent_sign(estimate: Estimate | None) -> str:
    """`98.2 % (97.1 to 99.0)`, for sentences; a missing figure is a dash."""
    value, space, interval = percent(estimate).partition(" ")
    return f"{value} %{space}{interval}" if space else value


def plain(estimate: Estimate | None) -> str:
    """`0.0712 (0.0605 to 0.0823)`, to four decimals or, from 10 up, fewer; `0.0712 (at least
    0.0605)` where the upper end cannot be known."""
    return _written(estimate, number)


def points(estimate: Estimate, digits: int = 1) -> str:
    """A difference in percentage points, with its sign: `+1.2 (−0.3 to +2.7)`."""
    return _written(estimate, lambda share: signed(share, digits))


def points_ends(estimate: Estimate) -> str:
    """The ends of an interval in percentage points: `−0.3 to +2.7`."""
    return f"{signed(estimate.low)} to {signed(estimate.high)}"


def signed(share: float, digits: int = 1) -> str:
    """A share as percentage points with its sign: `+1.2`, `0.0`, `−0.3`."""
    text = f"{100 * share:+.{digits}f}"
    return text.replace("-", "−") if float(text) else text[1:]


def signed_plain(estimate: Estimate) -> str:
    """A difference without a unit, with its sign: `+0.0310 (−0.0100 to +0.0720)`."""
    return _written(estimate, signed_number)


def signed_number(value: float) -> str:
    """A number with its sign: `+0.0310`, `−0.0100`."""
    return f"{value:+.4f}".replace("-", "−")


def ratio(estimate: Estimate) -> str:
    """`8.2 (7.9 to 8.5)`, or only `8.2` if it is exact or has one seed."""
    value, low, high = (_factor(x) for x in (estimate.value, estimate.low, estimate.high))
    return (
        f"{value} ({low} to {high})"
        if math.isfinite(estimate.low) and math.isfinite(estimate.high)
        else value
    )


def _factor(value: float) -> str:
    return (
        f"{value:.2f}"
        if 0.1 <= value < 10
        else f"{value:,.0f}".replace(",", "\u202f")
        if value >= 100
        else f"{value:.3g}"
    )


def number(value: float | None) -> str:
    """Four decimals below 10, fewer above; powers of ten for the very small and the very large."""
    if value is None or not math.isfinite(value):
        return "–"
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}".replace("-", "−")
    text = (
        f"{value:.4f}"
        if abs(value) < 10
        else f"{value:.1f}"
        if abs(value) < 1000
        else f"{value:,.0f}".replace(",", "\u202f")
    )
    return text.replace("-", "−")


def radius(eps: float) -> str:
    """A radius in pixel units: `0.05`, or `8/255` if it is a whole number of grey levels and not a
    short decimal."""
    decimal, levels = f"{eps:.4g}", 255 * eps
    return (
        f"{round(levels)}/255"
        if abs(levels - round(levels)) < 1e-3 and abs(float(decimal) - eps) > 1e-9
        else decimal
    )


def other_radius(eps: float) -> str:
    """The same radius in the form that `radius` does not use: `12.75/255`, or `0.03137`."""
    return f"{eps:.4g}" if "/" in radius(eps) else f"{255 * eps:.4g}/255"


def count(value: int | None) -> str:
    """A count with thousands separated by a narrow no-break space."""
    return "–" if value is None else f"{value:,}".replace(",", "\u202f")


def rate(value: float | None) -> str:
    """A rate with three digits: `7.99`, `1 250`."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.3g}" if value < 1000 else count(int(float(f"{value:.3g}")))


def memory(size: int | None) -> str:
    """Bytes as `812 MB` or `1.9 GB`."""
    return "–" if size is None else f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


_ASIDE = re.compile(r"( \([^()]*\d[^()]*\))")
_TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")
_NEGATIVE = re.compile(r"(?<!\w)-(?=\d)")


def with_asides(text: str) -> list[tuple[bool, str]]:
    """A sentence in parts; True for those in parentheses that contain figures. Numbers keep their %
    and their sign.

    Characters that change the direction of the text (from a name in it) are removed.
    """
    parts = _ASIDE.split(_TURNING.sub("", text))
    return [
        (place % 2 == 1, _NEGATIVE.sub("−", part).replace(" %", "\u00a0%"))
        for place, part in enumerate(parts)
        if part
    ]


def p_value(p: float | None) -> str:
    return "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def span(values: Iterable[int | None]) -> str:
    """`5`, or `5–9` if the values differ."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    return count(min(known)) if min(known) == max(known) else f"{count(min(known))}–{count(max(known))}"


def plugin_text(name: str, options: Mapping[str, Any]) -> str:
    """A plug-in's name in words, with the options it was given."""
    given = ", ".join(f"{key} {value}" for key, value in options.items())
    return name.replace("_", " ") + (f" ({given})" if given else "")


def over(estimate: Estimate) -> str:
    return UNITS[estimate.unit]


def footnote(estimates: Iterable[Estimate | None]) -> str:
    """The intervals of a table in words: level, method, over what, and how many."""
    kinds: dict[tuple[float, str, str], list[int]] = {}
    for estimate in estimates:
        if estimate and math.isfinite(estimate.low):
            kinds.setdefault((estimate.level, estimate.method, estimate.unit), []).append(estimate.n)
    notes = [
        f"{100 * level:g}\u00a0%, {method}, over {UNITS[unit]} (n = {span(ns)})"
        for (level, method, unit), ns in kinds.items()
    ]
    return "; ".join(notes)


def _written(estimate: Estimate | None, write: Callable[[float], str]) -> str:
    if estimate is None or not math.isfinite(estimate.value):
        return "–"
    if math.isfinite(estimate.low) and math.isinf(estimate.high):
        return f"{write(estimate.value)} (at least {write(estimate.low)})"
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return f"{write(estimate.value)} (no interval, n = {estimate.n})"
    return f"{write(estimate.value)} ({write(estimate.low)} to {write(estimate.high)})"
