"""A chart with the numbers that it draws: part of a page, shown in a notebook, or a file."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from stresslens.charts.chart_frame import WIDTH
from stresslens.core.cards import card, light_colours
from stresslens.core.errors import ConfigError, ends_at_caller
from stresslens.core.extras import extra
from stresslens.core.files import write_bytes
from stresslens.core.page_files import page_file
from stresslens.core.plain_rows import csv_of, data_frame
from stresslens.core.text import brief

CHART_SHEETS = (("charts", "drawing.css"), ("charts", "charts.css"))
"""The style sheets (package, file) of charts on a page; that of the drawing is also in its files."""
LETTER, LINE, KEY = 6.4, 18, 30
"""In the drawing's units: the width of a letter, the height of a line of the legend, its key."""
RESOLUTION = 300
"""Pixels an inch of a PNG, at which a chart is as wide as `PRINTED` inches."""
PRINTED = 3.5
"""Inches; a column of a paper."""


@dataclass(frozen=True, repr=False)
class Chart:
    """A chart, `width` by `height` units, with the rows of numbers that it draws.

    A row's first value is the name of its line or dot; all rows have the same keys. `keys` (class,
    name) are the legend. `page` are further attributes of the drawing on a page.
    """

    title: str
    drawing: str
    width: float
    height: float
    rows: Sequence[Mapping[str, Any]] = ()
    keys: Sequence[tuple[str, str]] = ()
    page: str = ""

    def __repr__(self) -> str:
        n = len(self.rows)
        return f"Chart({brief(self.title)!r}, {n} row{'' if n == 1 else 's'} of numbers)"

    def __html__(self) -> Markup:
        """The chart on a page of the report, with its numbers."""
        return self._on_page(f' data-numbers="{escape(_compact(self.rows))}"' if self.rows else "")

    def _repr_html_(self) -> str:
        return card_with_charts("", self)

    def _repr_svg_(self) -> str:
        return self.svg

    @property
    def svg(self) -> str:
        """The chart as an SVG file of its own, in the light colours, with its legend below it."""
        below, height = _legend_below(self.keys, self.width, self.height)
        title = _plain(self.title)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 0 {self.width:g} {height:g}" '
            f'width="{self.width:g}" height="{height:g}" font-size="12">'
            f"<title>{escape(title)}</title><style>{_sheet_of_file()}</style>"
            f'<rect width="100%" height="100%" fill="white"/>{_plain(self.drawing)}{below}</svg>'
        )

    @ends_at_caller
    def save(self, path: str | Path) -> Path:
        """Writes the chart as SVG, PNG or PDF, or its numbers as CSV (`to_csv`), by the ending of the
        file's name, and returns its path.

        A PNG has 300 pixels an inch at a width of 3.5 inches, a column of a paper. PNG and PDF need
        the extra `figures`. Raises ConfigError for another ending, or where the extra is missing.
        """
        path = Path(path)
        kinds: dict[str, Callable[[], bytes]] = {
            ".svg": lambda: self.svg.encode("utf-8", errors="replace"),
            ".png": self._png,
            ".pdf": lambda: bytes(_converter(".pdf").svg_to_pdf(self.svg)),
            ".csv": lambda: str(self.to_csv()).encode("utf-8", errors="replace"),
        }
        if path.suffix.lower() not in kinds:
            endings = ".svg, .png, .pdf or .csv"
            raise ConfigError(f"{path.name!r} does not say what to write; end it with {endings}")
        write_bytes(path, kinds[path.suffix.lower()]())
        return path

    def to_frame(self) -> Any:
        """The chart's numbers as a `pandas.DataFrame` where pandas is installed, otherwise as plain
        rows: a list of dictionaries."""
        return data_frame(self.rows)

    def to_csv(self, path: str | Path | None = None) -> str | Path:
        """The chart's numbers as CSV: the text, or with `path` the file that was written. A line has
        at most 400 points, as drawn."""
        return csv_of(self.rows, path)

    def _png(self) -> bytes:
        zoom = PRINTED * RESOLUTION / WIDTH
        return bytes(_converter(".png").svg_to_png(self.svg, scale=zoom, ppi=72))

    def _on_page(self, numbers: str = "", told: bool = True) -> Markup:
        """The figure; without the names and numbers that a pointer shows, unless `told`."""
        drawing = self.drawing if told else _TITLE.sub("", self.drawing)
        caption = escape(self.title)
        return Markup(
            f'<figure class="chart" style="max-width:{self.width / 14.2:.1f}rem"{numbers}>'
            f"<figcaption>{caption}</figcaption>"
            f'<svg viewBox="0 0 {self.width:g} {self.height:g}" role="img" aria-label="{caption}"{self.page}>'
            f"{drawing}</svg>{legend_list(self.keys)}</figure>"
        )


_TITLE = re.compile("<title>.*?</title>", re.S)
TOLD = 600
"""Characters of names and numbers under the pointer, from which on a card leaves them out."""


def _told(drawing: str) -> bool:
    return sum(map(len, _TITLE.findall(drawing))) < TOLD


def card_with_charts(lead: str, *parts: str | Markup | Chart) -> str:
    """A card (`core.cards`) some of whose parts are charts."""
    shown = [part._on_page(told=_told(part.drawing)) if isinstance(part, Chart) else part for part in parts]
    return card(lead, *shown, sheets=CHART_SHEETS)


def side_by_side(charts: Sequence[Chart], title: str) -> Chart:
    """Several charts as one, from left to right, each under its title."""
    gap, top = 24.0, 24
    drawn, left = [], 0.0
    for each in charts:
        drawn.append(
            f'<g transform="translate({left:g} 0)"><text class="name" x="2" y="14">{escape(each.title)}'
            f'</text><g transform="translate(0 {top})">{each.drawing}</g></g>'
        )
        left += each.width + gap
    keys = tuple(dict.fromkeys(key for each in charts for key in each.keys))
    names = dict.fromkeys(key for each in charts for row in each.rows for key in row)
    rows = [{**dict.fromkeys(names), **row} for each in charts for row in each.rows]
    height = top + max(each.height for each in charts)
    return Chart(title, "".join(drawn), left - gap, height, rows, keys)


def legend_list(keys: Sequence[tuple[str, str]]) -> Markup:
    """A legend beside the drawing: the key of each line (by its class) and its name."""
    items = (
        f'<li><svg class="key" viewBox="0 0 30 8" aria-hidden="true"><path class="{kind}" d="M1 4h28"/></svg>'
        f"<bdi>{escape(name)}</bdi></li>"
        for kind, name in keys
    )
    return Markup(f'<ul class="legend">{"".join(items)}</ul>') if keys else Markup("")


def distinct(names: Sequence[str]) -> list[str]:
    """The names as keys of rows: one that is there before gets a number."""
    keys: list[str] = []
    for name in names:
        again = sum(key == name for key in keys)
        keys.append(f"{name} ({again + 1})" if again else name)
    return keys


def _legend_below(keys: Sequence[tuple[str, str]], width: float, top: float) -> tuple[str, float]:
    """The legend inside the drawing, in lines below `top`, and the height of all."""
    drawn, x, y = [], 2.0, top
    for kind, name in keys:
        text = brief(_plain(name), 60)
        needed = KEY + 6 + LETTER * len(text) + 14
        if x > 2 and x + needed > width:
            x, y = 2.0, y + LINE
        drawn.append(
            f'<path class="{kind}" d="M{x:g} {y + 5:g}h{KEY - 2}"/>'
            f'<text x="{x + KEY + 4:g}" y="{y + 9:g}">{escape(text)}</text>'
        )
        x += needed
    return "".join(drawn), y + LINE if keys else top


@cache
def _sheet_of_file() -> str:
    """The drawing's style sheet with the light colours in place of variables."""
    colours = light_colours()
    fonts = '"Helvetica Neue", Helvetica, Arial, "Liberation Sans", "DejaVu Sans", sans-serif'
    rules = re.sub(r"var\(--([\w-]+)\)", lambda name: colours[name[1]], page_file("charts", "drawing.css"))
    return f".chart {{ font-family: {fonts}; }}\n{rules.replace(colours['paper'], '#ffffff')}"


_NOT_OF_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _plain(text: str) -> str:
    """Text without the characters that XML forbids."""
    return _NOT_OF_XML.sub("\ufffd", text)


def _converter(kind: str) -> Any:
    with extra("figures", f"a {kind} file (unlike .svg)"):
        import vl_convert
    return vl_convert


def _compact(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as JSON for the page's script: the keys, and for each name its values by column. Numbers
    have five digits; a column that the first name has too is 0."""
    keys = list(rows[0])
    lines: list[list[Any]] = []
    for name, group in groupby(rows, key=lambda row: row[keys[0]]):
        same = list(group)
        columns = [[_rounded(row[key]) for row in same] for key in keys[1:]]
        first = lines[0][1:] if lines else []
        lines.append(
            [name, *(0 if column in first[k : k + 1] else column for k, column in enumerate(columns))]
        )
    return json.dumps([keys, *lines], separators=(",", ":"), ensure_ascii=False)


def _rounded(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    if not math.isfinite(value):
        return None
    short = float(f"{value:.5g}")
    return int(short) if short == round(short) and abs(short) < 1e15 else short
