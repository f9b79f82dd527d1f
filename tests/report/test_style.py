"""The style sheet: enough contrast in light and in dark, and what makes the pages usable beyond the
screen."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from stresslens.report.page import STYLES

CSS = "".join((files(f"stresslens.{package}") / name).read_text(encoding="utf-8") for package, name in STYLES)
Colour = tuple[float, float, float]


def variables(dark: bool) -> dict[str, str]:
    """The custom properties of :root; the dark scheme's replace the light one's."""
    blocks = re.findall(r":root \{(.*?)\}", CSS, re.S)[: 2 if dark else 1]
    return dict(re.findall(r"--([\w-]+): ([^;]+);", "".join(blocks)))


def rgb(value: str) -> Colour:
    if value.startswith("#"):
        return tuple(int(value[i : i + 2], 16) for i in (1, 3, 5))  # type: ignore[return-value]
    return tuple(map(float, value.split()))  # type: ignore[return-value]


def over(front: Colour, back: Colour, share: float) -> Colour:
    return tuple(share * f + (1 - share) * b for f, b in zip(front, back))  # type: ignore[return-value]


def contrast(a: Colour, b: Colour) -> float:
    """WCAG 2's contrast ratio, 1 to 21."""

    def luminance(colour: Colour) -> float:
        linear = [
            c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_by_hand() -> None:
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast(rgb("#767676"), rgb("#ffffff")) == pytest.approx(4.54, abs=0.01)


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_a_contrast_of_4_5(dark: bool) -> None:
    v = variables(dark)
    for text in ("ink", "quiet", "warn", "link", "good"):
        for ground in ("paper", "tint"):
            assert contrast(rgb(v[text]), rgb(v[ground])) >= 4.5, (text, ground)
    for ground in ("ahead", "behind"):
        assert contrast(rgb(v["ink"]), rgb(v[ground])) >= 4.5, ground
    shades = [float(q) for q in re.findall(r"\.q\d \{ --q: ([.\d]+); \}", CSS)]
    assert len(shades) == 9
    for q in shades:
        assert contrast(rgb(v["ink"]), over(rgb(v["shade"]), rgb(v["paper"]), q)) >= 4.5, q


@pytest.mark.parametrize("dark", [False, True])
def test_lines_have_a_contrast_of_3(dark: bool) -> None:
    v = variables(dark)
    for k in range(7):
        assert contrast(rgb(v[f"c{k}"]), rgb(v["paper"])) >= 3, k


def test_dark_replaces_every_colour_and_print_has_none_of_it() -> None:
    light = {name for name, value in variables(False).items() if re.fullmatch(r"#\w{6}|\d+ \d+ \d+", value)}
    dark = re.findall(r"--([\w-]+):", re.findall(r":root \{(.*?)\}", CSS, re.S)[1])
    assert light == set(dark)
    assert "@media screen and (prefers-color-scheme: dark)" in CSS
    assert "@media print" in CSS
    assert "prefers-reduced-motion" in CSS
    assert ":focus-visible" in CSS
