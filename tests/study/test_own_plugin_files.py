"""The files of a user's own plug-in, and those that it imports: a change is seen and executed."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import stresslens as sl
from stresslens.config import registry
from stresslens.config.own_plugins import source_digests


@pytest.fixture
def helped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of an objective that imports `scaling` of the user's, which imports `numbers_of`."""
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("helpers_of_mine")]:
        monkeypatch.delitem(sys.modules, name)
    (tmp_path / "helpers_of_mine").mkdir()
    (tmp_path / "helpers_of_mine" / "__init__.py").write_text("")
    (tmp_path / "helpers_of_mine" / "scaling.py").write_text("from .gains import GAIN\n")
    (tmp_path / "helpers_of_mine" / "gains.py").write_text("GAIN = 1.0\n")
    (tmp_path / "mine.py").write_text(
        "import torch\nimport torch.nn.functional as F\nfrom helpers_of_mine.scaling import GAIN\n\n\n"
        "def scaled(model, x, y):\n    return GAIN * F.cross_entropy(model(x), y)\n"
    )
    return tmp_path / "mine.py"


@pytest.mark.parametrize(
    ("edited", "text"),
    [
        ("helpers_of_mine/gains.py", "GAIN = 2.0\n"),
        ("helpers_of_mine/scaling.py", "GAIN = 3.0\n"),
        ("mine.py", "def scaled(model, x, y):\n    return 0 * model(x).sum()\n"),
    ],
)
def test_an_edited_plugin_or_helper_is_seen_and_executed(
    helped: Path, edited: str, text: str, tmp_path: Path
) -> None:
    """In one process, as in a notebook."""
    own = f"{helped}:scaled"
    before = source_digests([own], base=tmp_path)
    x, y = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])

    def loss() -> float:
        bound = registry.resolve("objectives", own, base=tmp_path)
        return float(bound(model=lambda x: x, x=x, y=y))

    first = loss()
    (tmp_path / edited).write_text(text)
    assert source_digests([own], base=tmp_path) != before
    assert loss() == pytest.approx({"G": float(text[7]) if text[0] == "G" else 0, "d": 0}[text[0]] * first)


def test_an_edited_helper_refuses_the_run_that_was_trained_before(helped: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 1, "precision": "float32", "threads": 1, "out": tmp_path / "runs"}
    options["objective"] = f"{helped}:scaled"
    record = sl.train("linear", "digits", **options).record
    assert sl.train("linear", "digits", **options).record == record
    (helped.parent / "helpers_of_mine" / "gains.py").write_text("GAIN = 4.0\n")
    with pytest.raises(sl.ConfigError, match="code of a plug-in has changed since"):
        sl.train("linear", "digits", **options)


def test_a_plugin_without_helpers_has_the_digest_it_had(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("import torch\nimport numpy as np\nimport stresslens\n")
    content = (tmp_path / "own.py").read_bytes()
    assert source_digests(["own.py:f"], base=tmp_path) == [hashlib.sha256(content).hexdigest()[:8]]
