"""The labs' notebooks: their form, their parts against the references, and all of them executed."""

from __future__ import annotations

import json
import os
import re
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from stresslens.config.study_file import read_study
from stresslens.labs.part import KINDS, lab_of
from stresslens.labs.part_process import check_part

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "labs").glob("*.ipynb"))
PAGE = (ROOT / "docs" / "labs.md").read_text(encoding="utf-8")
every = pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
PARTS = [part for file in NOTEBOOKS for part in lab_of(file).parts]


def cells(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["cells"]
    return found


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def test_there_is_one_for_each_lab() -> None:
    assert [file.stem for file in NOTEBOOKS] == [f"lab-{letter}" for letter in "abcdefg"]
    assert {part.kind for part in PARTS} == set(KINDS)


@every
def test_it_is_stored_without_output(file: Path) -> None:
    for cell in cells(file):
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)
    assert len({cell["id"] for cell in cells(file)}) == len(cells(file))
    assert file.stat().st_size < 20_000


@every
def test_it_says_what_a_student_needs(file: Path) -> None:
    text = "\n".join(source(cell) for cell in cells(file) if cell["cell_type"] == "markdown")
    for heading in ("**Question", "**The whole answer**", "**Where it stands in the report**"):
        assert heading in text
    for heading in ("**What we measured**", "## Your part", "## Where the original was wrong", "## Check"):
        assert heading in text
    assert max(map(len, text.splitlines())) <= 110
    assert "lab check" in source(cells(file)[-1])


@every
def test_what_it_names_is_there(file: Path) -> None:
    text = "\n".join(map(source, cells(file)))
    studies = set(re.findall(r"studies/([\w-]+\.yaml)", text))
    assert studies
    assert {name for name in studies if not (ROOT / "studies" / name).is_file()} == set()
    assert {name for name in studies if name not in PAGE} == set(), "docs/labs.md does not name it"
    letter = file.stem[-1].upper()
    assert f"| {letter} | " in PAGE
    assert f"`labs/{file.name}`" in PAGE
    assert re.search(rf"^### {letter}\. ", PAGE, re.MULTILINE)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: f"{Path(part.where).stem}-{part.function}")
def test_its_parts_are_right(part: Any, tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(part.source)
    found = {finding.audit: finding for finding in check_part(part, file)}
    assert {name for name, finding in found.items() if finding.severity == "serious"} == set()


@every
def test_its_studies_are_valid(file: Path, tmp_path: Path) -> None:
    (tmp_path / "studies").symlink_to(ROOT / "studies")
    work = tmp_path / "labs" / "work"
    work.mkdir(parents=True)
    for cell in cells(file):
        name, _, text = source(cell).partition("\n")
        if name.startswith("%%writefile work/"):
            (work / name.removeprefix("%%writefile work/")).write_text(text)
    for study in work.glob("*.yaml"):
        assert read_study(study).variants


def test_every_study_of_a_lab_is_in_the_index() -> None:
    named = [
        file.name
        for file in (ROOT / "studies").glob("*.yaml")
        if re.search(r"^# Lab [A-G]\b", file.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert len(named) > 15
    assert {name for name in named if name not in PAGE} == set()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@every
def test_it_runs(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    (tmp_path / "studies").symlink_to(ROOT / "studies")
    folder = tmp_path / "labs"
    folder.mkdir()
    (folder / file.name).write_bytes(file.read_bytes())
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    monkeypatch.setenv("PATH", os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]))
    notebook = nbformat.read(folder / file.name, as_version=4)
    nbformat.validate(notebook)
    client = nbclient.NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(folder)}})
    client.execute()
    last = "".join(output.get("text", "") for output in notebook.cells[-1].outputs)
    assert "✓" in last
    assert "✗" not in last
    assert "stresslens:" not in last
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            assert len(output.get("text", "")) < 3000


TEMPLATES = ROOT / "src" / "stresslens" / "report" / "templates"
HEADINGS = [
    heading
    for template in TEMPLATES.glob("*.j2")
    for heading in re.findall(r"<h2[^>]*>([^<{]+)", template.read_text(encoding="utf-8"))
]


def unknown_headings(names: list[str]) -> list[str]:
    """Those with which no heading of a report begins."""
    return [name for name in names if not any(heading.startswith(name) for heading in HEADINGS)]


def test_every_section_in_the_table_of_questions_is_a_heading_of_the_report() -> None:
    tables = re.findall(
        r"^\| question \| study \| section \| doc \|\n\|---.*\n((?:\|.*\n)+)", PAGE, flags=re.M
    )
    cells = [row.split(" | ")[2] for table in tables for row in table.splitlines()]
    places = [re.sub(r" \([^)]*\)", "", cell) for cell in cells if cell not in ("the same", "–")]
    names = [name for place in places for name in place.split(", ")]
    assert {"Verdicts", "Contrasts", "Robustness", "Data size", "Views"} <= set(names)
    assert unknown_headings(names) == []


@every
def test_a_notebook_quotes_headings_of_the_report(file: Path) -> None:
    text = " ".join(source(cells(file)[0]).split())
    where = re.search(r"\*\*Where it stands in the report\*\*.*?(?=\*\*What)", text)
    assert where
    names = re.findall(r'"([^"]+)"', where[0])
    assert names
    assert unknown_headings(names) == []
