"""Study files with mistakes: each shipped study, with keys, values, lines or bytes that somebody changed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from stresslens.config.yaml_source import Source

STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.yaml"))
TEXTS = {file.stem: file.read_text() for file in STUDIES}
VALUES = {file.stem: Source.read(file).values for file in STUDIES}
KEYS = sorted({str(key) for values in VALUES.values() for path in [()] for key in values})

KINDS: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 10**9, 10**30, -(10**30), 0.5, -0.0, 1e308, 5e-324),
    *("", " ", "x", "~", "/", "..", "a" * 10_000, "é" * 300, "8/255", ".inf", "nan", "1e999", "9" * 5000),
    *("\x1b[31mred\x1b[0m", "\x9b2J", "\u202eevil", "line\nbreak", "\x07", "\ud83d\ude00", "2024-01-01"),
    *(
        "a.b.c",
        "none.py:function",
        "os:getcwd",
        ":",
        ".py:",
        "a:b",
        "x.y.z:f",
        "{}",
        "[",
        "mlp",
        "pgd",
        "all",
    ),
    *(
        [],
        [[]],
        [None],
        [[], {}],
        {},
        {"": None},
        {"x": {}},
        {"x": None},
        {"pgd": {}},
        {"mlp": {"widths": []}},
    ),
    *(
        {"a": {"b": {"c": 1}}},
        {"a.b": 1},
        {"": {"": ""}},
        [1, "a", {}, 0.5],
        list(range(2000)),
        {"x": 1, "y": 2},
    ),
]
"""Values of every kind that a YAML file can hold, among them the empty and the very large of each."""

PIECES = [
    *("\t", "&a ", "*a", "<<: *a\n", "!!python/object/apply:os.getcwd []", "!x ", "!!binary ", "!!int x"),
    *(
        "---\n",
        "...\n",
        "? ",
        ": ",
        "- ",
        "\r\n",
        "\r",
        "\ufeff",
        "\x00",
        "\x07",
        "\x1b[2J",
        "\x85",
        "\u2028",
    ),
    *("%YAML 9.9\n", "%TAG\n", "{", "[", "}", "]", "'", '"', "\\x", '"\\xZZ"', "|\n", ">9\n", "@", "`", "#"),
    *(
        "&a [*a]",
        "{" * 200,
        "[" * 3000,
        "\u202e",
        "train: *nowhere\n",
        "a: &b {c: *b}\n",
        "1e400",
        "0x",
        "\n",
    ),
]
"""Pieces of text that mean something to YAML or to a terminal."""


def _places(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value in plain values."""
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from _places(value, (*path, key))


def _with_a_changed_value(draw: Any, values: Any) -> Any:
    values = copy.deepcopy(values)
    places = list(_places(values))
    if not places:
        return {draw(st.sampled_from(KEYS)): draw(st.sampled_from(KINDS))}
    *above, key = draw(st.sampled_from(places))
    parent = values
    for step in above:
        parent = parent[step]
    change = draw(st.sampled_from(["replace", "replace", "replace", "remove", "rename", "wrap", "move"]))
    if change == "replace":
        parent[key] = draw(st.sampled_from(KINDS))
    elif change == "remove":
        del parent[key]
    elif change == "wrap":
        parent[key] = draw(st.sampled_from([[parent[key]], {"x": parent[key]}, {str(key): parent[key]}]))
    elif isinstance(parent, dict):
        new = draw(
            st.sampled_from(
                [*KEYS, "", "x", f"{key}x", "train.lr.x", "a" * 300, "\x1b[1m", "..", "/", "a.b.", "."]
            )
        )
        (values if change == "move" else parent)[new] = parent.pop(key)
    return values


def _with_changed_text(draw: Any, text: str) -> bytes:
    content = bytearray(text.encode())
    change = draw(st.sampled_from(["flip", "cut", "insert", "insert", "drop line", "twice", "encode"]))
    place = draw(st.integers(0, max(len(content) - 1, 0)))
    if change == "flip" and content:
        content[place] ^= 1 << draw(st.integers(0, 7))
    elif change == "cut":
        del content[place:]
    elif change == "insert":
        content[place:place] = draw(st.sampled_from(PIECES)).encode()
    elif change == "encode":
        code = draw(st.sampled_from(["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7"]))
        return content.decode(errors="replace").encode(code)
    else:
        lines = content.splitlines(keepends=True)
        line = draw(st.integers(0, max(len(lines) - 1, 0)))
        lines[line : line + 1] = lines[line : line + 1] * (2 if change == "twice" else 0)
        return b"".join(lines)
    return bytes(content)


@st.composite
def malformed_studies(draw: Any) -> bytes:
    """The bytes of a shipped study after one to three changes."""
    name = draw(st.sampled_from(sorted(TEXTS)))
    if draw(st.booleans()):
        content = TEXTS[name].encode()
        for _ in range(draw(st.integers(1, 3))):
            content = _with_changed_text(draw, content.decode(errors="replace"))
        return content
    values = VALUES[name]
    for _ in range(draw(st.integers(1, 3))):
        values = _with_a_changed_value(draw, values)
    return yaml.safe_dump(values, allow_unicode=True, sort_keys=False).encode(errors="replace")


@st.composite
def overrides(draw: Any) -> str:
    """An override of the command line, with mistakes."""
    paths = [".".join(map(str, path)) for values in VALUES.values() for path in _places(values)]
    key = draw(
        st.sampled_from([*paths, "", ".", "..", "a", "train", "train.", ".lr", "model.mlp.x.y", "a" * 300])
    )
    key += draw(st.sampled_from(["", "", ".x", ".", ".0", ".\x1b[1m"]))
    kinds = [kind for kind in KINDS if not isinstance(kind, list | dict)]
    value = draw(
        st.sampled_from([*map(str, kinds), *PIECES, "[]", "{}", "[[]]", "{x: {}}", "{pgd: {steps: []}}"])
    )
    return key + draw(st.sampled_from(["=", "=", "=", ""])) + value
