"""Names of lines at their right ends, for charts of more lines than there are colours."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import escape

from stresslens.charts.curve_colours import style_of
from stresslens.core.text import brief

MANY = 7
"""Up to this number of lines, colours and the legend tell them apart."""
MOST = 18
"""Up to this number of lines there is room for their names."""
LETTERS = 15
LINE = 11.5
"""The height of a name, in the drawing's units."""


def room_for_labels(names: Sequence[str]) -> float:
    """The width that the names need to the right of the frame; 0 if they are not drawn."""
    if not MANY < len(names) <= MOST:
        return 0.0
    return 14 + 6.1 * max(len(brief(name, LETTERS)) for name in names)


def direct_labels(ends: Sequence[tuple[str, int, float]], x: float, top: float, bottom: float) -> list[str]:
    """Each name (name, place, height of its line's end) beside the line's end at `x`, moved up or down
    so that no two overlap and all lie between `top` and `bottom`."""
    ordered = sorted(ends, key=lambda end: end[2])
    heights = spread([height for _, _, height in ordered], LINE, top, bottom)
    return [
        f'<text class="direct {style_of(place)}" x="{x + 8:.1f}" y="{y:.1f}" dy=".33em">'
        f"{escape(brief(name, LETTERS))}</text>"
        for (name, place, _), y in zip(ordered, heights)
    ]


def spread(heights: Sequence[float], gap: float, top: float, bottom: float) -> list[float]:
    """Ascending heights moved apart by at least `gap` and kept between `top` and `bottom`, as far as
    there is room."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + gap if placed else top))
    limit = bottom
    for k in range(len(placed) - 1, -1, -1):
        placed[k] = min(placed[k], limit)
        limit = placed[k] - gap
    return placed
