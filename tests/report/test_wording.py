"""Numbers in words."""

from __future__ import annotations

import math

import pytest

from stresslens.cli.terminal import print_accuracy
from stresslens.core.format import brief, memory, percent_sign, ratio, signed, with_asides
from stresslens.core.types import Estimate


def test_ratios() -> None:
    assert ratio(Estimate(8.2, 7.94, 8.46, 10, "paired t", unit="seeds")) == "8.20 (7.94 to 8.46)"
    assert ratio(Estimate(12.34, math.nan, math.nan, 1, "exact", unit="seeds")) == "12.3"
    assert ratio(Estimate(1234.5, math.nan, math.nan, 1, "exact", unit="seeds")) == "1\u202f234"


@pytest.mark.parametrize(
    ("share", "said"), [(0.012, "+1.2"), (-0.0001, "0.0"), (0.0001, "0.0"), (-0.1, "−10.0")]
)
def test_signed_points(share: float, said: str) -> None:
    assert signed(share) == said


def test_figures_in_parentheses_are_asides() -> None:
    said = with_asides("b (new) is better than a-1 by 1.9 points (-0.6 to 3.2; 3 seeds), 98 %")
    assert said == [
        (False, "b (new) is better than a-1 by 1.9 points"),
        (True, " (−0.6 to 3.2; 3 seeds)"),
        (False, ", 98\u00a0%"),
    ]


def test_a_name_cannot_turn_the_rest_of_a_sentence_around() -> None:
    assert with_asides("a\u202eb\u2067 is better") == [(False, "ab is better")]


def test_memory_and_long_names() -> None:
    assert (memory(812_000_000), memory(1_900_000_000), memory(None)) == ("812 MB", "1.9 GB", "–")
    assert (brief("abc", 3), brief("abcd", 3)) == ("abc", "ab…")


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(0.982, 0.971, 0.99, 360, "wilson"), "98.2 % (97.1 to 99.0)"),
        (Estimate(0.982, math.nan, math.nan, 1, "exact", unit="seeds"), "98.2 % (no interval, n = 1)"),
        (None, "–"),
    ],
)
def test_a_share_in_a_sentence(
    estimate: Estimate | None, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert percent_sign(estimate) == text
    if estimate is not None:
        print_accuracy("adam", "test", estimate)
        assert capsys.readouterr().out == f"adam: {text} of {estimate.n} test images\n"
