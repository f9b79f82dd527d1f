"""The study files that come with stresslens, in a clone and in an installed package."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from stresslens.config.own_plugins import own_plugins
from stresslens.config.yaml_source import Source, head_of

_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class ShippedStudy:
    """One study file that comes with stresslens."""

    file: Path

    @property
    def needs(self) -> list[Path]:
        """The files of the custom plug-ins that it names, below its folder."""
        names = own_plugins(Source.read(self.file).values)
        return sorted({Path(name.rpartition(":")[0]) for name in names if ".py:" in name})

    @property
    def duration(self) -> str:
        """How long it takes, as its first line says; empty where it was not measured."""
        found = re.search(r"\s{2,}(about .*)", head_of(self.file)[0])
        return found[1] if found else ""

    @property
    def purpose(self) -> str:
        """The first paragraph behind the command."""
        paragraphs = "\n".join(line.strip() for line in head_of(self.file)[1:]).split("\n\n")
        return next((each.strip().replace("\n", " ") for each in paragraphs if each.strip()), "")


def shipped_studies() -> dict[str, ShippedStudy]:
    """The studies by name."""
    files = (file for folder in study_folders() for file in sorted(folder.glob("*.yaml")))
    return {file.stem: ShippedStudy(file) for file in files}


def study_folders() -> list[Path]:
    """The folder of the studies that come with stresslens: that of the installed package, or of the
    clone; empty where neither is there."""
    folders = (_PACKAGE / "studies", _PACKAGE.parents[1] / "studies")
    return [folder for folder in folders if any(folder.glob("*.yaml"))][:1]
