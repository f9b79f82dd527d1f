"""The colours and dashes of curves: which place of a chart has which.

The colours themselves are `--c0` … `--c6` in templates/report.css, once for light and once for dark
pages, and the dashes its classes `d0` … `d4`, so that they follow dark mode and print.
"""

from __future__ import annotations

COLOURS, DASHES = 7, 5
"""Coprime, so that 35 series differ in colour or in dash."""

INK = 20
"""The place whose colour is the text's own and whose dash is none, for what is not a run."""


def style_of(place: int) -> str:
    return f"c{place % COLOURS} d{place % DASHES}"


def place_of(colour: int, dash: int) -> int:
    """The place with the colour of one place and the dash of another (Chinese remainders of
    `COLOURS` and `DASHES`)."""
    return next(
        place
        for place in range(COLOURS * DASHES)
        if place % COLOURS == colour % COLOURS and place % DASHES == dash % DASHES
    )
