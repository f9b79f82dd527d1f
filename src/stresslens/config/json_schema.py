"""The JSON schema of study files, from the dataclasses of their keys and the signatures of plug-ins:
an editor completes keys with it, shows their help, and marks mistakes."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from pydantic import PydanticUserError, TypeAdapter

from stresslens.config import registry
from stresslens.config.attribute_docstrings import WithAttributeDocstrings
from stresslens.config.dotted_keys import SLOTS
from stresslens.config.ingredients import FORMS
from stresslens.config.known_plugins import known_plugins
from stresslens.config.old_words import KEYS, VALUES
from stresslens.config.schema import VariantConfig
from stresslens.config.search_space import Range
from stresslens.config.study_keys import StudyKeys
from stresslens.config.sweep_validation import SECTIONS
from stresslens.config.wrong_values import LISTED_PLUGINS

Schema = dict[str, Any]

PLUGINS: dict[registry.Keys, str] = {
    **SLOTS,
    **LISTED_PLUGINS,
    ("robustness", "individual_attacks", "attack"): "attacks",
}
"""Every key that holds a plug-in or a list of them, and its folder."""
FOLDERS = sorted({*PLUGINS.values(), *registry.NESTED.values()})
"""The folders whose plug-ins a study file can name."""
OWN = "^.+:.+$"
"""The name of a custom plug-in, `file.py:function` or `module:function`."""
_NAMED = {"type": "string"}, {"additionalProperties": True, "type": "object"}
"""The schema of a plug-in's name, and of a name with options, as `PluginValue` gives it."""


def study_schema() -> Schema:
    """The JSON schema (draft 2020-12) of a study file, with every plug-in and its options."""
    functions = {
        (folder, name): function for folder in FOLDERS for name, function in known_plugins(folder).items()
    }
    declared = {key: registry.declared_by(key[0], function) for key, function in functions.items()}
    sections = {("study", kind.__name__): kind for kind in (StudyKeys, VariantConfig, Range)}
    annotations: dict[Any, Any] = {
        (*key, name): _described(option.annotation)
        for key, options in declared.items()
        for name, option in options.items()
        if registry.nested_folder(option.annotation) is None
    }
    schemas, found = TypeAdapter.json_schemas(
        [
            (key, "validation", registry.adapter_of(annotation))
            for key, annotation in {**sections, **annotations}.items()
        ],
        schema_generator=WithAttributeDocstrings,
    )
    of = {key: schema for (key, _), schema in schemas.items()}
    definitions: dict[str, Schema] = found["$defs"]
    for path, folder in PLUGINS.items():
        keys = _owner(path, definitions)
        keys[path[-1]] = with_plugins(keys[path[-1]], folder)
    for (folder, name), options in declared.items():
        help_text = inspect.getdoc(functions[folder, name]) or ""
        definitions[f"{folder}.{name}"] = _options(folder, name, options, of, help_text)
    for folder in FOLDERS:
        definitions[folder] = _plugin(folder, definitions)
    _add_old_words(definitions)
    return _study(definitions)


def _described(annotation: Any) -> Any:
    """The annotation, or Any where JSON schema cannot describe its values."""
    try:
        registry.adapter_of(annotation).json_schema()
    except PydanticUserError:
        return Any
    return annotation


def _of_folder(folder: str, definitions: Mapping[str, Schema]) -> dict[str, Schema]:
    """The schemas of the options of each plug-in of a folder, by the plug-in's name."""
    return {
        key.removeprefix(f"{folder}."): schema
        for key, schema in definitions.items()
        if key.startswith(f"{folder}.")
    }


def schema_text() -> str:
    """The JSON schema of study files as the text of a file."""
    return json.dumps(study_schema(), indent=1, ensure_ascii=False) + "\n"


def _section(schema: Schema, definitions: Mapping[str, Schema]) -> str:
    """The name of the definition of the section that a schema allows; empty for a plug-in or where
    there is none."""
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    if name:
        return name if name not in registry.VOCABULARY and "properties" in definitions[name] else ""
    branches = [*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else [])]
    return next(filter(None, (_section(branch, definitions) for branch in branches)), "")


def _owner(path: registry.Keys, definitions: Mapping[str, Schema]) -> dict[Any, Schema]:
    """The schemas of the keys beside the one at a path of a configuration, this one included."""
    name = "VariantConfig"
    for key in path[:-1]:
        name = _section(definitions[name]["properties"][key], definitions)
    keys: dict[Any, Schema] = definitions[name]["properties"]
    return keys


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def with_plugins(schema: Schema, folder: str) -> Schema:
    """The schema with plug-ins of the folder in place of any name, and any name with options."""
    branches = [with_plugins(branch, folder) for branch in schema.get("anyOf", ())]
    changed = {**schema, **({"anyOf": branches} if branches else {})}
    if "items" in schema:
        changed["items"] = with_plugins(schema["items"], folder)
    if all(kind in branches for kind in _NAMED):
        others = [branch for branch in branches if branch not in _NAMED]
        if not others:
            del changed["anyOf"]
            return {**changed, **_ref(folder)}
        changed["anyOf"] = [_ref(folder), *others]
    return changed


def _options(
    folder: str,
    name: str,
    options: Mapping[str, inspect.Parameter],
    of: Mapping[Any, Schema],
    help_text: str,
) -> Schema:
    """The schema of a plug-in's options."""
    properties: dict[str, Schema] = {}
    for option, parameter in options.items():
        nested = registry.nested_folder(parameter.annotation)
        schema = dict(of[folder, name, option]) if nested is None else _ref(nested)
        common = registry.COMMON_OPTIONS.get(folder, {}).get(option)
        if common is not None and common is not parameter:
            schema = {"anyOf": [schema, registry.adapter_of(common.annotation).json_schema()]}
        if about := _about(option, help_text):
            schema["description"] = about
        with suppress(ValueError):  # a default that JSON does not have
            if parameter.default is not parameter.empty:
                default = TypeAdapter(Any).dump_python(parameter.default, mode="json")
                schema["default"] = json.loads(json.dumps(default, allow_nan=False))
        properties[option] = schema
    required = [option for option, parameter in options.items() if parameter.default is parameter.empty]
    return {
        "type": "object" if required else ["object", "null"],
        "description": help_text,
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _about(option: str, help_text: str) -> str:
    """The sentences of a docstring that name an option."""
    sentences = re.split(r"(?<=[.;])\s+", help_text)
    return " ".join(" ".join(each.split()) for each in sentences if re.search(rf"`{option}\b", each))


def _plugin(folder: str, definitions: Mapping[str, Schema]) -> Schema:
    """The schema of a plug-in of a folder: its name, or its name with options."""
    of_name = _of_folder(folder, definitions)
    first = {name: " ".join(s["description"].split("\n\n")[0].split()) for name, s in of_name.items()}
    by_name = [
        {"const": name, "description": first[name]} for name, s in of_name.items() if not s["required"]
    ]
    options = {name: _ref(f"{folder}.{name}") | {"description": first[name]} for name in of_name}
    renamed = [words for place, words in VALUES.items() if PLUGINS.get(place) == folder]
    for old, new in {old: new for words in renamed for old, new in words.items()}.items():
        by_name.append({"const": old, **_deprecated(new)})
        options[old] = _ref(f"{folder}.{new}") | _deprecated(new)
    with_options = {
        "type": "object",
        "properties": options,
        "patternProperties": {OWN: {"type": ["object", "null"]}},
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 1,
    }
    return {"anyOf": [*by_name, {"type": "string", "pattern": OWN}, with_options]}


def _add_old_words(definitions: Mapping[str, Schema]) -> None:
    """Adds the keys and choices of version 0.1.0, marked as deprecated."""
    for path, new in KEYS.items():
        keys = _owner(path, definitions)
        if new in keys:  # those of the study itself are added with it
            keys[path[-1]] = {**keys[new], **_deprecated(new)}
    for place, words in VALUES.items():
        if place not in PLUGINS:
            keys = _owner(place, definitions)
            old = {"enum": list(words), **_deprecated(", ".join(words.values()))}
            keys[place[-1]] = {**keys[place[-1]], "anyOf": [*keys[place[-1]]["anyOf"], old]}


def _deprecated(new: str) -> Schema:
    return {"deprecated": True, "description": f"A word of version 0.1.0; now {new}."}


def _study(definitions: dict[str, Schema]) -> Schema:
    """The schema of the whole file, with the dotted keys of its variants."""
    options = {path: _option_schemas(path, folder, definitions) for path, folder in SLOTS.items()}
    settings = dict(_settings("VariantConfig", definitions))
    settings |= {key: {} for known in options.values() for key in known}
    swept = {key: schema for key, schema in settings.items() if key.partition(".")[0] in SECTIONS}
    study = dict(definitions.pop("StudyKeys")["properties"])
    sweep = definitions["Sweep"]["properties"]

    def keys(known: Mapping[str, Schema], value: Callable[[Schema], Schema], **more: Any) -> Schema:
        return {
            "type": "object",
            "properties": {key: value(schema) for key, schema in known.items()},
            "patternProperties": {_pattern(path): {} for path in SLOTS if str(path[0]) in known},
            "additionalProperties": False,
            **more,
        }

    definitions["changes"] = keys(settings, _same, type=["object", "null"])
    definitions["space"] = {"anyOf": [{"type": "array"}, _CHOICES, _ref("Range")]}
    definitions["trial"] = keys(swept, _same)
    ablated = {"type": "object", "properties": {form: {} for form in FORMS}, "required": [FORMS[0]]}
    definitions["ablated"] = ablated
    definitions["ingredient"] = keys(settings, lambda schema: {"anyOf": [schema, _ref("ablated")]})
    auto = {"const": "auto"}
    study["ablate"] = {**study["ablate"], "anyOf": [_map_of(_ref("ingredient")), auto, {"type": "null"}]}
    study["runs"] = {**study["runs"], "anyOf": [_map_of(_ref("changes")), {"type": "null"}]}
    study["grid"] = {**study["grid"], "anyOf": [keys(settings, _listed), {"type": "null"}]}
    sweep["settings"] = {**sweep["settings"], "anyOf": [_listed(_ref("trial")), {"type": "null"}]}
    space = keys(swept, _choices, allOf=[_map_of(_ref("space"))])
    sweep["space"] = {**sweep["space"], "anyOf": [space, {"type": "null"}]}
    study["curve"] = {**study["data_sizes"], **_deprecated("data_sizes")}
    variant = {key: _ref(f"VariantConfig/properties/{key}") for key in _owner(("",), definitions)}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A study file of stresslens",
        "type": "object",
        "properties": {**study, **variant},
        "additionalProperties": False,
        "allOf": [_checked_options(path, known, definitions) for path, known in options.items()],
        "$defs": definitions,
    }


def _settings(
    section: str, definitions: Mapping[str, Schema], prefix: str = ""
) -> Iterator[tuple[str, Schema]]:
    """Every dotted key of a section with its schema, without the options of plug-ins."""
    for key, schema in definitions[section]["properties"].items():
        yield f"{prefix}{key}", _ref(f"{section}/properties/{key}")
        if schema.get("type") != "array" and (below := _section(schema, definitions)):
            yield from _settings(below, definitions, f"{prefix}{key}.")


def _option_schemas(path: registry.Keys, folder: str, definitions: Mapping[str, Schema]) -> dict[str, Schema]:
    """Every dotted key of an option of the plug-ins at `path`, without the plug-in's name."""
    branches: dict[str, dict[str, Schema]] = {}
    plugins = _of_folder(folder, definitions)
    for name, plugin in plugins.items():
        for option, schema in plugin["properties"].items():
            reference = _ref(f"{folder}.{name}/properties/{option}")
            branches.setdefault(option, {}).setdefault(str(schema), reference)
    at = ".".join(map(str, path))
    for name in set(branches) & set(plugins):
        branches[name][name] = _ref(f"{folder}.{name}")
    return {
        f"{at}.{option}": first if not others else {"anyOf": [first, *others]}
        for option, schemas in branches.items()
        for first, *others in [[*schemas.values()]]
    }


def _same(schema: Schema) -> Schema:
    return schema


def _map_of(schema: Schema) -> Schema:
    return {"type": "object", "additionalProperties": schema}


def _pattern(path: registry.Keys) -> str:
    return "^" + re.escape(".".join(map(str, path))) + r"\."


def _listed(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


_CHOICES = {
    "type": "object",
    "properties": {"choices": {"type": "array"}},
    "required": ["choices"],
    "additionalProperties": False,
}


def _choices(schema: Schema) -> Schema:
    """The schema of a setting of a search space whose values have this schema."""
    return {"items": schema, "properties": {"choices": {"items": schema}}}


def _known(path: registry.Keys, definitions: Mapping[str, Schema]) -> str:
    """A pattern of the dotted keys of the options at `path`, with or without the plug-in's name, and
    of that name alone."""
    of_name = {
        name: list(plugin["properties"]) for name, plugin in _of_folder(SLOTS[path], definitions).items()
    }
    every = {option for options in of_name.values() for option in options}
    named = [rf"{name}(?:\.{_one_of(options)}|$)" for name, options in of_name.items()]
    return rf"{_pattern(path)}(?:{_one_of(sorted(every - set(of_name)))}|{'|'.join(named)})"


def _one_of(options: Sequence[str]) -> str:
    """A pattern of options, alone or with what is below them; it matches nothing without options."""
    return rf"(?:{'|'.join(options)})(?:\.|$)" if options else "(?!)"


def _checked_options(
    path: registry.Keys, known: Mapping[str, Schema], definitions: Mapping[str, Schema]
) -> Schema:
    """The condition that the dotted keys below `path` are options of its plug-ins, with their types;
    a study that names a custom plug-in there may give any."""
    at = ".".join(map(str, path))
    own = {"pattern": OWN}
    built_in = {"not": {"type": "string", **own}, "propertyNames": {"not": own}}
    section: Schema = built_in
    for key in reversed(path):
        section = {"properties": {key: section}}
    in_changes = {"properties": {**section["properties"], at: built_in}}
    names = {"anyOf": [{"not": {"pattern": _pattern(path)}}, {"pattern": _known(path, definitions)}]}

    def checked(value: Callable[[Schema], Schema]) -> Schema:
        properties = {key: value(schema) for key, schema in known.items()}
        return {"properties": properties, "propertyNames": names}

    def everywhere(changes: Schema, grid: Schema, space: Schema) -> dict[str, Schema]:
        sweep = {"properties": {"space": space, "settings": {"items": changes}}}
        return {"runs": {"additionalProperties": changes}, "grid": grid, "sweep": sweep}

    where = everywhere(
        in_changes, {"properties": {at: {"items": built_in}}}, {"properties": {at: _choices(built_in)}}
    )
    return {
        "if": {"properties": {**section["properties"], **where}},
        "then": {"properties": everywhere(checked(_same), checked(_listed), checked(_choices))},
    }
