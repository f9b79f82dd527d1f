"""The class that a user names, and names that differ only by their form."""

from __future__ import annotations

import unicodedata
import warnings

import pytest

from stresslens.core.class_names import alike, class_number
from stresslens.core.errors import ConfigError, Notice

NUMBERED = sorted(map(str, range(12)))  # 0, 1, 10, 11, 2, …
CAFÉ = unicodedata.normalize("NFD", "café")


@pytest.mark.parametrize(
    ("wanted", "classes", "number"),
    [
        ("dog", ["cat", "dog"], 1),
        (1, ["cat", "dog"], 1),
        ("1", ["cat", "dog"], 1),
        (" DOG ", ["cat", "dog"], 1),
        ("café", ["tea", CAFÉ], 1),
        ("Dog", ["dog", "Dog", "DOG"], 1),
        ("big  dog", ["cat", "Big Dog"], 1),
        (3, [str(k) for k in range(10)], 3),
        (5, ["3", "4", *"abcdef"], 5),
    ],
)
def test_a_class_is_named_or_numbered(wanted: int | str, classes: list[str], number: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert class_number(wanted, classes, "target") == number


@pytest.mark.parametrize("wanted", [2, "2"])
def test_a_name_wins_over_a_number_and_a_notice_says_so(wanted: int | str) -> None:
    with pytest.warns(Notice, match=r"2 is the class called 2 \(number 4\).* number 2, write its name, 10"):
        assert class_number(wanted, NUMBERED, "target") == 4


@pytest.mark.parametrize(
    ("wanted", "classes", "said"),
    [
        (12, NUMBERED, "target: 12 is no class; they are 0 to 11"),
        ("DOG", ["dog", "Dog"], "which class is 'DOG': 'dog', 'Dog'"),
        ("dgo", ["cat", "dog"], "did you mean 'dog'"),
    ],
)
def test_what_names_no_class_or_several_is_told(wanted: int | str, classes: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        class_number(wanted, classes, "target")


def test_names_that_look_alike_are_grouped() -> None:
    classes = ["dog", "Dog", "cat", "cat ", "café", CAFÉ, "ＡＢ", "AB", "bird"]
    assert alike(classes) == [["dog", "Dog"], ["cat", "cat "], ["café", CAFÉ], ["ＡＢ", "AB"]]
    assert alike(["1", "01", "l"]) == []
