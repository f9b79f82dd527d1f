"""What is wrong with the value of a setting, in words, from pydantic's errors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from stresslens.config import registry
from stresslens.config.dotted_keys import LISTS
from stresslens.core.spelling import near

FOLDERS: Mapping[registry.Keys, str] = {
    **LISTS,
    ("robustness", "protocol"): "attacks",
    ("robustness", "individual_attacks"): "attacks",
    ("robustness", "certificates"): "certificates",
}
"""The keys that hold a list of plug-ins, and the folder of these."""

BEGINNING = "input should be "


def shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def wrong_value(errors: Sequence[Mapping[str, Any]], path: registry.Keys) -> str:
    """The message for a value at a path: what each of pydantic's errors expects, and what was got. They
    are several where the value may be of several kinds."""
    inputs = {repr(error["input"]): error["input"] for error in errors}
    if len(inputs) > 1:
        return "; ".join(dict.fromkeys(wrong_value([error], path) for error in errors))
    (value,) = inputs.values()
    expected = list(dict.fromkeys(_expected(error, path) for error in errors))
    if "a list" in " ".join(expected) and len(expected) > 1:
        expected = [each for each in expected if each != f"{BEGINNING}an object"]
    first, *others = expected
    told = ", or ".join([first, *(each.removeprefix(BEGINNING) for each in others)])
    return f"{told}, got {shortened(value)}{_similar(errors, value)}"


def _expected(error: Mapping[str, Any], path: registry.Keys) -> str:
    if error["type"] != "list_type":
        message = str(error["msg"])
        return f"{message[:1].lower()}{message[1:]}"
    value, folder = error["input"], FOLDERS.get(path)
    if isinstance(value, str) and folder is not None and ":" not in value:
        value = near(value, registry.all_names(folder))
    if not isinstance(value, str | int | float) and not (folder and isinstance(value, Mapping)):
        return f"{BEGINNING}a list" + (f" of {folder}" if folder else "")
    return f"{BEGINNING}a list, as [{value!r}]"


def _similar(errors: Sequence[Mapping[str, Any]], value: Any) -> str:
    """The choice that a word may have been meant to be."""
    choices = [
        choice
        for error in errors
        if error["type"] == "literal_error"
        for choice in re.findall(r"'([^']*)'", error["ctx"]["expected"])
    ]
    similar = near(value, choices) if isinstance(value, str) else None
    return f"; did you mean {similar!r}?" if similar else ""
