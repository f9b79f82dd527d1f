"""Corruptions and certificates in a study's page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from attacked import certify, corrupt
from folders import write_study
from pages import page_of

from stresslens.report.certificates import certificate_sections
from stresslens.report.corruptions import corruption_section
from stresslens.report.load import load_study


def test_corruptions_and_certificates_of_every_recipe(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["a", "b"], seeds=2)
    for k in range(2):
        for seed in range(2):
            corrupt(study / f"run{k}" / f"seed-{seed}", start=0.9 - 0.1 * k)
    radius = certify(study / "run1" / "seed-0", top=0.93)
    certify(study / "run0" / "seed-0", top=0.4)
    _, page = page_of(study)
    assert "Corruptions" in page.text
    assert "Certified accuracy, Smoothing, L2 (sigma 0.25)" in page.text
    read = load_study(study)
    found = corruption_section(read)
    assert found is not None
    assert [(name, round(clean.value, 2) if clean else 0) for name, clean, _ in found.means] == [
        ("a", 0.9),
        ("b", 0.8),
    ]
    assert len(found.charts.charts) == len(found.grids) == 4
    assert [len(cells) for _, cells in found.grids[0].rows] == [5, 5]
    (certified,) = certificate_sections(read)
    assert [row[:3] for row in certified.rows] == [("a", 100, 7), ("b", 100, 7)]
    assert certified.radii == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    for r, found_at, lower in zip(certified.radii, certified.rows[1][4], certified.rows[0][4]):
        assert found_at is not None
        assert lower is not None
        assert found_at.value == np.mean(radius > r) >= lower.value


def test_certificates_without_arrays_have_the_radii_of_their_curve(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["a"])
    certify(study / "run0" / "seed-0", top=0.93)
    (study / "run0" / "seed-0" / "certificates" / "smoothing-0a1b2c3d" / "result.npz").unlink()
    (certified,) = certificate_sections(load_study(study))
    assert [estimate is None for estimate in certified.rows[0][4]] == [False, True, True, True, True, True]
