"""The pages of the documentation: their links lead somewhere, every page is in the site's contents, and
their code blocks can be read. tests/test_site.py builds the site."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import code_reference
import pytest
import walkthrough
import yaml
from draw_architecture import ORDER, drawing
from markdown_it import MarkdownIt
from markdown_it.token import Token

import stresslens
from stresslens.config.registry import VOCABULARY

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SITE = sorted(file for file in DOCS.rglob("*.md") if "_build" not in file.parts)
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *SITE]
MARKDOWN = MarkdownIt("commonmark").enable("table")
by_page = pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def tokens_of(text: str) -> Iterator[Token]:
    for token in MARKDOWN.parse(text):
        yield token
        yield from token.children or []


def anchors_of(text: str) -> set[str]:
    """The anchors of the headings, as GitHub makes them."""
    tokens = MARKDOWN.parse(text)
    titles = (
        "".join(child.content for child in tokens[at + 1].children or [])
        for at, token in enumerate(tokens)
        if token.type == "heading_open"
    )
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links_of(text: str) -> Iterator[str]:
    for token in tokens_of(text):
        target = token.attrGet("href") or token.attrGet("src")
        if isinstance(target, str) and not re.match(r"https?:|mailto:", target):
            yield target


def wrong_links(page: Path, text: str) -> list[str]:
    """The links of a page that lead to no file, or to no heading of it."""
    wrong = []
    for link in links_of(text):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (
            anchor and anchor not in anchors_of(text if not path else text_of(target))
        ):
            wrong.append(link)
    return wrong


def blocks_of(text: str) -> Iterator[tuple[str, str]]:
    """The code blocks with their language."""
    for token in MARKDOWN.parse(text):
        if token.type == "fence":
            yield token.info.strip(), token.content


@pytest.mark.breadth(16)
@by_page
def test_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    assert wrong_links(page, text_of(page)) == []


def test_wrong_links_are_found() -> None:
    text = "# A b, `c`\n\n[a](#a-b-c) [b](#d) [c](overview.md#exit-codes) [d](overview.md#d) [e](f.md)"
    assert wrong_links(DOCS / "index.md", text) == ["#d", "overview.md#d", "f.md"]


@by_page
def test_code_blocks_can_be_read(page: Path) -> None:
    for kind, text in blocks_of(text_of(page)):
        assert kind in READERS, f"{kind!r} is no language of the pages"
        READERS[kind](text)


READERS = {
    "python": lambda text: ast.parse(text, type_comments=False),
    "yaml": lambda text: list(yaml.compose_all(text)),
    "json": json.loads,
    "toml": tomllib.loads,
    **dict.fromkeys(["sh", "console", "text", "mermaid", "{toctree}", ""], lambda text: None),
}


@pytest.mark.parametrize(("kind", "text"), [("python", "a ="), ("yaml", "a: [1"), ("json", "{")])
def test_a_broken_block_is_not_read(kind: str, text: str) -> None:
    with pytest.raises((SyntaxError, yaml.YAMLError, ValueError)):
        READERS[kind](text)


@pytest.mark.parametrize("page", SITE, ids=[str(page.relative_to(DOCS)) for page in SITE])
def test_lines_have_at_most_100_characters(page: Path) -> None:
    """Lines of tables and blocks may be longer, and a line that is one command."""
    text = re.sub(r"^( *)```.*?^\1```", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("|"))
    assert [line for line in lines if len(line) > 100 and not re.fullmatch("`[^`]+`", line)] == []


def entries_of(page: Path) -> Iterator[Path]:
    """The pages in the tables of contents of a page."""
    for kind, text in blocks_of(text_of(page)):
        if kind == "{toctree}":
            for line in filter(None, text.splitlines()):
                if not line.startswith(":"):
                    yield page.parent / f"{line}.md"


def test_no_page_is_orphaned_and_none_is_listed_twice() -> None:
    listed = [entry for page in SITE for entry in entries_of(page)]
    assert sorted(listed) == sorted(page for page in SITE if page != DOCS / "index.md")


def test_every_kind_of_plugin_has_a_page() -> None:
    pages = {page.stem: text_of(page) for page in (DOCS / "reference" / "plugins").glob("*.md")}
    assert pages.keys() == VOCABULARY.keys()
    for kind, text in pages.items():
        assert f"<!-- made from: plugins {kind} -->" in text


@pytest.mark.parametrize(
    ("part", "names"),
    [
        ("python", [name for name in stresslens.__all__ if not name.startswith("_")]),
        ("commands", ["stresslens run", "stresslens data check", "`--fail-under`", "`[OVERRIDES …]`"]),
        ("keys", ["## train.fine_tune", "| `batch_size` | whole number ≥ 1 or `full` | `64` |"]),
        ("keys", ["| `optimizer` | one of the [optimizers](plugins/optimizers.md) | `adam` |"]),
        ("plugins attacks", ["## pgd", "| `steps` | whole number ≥ 1 | `40` |", "[losses](losses.md)"]),
        ("plugins models", ["## vit", "## torchvision"]),
        ("studies", ["## quickstart", "about 13 s"]),
        ("document CHANGELOG.md", ["# Changelog"]),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_part_made_from_the_code_has_every_name(part: str, names: list[str]) -> None:
    text = code_reference.with_parts(f"before\n<!-- made from: {part} -->\nafter")
    assert text.startswith("before\n")
    assert text.endswith("\nafter")
    assert [name for name in names if name not in text] == []


def test_an_unknown_part_is_refused() -> None:
    with pytest.raises(KeyError):
        code_reference.with_parts("<!-- made from: nothing -->")


def test_a_key_that_holds_plug_ins_links_to_their_page() -> None:
    keys, models = code_reference.keys(), code_reference.plugins("models")
    attacks = "[attacks](plugins/attacks.md)"
    assert f"| `protocol` | `fast`, `standard`, `none` or a list of {attacks} | `fast` |" in keys
    assert f"| `attack` | one of the {attacks} | must be given |" in keys
    assert "| `views` | a list of [views](plugins/views.md) or the keys below or none | none |" in keys
    assert "| `weights` | mapping or none | none |" in models


def test_the_drawing_of_the_packages_has_each_of_them() -> None:
    texts = [each.text for each in ElementTree.fromstring(drawing()).iter("text")]
    assert sorted(filter(None, texts)) == sorted(ORDER)


def test_a_walk_tells_other_output_and_exit_codes(tmp_path: Path) -> None:
    page = (
        "```python\n# a.py\nprint('one  two 3')\n```\n"
        "```console\n$ python a.py\none\ntwo …\n$ python a.py\nother\n$ echo a \\\n    b\n$ exit 3\n```\n"
    )
    same, other, joined, ended = walkthrough.walk(page, tmp_path)
    assert (same.as_written, other.as_written, joined.output, ended.exit_code) == (True, False, "a b", 3)
