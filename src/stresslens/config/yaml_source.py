"""YAML parser that keeps the line of every key, reads the scalars of YAML 1.2 (`1e-3` is a
number, `no` is a string) and rejects duplicate keys."""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from stresslens.core.disk_errors import refusal
from stresslens.core.errors import ConfigError, Problem, Problems

Keys = tuple[str | int, ...]

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NAMED: dict[str, bool | None] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_NAMED |= {word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}


MOST_BYTES, MOST_VALUES, DEEPEST = 2**20, 20_000, 50
"""Of a file: its size, its values (with what aliases repeat), and how deep these are nested."""
IMPLICIT_TAGS = frozenset(
    f"tag:yaml.org,2002:{kind}"
    for kind in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value", "map", "seq")
)
"""Tags that YAML 1.1 gives to values without a tag of their own."""
MOST_LINES = 50
"""Of a message about mistakes."""
LONGEST = 400
"""Maximum digits of an integer. A longer one stays a string, which no setting accepts."""


class _Composer(yaml.SafeLoader):
    """Composes nodes and refuses those that are nested too deep for Python."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > DEEPEST:
            why = f"values are nested more than {DEEPEST} levels deep"
            raise yaml.composer.ComposerError(None, None, why, self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


def scalar(text: str) -> Any:
    """The value of a plain scalar in YAML 1.2's core schema. Infinities and NaN stay strings,
    because no setting accepts them."""
    if text in _NAMED:
        return _NAMED[text]
    if _INT.fullmatch(text) and len(text) <= LONGEST:
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    return text


class _Writer(yaml.SafeDumper):
    """Quotes a text that this parser would read as a number, as `1e5`; YAML 1.1 has none of this form."""


for _tag, _numbers in (("int", _INT), ("float", _FLOAT)):
    _whole = re.compile(rf"(?:{_numbers.pattern})$")
    _Writer.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", _whole, list("-+.0123456789"))


def yaml_text(value: Any, *, on_one_line: bool = False) -> str:
    """Plain values as YAML, which `parse_value` and `Source.read` read as the same values."""
    text = yaml.dump(
        value,
        Dumper=_Writer,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=on_one_line,
        width=math.inf if on_one_line else None,
    )
    return text.strip().removesuffix("\n...") if on_one_line else text


def parse_value(text: str) -> Any:
    """A value from the command line, read as YAML: `0.1`, `adam`, `[flip, crop]`, `{mlp:
    {widths: [32]}}`."""
    try:
        node = yaml.compose(text, Loader=_Composer)
        return Source(Path("command line"))._value(node, ()) if node else None
    except (yaml.YAMLError, ValueError, OverflowError):
        return text


def of_override(path: Keys) -> str:
    """The place of a mistake in an override, whose path begins with `command line` and its text: the
    text, and the key in its value."""
    _, text, *keys = path
    return f"{text}: {'.'.join(map(str, keys))}" if keys and isinstance(keys[-1], str) else str(text)


@contextmanager
def typed_mistakes() -> Iterator[None]:
    """Problems that are raised inside become one ConfigError: a line for each, and for a mistake in an
    override its place there."""
    try:
        yield
    except Problems as error:
        lines = [
            f"{of_override(each.path)}: {each.message}"
            if each.path[:1] == ("command line",)
            else each.message
            for each in error.problems
        ]
        raise ConfigError("\n".join(lines)) from None


@dataclass
class Source:
    """A parsed file: its values, the line of each key, and the mistakes found while reading."""

    file: Path
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[Keys, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    size: int = 0
    """The number of values, each as often as an alias repeats it."""

    @staticmethod
    def read(
        file: Path, *, form: str = "a study is a mapping of keys to values; `stresslens init` writes one"
    ) -> Source:
        """Reads and parses a file. Raises ConfigError where this fails or the file is not a YAML
        mapping; `form` then says what it should be."""
        text = _text_of(file)
        try:
            node = yaml.compose(text, Loader=_Composer)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            raise ConfigError(f"{file}:{line}: not valid YAML: {error.problem}") from None
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            what = f"the character U+{error.character:04X} may not be in a YAML file"
            raise ConfigError(f"{file}:{line}: not valid YAML: {what}") from None
        except (ValueError, OverflowError) as error:  # an escape sequence of no character
            raise ConfigError(f"{file}:1: not valid YAML: {error}") from None
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(f"{file}:1: {form}")
        source = Source(file)
        source.values = source._value(node, ())
        return source

    def place(self, path: Keys) -> str:
        """`file:line` of the deepest known part of a path."""
        if path[:1] == ("command line",):
            return f"command line: {of_override(path)}"
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return f"{self.file}:{self.lines[path[:length]]}"
        return f"{self.file}:1"

    def told(self, problems: Sequence[Problem]) -> str:
        """The mistakes as lines `file:line: key: what is wrong`, each once, at most `MOST_LINES`."""
        texts = (f"{self.place(p.path)}: {_dotted(p.path)}{p.message}" for p in problems)
        lines = list(dict.fromkeys(text.replace("\n", " ") for text in texts))
        more = [f"{self.file}: {len(lines) - MOST_LINES} more mistakes"] if len(lines) > MOST_LINES else []
        return "\n".join(lines[:MOST_LINES] + more)

    def _value(self, node: yaml.Node, path: Keys, above: tuple[int, ...] = ()) -> Any:
        self.size += 1
        if self.size > MOST_VALUES:
            if self.size == MOST_VALUES + 1:
                self.problems.append(
                    Problem(path, f"aliases make more than {MOST_VALUES:,} values of the file")
                )
            return None
        if id(node) in above:
            self.problems.append(Problem(path, "refers to itself"))
            return None
        above = (*above, id(node))
        if node.tag not in IMPLICIT_TAGS:
            why = f"the tag {node.tag.replace('tag:yaml.org,2002:', '!!')} is not read; write the plain value"
            self.problems.append(Problem(path, why))
        if isinstance(node, yaml.ScalarNode):
            return node.value if node.style else scalar(node.value)
        if isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.lines[(*path, index)] = item.start_mark.line + 1
            return [self._value(item, (*path, index), above) for index, item in enumerate(node.value)]
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value) if isinstance(key_node, yaml.ScalarNode) else "?"
            line = key_node.start_mark.line + 1
            if key in mapping:
                self.problems.append(
                    Problem((*path, key), f"is given twice, on lines {self.lines[(*path, key)]} and {line}")
                )
                continue
            self.lines[(*path, key)] = line
            mapping[key] = self._value(value_node, (*path, key), above)
        return mapping


def head_of(file: Path) -> list[str]:
    """The lines of the comment at the head of a file, without their `# `. Raises ConfigError as
    `Source.read`."""
    comment = takewhile(lambda line: line.startswith("#"), _text_of(file).splitlines())
    return [line.removeprefix("#").removeprefix(" ") for line in comment]


def _text_of(file: Path) -> str:
    """The text of a file, without a byte-order mark. Raises ConfigError where it cannot be read, is
    no text in UTF-8, or is too large."""
    try:
        with file.open("rb") as opened:
            content = opened.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {file}: {refusal(error)}") from None
    if len(content) > MOST_BYTES:
        raise ConfigError(f"{file}:1: is larger than a study file may be ({MOST_BYTES:,} bytes)")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigError(f"{file}:1: is text in UTF-16; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file}:{line}: is not text in UTF-8 (byte {error.start})") from None


def _dotted(path: Keys) -> str:
    return "" if path[:1] == ("command line",) or not path else ".".join(map(str, path)) + ": "
