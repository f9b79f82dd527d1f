"""Imports go one way, and files and functions stay small enough to be read at a glance."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from draw_architecture import (
    FILES,
    ORDER,
    PAGE,
    ROOT,
    SOURCE,
    cycle_of_modules,
    imports,
    package_of,
    picture,
    with_part,
)
from each_file import each_file

from stresslens.config.registry import VOCABULARY

NOUNS = {
    "spelling",
    "embedding",
    "erasing",
    "finding",
    "learning",
    "listing",
    "overfitting",
    "ranking",
    "rising",
    "sampling",
    "smoothing",
    "tracking",
    "tuning",
}
"""Words on -ing that are the field's nouns; `still_rising` is an audit's public name."""

MOST_LINES_OF_A_FILE, MOST_LINES_OF_A_FUNCTION = 400, 60


@each_file
def test_imports_go_one_way(file: Path) -> None:
    own = package_of(file)
    if own == "__init__":
        return
    for line, parts in imports(file):
        other = parts[0]
        assert other in ORDER, f"{file.relative_to(ROOT)}:{line}: {other} is no package"
        if other != own:
            where = f"{file.relative_to(ROOT)}:{line}"
            assert ORDER.index(other) < ORDER.index(own), f"{where}: {own} may not import {other}"
            if own == "plugins":
                assert other in ("core", "metrics"), f"{where}: a plug-in imports core and metrics only"
        elif own == "plugins" and file.parent != SOURCE / "plugins":
            assert parts[1] == file.parent.name, f"{file}:{line}: a plug-in imports no other kind of plug-in"


def test_the_root_has_an_entry_for_each_package_and_no_other() -> None:
    entries = {path.stem for path in SOURCE.iterdir() if path.name not in ("__pycache__", "py.typed")}
    assert entries == {*ORDER, "__init__"}
    assert {path.name for path in (SOURCE / "plugins").iterdir() if path.is_dir()} - {"__pycache__"} == set(
        VOCABULARY
    )


def test_no_two_modules_import_each_other() -> None:
    """No cycle among modules, imports inside functions and for type checkers among them."""
    assert not (ring := cycle_of_modules()), " → ".join(ring)


def test_the_picture_is_that_of_the_imports() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_part(page, "picture", picture()) == page, "docs/architecture.md is stale: make docs"
    for name in ORDER:
        path = f"{name}/" if (SOURCE / name).is_dir() else f"{name}.py"
        assert f"\n| `{path}` | " in page, f"docs/architecture.md does not say what {path} does"
    assert " < ".join(ORDER[:13]) in re.sub(r"\n> ", " ", page)


@each_file
def test_files_and_functions_are_short(file: Path) -> None:
    """A longer function has its reason in a comment `# long: …` on the line above it."""
    lines = file.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MOST_LINES_OF_A_FILE, f"{file.name} has {len(lines)} lines"
    for node in ast.walk(ast.parse("\n".join(lines))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            length = node.end_lineno - node.lineno + 1
            reason = lines[first - 2].strip().startswith("# long: ")
            where = f"{file.relative_to(ROOT)}:{node.lineno}: {node.name}"
            assert length <= MOST_LINES_OF_A_FUNCTION or reason, f"{where} has {length} lines"


@each_file
def test_a_file_is_named_by_a_noun(file: Path) -> None:
    parts = [file.stem, *(part for part in file.relative_to(SOURCE).parent.parts if part != "training")]
    last_words = {part.rpartition("_")[2] for part in parts}
    assert not {word for word in last_words if word.endswith("ing")} - NOUNS, file


def test_two_public_functions_of_one_name_are_one_thing() -> None:
    """Outside plug-ins and commands, which are named by what a user types, a name is defined once."""
    homes: dict[str, list[str]] = defaultdict(list)
    for file in FILES:
        if package_of(file) in ("plugins", "cli", "api"):
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(str(file.relative_to(SOURCE)))
    assert not {name: files for name, files in homes.items() if len(files) > 1}


@pytest.mark.parametrize(
    "folder", sorted({file.parent for file in FILES} - {SOURCE}), ids=lambda folder: folder.name
)
def test_init_files_are_empty(folder: Path) -> None:
    """But for `plugins`, whose names for authors are imported lazily, and `api`, which has the public
    names."""
    text = (folder / "__init__.py").read_text(encoding="utf-8")
    assert text == "" or folder in (SOURCE / "plugins", SOURCE / "api")


def test_public_names_are_no_module_names() -> None:
    import stresslens

    modules = {file.stem for file in SOURCE.glob("*.py")} | {
        folder.name for folder in SOURCE.iterdir() if folder.is_dir()
    }
    assert not modules & set(stresslens.__all__)


def test_dynamic_imports_only_in_the_registry() -> None:
    allowed = {
        SOURCE / "__init__.py",
        SOURCE / "plugins" / "__init__.py",
        SOURCE / "config" / "own_plugins.py",
        SOURCE / "config" / "registry.py",
        SOURCE / "core" / "old_paths.py",
        SOURCE / "core" / "torchvision_compat.py",
    }
    for file in set(FILES) - allowed:
        text = file.read_text(encoding="utf-8")
        assert "importlib.import_module" not in text, file
        assert "__import__" not in text, file


NOT_SCORES = {
    "core/attack_base.py": {"ends.to(torch.uint8)"},
    "config/search_space.py": {"numbers.uniform(size=len(self.choices))"},
    "core/ball.py": {"flat.abs()"},
    "evaluation/drift.py": {"np.abs(shares[1] - shares[0])"},
    "metrics/calibration.py": {"np.where(of_label, -np.inf, logits)"},  # the second class
    "explanation/quality.py": {"moves.mean(1)"},
    "metrics/classification.py": {"np.bincount(train_labels)"},
    "metrics/planted_flips.py": {"means"},
    "plugins/audits/surrogate.py": {"pairs"},
    "plugins/checks/class_imbalance.py": {"counts"},
    "plugins/certificates/smoothing.py": {"_votes(model, x[k], n0, sigma, mix(draws.seed, index, 0))"},
    "plugins/datasets/coloured_mnist.py": {"draws.uniform(10) * allowed.T[digit]"},
    "plugins/models/_zero_shot.py": {"tokens"},
    "plugins/objectives/_overfitting_guard.py": {"y"},
    "plugins/views/embedding.py": {"np.abs(axes[:2])"},
    "robustness/adversarial_file.py": {"here.int()"},
}
"""What else an argmax is taken of: counts, gradients, labels, tokens."""


@each_file
def test_scores_become_classes_in_one_place(file: Path) -> None:
    """The argmax of scores that are NaN is class 0; `core.answers.predicted` knows that it is no answer."""
    if file == SOURCE / "core" / "answers.py":
        return
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        match node:
            case ast.Attribute(attr="argmax" | "nanargmax", value=of):
                found.add(ast.unparse(of))
            case ast.Attribute(attr="indices", value=ast.Call(func=ast.Attribute(attr="max", value=of))):
                found.add(ast.unparse(of))
            case ast.Subscript(
                value=ast.Call(func=ast.Attribute(attr="max", value=of)), slice=ast.Constant(value=1)
            ):
                found.add(ast.unparse(of))
    assert found <= NOT_SCORES.get(str(file.relative_to(SOURCE)), set()), "use core.answers.predicted"


def test_help_needs_no_torch() -> None:
    code = (
        "import sys, stresslens.cli.main; sys.exit(bool({'torch', 'pydantic', 'numpy', 'PIL'} & "
        "set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_loop_fits_on_a_screen() -> None:
    tree = ast.parse((SOURCE / "training" / "loop.py").read_text(encoding="utf-8"))
    loop = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "fit")
    assert loop.end_lineno is not None
    assert loop.end_lineno - loop.lineno < 25


def test_no_two_test_files_have_one_name() -> None:
    names = Counter(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name, number in names.items() if number > 1] == []
