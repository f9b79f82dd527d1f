"""Messages in the words of Python: what the packages below say for the command line is said as a call."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from stresslens.config.yaml_source import parse_value
from stresslens.core.errors import Stopped, StresslensError, ends_at_caller
from stresslens.core.notices import sentences_inside
from stresslens.core.torch_settings import initial_settings

P = ParamSpec("P")
T = TypeVar("T")
SHARED = ("run", "train", "evaluate", "attack", "explain", "verify", "compare", "predict", "export")
"""Commands that are functions too."""


def _call(match: re.Match[str]) -> str:
    """`sl.evaluate('runs/a/seed-0', split='validation')` for `stresslens evaluate runs/a/seed-0 --split
    validation`."""
    try:
        words = shlex.split(match[0].strip("`"))[1:]
    except ValueError:  # an apostrophe in a path
        return match[0]
    verb, given, named = words[0], [], []
    words = words[1:]
    while words:
        word = words.pop(0)
        key, equals, value = word.partition("=")
        if word.startswith("--"):
            given_value = value if equals else words.pop(0) if words and words[0][:2] != "--" else "true"
            option = "n_images" if key == "--images" else key[2:].replace("-", "_")
            named.append((option, parse_value(given_value)))
        elif equals and verb == "train":
            named.append((key.removeprefix("train."), parse_value(value)))
        else:
            given.append(parse_value(word) if verb == "train" else word)
    if verb == "train":
        given.reverse()  # the model comes first in Python
    if verb == "attack" and "radii" not in dict(named):
        named.append(("radii", ...))
    arguments = [
        *map(repr, given),
        *(f"{name}={'…' if value is ... else repr(value)}" for name, value in named),
    ]
    return (
        f"`sl.{verb}({', '.join(arguments)})`" if match[0][0] == "`" else f"sl.{verb}({', '.join(arguments)})"
    )


def _argument(match: re.Match[str]) -> str:
    """`fail_under=` for `--fail-under`, with its value if that is there."""
    if match[1] is None:
        return match[0]
    return f"{match[1].replace('-', '_')}={match[2] if match.re.groups > 1 else ''}"


def _setting(match: re.Match[str]) -> str:
    """`input={'size': 28}` for `input: {size: 28}`, and `'colours': 'rgb'`, an option in a dictionary, for
    `colours: rgb`."""
    key, value = match[1], repr(parse_value(match[2])).replace("'…'", "…")
    return f"`{key}={value}`" if key in ARGUMENTS else f"`'{key}': {value}`"


def _dictionary(match: re.Match[str]) -> str:
    """`{'file': 'PATH'}` for `{file: PATH}`."""
    return match[0] if match[0][0] == "'" else repr(parse_value(match[0])).replace("'…'", "…")


def _size(match: re.Match[str]) -> str:
    """The data set with a size, as a dictionary."""
    data = {"folder": {"path": match["path"], "size": parse_value(match["size"])}}
    return (
        f"{match['path']}: {match['why']}; give a size: {data}, and with it 'fit': 'crop', 'pad' or 'stretch'"
    )


ARGUMENTS = ("input", "model", "objective", "select")
"""Settings that are arguments of `sl.train`."""
Rule = tuple[str, str | Callable[[re.Match[str]], str]]
_OPTION = r"(?<![\w-])--"
_QUOTED = r"'[^'\n]*'"
"""What a message quotes, such as the name of a file, stays as it is."""
_VERBS = "|".join(SHARED)
RULES: tuple[Rule, ...] = (
    (
        r"(?P<path>[^\n]+?): (?P<why>the images differ in size [^\n]*); set `size`, for example "
        r"data\.size=(?P<size>\S+) on the command line or `size: \S+` in a study file, and `fit` to crop, "
        r"pad or stretch",
        _size,
    ),
    (r"; `stresslens init(?: --study [^`]+)?` writes one", "; a study can also be a dictionary"),
    (r"`stresslens run` or `train`", "`sl.run` or `sl.train`"),
    (
        r"`stresslens list runs` shows (?:them|runs|all runs)",
        "list(Path('runs').glob('**/seed-*')) shows them",
    ),
    (r", on the command line in quotes; `stresslens list models \S+` shows its published weights", ""),
    (r"\bstresslens data check\b", "sl.check_data"),
    (rf"(?<=or )stresslens ({_VERBS})\b|(?<=`)stresslens ({_VERBS})(?=`)", lambda m: f"sl.{m[1] or m[2]}"),
    (r"(?m)^command line: ", "override "),
    (r"; on the command line write --(\S+) \S+", r"; give it as the argument \1="),
    (rf"`stresslens (?:{_VERBS}) [^`]+`", _call),
    (r"stresslens train .*? --name \w+", _call),
    (r", on the command line also --seed \S+", ""),
    (r"\(surrogate=…, or --surrogate RUN\)", "(surrogate=…)"),
    (r"--check, or `check: true`, checks it", "check=True checks it"),
    (r"--images-from", "images_from="),
    (rf"{_OPTION}images (\d+)", r"n_images=\1"),
    (rf"{_OPTION}protocol '\[([\w, ]+)\]'", lambda m: f"protocol={m[1].split(', ')}"),
    (rf"{_OPTION}explainer (\w+) alone", r"the explainer '\1' alone"),
    (rf"{_OPTION}no-check", "check=False"),
    (rf"{_OPTION}no-audit", "audit=False"),
    (rf"{_OPTION}trust", "trust=True"),
    (rf"{_OPTION}norm linf, l2 or l1", "norm='linf', 'l2' or 'l1'"),
    (rf"{_OPTION}(to|metric|split) ([\w@./]+)", r"\1='\2'"),
    (rf"{_OPTION}(out|name|data) ([A-Z]+)\b", r"\1=\2"),
    (rf"{_OPTION}out ([^\s:]+):", r"out='\1':"),
    (rf"{_OPTION}certificate\b", "certificates="),
    (rf"{_QUOTED}|{_OPTION}(?!nproc)([a-z]+(?:-[a-z]+)*)[ =]([A-Z0-9][^\s,;:)]*)", _argument),
    (rf"{_QUOTED}|{_OPTION}(?!nproc)([a-z]+(?:-[a-z]+)*)", _argument),
    (r"\bthe same command\b", "the same call"),
    (r"\brun the command that made it\b", "make the call that made it"),
    (r"\bthe command that made it\b", "the call that made it"),
    (r"\bthe command of (?=\S)", "the call that made "),
    (r"\brun the same call\b", "make the same call"),
    (r"`(\w+): ([^`]+)`", _setting),
    (rf"{_QUOTED}|\{{\w+: (?:\{{[^{{}}'\"\n]*\}}|[^{{}}'\"\n])*\}}", _dictionary),
)
"""Patterns of the command line, and what is written in Python. The first that fits counts."""


def in_python(message: str) -> str:
    """The message with options and commands of the command line as arguments and calls of Python."""
    for pattern, instead in RULES:
        message = re.sub(pattern, instead, message)
    return message


def public_call() -> Callable[[Callable[P, T]], Callable[P, T]]:
    """What every public function runs under: torch's initial settings, and errors and notices in the
    words of Python. The traceback of such an error ends at the caller's own line; what caused the error
    (`__cause__`) keeps its own."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def call(*args: P.args, **options: P.kwargs) -> T:
            try:
                with initial_settings(), sentences_inside(in_python):
                    return function(*args, **options)
            except (StresslensError, Stopped) as error:
                said: Any = error.args[0] if error.args else ""
                if isinstance(said, str):
                    error.args = (in_python(said), *error.args[1:])
                raise

        return ends_at_caller(call)

    return decorate
