"""Any file and any override gives a plan, or a message with file and line that a terminal can show."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from malformed_studies import TEXTS, malformed_studies, overrides

from stresslens.config import study_file
from stresslens.config.grid import number_of_cells
from stresslens.config.yaml_source import DEEPEST, MOST_BYTES, MOST_LINES, MOST_VALUES
from stresslens.core.errors import ConfigError

MANY = settings(max_examples=15, derandomize=True, deadline=None, suppress_health_check=[*HealthCheck])


def answer(folder: Path, content: bytes, overrides: Sequence[str] = ()) -> str:
    """The message about a study file, empty where it is a plan; every line says where it is about."""
    file = folder / "study.yaml"
    file.write_bytes(content)
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            study_file.read_study(file, overrides)
            message = ""
        except ConfigError as error:
            message = str(error)
    assert time.process_time() - began < 10, "a second on an idle machine"
    assert all(line.isprintable() and len(line) < 3000 for line in message.split("\n"))
    assert all(
        re.match(rf"{re.escape(str(file))}:\d+|command line: |{re.escape(str(file))}: \d+ more", line)
        for line in message.split("\n")
        if line
    ), message
    return message


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("studies")
    (path / "plugins").symlink_to(Path(__file__).parents[2] / "studies" / "plugins")
    return path


@MANY
@given(content=malformed_studies())
def test_any_changed_study(folder: Path, content: bytes) -> None:
    answer(folder, content)


@MANY
@given(name=st.sampled_from(sorted(TEXTS)), changes=st.lists(overrides(), min_size=1, max_size=2))
def test_any_override(folder: Path, name: str, changes: list[str]) -> None:
    answer(folder, TEXTS[name].encode(), changes)


@pytest.mark.slow
@settings(MANY, max_examples=1500)
@given(content=malformed_studies())
def test_many_changed_studies(folder: Path, content: bytes) -> None:
    answer(folder, content)


@pytest.mark.slow
@settings(MANY, max_examples=1000)
@given(name=st.sampled_from(sorted(TEXTS)), changes=st.lists(overrides(), min_size=1, max_size=3))
def test_many_overrides(folder: Path, name: str, changes: list[str]) -> None:
    answer(folder, TEXTS[name].encode(), changes)


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b"a: 1\nb: \x00\n", 2, "the character U+0000 may not be in a YAML file"),
        ("a: 1\n\nb: \x85x\x1b[31m\n".encode(), 3, "U+001B"),
        (b"a: 1\nb: \xff\n", 2, "is not text in UTF-8 (byte 8)"),
        ("data: digits\n".encode("utf-16"), 1, "is text in UTF-16; save it as UTF-8"),
        (b"a: 1\nb: " + b"[" * 10_000, 2, f"nested more than {DEEPEST} levels deep"),
        (b"a: 1\n" + b"".join(b" " * k + b"a:\n" for k in range(200)), 51, "levels deep"),
        (b"a: 1\nb: " + b"{a: " * 10_000, 2, "levels deep"),
        (b"data: !!python/object/apply:os.getcwd []\n", 1, "the tag !!python/object/apply:os.getcwd is not"),
        (b"data: digits\nmodel: !own mlp\n", 2, "the tag !own is not read; write the plain value"),
        (b"data: digits\n---\nmodel: mlp\n", 2, "but found another document"),
        (b"<<: {data: digits}\n", 1, "unknown key"),
        (b'data: "\\UFFFFFFFF"\n', 1, "not valid YAML"),
        (b"#" * (MOST_BYTES + 1), 1, "larger than a study file may be"),
        (b"train: {epochs: 1" + b"0" * 300 + b"}\n", 1, "train.epochs: input should be"),
        (b"train: {epochs: 2024-01-01}\n", 1, "train.epochs: input should be a valid integer"),
        (b"train: {lr: .inf}\n", 1, "train.lr: input should be a valid number"),
        (b"data: " + b"a" * 10_000 + b"\n", 1, "no dataset is called"),
        (b"data: " + b"a" * 5000 + b".py:f\n", 1, "there is no file"),
        (b"model: {mlp: 1}\nruns: {a: {model.widths: [3]}}\n", 1, "model.mlp is not a section"),
        (
            b"train: [1]\ndata_sizes: {sizes: [10, 20], updates: same}\n",
            1,
            "train: input should be an object",
        ),
        (b"train: {batch_size: 0}\ndata_sizes: {sizes: [10, 20], updates: both}\n", 1, "train.batch_size"),
        (b"train: {epochs: -3}\ndata_sizes: {sizes: [10, 20], updates: same}\n", 1, "train.epochs"),
    ],
)
def test_a_malformed_study_names_its_line(folder: Path, content: bytes, line: int, message: str) -> None:
    assert f"study.yaml:{line}: " in (said := answer(folder, content))
    assert message in said


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbfdata: digits\n", b"data: digits\r\ntrain: {epochs: 1}\r\n"]
)
def test_text_as_windows_writes_it_is_read(folder: Path, content: bytes) -> None:
    assert not answer(folder, content)


def test_aliases_that_multiply_are_refused(folder: Path) -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]" for k in range(1, 40))]
    assert f"more than {MOST_VALUES:,} values" in answer(folder, "\n".join(lines).encode())


def test_a_grid_of_a_billion_runs_is_counted_and_not_made(folder: Path) -> None:
    axes = "\n".join(
        f"  train.{key}: [{', '.join(map(str, range(1, 1001)))}]" for key in ("lr", "clip", "epochs")
    )
    assert "makes 1,000,000,000 runs of one seed" in answer(folder, f"grid:\n{axes}\n".encode())
    assert number_of_cells({"a": {}, "b": None}, {"train.lr": [1, 2, 3]}, None) == 6


def test_a_thousand_mistakes_are_not_all_listed(folder: Path) -> None:
    said = answer(folder, b"".join(b"key%d: 1\n" % k for k in range(1000))).splitlines()
    assert len(said) == MOST_LINES + 1
    assert said[-1].endswith("950 more mistakes")


def test_control_characters_do_not_reach_the_terminal(folder: Path) -> None:
    said = answer(folder, b'"\\e[31mred": 1\ndata: "\\u202Eevil"\n', ["train.\x1b[2J=1", "model=\u2066x"])
    assert "�[31mred: unknown key" in said
