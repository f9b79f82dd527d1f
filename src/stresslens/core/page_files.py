"""The files that pages are made of and that come with the package: style sheets, scripts and templates."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def page_file(package: str, name: str) -> str:
    """The text of a file of a package, such as ("core", "colours.css")."""
    return (files(f"stresslens.{package}") / name).read_text(encoding="utf-8")


def page_templates(package: str, folder: str) -> Environment:
    """The templates in the folder of a package; what they insert is escaped, and every name must exist."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(f"stresslens.{package}", folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
