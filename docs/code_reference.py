"""The reference pages, as Markdown made from the code: the public names of Python, the commands, the
keys of a study file, the plug-ins of a kind, the heads of the shipped studies.

docs/conf.py puts each text behind a line `<!-- made from: PART -->` of a page.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer.main
from pydantic import PydanticUserError, TypeAdapter

import stresslens
from stresslens.cli.main import app
from stresslens.config import registry
from stresslens.config.attribute_docstrings import WithAttributeDocstrings
from stresslens.config.json_schema import PLUGINS, with_plugins
from stresslens.config.schema import VariantConfig
from stresslens.config.study_keys import StudyKeys
from stresslens.config.yaml_source import head_of

ROOT = Path(__file__).parents[1]
MARK = re.compile(r"^<!-- made from: (\w+)(?: ([\w.]+))? -->$", re.MULTILINE)


def with_parts(page: str) -> str:
    """The page with the text of each part behind its mark. Raises KeyError for an unknown part."""
    return MARK.sub(
        lambda mark: f"{mark[0]}\n\n{PARTS[mark[1]](*mark.groups()[1:2] if mark[2] else ())}", page
    )


# --- Python ---------------------------------------------------------------------------------------


def python() -> str:
    """A directive of autodoc for every public name: functions, then classes, then errors."""
    objects = {
        name: getattr(stresslens, name) for name in sorted(stresslens.__all__) if not name.startswith("_")
    }
    errors = {name for name, each in objects.items() if _is_error(each)}
    classes = {name for name, each in objects.items() if inspect.isclass(each)} - errors
    groups = {"Functions": objects.keys() - classes - errors, "Classes": classes, "Errors": errors}
    lines: list[str] = []
    for title, names in groups.items():
        lines += [f"## {title}", ""]
        for name in sorted(names):
            directive = "autofunction" if title == "Functions" else "autoclass"
            options = ["   :members:", "   :member-order: bysource"] if title == "Classes" else []
            lines += ["```{eval-rst}", f".. {directive}:: stresslens.{name}", *options, "```", ""]
    return "\n".join(lines)


def _is_error(each: Any) -> bool:
    return inspect.isclass(each) and issubclass(each, Exception)


# --- commands -------------------------------------------------------------------------------------


def commands() -> str:
    """Every command with its usage, its help, its arguments and options."""
    return "\n".join(_commands_of(typer.main.get_command(app), "stresslens"))


def _commands_of(group: Any, path: str) -> Iterator[str]:
    for name in sorted(group.commands):
        command = group.commands[name]
        if hasattr(command, "commands"):
            yield from _commands_of(command, f"{path} {name}")
            continue
        usage = " ".join(filter(None, map(_argument, command.params)))
        yield from (f"## {path} {name}", "", "```text", f"{path} {name} {usage}".strip(), "```", "")
        yield from (_plain(inspect.cleandoc(command.help or "")), "")
        rows = [_parameter_row(each) for each in command.params if not getattr(each, "hidden", False)]
        if rows:
            yield from ("| argument or option | what it is | default |", "|---|---|---|", *rows, "")


def _argument(parameter: Any) -> str:
    """An argument as usage lines have it, `RUN`, `[COMMAND …]`; empty for an option."""
    if parameter.param_type_name != "argument":
        return ""
    name = (parameter.metavar or parameter.name.upper()) + " …" * (parameter.nargs == -1)
    return name if parameter.required else f"[{name}]"


def _parameter_row(parameter: Any) -> str:
    if argument := _argument(parameter):
        name = f"`{argument}`"
    else:
        name = ", ".join(f"`{each}`" for each in (*parameter.opts, *parameter.secondary_opts))
    default = parameter.default
    shown = (
        f"`{default}`" if isinstance(default, str | int | float | Path) and default not in (False, "") else ""
    )
    return _row(name, _plain(getattr(parameter, "help", None) or ""), shown)


# --- keys of a study ------------------------------------------------------------------------------


def keys() -> str:
    """Every key of a study file: its type and range, its default, and what it is."""
    lines = ["## Top level", "", *_key_table([StudyKeys, VariantConfig]), ""]
    for section in _sections():
        title = next(path for path, found in _section_paths() if found is section)
        text = _plain(inspect.getdoc(section) or "")
        lines += [f"## {title}", "", text, "", *_key_table([section], title), ""]
    return "\n".join(lines)


def _sections() -> list[type]:
    return list(dict.fromkeys(section for _, section in _section_paths()))


def _section_paths() -> Iterator[tuple[str, type]]:
    for root in (StudyKeys, VariantConfig):
        yield from _below(root, "")


def _below(section: type, prefix: str) -> Iterator[tuple[str, type]]:
    for name, annotation in get_type_hints(section, include_extras=True).items():
        for each in _dataclasses_in(annotation):
            yield f"{prefix}{name}", each
            yield from _below(each, f"{prefix}{name}.")


def _dataclasses_in(annotation: Any) -> Iterator[type]:
    if inspect.isclass(annotation) and is_dataclass(annotation):
        yield annotation
    for each in get_args(annotation):
        yield from _dataclasses_in(each)


def _key_table(sections: list[type], path: str = "") -> list[str]:
    lines = ["| key | type | default | what it is |", "|---|---|---|---|"]
    for section in sections:
        schema = TypeAdapter(section).json_schema(schema_generator=WithAttributeDocstrings)
        for each in fields(section):
            node = schema["properties"][each.name]
            kind = PLUGINS.get(tuple(filter(None, (*path.split("."), each.name))))
            what = _type_words(with_plugins(node, kind) if kind else node)
            row = _row(f"`{each.name}`", what, _default(each), _plain(node.get("description", "")))
            lines.append(row)
    return lines


def _default(each: Any) -> str:
    if each.default_factory is not dataclasses.MISSING:
        value = each.default_factory()
        return "see below" if is_dataclass(value) else f"`{value}`"
    # pydantic keeps the default of a field with an annotation in its own FieldInfo
    value = getattr(each.default, "default", each.default)
    if value is dataclasses.MISSING or type(value).__name__ == "PydanticUndefinedType":
        return "must be given"
    return "none" if value is None else f"`{str(value).lower() if isinstance(value, bool) else value}`"


# --- plug-ins -------------------------------------------------------------------------------------


def plugins(kind: str) -> str:
    """Every built-in plug-in of a kind, with its options and its docstring."""
    needs = ", ".join(f"`{word}`" for word in registry.VOCABULARY[kind]) or "nothing"
    names = registry.names(kind)
    lines = [f"{len(names)} of this kind are built in. A function of this kind may ask for {needs}.", ""]
    for name in names:
        function = registry.plugin(kind, name)
        lines += [f"## {name}", "", _plain(inspect.getdoc(function) or ""), ""]
        options = registry.declared_by(kind, function)
        if options:
            rows = [_option_row(option, parameter) for option, parameter in options.items()]
            lines += ["| option | type | default |", "|---|---|---|", *rows, ""]
        else:
            lines += ["It has no options.", ""]
    return "\n".join(lines)


def _option_row(name: str, parameter: inspect.Parameter) -> str:
    value = parameter.default
    if value is parameter.empty:
        default = "must be given"
    elif value is None:
        default = "none"
    else:
        default = f"`{str(value).lower() if isinstance(value, bool) else value}`"
    return _row(f"`{name}`", _annotation_words(parameter.annotation), default)


def _annotation_words(annotation: Any) -> str:
    if (kind := registry.nested_folder(annotation)) is not None:
        return f"one of the [{kind}]({kind}.md)"
    try:
        return _type_words(registry.adapter_of(annotation).json_schema())
    except PydanticUserError:
        return f"`{inspect.formatannotation(annotation)}`"


# --- files above this folder ----------------------------------------------------------------------


def studies() -> str:
    """Every shipped study, with the comment at its head."""
    lines: list[str] = []
    for file in sorted((ROOT / "studies").glob("*.yaml")):
        text = file.read_text(encoding="utf-8").splitlines()
        head = head_of(file)
        lines += [f"## {file.stem}", "", "```text", *head, "```", ""]
        lines += ["```yaml", *text[len(head) :], "```", ""]
    return "\n".join(lines)


def document(name: str) -> str:
    """A document beside the README, with its links as from this folder."""
    return (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")


# --- words ----------------------------------------------------------------------------------------

BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
MANY = 2**31
"""A bound as large as this one is not told."""
TYPES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "`true` or `false`"}


def _type_words(node: dict[str, Any]) -> str:
    """A JSON schema in words: `whole number ≥ 1`, `list of text`, …"""
    if "anyOf" in node:
        return " or ".join(dict.fromkeys(map(_type_words, node["anyOf"])))
    if "enum" in node or "const" in node:
        return ", ".join(f"`{value}`" for value in node.get("enum", [node.get("const")]))
    if kind := _plugin_kind(node):
        return f"one of the [{kind}](plugins/{kind}.md)"
    if "$ref" in node:
        known = {section.__name__ for section in _sections()}
        return "the keys below" if node["$ref"].rpartition("/")[2] in known else "mapping"
    kind = node.get("type")
    if kind == "null":
        return "none"
    if kind == "array":
        if items := node.get("prefixItems"):
            return f"[{', '.join(map(_type_words, items))}]"
        kind = _plugin_kind(node["items"])
        return f"a list of [{kind}](plugins/{kind}.md)" if kind else f"list of {_type_words(node['items'])}"
    if kind == "object":
        return "mapping"
    bounds = [
        f"{sign} {node[key]:g}" for key, sign in BOUNDS.items() if key in node and abs(node[key]) < MANY
    ]
    return " ".join([TYPES.get(kind or "", "any value"), " and ".join(bounds)]).strip()


def _plugin_kind(node: dict[str, Any]) -> str:
    """The kind of the plug-ins that a JSON schema allows; empty where it allows something else."""
    name = str(node.get("$ref", "")).rpartition("/")[2]
    return name if name in registry.VOCABULARY else ""


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|').replace(chr(10), ' ') for cell in cells)} |"


def _plain(text: str) -> str:
    """A docstring as Markdown: `*` and `_` outside of code stand for themselves, and so does `<`."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([*<\[\]$#])|(?<=\W)_(?=\w)", lambda m: "\\" + m[0], part)
        for part in parts
    )


PARTS: dict[str, Callable[..., str]] = {
    part.__name__: part for part in (python, commands, keys, plugins, studies, document)
}
