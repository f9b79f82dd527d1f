"""Which parts and tables are found in notebooks, files and folders, and what is said of the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from parts_of_students import CONVOLUTION, LOSS

from stresslens.core.errors import ConfigError
from stresslens.labs.part import KINDS, lab_of


def notebook(path: Path, *cells: tuple[str, Any]) -> Path:
    """A notebook of cells (kind, source)."""
    written = [{"cell_type": kind, "source": source, "metadata": {}} for kind, source in cells]
    path.write_text(json.dumps({"cells": written, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}))
    return path


def test_a_cell_that_begins_with_the_line_is_a_part(tmp_path: Path) -> None:
    source = "# part: loss {cross_entropy: {smoothing: 0.1}} net=mlp\ndef own(logits, y):\n    return 0\n"
    file = notebook(tmp_path / "a.ipynb", ("markdown", "# part: loss"), ("code", "1 + 1"), ("code", source))
    (part,) = lab_of(file).parts
    assert (part.kind, part.function) == ("loss", "own")
    assert part.reference == "{cross_entropy: {smoothing: 0.1}}"
    assert part.options == {"net": "mlp"}
    assert part.title == f"{file}, cell 3: loss (own)"


def test_an_executed_cell_is_named_as_jupyter_shows_it(tmp_path: Path) -> None:
    file = notebook(tmp_path / "a.ipynb", ("markdown", "# A"), ("code", LOSS))
    written = json.loads(file.read_text())
    written["cells"][1]["execution_count"] = 7
    file.write_text(json.dumps(written))
    assert lab_of(file).parts[0].where == f"{file}, cell 2, shown as [7]"


@pytest.mark.parametrize("line", ["# part: loss", "#part:loss", "#  Part :  loss  ", "\n\n# part: loss"])
def test_spaces_and_capitals_do_not_matter(line: str, tmp_path: Path) -> None:
    file = notebook(tmp_path / "a.ipynb", ("code", f"{line}\ndef own(logits, y):\n    return 0\n"))
    assert lab_of(file).parts[0].kind == "loss"


def test_a_cell_may_be_a_list_of_lines_and_may_write_a_file(tmp_path: Path) -> None:
    lines = ["%%writefile own.py\n", *LOSS.lstrip().splitlines(keepends=True)]
    (part,) = lab_of(notebook(tmp_path / "a.ipynb", ("code", lines))).parts
    assert part.source.splitlines()[1] == "# part: loss cross_entropy"  # line numbers are the cell's


def test_a_file_that_a_cell_wrote_is_the_same_part(tmp_path: Path) -> None:
    notebook(tmp_path / "a.ipynb", ("code", "%%writefile own.py\n" + LOSS))
    (tmp_path / "own.py").write_text(LOSS)
    assert len(lab_of(tmp_path).parts) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_a_part_by_its_name(kind: str, tmp_path: Path) -> None:
    (tmp_path / f"{kind}.py").write_text("def anything(x):\n    return x\n")
    (tmp_path / "other.py").write_text("def anything(x):\n    return x\n")
    (part,) = lab_of(tmp_path).parts
    assert (part.kind, part.reference) == (kind, "")


def test_a_file_may_have_the_line_below_its_docstring(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        '"""Mine."""\n\n# part: loss mse\n\n\ndef own(logits, y):\n    return 0\n'
    )
    assert lab_of(tmp_path / "own.py").parts[0].reference == "mse"


def test_foreign_folders_are_not_searched_and_named(tmp_path: Path) -> None:
    marks = {"venv": "pyvenv.cfg", "conda": "conda-meta", "seed-0": "record.json", "study": "study.json"}
    for folder in (".ipynb_checkpoints", "node_modules/package", "__pycache__", "checkpoints", *marks):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "loss.py").write_text("not Python")
    for folder, mark in marks.items():
        (tmp_path / folder / mark).touch()
    (tmp_path / "week 3").mkdir()
    (tmp_path / "week 3" / "own.py").write_text(CONVOLUTION)
    (tmp_path / "week 3" / "again").symlink_to(tmp_path)
    lab = lab_of(tmp_path)
    assert [part.kind for part in lab.parts] == ["convolution"]
    assert lab.problems == []
    assert lab.searched == (
        f"{tmp_path}: looked at 1 file (week 3/own.py), left out .ipynb_checkpoints, __pycache__, "
        "checkpoints, conda, node_modules and 4 more"
    )
    assert lab_of(tmp_path / "week 3" / "own.py").searched == ""


def test_what_was_looked_at_is_said_where_nothing_is_found(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing to check \(looked at 0 files\): no cell"):
        lab_of(tmp_path)
    (tmp_path / "a.py").write_text("x = 1\n")
    with pytest.raises(ConfigError, match=r"nothing to check \(looked at 1 file \(a.py\)\): no cell"):
        lab_of(tmp_path)


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text(CONVOLUTION)
    (tmp_path / "locked").mkdir()
    plain = Path.iterdir

    def iterdir(folder: Path) -> Any:
        if folder.name == "locked":
            raise PermissionError(13, "Permission denied")
        return plain(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    lab = lab_of(tmp_path)
    assert lab.problems == [f"{tmp_path / 'locked'} cannot be read: Permission denied"]
    assert len(lab.parts) == 1


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("def _help(x):\n    return x\n\n\ndef own(x):\n    return x\n", "own"),
        ("def help(x):\n    return x\n\n\ndef loss(x):\n    return x\n", "loss"),
        ("class Own:\n    pass\n", "Own"),
    ],
)
def test_the_function_that_is_the_part(source: str, name: str, tmp_path: Path) -> None:
    assert (
        lab_of(notebook(tmp_path / "a.ipynb", ("code", "# part: loss\n" + source))).parts[0].function == name
    )


def test_tables_of_claims(tmp_path: Path) -> None:
    text = (
        "My table:\n\n| Run | accuracy (%) |\n|---|---|\n| a | 3 |\n\n"
        "| **run** | Claimed (%) |\n|---|---:|\n| `a/seed-0` | 98.7 |\n"
    )
    file = notebook(
        tmp_path / "a.ipynb", ("markdown", text), ("raw", "| better | than |\n|--|--|\n| a | b |")
    )
    first, second = lab_of(file).tables
    assert (first.columns, first.rows) == (("run", "claimed"), ((9, ("a/seed-0", "98.7")),))
    assert second.columns == ("better", "than")
    (tmp_path / "b.csv").write_text("run;claimed\na;0.9\n")
    assert lab_of(tmp_path / "b.csv").tables[0].rows == ((2, ("a", "0.9")),)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.ipynb", "{", "is no notebook: it is not JSON"),
        ("a.ipynb", "[" * 100_000, "is no notebook"),
        ("a.ipynb", "[]", "has no cells"),
        ("a.ipynb", '{"worksheets": []}', "in format 4"),
        ("a.ipynb", '{"cells": [null, 3, {"cell_type": "code"}, {"source": 3}]}', "nothing to check"),
        ("a.py", "# part: los\n", "did you mean 'loss'"),
        ("a.py", "# part:\n", "no kind of part is called ''"),
        ("a.py", "# part: loss\n%matplotlib inline\n", "put lines with % or ! into another cell"),
        ("a.py", "# part: loss\ndef f(:\n", "not valid Python in line 2"),
        ("a.py", "# part: loss\nx = 3\n", "defines no function"),
        (
            "a.py",
            "# part: loss\ndef f():\n    1\ndef g():\n    1\n",
            "defines f, g; call the one to check 'loss'",
        ),
        ("a.py", "x = 1\n", "nothing to check"),
        ("a.md", "| run | claimed |\n|--|--|\n| a |\n", "1 cells; the 2 columns are run, claimed"),
        ("a.md", "| run | scroe | claimed |\n|--|--|--|\n| a | top5 | 3 |\n", "did you mean 'score'?"),
        ("a.txt", "# part: loss", "expected a notebook"),
    ],
)
def test_what_cannot_be_read_is_told(name: str, content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    assert words in problem_of(tmp_path / name)
    assert str(tmp_path / name) in problem_of(tmp_path / name)


def problem_of(path: Path) -> str:
    """What is wrong with the only file there."""
    try:
        (problem,) = lab_of(path).problems
    except ConfigError as error:
        problem = str(error)
    return problem


def test_a_path_that_is_not_there_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no notebook or folder"):
        lab_of(tmp_path / "none.ipynb")
    (tmp_path / "a.py").write_bytes(b"\xff\xfe\x00")
    assert "is not UTF-8 text" in problem_of(tmp_path)


def test_mistakes_of_some_files_leave_the_others(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("# part: los\n")
    (tmp_path / "b.ipynb").write_text("{")
    (tmp_path / "c.py").write_text(LOSS)
    notebook(tmp_path / "d.ipynb", ("code", "# part: model\nx = 1\n"), ("code", CONVOLUTION))
    lab = lab_of(tmp_path)
    assert [part.kind for part in lab.parts] == ["loss", "convolution"]
    assert len(lab.problems) == 3
