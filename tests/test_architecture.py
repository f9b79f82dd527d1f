"""Imports go one way, and nothing is where it does not belong."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from stresslens.find import VOCABULARY

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "stresslens"
FILES = sorted(SOURCE.rglob("*.py"))

PLUGINS = set(VOCABULARY)
LEVELS = [
    {"core"},
    {"metrics"},
    PLUGINS,
    {"find", "recipe", "admission", "standing"},
    {"dotted", "threat"},
    {"contrasts", "recipe_check", "curve"},
    {"spaces"},
    {"space_check"},
    {"study", "search", "steering", "tables", "journal", "influence"},
    {"claims", "costs", "erring", "smallest"},
    {
        "evaluation",
        "likeness",
        "overfitting",
        "corrupting",
        "certifying",
        "comparison",
        "data_check",
        "batching",
        "estimating",
        "tracking",
    },
    {"pace", "robust_comparison", "robust_result", "verification"},
    {"robustness"},
    {"head_to_head", "selecting", "tuning", "probing"},
    {"training", "examples", "choosing", "worth", "drawing"},
    {"weights"},
    {"building", "adversarial_examples", "auditing"},
    {"settling", "stress"},
    {"outcome", "processes", "explanation", "viewing", "answering"},
    {"examining", "exporting"},
    {"predicting", "stages", "transfers"},
    {"executing"},
    {"sweeping"},
    {"report"},
    {"pipeline"},
    {"python"},
    {"gates", "terminal"},
    {"data_verbs"},
    {"attack_verbs", "audit_verbs", "doctor_verb"},
    {"explain_verb", "export_verb"},
    {"cli"},
    {"__main__", ""},
]
LEVEL = {name: place for place, names in enumerate(LEVELS) for name in names}


def part_of(file: Path) -> str:
    inside = file.relative_to(SOURCE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem.replace("__init__", "")


def imports(file: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "stresslens":
            assert node.level == 0, f"{file}:{node.lineno}: relative import"
            names = [alias.name for alias in node.names] if node.module == "stresslens" else [node.module.split(".")[1]]
            yield from (
                (node.lineno, name if (SOURCE / name).exists() or (SOURCE / f"{name}.py").exists() else "") for name in names
            )


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_go_one_way(file: Path) -> None:
    own = part_of(file)
    for line, other in imports(file):
        if other in (own, "") or own == "":
            continue
        assert LEVEL[other] < LEVEL[own], f"{file.relative_to(ROOT)}:{line}: {own} may not import {other}"
        if own in PLUGINS:
            assert other in ("core", "metrics"), f"{file.relative_to(ROOT)}:{line}: a plug-in imports core and metrics only"


def test_every_part_has_its_level() -> None:
    assert {part_of(file) for file in FILES} <= set(LEVEL)


@pytest.mark.parametrize("folder", sorted({file.parent for file in FILES} - {SOURCE}), ids=lambda folder: folder.name)
def test_init_files_are_empty(folder: Path) -> None:
    assert (folder / "__init__.py").read_text() == ""


def test_public_names_are_no_module_names() -> None:
    import stresslens

    modules = {file.stem for file in SOURCE.glob("*.py")} | {folder.name for folder in SOURCE.iterdir() if folder.is_dir()}
    assert not modules & set(stresslens.__all__)


def test_dynamic_imports_only_in_find() -> None:
    for file in FILES:
        uses = "importlib.import_module" in file.read_text() or "__import__" in file.read_text()
        allowed = file.name in ("find.py", "torchvision_cure.py") or file == SOURCE / "__init__.py"
        assert allowed or not uses, file


def test_help_needs_no_torch() -> None:
    import subprocess
    import sys

    code = "import sys, stresslens.cli; sys.exit(bool({'torch', 'pydantic', 'numpy', 'PIL'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_loop_and_the_story_fit_on_a_screen() -> None:
    loop = next(
        n for n in ast.walk(ast.parse((SOURCE / "training.py").read_text())) if isinstance(n, ast.FunctionDef) and n.name == "fit"
    )
    assert loop.end_lineno is not None
    assert loop.end_lineno - loop.lineno < 25
