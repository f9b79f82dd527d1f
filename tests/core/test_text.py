from __future__ import annotations

import math

import pytest

from stresslens.core.errors import ConfigError
from stresslens.core.text import counted, duration, harmless, readable


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "�[31mred�[0m"),
        ("a\u202eb\u2066c", "a�b�c"),
        ("a\x9b2Jb\x07\x7f", "a�2Jb��"),
        ("caf\udce9", "caf�"),
        ("a\u00a0b\u3000c\td", "a b c d"),
        ("می\u200cخواهم 👩\u200d🔬", "می\u200cخواهم 👩\u200d🔬"),
        ("Grüße, 漢字", "Grüße, 漢字"),
    ],
)
def test_a_terminal_only_shows_harmless_text(text: str, shown: str) -> None:
    assert harmless(text) == shown


def test_a_message_stays_readable_whatever_it_quotes() -> None:
    assert readable("one\ntwo") == "one\ntwo"
    assert readable("x" * 10_000).startswith("x" * 200 + "x")
    assert "(9,700 characters left out)" in readable("x" * 10_000)
    assert len(readable("word " * 10_000)) < 2100
    assert str(ConfigError("\x1b[2J" + "y" * 5000)).startswith("�[2Jy")


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (counted(1, "variant"), "1 variant"),
        (counted(0, "variant"), "0 variants"),
        (counted(2000, "class", "classes"), "2,000 classes"),
        (counted(1, "class", "classes"), "1 class"),
    ],
)
def test_a_number_with_its_noun(said: str, text: str) -> None:
    assert said == text
