"""docs/hardening.md: every block is a study that can be carried out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stresslens.config import study_file

PAGE = (Path(__file__).parents[1] / "docs" / "hardening.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_is_a_study(block: str, tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(block)
    for run in study_file.read_study(file).variants:
        assert run.config.train.objective != "supervised" or run.config.corruptions


def test_the_page_has_blocks() -> None:
    assert len(BLOCKS) == 6
