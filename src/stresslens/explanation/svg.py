"""SVG and PNG files: draws a grid of images as one SVG, and an image as PNG."""

from __future__ import annotations

import io
from html import escape

import numpy as np
from numpy.typing import NDArray

from stresslens.core.colormaps import bar
from stresslens.core.panels import Grid, Picture
from stresslens.core.text import brief
from stresslens.core.thumbnails import image_address

SIDE = 112
"""The longer side of a saved image has at least this many pixels."""
WIDTH, HEIGHT = 1000, 1200
LEAST = 24
GAP = 8
LINE = 14
LOSSLESS = 48
CHARACTER = 6.2
"""The average width of a character in captions, in pixels."""


def png(pixels: NDArray[np.uint8], side: int = SIDE) -> bytes:
    """The PNG file of an image (H, W, 3). It is magnified by the smallest whole number with which
    its longer side has at least `side` pixels."""
    from PIL import Image

    zoom = max(1, -(-side // max(pixels.shape[:2])))
    content = io.BytesIO()
    Image.fromarray(pixels.repeat(zoom, 0).repeat(zoom, 1)).save(content, format="png")
    return content.getvalue()


def svg(grid: Grid, unit: str = "") -> str:
    """The SVG of a grid with its captions, names and colour scale; `unit` is the unit of the
    scale."""
    drawing, width, height = grid_drawing(grid, unit)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="11">'
        f'<rect width="100%" height="100%" fill="white"/>{drawing}</svg>'
    )


def grid_drawing(grid: Grid, unit: str = "") -> tuple[str, int, int]:
    """The elements of that SVG, its width and its height."""
    columns = max((len(row) for row in grid.rows), default=1)
    side = max(LEAST, min(SIDE, (WIDTH - GAP) // max(columns, 1) - GAP, HEIGHT // max(len(grid.rows), 1)))
    captioned = any(cell and cell.caption for row in grid.rows for cell in row)
    left = GAP + (int(CHARACTER * max(map(len, grid.row_names))) + GAP if grid.row_names else 0)
    top = GAP + (LINE + 4 if grid.column_names else 0)
    pitch, fits = side + GAP + (LINE if captioned else 0), max(3, int(side * 1.05 / CHARACTER))
    parts = [
        _text(brief(name, fits), left + column * (side + GAP) + side / 2, top - 8)
        for column, name in enumerate(grid.column_names)
    ]
    for number, row in enumerate(grid.rows):
        if grid.row_names:
            parts.append(
                _text(grid.row_names[number], left - GAP, top + number * pitch + side / 2 + 4, "end")
            )
        for column, cell in enumerate(row):
            if cell is not None:
                parts += _cell(cell, left + column * (side + GAP), top + number * pitch, side, fits)
    height = top + len(grid.rows) * pitch
    width = max(left + columns * (side + GAP), 420)
    if grid.scale is not None:
        low, high = grid.scale
        address = image_address(png(bar(high, signed=low < 0), 1), "png")
        box = f'x="{GAP + 60}" y="{height}" width="160" height="10" preserveAspectRatio="none"'
        parts.append(f'<image {box} href="{address}"/>')
        parts.append(_text(f"{low:.3g}", GAP + 54, height + 10, "end"))
        parts.append(_text(f"{high:.3g}{': ' if unit else ''}{unit}", GAP + 226, height + 10, "start"))
        height += 20
    return "".join(parts), width, height


def _cell(cell: Picture, x: float, y: float, side: int, fits: int) -> list[str]:
    kind, content = _encoded(cell.pixels)
    box = f'x="{x}" y="{y}" width="{side}" height="{side}"'
    parts = [f'<image {box} style="image-rendering:pixelated" href="{image_address(content, kind)}"/>']
    if cell.wrong:
        parts.append(f'<rect {box} fill="none" stroke="#b5390b" stroke-width="2"/>')
    if cell.caption:
        parts.append(_text(brief(cell.caption, fits), x + side / 2, y + side + LINE - 2))
    return parts


def _encoded(pixels: NDArray[np.uint8]) -> tuple[str, bytes]:
    from PIL import Image

    if max(pixels.shape[:2]) <= LOSSLESS:
        return "png", png(pixels, 1)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="jpeg", quality=85)
    return "jpeg", content.getvalue()


def _text(text: str, x: float, y: float, anchor: str = "middle") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'
