"""`stresslens lab check`: parts in processes of their own, consent, time limit, exit codes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from parts_of_students import LOSS, WRONG

from stresslens.labs.part import lab_of
from stresslens.labs.part_process import part_findings

Type = Callable[..., tuple[int, str, str]]


@pytest.fixture
def type_(type_: Type) -> Type:
    """Types `stresslens lab check …`."""
    return partial(type_, "lab", "check")


def test_nothing_is_executed_without_consent(type_: Type, tmp_path: Path) -> None:
    (tmp_path / "loss.py").write_text(LOSS + "\nopen('executed', 'w')\n")
    code, out, err = type_("loss.py")
    assert code == 2
    assert out == ""
    assert "loss.py: loss (own_loss)" in err
    assert "--trust" in err
    assert not (tmp_path / "executed").exists()


@pytest.mark.slow
def test_a_right_part_ends_with_0(type_: Type, tmp_path: Path) -> None:
    (tmp_path / "helpers.py").write_text("def mean(x):\n    return x.mean()\n")
    (tmp_path / "own.py").write_text(
        LOSS.replace("import torch\n", "import torch\nfrom helpers import mean\nprint('hello')\n").replace(
            "-logits.log_softmax(1)[torch.arange(len(y)), y].mean()",
            "mean(-logits.log_softmax(1)[torch.arange(len(y)), y])",
        )
    )
    code, out, err = type_("own.py", "--trust")
    assert (code, err) == (0, "")
    assert out.startswith("own.py: loss (own_loss)\n")
    assert "✓: reference: value and slope equal those of cross_entropy" in out
    assert "hello" not in out


@pytest.mark.slow
def test_a_wrong_part_ends_with_5_and_says_why(type_: Type, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(WRONG["loss: sum"][0])
    code, out, err = type_("own.py", "--trust", "--json")
    assert code == 5
    (part,) = json.loads(out)
    assert part["kind"] == "loss"
    assert any("7 times" in finding["evidence"] + " ".join(finding["items"]) for finding in part["findings"])
    assert "own.py: loss: reference" in err


def test_claims_need_no_consent(type_: Type, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("| run | claimed |\n|--|--|\n| runs/a | 90 |\n")
    code, _, err = type_("a.md")
    assert code == 2
    assert "there is no folder runs/a" in err


@pytest.mark.slow
def test_what_cannot_be_checked_leaves_the_rest(type_: Type, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("# part: lossy\n")
    (tmp_path / "b.py").write_text(WRONG["loss: sum"][0])
    (tmp_path / "c.py").write_text(LOSS.replace("cross_entropy", "mean_square"))
    (tmp_path / "d.md").write_text("| run | claimed |\n|--|--|\n| runs/a | 90 |\n")
    code, out, err = type_(".", "--trust")
    assert code == 2
    assert out.startswith(".: looked at 4 files (a.py, b.py, c.py, d.md)\n")
    assert "b.py: loss (own_loss)" in out
    for words in ("a.py: no kind", "b.py: loss: reference", "c.py: no loss", "d.md, line 3"):
        assert words in err


@pytest.mark.parametrize("words", [("none.ipynb",), (".",)])
def test_nothing_to_check_ends_with_2(words: tuple[str, ...], type_: Type) -> None:
    code, out, err = type_(*words)
    assert (code, out) == (2, "")
    assert err.startswith("stresslens: ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "audit", "words"),
    [
        ("while True:\n    pass\n", "time limit", "was stopped"),
        ("import os\nos._exit(0)\n", "execution", "ended without an answer"),
        ("import sys\nsys.exit('enough')\n", "execution", "enough"),
        ("import os\nos.kill(os.getpid(), 9)\n", "execution", "ended without an answer"),
        ("import subprocess\nsubprocess.run(['sleep', '100'])\n", "time limit", "was stopped"),
    ],
    ids=["endless", "exit", "sys.exit", "killed", "a process of its own"],
)
def test_code_that_does_not_come_back(code: str, audit: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "loss.py").write_text(code + "def loss(logits, y):\n    return 0\n")
    began = time.monotonic()
    (finding,) = part_findings(lab_of(tmp_path).parts[0], 20.0)
    assert (finding.audit, finding.severity) == (audit, "serious")
    assert words in finding.evidence
    assert time.monotonic() - began < 60


@pytest.mark.slow
def test_a_file_of_the_folder_does_not_hide_a_library(tmp_path: Path) -> None:
    (tmp_path / "random.py").write_text("raise ImportError('not this one')\n")
    (tmp_path / "loss.py").write_text(LOSS)
    assert {finding.severity for finding in part_findings(lab_of(tmp_path).parts[0], 60.0)} <= {
        "none",
        "minor",
    }
