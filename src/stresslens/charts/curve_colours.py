"""Colours and dashes of curves, by the number of a series in its chart (its place).

The colours themselves are `--c0` … `--c6` in core/colours.css, once for light and once for dark
pages. The dashes are the classes `d0` … `d4` of charts.css. Both therefore follow dark mode and print.
"""

from __future__ import annotations

COLOURS, DASHES = 7, 5
"""The two numbers are coprime, so 35 series differ in colour or in dash."""

INK = 20
"""The place with the colour of the text and no dash, for a series that is not a run."""


def style_of(place: int) -> str:
    return f"c{place % COLOURS} d{place % DASHES}"


def place_of(colour: int, dash: int) -> int:
    """The place with the colour of one place and the dash of another (Chinese remainder theorem on
    `COLOURS` and `DASHES`)."""
    return next(
        place
        for place in range(COLOURS * DASHES)
        if place % COLOURS == colour % COLOURS and place % DASHES == dash % DASHES
    )
