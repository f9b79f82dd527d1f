"""Files of adversarial images that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stresslens.core.files import UnreadableRun
from stresslens.robustness.adversarial_file import read_adversarials


def test_a_single_array_is_no_archive(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros(3))
    expected = r"a\.npy holds one array; expected an npz archive with adversarials \(and index, or images"
    with pytest.raises(UnreadableRun, match=expected):
        read_adversarials(tmp_path / "a.npy")
