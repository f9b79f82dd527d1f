"""Text for the terminal: printable names and messages, short and repeated names, durations."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

NOT_FINITE = "no answer (not finite)"
"""In place of a class, where a model's scores name none (`core.answers`)."""


def printable(name: str) -> str:
    """A file's name as printable text. Images are sorted by these names, so they stay as they are.

    Bytes that are not UTF-8, and control characters, become replacement characters.
    """
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "".join("\ufffd" if unicodedata.category(c) == "Cc" else c for c in text)


JOINERS = "\u200c\u200d"
"""Characters without a width that belong to words of some languages, and to emoji."""


def harmless(text: str, *, keep: str = "") -> str:
    """Text that a terminal only shows: it neither obeys it nor reorders it.

    Control characters (such as those that begin an ANSI escape), characters that reorder text,
    and halves of characters become replacement characters; spaces of any kind become plain ones.
    The characters in `keep` and `JOINERS` stay.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep or c in JOINERS else _in_place_of(c) for c in text)


def _in_place_of(character: str) -> str:
    return " " if unicodedata.category(character) == "Zs" or character == "\t" else "\ufffd"


LONGEST_WORD, LONGEST_LINE = 300, 2000
"""In a message, in characters. A file's path is rarely longer than the first."""


def readable(message: str) -> str:
    """A message to the user, which may quote any text of a file or a command line: harmless on a
    terminal, its lines kept, with long words and long lines shortened in their middle."""
    return "\n".join(map(_shortened, harmless(message, keep="\n").split("\n")))


def _shortened(line: str) -> str:
    line = re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda word: _middle_left_out(word[0], LONGEST_WORD), line)
    return _middle_left_out(line, LONGEST_LINE)


def _middle_left_out(text: str, length: int) -> str:
    left_out = len(text) - length
    if left_out <= 0:
        return text
    end = length // 4
    return f"{text[: length - end]}… ({left_out:,} characters left out) …{text[-end:]}"


def brief(name: str, length: int = 60) -> str:
    """A user's name for something, cut to `length` characters."""
    return name if len(name) <= length else f"{name[: length - 1]}…"


def duration(seconds: float | None) -> str:
    """`4.2 s`, `42 s`, `3 min 05 s`, `2 h 04 min`; a dash if unknown."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def enumeration(names: Sequence[object], most: int = 5) -> str:
    """`a`, `a and b`, `a, b and 3 more`: of more than `most` names the first."""
    words = [str(name) for name in names]
    if len(words) > most:
        words = [*words[:most], f"{len(words) - most:,} more"]
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def counted(n: int, one: str, several: str | None = None) -> str:
    """A number with its noun: `1 image`, `2,000 images`; `several` is the plural if it is not `one` with
    an s."""
    return f"{n:,} {one if n == 1 else several or f'{one}s'}"


def repeated_words(words: Iterable[str]) -> list[str]:
    """The words that are there more than once, each once, in their order."""
    return [word for word, count in Counter(words).items() if count > 1]
