"""The documentation site is built without a warning, and the pages that a reader types after print what
they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import walkthrough

import stresslens

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
WALKED = ["start.md", "statistics.md", "tutorials/student.md", "tutorials/engineer.md"]
WALKED += ["tutorials/researcher.md"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet"]
    done = subprocess.run(
        [*command, "-d", str(folder / "doctrees"), str(DOCS), str(folder / "html")],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


@pytest.mark.slow
def test_the_site_has_every_public_name_and_a_search_that_knows_them(site: Path) -> None:
    page = (site / "reference" / "python.html").read_text(encoding="utf-8")
    names = [name for name in stresslens.__all__ if not name.startswith("_")]
    assert [name for name in names if f'id="stresslens.{name}"' not in page] == []
    assert "nadeau" in (site / "searchindex.js").read_text(encoding="utf-8").lower()


@pytest.mark.slow
def test_the_site_asks_no_other_machine(site: Path) -> None:
    """So it works from a folder, without a network."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert re.findall(r'<(?:script|img|iframe)[^>]*src="(?:https?:)?//', text) == [], page
        assert re.findall(r'<link[^>]*rel="stylesheet"[^>]*href="(?:https?:)?//', text) == [], page


@pytest.mark.slow
@pytest.mark.parametrize("name", WALKED)
def test_a_page_prints_what_it_says(name: str, tmp_path: Path) -> None:
    commands = list(walkthrough.walk((DOCS / name).read_text(encoding="utf-8"), tmp_path))
    assert commands
    assert {each.text: each.errors for each in commands if each.exit_code} == {}
    wrong = {each.text: (each.expected, each.output) for each in commands if not each.as_written}
    assert wrong == {}


@pytest.mark.slow
def test_the_links_of_the_gallery_open_the_reports_of_its_commands(tmp_path: Path) -> None:
    page = (DOCS / "gallery.md").read_text(encoding="utf-8")
    commands = list(walkthrough.walk(page, tmp_path))
    assert {each.text: each.errors for each in commands if each.exit_code} == {}
    links = re.findall(r'href="gallery/([^"]+)"', page)
    assert links
    assert [link for link in links if not (tmp_path / "runs" / link).is_file()] == []
