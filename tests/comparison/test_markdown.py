"""A comparison as Markdown: the verdict first, plans, a table, and nothing that names could add."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Type = Callable[..., tuple[int, str, str]]


def write(path: Path, right: float, seed: int = 0) -> None:
    random = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "label", "pred"])
        for k in range(400):
            label = k % 2
            table.writerow([f"{k}", label, label if random.random() < right else 1 - label])


@pytest.mark.parametrize(
    ("other", "title", "code"),
    [(0.7, "worse, against the first", 5), (0.99, "better, against the first", 0), (0.9, "not disting", 0)],
)
def test_the_title_says_what_a_build_decides_by(
    type_: Type, tmp_path: Path, other: float, title: str, code: int
) -> None:
    write(tmp_path / "main.csv", 0.9)
    write(tmp_path / "new_*net*|x.csv", other, 1)
    found, out, err = type_("main.csv", "new_*net*|x.csv", "--markdown")
    assert found == code
    lines = out.splitlines()
    assert lines[0].startswith(f"### test accuracy: {title}")
    table = [line for line in lines if line.startswith("|")]
    assert table[:2] == ["| run | accuracy, % (95 % interval) | n | method |", "|---|---|---|---|"]
    assert len(table) == 4
    assert all(row.replace("\\|", "").count("|") == 5 for row in table)
    assert "400" in table[2]
    assert ("  - telling" in out) == (title == "not disting")
    if code:
        assert "is better than" in err


def test_several_are_counted(type_: Type, tmp_path: Path) -> None:
    for name, right in (("main", 0.9), ("a", 0.6), ("b", 0.65), ("c", 0.99)):
        write(tmp_path / f"{name}.csv", right, len(name))
    _, out, _ = type_("main.csv", "a.csv", "b.csv", "c.csv", "--markdown")
    assert out.startswith("### test accuracy: 2 worse, 1 better, against the first")
    study = next(Path("runs").glob("predictions-*"))
    _, out, _ = type_(str(study), "--markdown")
    assert out.startswith("### test accuracy: 3 of 3 differences are real")
    assert "| variant |" in out
