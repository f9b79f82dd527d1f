"""What is wrong with the value of a setting, in words, from pydantic's errors."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from stresslens.config import registry, schema
from stresslens.config.dotted_keys import LISTS
from stresslens.core.spelling import near

LISTED_PLUGINS: Mapping[registry.Keys, str] = {
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
        expected = [each for each in expected if not each.startswith(f"{BEGINNING}an object")]
    if {error["type"] for error in errors} == {"string_type", "dict_type"}:
        expected = [f"{BEGINNING}the name of a plug-in", "{'name': {'option': value}}"]
    first, *others = expected
    told = ", or ".join([first, *(each.removeprefix(BEGINNING) for each in others)])
    return f"{told}, got {shortened(value)}{_similar(errors, value)}"


def _expected(error: Mapping[str, Any], path: registry.Keys) -> str:
    if error["type"] == "dataclass_type":
        return (
            f"{BEGINNING}an object{_form(getattr(schema, error['ctx']['class_name'], None), error['input'])}"
        )
    if error["type"] != "list_type":
        message = str(error["msg"])
        return f"{message[:1].lower()}{message[1:]}"
    value, folder = error["input"], LISTED_PLUGINS.get(path)
    if isinstance(value, str) and folder is not None and ":" not in value:
        value = near(value, registry.all_names(folder))
    if not isinstance(value, str | int | float) and not (folder and isinstance(value, Mapping)):
        return f"{BEGINNING}a list" + (f" of {folder}" if folder else "")
    return f"{BEGINNING}a list, as [{value!r}]"


def _form(section: Any, value: Any) -> str:
    """An object of a section with the value under the first key that takes it, or else its keys."""
    if section is None:
        return ""
    keys = [each.name for each in dataclasses.fields(section)]
    if value is not None:
        for key in keys:
            any_word = isinstance(value, str) and _takes(section, {key: "any word"})
            if not any_word and _takes(section, {key: value}):
                return f", as {{{key!r}: {shortened(value)}}}"
    return f" with keys such as {', '.join(keys[:3])}"


def _takes(section: Any, values: Mapping[str, Any]) -> bool:
    try:
        TypeAdapter(section).validate_json(json.dumps(values), strict=True)
    except (ValidationError, TypeError):
        return False
    return True


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
