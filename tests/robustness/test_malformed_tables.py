"""Any bytes as a table of accuracies give findings, or one message with the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from malformed import FEW, MANY, answer, changed, written

SOUND = Path(__file__).parents[1] / "plugins" / "audits" / "tables"
TABLES = [
    *(file.read_bytes() for file in sorted(SOUND.rglob("*.*"))),
    b"model;attack;eps;accuracy;n\r\nm;none;0;91,2 %;10.000\r\nm;PGD-20;8/255;50,1;10.000\r\n",
    "sep=;\nmodell;clean;FGSM ε=0,05 \u00b1\nm;0,912;0,501 ± 0,01 (0,4; 0,6)\n".encode("utf-16"),
    b"| model | clean | PGD-40 eps=8/255 |\n|---|---|---|\n| m | 91.2 | **50.1** |\n",
]


@st.composite
def tables(draw: Any) -> bytes:
    return changed(draw, draw(st.sampled_from(TABLES)))


def of_audit(folder: Path, content: bytes, suffix: str) -> None:
    file = written(folder, f"t.{suffix}", content)
    code, said = answer("audit", str(file), "--eps", "0.1", names=[file.name])
    assert code != 2, said


@FEW
@given(content=tables(), suffix=st.sampled_from(["csv", "md"]))
def test_any_changed_table(tmp_path: Path, content: bytes, suffix: str) -> None:
    of_audit(tmp_path, content, suffix)


@pytest.mark.slow
@settings(MANY, max_examples=3000)
@given(content=tables(), suffix=st.sampled_from(["csv", "tsv", "md", "txt"]))
def test_many_changed_tables(tmp_path: Path, content: bytes, suffix: str) -> None:
    of_audit(tmp_path, content, suffix)


@pytest.mark.parametrize("name", [".", "none.csv"])
def test_what_is_no_file_is_told(tmp_path: Path, name: str) -> None:
    assert answer("audit", str(tmp_path / name), names=[str(tmp_path)])[0] == 3
