from __future__ import annotations

import math

import pytest

from stresslens.core.text import duration


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0.0 s"),
        (4.23, "4.2 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599.6, "1 h 00 min"),
        (None, "–"),
        (math.nan, "–"),
    ],
)
def test_lengths_of_time(seconds: float | None, said: str) -> None:
    assert duration(seconds) == said
