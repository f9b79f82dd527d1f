"""Transfers between runs in a study's page."""

from __future__ import annotations

from pathlib import Path

import pytest
from attacked import transfer
from folders import write_json, write_study
from pages import page_of

from stresslens.core.errors import ConfigError
from stresslens.report.load import load_study
from stresslens.report.page import write_report
from stresslens.report.transferability import transfer_tables


def test_the_transfer_matrix_and_what_was_left_out(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["a", "b"])
    write_json(study / "transfers.json", transfer(["a", "b"]))
    html, page = page_of(study)
    (grid,) = transfer_tables(load_study(study))
    assert [cell.estimate.value if cell else None for _, cells in grid.rows for cell in cells] == [
        0,
        0.6,
        0.65,
        0,
    ]
    assert [cell.shade for _, cells in grid.rows for cell in cells if cell] == [9, 4, 4, 9]
    assert 'class="q9 own"' in html
    assert "Left out: own: not run unless --trust" in page.text
    assert "radii up to 0.1" in page.text


def test_empty_cells_and_findings(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["a", "b"])
    found = transfer(["a", "b"])
    found["groups"][0]["accuracy"][0][1] = None
    sign = {
        "audit": "saved adversarials",
        "status": "sign",
        "severity": "serious",
        "evidence": "3 of 90",
        "n": 90,
    }
    write_json(study / "transfers.json", found | {"findings": [sign]})
    _, page = page_of(study)
    assert "saved adversarials serious 3 of 90" in " ".join(page.text.split())
    (study / "transfers.json").write_text('{"format": 2}')
    with pytest.raises(ConfigError, match=r"transfers\.json: format"):
        write_report(study)
