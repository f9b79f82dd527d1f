"""What the documents tell the author of a plug-in to import is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from stresslens import plugins

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "CONTRIBUTING.md", ROOT / "README.md", *(ROOT / "docs").glob("*.md")])


def names_in(page: Path) -> set[str]:
    text = page.read_text(encoding="utf-8")
    lines = re.findall(r"^\s*from stresslens\.plugins import .+$", text, re.MULTILINE)
    imported = {alias.name for line in lines for alias in ast.parse(line.strip()).body[0].names}  # type: ignore[attr-defined]
    return imported | set(re.findall(r"\bstresslens\.plugins\.([A-Z]\w+)", text))


@pytest.mark.parametrize("name", plugins.__all__)
def test_every_name_for_authors_is_there(name: str) -> None:
    assert getattr(plugins, name) is not None
    assert name in dir(plugins)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(plugins.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {(node.module, node.names[0].name) for node in block.body if isinstance(node, ast.ImportFrom)}
    assert seen == {(f"stresslens.core.{home}", name) for name, home in plugins._HOME_OF.items()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_in_the_documents_are_there(page: Path) -> None:
    assert names_in(page) <= set(plugins.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Mapps'"):
        _ = plugins.Mapps
