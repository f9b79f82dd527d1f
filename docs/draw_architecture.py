"""Draws the packages and their imports into docs/architecture.md, and lists the calls of four
commands from the command line to the innermost function.

    python docs/draw_architecture.py          # the picture and its counts, from the imports
    python docs/draw_architecture.py trips    # also the calls, from real runs; about 15 s

`make docs` does both. tests/test_architecture.py fails where the picture is stale.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "stresslens"
PAGE = ROOT / "docs" / "architecture.md"
FILES = sorted(SOURCE.rglob("*.py"))

ORDER = [
    "core",
    "charts",
    "metrics",
    "plugins",
    "config",
    "evaluation",
    "training",
    "robustness",
    "explanation",
    "comparison",
    "report",
    "study",
    "serve",
    "labs",
    "api",
    "cli",
    "__main__",
]
"""A package imports only what stands before it in this list. `__init__` names everything and
imports it lazily."""


def package_of(file: Path) -> str:
    return file.relative_to(SOURCE).with_suffix("").parts[0]


@cache
def imports(file: Path) -> list[tuple[int, list[str]]]:
    """Each import of our own modules: its line, and the parts of the module's path below `stresslens`."""
    return list(_imports(file))


def _imports(file: Path) -> Iterator[tuple[int, list[str]]]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            if (node.module or "").split(".")[0] == "stresslens":
                below = (node.module or "").split(".")[1:]
                yield from ((node.lineno, [*below, alias.name]) for alias in node.names)
        elif isinstance(node, ast.Import):
            found = (alias.name.split(".") for alias in node.names)
            yield from (
                (node.lineno, parts[1:] or ["__init__"]) for parts in found if parts[0] == "stresslens"
            )


def module_imports() -> dict[str, set[str]]:
    """The modules that each module imports, imports inside functions and for type checkers among
    them; `__init__` is left out."""
    names = {".".join(file.relative_to(SOURCE).with_suffix("").parts): file for file in FILES}
    used: dict[str, set[str]] = {}
    for own, file in names.items():
        targets = {".".join(parts) for _, parts in imports(file)} if own != "__init__" else set()
        modules = {target if target in names else target.rpartition(".")[0] for target in targets}
        used[own] = modules & names.keys() - {own}
    return used


def cycle_of_modules() -> list[str]:
    """Modules that import each other in a ring, or none."""
    used, done = module_imports(), set[str]()

    def visit(name: str, path: tuple[str, ...]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        ring: list[str] = []
        if name not in done:
            ring = next(filter(None, (visit(other, (*path, name)) for other in sorted(used[name]))), [])
            done.add(name)
        return ring

    return next(filter(None, (visit(name, ()) for name in sorted(used))), [])


# --- the picture ----------------------------------------------------------------------------------


def package_imports() -> dict[str, set[str]]:
    """The packages that each package imports."""
    used: dict[str, set[str]] = {name: set() for name in ORDER}
    for file in FILES:
        own = package_of(file)
        if own in ORDER:
            used[own] |= {parts[0] for _, parts in imports(file)} - {own}
    return used


def below(name: str, used: dict[str, set[str]]) -> set[str]:
    """The packages that a package imports, and those that they import, and so on."""
    return used[name].union(*(below(other, used) for other in used[name]))


def floor_of(name: str, used: dict[str, set[str]]) -> int:
    """The number of packages in the longest chain of imports that begins here."""
    return 1 + max((floor_of(other, used) for other in used[name]), default=0)


def arrows(used: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The imports of the diagram: those to which no longer way leads."""
    return [
        (name, other)
        for name in reversed(ORDER)
        for other in sorted(used[name], key=ORDER.index)
        if all(other not in below(each, used) for each in used[name])
    ]


def drawing() -> str:
    """The diagram as SVG, a row for each floor, for pages that cannot draw Mermaid."""
    used = package_imports()
    floors = {name: floor_of(name, used) for name in ORDER}
    highest, place = max(floors.values()), dict[str, tuple[float, int]]()
    for floor in range(1, highest + 1):
        names = [name for name in ORDER if floors[name] == floor]
        for at, name in enumerate(names):
            place[name] = (640 * (at + 0.5) / len(names), 70 * (highest - floor) + 20)
    height = 70 * (highest - 1) + 40
    parts = [
        f'<svg viewBox="0 0 640 {height}" role="img" style="max-width: 640px; width: 100%">',
        "<title>The packages and their imports</title>",
        '<marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
        'orient="auto"><path d="M0 0L8 4L0 8" fill="currentColor"/></marker>',
    ]
    for name, other in arrows(used):
        (x, y), (to_x, to_y) = place[name], place[other]
        parts.append(
            f'<path d="M{x:.0f} {y + 16}C{x:.0f} {y + 45} {to_x:.0f} {to_y - 45} {to_x:.0f} {to_y - 16}" '
            'fill="none" stroke="currentColor" stroke-opacity=".5" marker-end="url(#tip)"/>'
        )
    for name, (x, y) in place.items():
        parts.append(
            f'<rect x="{x - 58:.0f}" y="{y - 16}" width="116" height="32" rx="6" fill="none" '
            f'stroke="currentColor"/><text x="{x:.0f}" y="{y + 5}" text-anchor="middle" '
            f'fill="currentColor" font-size="15">{name}</text>'
        )
    return "\n".join([*parts, "</svg>"])


def picture() -> str:
    """The packages as a Mermaid diagram and as a table of imports, with their counts."""
    used = package_imports()
    back = [(own, other) for own in ORDER for other in used[own] if ORDER.index(other) > ORDER.index(own)]
    assert not back, f"imports that run back up: {back}"
    assert not cycle_of_modules(), " → ".join(cycle_of_modules())
    floors = {name: floor_of(name, used) for name in ORDER}
    folders = sum((SOURCE / name).is_dir() for name in ORDER)
    lines = [
        "| packages | modules beside them | arrows | floors | imports that run back up | cycles of modules |",
        "|--:|--:|--:|--:|--:|--:|",
        f"| {folders} | {len(ORDER) - folders} | {sum(map(len, used.values()))} | {max(floors.values())} "
        f"| {len(back)} | {len(cycle_of_modules())} |",
        "",
        "```mermaid",
        "flowchart TD",
        *(f'    {name.strip("_")}["{name}"]' for name in reversed(ORDER)),
    ]
    lines += [f"    {name.strip('_')} --> {other}" for name, other in arrows(used)]
    columns = [name for name in ORDER if any(name in others for others in used.values())]
    lines += [
        "```",
        "",
        f"| floor | imports | {' | '.join(columns)} |",
        f"|--:|---|{':-:|' * len(columns)}",
    ]
    for name in reversed(ORDER):
        cells = ("•" if other in used[name] else "" for other in columns)
        lines.append(f"| {floors[name]} | `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


# --- the trips ------------------------------------------------------------------------------------

STUDY = """\
data: {digits: {subset: 200}}
model: {simple_cnn: {channels: 4, hidden: 16}}
train: {epochs: 2, precision: float32, threads: 1, memory_format: contiguous}
"""
RUN = "runs/study/run/seed-0"
TRIPS = [
    ("One training step", ["run", "study.yaml"], "plugins/losses/cross_entropy.py", "cross_entropy", "fit"),
    (
        "One step of an attack",
        ["attack", RUN, "--radii", "0.1", "--protocol", "[{pgd: {steps: 2}}]"],
        "core/ball.py",
        "project",
        "pgd",
    ),
    (
        "One explanation",
        ["explain", RUN, "--explainer", "saliency"],
        "plugins/explainers/saliency.py",
        "saliency",
        "",
    ),
    ("One chart", ["report", "runs/study"], "charts/line_charts.py", "line_chart", ""),
]
"""Title, command, the file and the name of the innermost function, and the name of a function that
must stand in the calls."""

COMPREHENSIONS = {"<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>", "<module>"}


class _Arrived(BaseException):
    """The innermost function is called."""


def trip(words: list[str], file: str, name: str, through: str) -> list[CodeType]:
    """The package's own functions that are under way when the command first calls the innermost
    function; the command ends there."""
    found: list[CodeType] = []

    def profile(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event != "call" or code.co_name != name or not code.co_filename.endswith(file):
            return
        calls, each = [code], frame.f_back
        while each is not None:
            inside = each.f_code.co_filename.startswith(str(SOURCE))
            if inside and each.f_code.co_name not in COMPREHENSIONS:
                calls.insert(0, each.f_code)
            each = each.f_back
        if not through or through in [call.co_name for call in calls]:
            found.extend(calls)
            sys.setprofile(None)
            raise _Arrived

    sys.setprofile(profile)
    try:
        _typed(words)
    except _Arrived:
        pass
    finally:
        sys.setprofile(None)
    assert found, f"stresslens {' '.join(words)} never called {name}"
    return found


def _typed(words: list[str]) -> None:
    """What the command does; its output is dropped."""
    sys.path.insert(0, str(SOURCE.parent))
    from stresslens.__main__ import main

    sys.argv = ["stresslens", *words]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise RuntimeError(said.getvalue()) from end


def sentence_of(code: CodeType) -> str:
    """The first sentence of the function's docstring; else of the function or class around it."""
    nodes: list[ast.AST] = [ast.parse(Path(code.co_filename).read_text(encoding="utf-8"))]
    for name in code.co_qualname.replace(".<locals>", "").split("."):
        inside = (node for node in ast.walk(nodes[-1]) if node is not nodes[-1])
        nodes += [node for node in inside if getattr(node, "name", None) == name][:1]
    texts = [
        ast.get_docstring(each) for each in nodes[1:] if isinstance(each, ast.FunctionDef | ast.ClassDef)
    ]
    text = next(filter(None, reversed(texts)), "").split("\n\n")[0]
    return re.split(r"(?<!al)\.(?:\s|$)", text)[0].rstrip(".").replace("\n", " ")


def trips() -> str:
    """The four commands, each with the calls from the command line inwards."""
    found = []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("study.yaml").write_text(STUDY)
        calls = {title: trip(words, *where) for title, words, *where in TRIPS[:1]}
        _typed(["run", "study.yaml"])
        calls |= {title: trip(words, *where) for title, words, *where in TRIPS[1:]}
    for title, words, *_ in TRIPS:
        files = [str(Path(code.co_filename).relative_to(SOURCE)) for code in calls[title]]
        command = " ".join(f"'{word}'" if " " in word else word for word in words)
        lines = [
            f"### {title}",
            "",
            f"`stresslens {command}`",
            "",
            f"{len(files)} calls in {len(set(files))} files:",
            "",
        ]
        for place, (file, code) in enumerate(zip(files, calls[title]), start=1):
            call = f"{place}. `{file}` → `{code.co_qualname.replace('.<locals>', '')}`"
            told = f"{call}: {sentence_of(code)}." if sentence_of(code) else call
            lines.append(
                textwrap.fill(told, 100, subsequent_indent=" " * len(f"{place}. "), break_long_words=False)
            )
        found.append("\n".join(lines))
    return "\n\n".join(found)


# --- the page -------------------------------------------------------------------------------------


def with_part(page: str, part: str, text: str) -> str:
    """The page with the text between the two marks of that part."""
    begin, end = f"<!-- {part}: made by docs/draw_architecture.py -->", f"<!-- end of {part} -->"
    before, _, rest = page.partition(begin)
    _, mark, after = rest.partition(end)
    assert mark, f"{PAGE} has no {begin} … {end}"
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def main(with_trips: bool) -> None:
    page = with_part(PAGE.read_text(encoding="utf-8"), "picture", picture())
    if with_trips:
        page = with_part(page, "trips", trips())
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main("trips" in sys.argv[1:])
