"""The parts and the claimed tables of notebooks and folders: what `stresslens lab check` looks at."""

from __future__ import annotations

import ast
import csv
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stresslens.core.errors import ConfigError
from stresslens.core.spelling import closest, near
from stresslens.labs.lab_files import SUFFIXES, files_of

KINDS: dict[str, str | None] = {
    "gradient": "objectives",
    "loss": "losses",
    "optimizer": "optimizers",
    "convolution": None,
    "model": "models",
    "attack": "attacks",
    "explainer": "explainers",
}
"""The kinds of parts, with the folder of the plug-ins that they are; a convolution is none."""
MARK = re.compile(r"#\s*part\s*:\s*(\w*)[ \t]*(.*?)\s*$", re.IGNORECASE)
WRITTEN = re.compile(r"%%writefile\b.*\n")


@dataclass(frozen=True)
class LabPart:
    """A student's function, with the words of its line `# part: KIND [REFERENCE] [option=value …]`.

    `source` is Python, with the line numbers of the cell or the file `where`.
    """

    where: str
    folder: Path
    kind: str
    reference: str
    options: dict[str, str]
    function: str
    source: str

    @property
    def title(self) -> str:
        return f"{self.where}: {self.kind} ({self.function})"


@dataclass(frozen=True)
class ClaimTable:
    """A table of claims: column names, and the rows with their line numbers in `where`; whether the
    header says that shares are in percent."""

    where: str
    folder: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    percent: bool = False


@dataclass(frozen=True)
class Lab:
    """What was found: parts and tables, and in words what is wrong with other cells and files.
    `searched` says which files of a folder were looked at; it is empty for a file."""

    parts: list[LabPart]
    tables: list[ClaimTable]
    problems: list[str]
    searched: str = ""


def lab_of(path: Path) -> Lab:
    """The parts and tables of a notebook (.ipynb), of a file (.py, .md, .csv), or of a folder's files
    of these kinds. Equal parts count once. Raises ConfigError if there is nothing at all."""
    if not path.exists():
        raise ConfigError(f"there is no notebook or folder {path}")
    searched = files_of(path)
    parts: dict[tuple[str, str], LabPart] = {}
    lab = Lab([], [], [*searched.problems], f"{path}: {searched.said(path)}" if path.is_dir() else "")
    for file in searched.files:
        try:
            found = list(_cells(file))
        except ConfigError as error:
            lab.problems.append(str(error))
            continue
        for cell in found:
            try:
                if not cell.code:
                    lab.tables.extend(_tables(cell))
                elif (part := _part(cell)) is not None:
                    parts.setdefault((part.kind, part.source.strip()), part)
            except ConfigError as error:
                lab.problems.append(str(error))
    lab.parts.extend(parts.values())
    if not any((lab.parts, lab.tables, lab.problems)):
        of_folder = f" ({searched.said(path)})" if path.is_dir() else ""
        raise ConfigError(
            f"{path} has nothing to check{of_folder}: no cell or file begins with a line `# part: KIND` "
            f"(KIND is one of {', '.join(KINDS)}), and no table has the columns `run` and `claimed`, or "
            "`better` and `than`"
        )
    return lab


@dataclass(frozen=True)
class _Cell:
    where: str
    file: Path
    code: bool
    text: str


def _cells(file: Path) -> Iterator[_Cell]:
    if file.suffix not in SUFFIXES:
        raise ConfigError(f"{file}: expected a notebook (.ipynb) or a file .py, .md or .csv")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text (byte {error.start})") from None
    if file.suffix != ".ipynb":
        yield _Cell(str(file), file, file.suffix == ".py", text)
        return
    for number, cell in enumerate(_cells_of_notebook(file, text), 1):
        source: Any = cell.get("source", "") if isinstance(cell, dict) else ""
        source = "".join(map(str, source)) if isinstance(source, list) else str(source)
        kind = cell.get("cell_type") if isinstance(cell, dict) else None
        if kind in ("code", "markdown", "raw"):
            executed = cell.get("execution_count")
            shown = f", shown as [{executed}]" if isinstance(executed, int) else ""
            yield _Cell(f"{file}, cell {number}{shown}", file, kind == "code", source)


def _cells_of_notebook(file: Path, text: str) -> list[Any]:
    try:
        notebook = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError(f"{file} is no notebook: it is not JSON; save it in Jupyter again") from None
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise ConfigError(f"{file} has no cells; save it in Jupyter again, in format 4")
    return cells


def _part(cell: _Cell) -> LabPart | None:
    """The part of a code cell or a Python file; None if it is none."""
    source = WRITTEN.sub("\n", cell.text, count=1) if WRITTEN.match(cell.text) else cell.text
    lines = source.splitlines()
    code = (line for line in lines if line.strip())
    mark = MARK.match(next(code, "").strip())
    whole_file = cell.file.suffix == ".py"
    if mark is None and whole_file:
        mark = next(filter(None, map(MARK.match, lines)), None)
    if mark is None and not (whole_file and cell.file.stem in KINDS):
        return None
    kind, rest = (mark[1], mark[2]) if mark is not None else (cell.file.stem, "")
    if kind not in KINDS:
        raise ConfigError(f"{cell.where}: no kind of part is called {kind!r}; {closest(kind, list(KINDS))}")
    options = dict(re.findall(r"(?<!\S)(\w+)=(\S+)", rest))
    reference = re.sub(r"(?<!\S)\w+=\S+", "", rest).strip()
    return LabPart(
        cell.where,
        cell.file.parent,
        kind,
        reference,
        options,
        _function_of(cell.where, kind, source),
        source,
    )


def _function_of(where: str, kind: str, source: str) -> str:
    """The name of the function or class that is the part: called like the kind, or the only one
    whose name does not begin with an underscore."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        line = f" in line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        magic = any(text.lstrip()[:1] in ("%", "!") for text in source.splitlines())
        remedy = "; a part is plain Python, so put lines with % or ! into another cell" if magic else ""
        raise ConfigError(f"{where}: the part is not valid Python{line}{remedy}") from None
    kinds = (ast.FunctionDef, ast.ClassDef)
    names = [node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
    if kind in names:
        return kind
    if len(names) == 1:
        return names[0]
    if not names:
        raise ConfigError(f"{where}: the part defines no function; a cell `# part: {kind}` holds one")
    raise ConfigError(
        f"{where}: the part defines {', '.join(names)}; call the one to check {kind!r}, "
        "or let the names of the others begin with _"
    )


CLAIM_COLUMNS = ["run", "claimed", "score", "split", "better", "than"]
"""Those that are read; a table may have others."""


def _tables(cell: _Cell) -> Iterator[ClaimTable]:
    """The tables of claims in a text: those with the columns `run` and `claimed`, or `better` and
    `than`."""
    rows = _csv_rows(cell) if cell.file.suffix == ".csv" else _markdown_rows(cell.text)
    for table in rows:
        (_, header), *body = table
        columns = tuple(name.lower().partition("(")[0].strip(" *`") for name in header)
        if {"run", "claimed"} <= set(columns) or {"better", "than"} <= set(columns):
            for name in columns:
                if name not in CLAIM_COLUMNS and (meant := near(name, CLAIM_COLUMNS)) is not None:
                    raise ConfigError(f"{cell.where}: the column {name!r}: did you mean {meant!r}?")
            for line, cells in body:
                if len(cells) != len(columns):
                    what = f"{len(cells)} cells; the {len(columns)} columns are {', '.join(columns)}"
                    raise ConfigError(f"{cell.where}: line {line}: {what}")
            yield ClaimTable(cell.where, cell.file.parent, columns, tuple(body), "%" in "".join(header))


Rows = list[tuple[int, tuple[str, ...]]]


def _csv_rows(cell: _Cell) -> list[Rows]:
    delimiter = ";" if ";" in cell.text.partition("\n")[0] else ","
    try:
        reader = csv.reader(cell.text.splitlines(), delimiter=delimiter, skipinitialspace=True)
        rows = [(reader.line_num, tuple(text.strip() for text in cells)) for cells in reader if any(cells)]
    except csv.Error as error:
        raise ConfigError(f"{cell.where}: {error}") from None
    return [rows] if rows else []


def _markdown_rows(text: str) -> list[Rows]:
    tables: list[Rows] = []
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        if not line.lstrip().startswith("|"):
            inside = False
            continue
        cells = tuple(part.strip(" *`") for part in line.strip().strip("|").split("|"))
        if not inside:
            tables.append([])
            inside = True
        if not all(re.fullmatch(r":?-+:?", part) for part in cells):
            tables[-1].append((number, cells))
    return [table for table in tables if table]


def listed(parts: Sequence[LabPart]) -> str:
    """The titles of parts, one a line."""
    return "\n".join(f"  {part.title}" for part in parts)
