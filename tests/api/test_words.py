"""Errors in Python have the words of Python, wherever they are raised."""

from __future__ import annotations

import ast
import functools
import re
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

import stresslens as sl
from stresslens.api.words import in_python, public_call
from stresslens.core.errors import ConfigError, Notice, Stopped, TrainingDiverged

SOURCE = Path(sl.__file__).parent
ELSEWHERE = ("cli/", "api/words.py", "report/")
OF_TORCHRUN = "--nproc-per-node"


@functools.cache
def texts(file: Path) -> tuple[str, ...]:
    """The texts of a file, docstrings left out, with X/y for what they insert."""
    return tuple(_texts(file))


def _texts(file: Path) -> Iterator[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            told |= {id(part) for part in node.values}
            yield "".join(part.value if isinstance(part, ast.Constant) else "X/y" for part in node.values)  # type: ignore[misc]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.value


@pytest.mark.slow
def test_no_message_keeps_an_option_of_the_command_line() -> None:
    found, left = 0, []
    for file in sorted(SOURCE.rglob("*.py")):
        if str(file.relative_to(SOURCE)).startswith(ELSEWHERE):
            continue
        for text in texts(file):
            if re.search(r"(?<![\w-])--[a-z]|the same command", text):
                found += 1
                said = in_python(text).replace(OF_TORCHRUN, "")
                if "--" in said or "the same command" in said:
                    left.append(f"{file.name}: {text.strip()} → {said.strip()}")
    assert found > 30
    assert [each for each in left if "write --X/y" not in each] == []


@pytest.mark.parametrize(
    ("command", "call"),
    [
        ("keep both: --out ELSEWHERE, or another name", "keep both: out=ELSEWHERE, or another name"),
        ("choose another place with --out", "choose another place with out="),
        ("only if you trust it (--trust)", "only if you trust it (trust=True)"),
        ("saved, the same command resumes it", "saved, the same call resumes it"),
        ("--out x/m.bin: a file for onnx", "out='x/m.bin': a file for onnx"),
        ("say where: --data PATH", "say where: data=PATH"),
        ("fewer images (--images 100)", "fewer images (n_images=100)"),
        ("(--protocol '[fgsm, pgd]')", "(protocol=['fgsm', 'pgd'])"),
        ("`stresslens explain RUN --images 20`", "`sl.explain('RUN', n_images=20)`"),
        ("image '/x/photo --final.png' cannot be read", "image '/x/photo --final.png' cannot be read"),
        (
            "`stresslens evaluate runs/a/seed-0 --split validation` makes it anew",
            "`sl.evaluate('runs/a/seed-0', split='validation')` makes it anew",
        ),
        (
            "of their own: stresslens train '{folder: {path: x}}' lenet train.epochs=3 "
            "train.schedule=cosine --name longer, with",
            "of their own: sl.train('lenet', {'folder': {'path': 'x'}}, epochs=3, schedule='cosine', "
            "name='longer'), with",
        ),
        ("`stresslens attack runs/a/seed-0` does it", "`sl.attack('runs/a/seed-0', radii=…)` does it"),
        ("`stresslens list runs` shows them", "list(Path('runs').glob('**/seed-*')) shows them"),
        (
            "no predictions for x; `stresslens evaluate` makes them",
            "no predictions for x; `sl.evaluate` makes them",
        ),
        ("(stresslens data check names them)", "(sl.check_data names them)"),
        (
            "the command of the study (`stresslens run` or `train`)",
            "the call that made the study (`sl.run` or `sl.train`)",
        ),
        ("command line: train.nope=3: unknown key", "override train.nope=3: unknown key"),
        (
            "out=3: unknown key; on the command line write --out 3",
            "out=3: unknown key; give it as the argument out=",
        ),
        ("(set `input: {size: 28}` to enlarge them)", "(set `input={'size': 28}` to enlarge them)"),
        ("`colours: rgb` keeps three channels", "`'colours': 'rgb'` keeps three channels"),
        ("that path: {folder: {path: a/b}}; did", "that path: {'folder': {'path': 'a/b'}}; did"),
        ("a list, or {from: …, to: …}, got", "a list, or {'from': …, 'to': …}, got"),
        (
            "a/pics: the images differ in size (the first is 20×30 pixels, a.png 21×30); set `size`, for "
            "example data.size=24 on the command line or `size: 24` in a study file, and `fit` to crop, "
            "pad or stretch",
            "a/pics: the images differ in size (the first is 20×30 pixels, a.png 21×30); give a size: "
            "{'folder': {'path': 'a/pics', 'size': 24}}, and with it 'fit': 'crop', 'pad' or 'stretch'",
        ),
    ],
    ids=lambda text: text[:20],
)
def test_words_of_the_command_line(command: str, call: str) -> None:
    assert in_python(command) == call
    assert in_python(call) == call


def test_no_message_sends_to_a_command_that_is_a_function() -> None:
    left = [
        f"{file.name}: {in_python(text).strip()}"
        for file in sorted(SOURCE.rglob("*.py"))
        if not str(file.relative_to(SOURCE)).startswith((*ELSEWHERE, "labs/", "core/distributed"))
        for text in texts(file)
        if re.search(
            r"`stresslens |on the command line|the command of|\(stresslens |or stresslens ", in_python(text)
        )
    ]
    assert "\n".join(left) == ""


def test_the_kind_of_an_error_and_what_it_carries_stay() -> None:
    with pytest.raises(TrainingDiverged, match="the same call") as diverged:
        _raise(TrainingDiverged("the same command", [3, 5]))
    assert diverged.value.images == [3, 5]
    with pytest.raises(Stopped, match="the same call") as stopped:
        _raise(Stopped("the same command", 2))
    assert stopped.value.exit_code == 130


@public_call()
def _raise(error: BaseException) -> None:
    raise error


def test_the_traceback_of_an_error_ends_at_the_callers_line() -> None:
    with pytest.raises(ConfigError) as refused:
        sl.train("linaer", "digits")
    frames = traceback.extract_tb(refused.value.__traceback__)
    assert frames[0].filename == __file__
    assert len(frames) == 1
    with pytest.raises(ZeroDivisionError) as unexpected:
        _raise(ZeroDivisionError())
    assert traceback.extract_tb(unexpected.value.__traceback__)[-1].name == "_raise"


def test_an_occupied_folder_is_told_in_words_of_python(tmp_path: Path) -> None:
    small = {"digits": {"subset": 20}}
    sl.train("linear", small, epochs=0, out=tmp_path, name="a")
    with pytest.raises(ConfigError, match=r"holds another configuration.*\n.*out=ELSEWHERE"):
        sl.train("linear", small, epochs=0, loss="mse", out=tmp_path, name="a")


def test_a_notice_is_a_sentence_in_words_of_python_inside_a_call_only() -> None:
    before = warnings.formatwarning

    def shown(category: type[Warning]) -> str:
        return warnings.formatwarning("kept: `stresslens evaluate` makes it", category, "inside.py", 5)

    inside = public_call()(shown)
    assert inside(Notice) == "stresslens: kept: `sl.evaluate` makes it\n"
    assert "inside.py:5: UserWarning" in inside(UserWarning)
    assert warnings.formatwarning is before
    assert "inside.py:5: Notice" in shown(Notice)
