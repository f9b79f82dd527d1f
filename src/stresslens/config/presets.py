"""Presets: named settings that come with stresslens, which a study begins from and overrides."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stresslens.config.dotted_keys import SLOTS
from stresslens.config.shipped_studies import study_folders
from stresslens.config.yaml_source import Source, head_of
from stresslens.core.errors import Problem
from stresslens.core.spelling import closest

STUDY = """{comments}
#
# yaml-language-server: $schema=schema.json
preset: {name}
data: digits  # or your images: {{folder: {{path: photos, size: 32}}}}
repeats: 3

# The settings of the preset. What you write here, without the #, takes their place:
#
{settings}
"""


@dataclass(frozen=True)
class Preset:
    """One preset: a file of settings, as a study has them."""

    file: Path

    @property
    def settings(self) -> dict[str, Any]:
        return dict(Source.read(self.file).values)

    @property
    def text(self) -> str:
        """The settings as they are written, without the comment above them."""
        lines = self.file.read_text(encoding="utf-8").splitlines()
        return "\n".join(line for line in lines if not line.startswith("#"))

    @property
    def purpose(self) -> str:
        """What it is for, and what was measured."""
        return " ".join(line.strip() for line in head_of(self.file)[1:] if line.strip())

    @property
    def study_text(self) -> str:
        """A study file that begins from it, with its settings as a comment."""
        name = self.file.stem
        about = textwrap.fill(f"It begins from the preset {name}: {self.purpose}", 98)
        comments = textwrap.indent(f"stresslens run studies/{name}.yaml\n\n{about}", "# ", lambda _: True)
        return STUDY.format(
            comments=comments.replace("# \n", "#\n"),
            name=name,
            settings=textwrap.indent(self.text, "# "),
        )


def presets() -> dict[str, Preset]:
    """The presets by name."""
    files = (file for folder in study_folders() for file in sorted((folder / "presets").glob("*.yaml")))
    return {file.stem: Preset(file) for file in files}


def no_preset(name: object) -> str:
    """What is said where a name is that of no preset."""
    return f"no preset is called {name!r}; {closest(str(name), list(presets()))}"


def with_preset(values: Mapping[str, Any], problems: list[Problem]) -> dict[str, Any]:
    """A study's values above those of the preset that its key `preset` names.

    A section of the study (`train`) changes single keys of the preset's; a plug-in takes the place of the
    preset's plug-in. An unknown name is added to `problems`.
    """
    name, known = values.get("preset"), presets()
    if not isinstance(name, str):  # anything but None is reported where the keys of the study are checked
        return dict(values)
    if name not in known:
        problems.append(Problem(("preset",), no_preset(name)))
        return dict(values)
    begun = known[name].settings
    if values.get("estimator") is not None:
        begun.pop("model", None)
    for key, value in values.items():
        below = begun.get(key)
        if isinstance(below, dict) and isinstance(value, Mapping) and (key,) not in SLOTS:
            value = {**below, **value}
        begun[key] = value
    return begun
