"""The texts below the attributes of the dataclasses of a study file, as the JSON schema shows them.

They are read from the source only where a schema is asked for, because pydantic's own
`use_attribute_docstrings` reads it at each start.
"""

from __future__ import annotations

import ast
import inspect
from functools import cache
from itertools import pairwise
from types import ModuleType
from typing import Any

from pydantic.json_schema import GenerateJsonSchema


class WithAttributeDocstrings(GenerateJsonSchema):
    """Describes each key by the text below it; leaves out titles, which would only repeat the keys."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def dataclass_schema(self, schema: Any) -> dict[str, Any]:
        made, section = super().dataclass_schema(schema), schema["cls"]
        keys = dict(made["properties"])
        fields = getattr(section, "__pydantic_fields__", {})
        for name, text in attribute_docstrings(section).items():
            key = fields[name].validation_alias or name if name in fields else name
            if key in keys:
                keys[key] = {**keys[key], "description": text}
        return {**made, "properties": keys}


def attribute_docstrings(section: type) -> dict[str, str]:
    """The text below each attribute of a class that has one, by its name."""
    module = inspect.getmodule(section)
    return _of_module(module).get(section.__name__, {}) if module is not None else {}


@cache
def _of_module(module: ModuleType) -> dict[str, dict[str, str]]:
    """Of each class at the top of a module."""
    return {
        each.name: dict(_of_class(each))
        for each in ast.parse(inspect.getsource(module)).body
        if isinstance(each, ast.ClassDef)
    }


def _of_class(node: ast.ClassDef) -> list[tuple[str, str]]:
    return [
        (attribute.target.id, inspect.cleandoc(text.value.value))
        for attribute, text in pairwise(node.body)
        if isinstance(attribute, ast.AnnAssign)
        and isinstance(attribute.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    ]
