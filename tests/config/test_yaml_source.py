"""Reading studies: YAML 1.2's scalars, lines, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stresslens.config.yaml_source import Source, head_of, parse_value, scalar, yaml_text
from stresslens.core.errors import ConfigError


def read(folder: Path, text: str | bytes) -> Source:
    file = folder / "study.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return Source.read(file)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("1e-3", 0.001), ("1E+2", 100.0), ("1.", 1.0), (".5", 0.5), ("-0.25", -0.25), ("+1.5e1", 15.0)],
        *[
            ("12", 12),
            ("-3", -3),
            ("+7", 7),
            ("012", 12),
            ("0o17", 15),
            ("0x1f", 31),
            ("0xFF", 255),
            ("0", 0),
        ],
        *[("true", True), ("False", False), ("null", None), ("~", None), ("", None)],
        *[(word, word) for word in ("no", "yes", "on", "off", "y", "n", "No", "YES", "tRUE", "nuLL")],
        *[
            (word, word)
            for word in (
                "1_000",
                "1:30",
                "0b11",
                ".inf",
                ".nan",
                "nan",
                "inf",
                "1e",
                "e1",
                "1.2.3",
                ".",
                "-",
                "0o8",
            )
        ],
        *[("2024-01-01", "2024-01-01"), ("8/255", "8/255"), ("sgd", "sgd")],
    ],
)
def test_plain_scalars_mean_what_yaml_1_2_says(text: str, value: Any) -> None:
    found = scalar(text)
    assert found == value
    assert type(found) is type(value)


@settings(max_examples=50, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**15), 10**15))
def test_every_number_python_writes_is_read_back(value: float) -> None:
    assert scalar(repr(value)) == value
    assert type(scalar(repr(value))) is type(value)


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_any_text_is_a_value(text: str) -> None:
    value = scalar(text)
    assert value is None or isinstance(value, bool | int | str) or math.isfinite(value) or "e" in text.lower()


def test_a_number_too_long_for_python_is_a_word(tmp_path: Path) -> None:
    assert scalar("9" * 5000) == "9" * 5000
    assert read(tmp_path, f"a: {'9' * 5000}").values == {"a": "9" * 5000}


def test_quoted_scalars_stay_words(tmp_path: Path) -> None:
    values = read(tmp_path, "a: '1e-3'\nb: \"12\"\nc: 'true'\nd: ''\ne: |\n  5\n").values
    assert values == {"a": "1e-3", "b": "12", "c": "true", "d": "", "e": "5\n"}


def test_collections_nest_and_keys_are_words(tmp_path: Path) -> None:
    values = read(tmp_path, "1: {no: [1e-3, yes, {deep: ~}]}\nempty:\n").values
    assert values == {"1": {"no": [0.001, "yes", {"deep": None}]}, "empty": None}


def test_every_key_and_item_has_its_line(tmp_path: Path) -> None:
    source = read(
        tmp_path,
        "# head\ndata: digits\ntrain:\n  epochs: 3\n  augment:\n    - flip\n    - {crop: {padding: 2}}\n",
    )
    file = tmp_path / "study.yaml"
    assert source.place(("train", "epochs")) == f"{file}:4"
    assert source.place(("train", "augment", 1)) == f"{file}:7"
    assert source.place(("train", "augment", 1, "crop", "padding")) == f"{file}:7"
    assert source.place(("train", "lr")) == f"{file}:3"  # the deepest known part
    assert source.place(("unknown",)) == source.place(()) == f"{file}:1"
    assert source.place(("command line", "train.epochs=x")) == "command line: train.epochs=x"


def test_a_key_given_twice_is_reported_with_both_lines(tmp_path: Path) -> None:
    source = read(tmp_path, "train:\n  lr: 1\n  epochs: 2\n  lr: 3\ntrain: {}\n")
    assert [(p.path, p.message) for p in source.problems] == [
        (("train", "lr"), "is given twice, on lines 2 and 4"),
        (("train",), "is given twice, on lines 1 and 5"),
    ]
    assert source.values["train"] == {"lr": 1, "epochs": 2}


def test_the_same_key_in_other_places_is_fine(tmp_path: Path) -> None:
    assert not read(tmp_path, "a: {x: 1}\nb: {x: 2}\n").problems


@pytest.mark.parametrize("text", ["a: &it [1, *it]\n", "a: &it {b: *it}\n", "a: &it {b: [{c: *it}]}\n"])
def test_what_refers_to_itself_is_reported(tmp_path: Path, text: str) -> None:
    (problem,) = read(tmp_path, text).problems
    assert problem.message == "refers to itself"
    assert problem.path[0] == "a"


def test_an_alias_stands_for_what_it_names(tmp_path: Path) -> None:
    source = read(tmp_path, "a: &it {lr: 1e-3}\nb: *it\nc: [*it, *it]\n")
    assert source.values["b"] == {"lr": 0.001}
    assert source.values["c"] == [{"lr": 0.001}] * 2
    assert not source.problems


@pytest.mark.parametrize("text", ["", "# only a comment\n", "- a\n- b\n", "word\n", "12\n"])
def test_a_study_must_be_a_mapping(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"study\.yaml:1: a study is a mapping"):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: [1, 2\n", 3),
        ("a: 1\n\tb: 2\n", 2),
        ("a: b: c\n", 1),
        ("a: *nowhere\n", 1),
        ("a: 1\n---\nb: 2\n", 2),
    ],
)
def test_broken_yaml_is_refused_with_its_line(tmp_path: Path, text: str, line: int) -> None:
    with pytest.raises(ConfigError, match=rf"study\.yaml:{line}: not valid YAML: "):
        read(tmp_path, text)


@pytest.mark.parametrize(
    "text", ["a: \x00\n", "[" * 20_000, "{a: " * 20_000], ids=["a null byte", "deep list", "deep mapping"]
)
def test_hostile_yaml_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="not valid YAML"):
        read(tmp_path, text)


def test_a_tag_builds_nothing(tmp_path: Path) -> None:
    values = read(tmp_path, f"a: !!python/object/apply:os.mkdir ['{tmp_path}/made']\n").values
    assert values == {"a": [f"{tmp_path}/made"]}
    assert not (tmp_path / "made").exists()


def test_a_file_that_is_not_text_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"study\.yaml:1: is not text in UTF-8 \(byte 3\)"):
        read(tmp_path, b"a: \xff\n")


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none\.yaml: No such file"):
        Source.read(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot read"):
        Source.read(tmp_path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[
            ("0.1", 0.1),
            ("adam", "adam"),
            ("no", "no"),
            ("'1'", "1"),
            ("", None),
            ("[flip, crop]", ["flip", "crop"]),
        ],
        *[
            ("{mlp: {widths: [32]}}", {"mlp": {"widths": [32]}}),
            ("[broken", "[broken"),
            ("a: b: c", "a: b: c"),
        ],
    ],
)
def test_values_of_the_command_line(text: str, value: Any) -> None:
    assert parse_value(text) == value


def test_a_value_nested_too_deep_stays_a_word() -> None:
    assert parse_value("[" * 20_000) == "[" * 20_000


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "with a byte-order mark"])
def test_the_comment_at_the_head(tmp_path: Path, mark: str) -> None:
    file = tmp_path / "study.yaml"
    file.write_bytes(f"{mark}# stresslens run\r\n#\r\n#  two\r\nmodel: mlp\r\n# later\r\n".encode())
    assert head_of(file) == ["stresslens run", "", " two"]
    file.write_text("model: mlp\n# later\n")
    assert head_of(file) == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1e5", "'1e5'"),
        ("1.5e3", "'1.5e3'"),
        ("08", "'08'"),
        ("0o17", "'0o17'"),
        ("no", "'no'"),
        ("2020-01-01", "'2020-01-01'"),
        ("resnet18.a1_in1k", "resnet18.a1_in1k"),
        (1e-5, "1.0e-05"),
        (
            {"b": {"name": "a, b", "pretrained": True}, "a": None},
            "{b: {name: 'a, b', pretrained: true}, a: null}",
        ),
    ],
)
def test_values_as_yaml(value: Any, text: str) -> None:
    assert yaml_text(value, on_one_line=True) == text
    assert parse_value(text) == value


PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"])) | st.from_regex(
    r"[-+.\deox_]{1,6}", fullmatch=True
)


@given(st.recursive(PLAIN | TEXTS, lambda part: st.lists(part) | st.dictionaries(TEXTS, part), max_leaves=6))
def test_what_is_written_as_yaml_is_read_as_the_same_values(value: Any) -> None:
    assert parse_value(yaml_text(value, on_one_line=True)) == value
    assert parse_value(yaml_text(value)) == value
