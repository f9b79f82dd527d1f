"""Studies that a test writes as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from stresslens.config import study_file
from stresslens.core.errors import ConfigError


def read(tmp_path: Path, text: str, *overrides: str) -> study_file.Study:
    """The study of a file with this text."""
    file = tmp_path / "study.yaml"
    file.write_text(text)
    return study_file.read_study(file, overrides)


def problems(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    """The lines of the refusal of a file with this text."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text, *overrides)
    return str(caught.value).replace(f"{tmp_path}/", "").splitlines()
