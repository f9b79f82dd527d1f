"""What the command line says of itself, and of words that it does not know."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytest
import typer.main

from stresslens.cli.main import app
from stresslens.core.version import __version__

Type = Callable[..., tuple[int, str, str]]
COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
STUDY = "data: {digits: {subset: 100}}\nmodel: linear\ntrain: {epochs: 1}\n"


def test_the_version_with_that_of_torch_and_python_is_one_line(type_: Type) -> None:
    code, out, err = type_("--version")
    assert (code, err) == (0, "")
    assert out == f"stresslens {__version__} (torch {version('torch')}, Python {platform.python_version()})\n"


def test_alone_it_says_where_to_begin(type_: Type) -> None:
    code, out, err = type_()
    assert (code, err) == (0, "")
    assert len(out.splitlines()) < 15
    for said in re.findall(r"  stresslens (\w+)", out):
        assert said in COMMANDS


@pytest.mark.breadth(4)
@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_the_same_however_it_is_asked_for(type_: Type, command: str) -> None:
    outputs = [type_(*words) for words in ((command, "-h"), (command, "--help"), ("help", command))]
    assert {code for code, *_ in outputs} == {0}
    assert len({out for _, out, _ in outputs}) == 1
    assert re.match(rf"Usage: .*{command} \[OPTIONS\]", outputs[0][1])


def test_help_of_the_whole_and_of_a_command_of_a_command(type_: Type) -> None:
    assert type_("help") == type_("-h") == type_("--help")
    assert type_("help", "data", "check") == type_("data", "check", "-h")


@pytest.mark.breadth(6)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rum"], "rum is no command; did you mean `stresslens run`?"),
        (["trian", "digits", "mlp"], "did you mean `stresslens train`?"),
        (["check", "photos"], "did you mean `stresslens data check`?"),
        (["stats", "photos"], "did you mean `stresslens data stats`?"),
        (["version"], "did you mean `stresslens --version`?"),
        (["fooo"], "fooo is no command; `stresslens --help` lists them"),
        (["data", "chek", "x"], "Did you mean 'check'?"),
        (["help", "rum"], "did you mean 'run'?"),
        (["help", "data", "chek"], "did you mean 'check'?"),
        (["--seed", "3", "run", "s.yaml"], "options come after the command"),
        (["s.yaml", "--seed", "3"], "did you mean `stresslens run s.yaml --seed 3`?"),
        (["run", "s.yaml", "--epochs", "3"], "for example train.epochs=3"),
        (["run", "s.yaml", "--batch-size=3"], "for example train.batch_size=3"),
        (["train", "digits", "mlp", "--train.lr", "0.1"], "for example train.lr=0.1"),
        (["run", "s.yaml", "--repeats", "2"], "for example repeats=2"),
        (["run", "s.yaml", "--jbos", "3"], "did you mean --jobs?"),
        (["attack", "run", "--radius", "8/255"], "has no option --radius; did you mean --radii?\n"),
        (["attack", "run", "--attack", "pgd"], "did you mean --protocol?\n"),
        (["export", "run", "--format", "onnx"], "did you mean --to?\n"),
    ],
)
def test_unknown_words_get_a_hint(type_: Type, words: list[str], said: str) -> None:
    code, out, err = type_(*words)
    assert (code, out) == (2, "")
    assert said in err


@pytest.mark.breadth(2)
@pytest.mark.parametrize(
    "words",
    [
        ["s.yaml", "--seed", "3", "--dry-run", "train.epochs=2"],
        ["s.yaml", "--seed=3", "train.epochs=2", "--dry-run"],
        ["--dry-run", "--seed=3", "s.yaml", "train.epochs=2"],
        ["--dry-run", "--seed", "3", "--", "s.yaml", "train.epochs=2"],
        ["--dry-run", "s.yaml", "repeats=[3]", "train.epochs=2"],
    ],
)
def test_options_stand_in_any_order(type_: Type, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "s.yaml").write_text(STUDY)
    expected = type_("run", "s.yaml", "train.epochs=2", "--seed", "3", "--dry-run")
    assert expected[0] == 0
    assert type_("run", *words) == expected


@pytest.mark.breadth(1)
@pytest.mark.parametrize("words", [[], ["--version"], ["-h"], ["help", "run"]])
def test_python_m_stresslens_is_the_same_command(type_: Type, words: list[str]) -> None:
    found = subprocess.run([sys.executable, "-m", "stresslens", *words], capture_output=True, text=True)
    assert found.returncode == 0
    said, typed = (re.sub("Usage: .*", "", text) for text in (found.stdout, type_(*words)[1]))
    assert said == typed


@pytest.mark.breadth(4)
@pytest.mark.parametrize(
    ("words", "word"),
    [
        (["predict", "run", "-dash.png"], "-dash.png"),
        (["predict", "run", "--dash.png"], "--dash.png"),
        (["predict", "run", "-head.png", "--csv"], "-head.png"),
        (["explain", "run", "-x.png"], "-x.png"),
        (["verify", "run", "-x.npz"], "-x.npz"),
        (["audit", "-table.csv"], "-table.csv"),
        (["run", "-study.yaml"], "-study.yaml"),
        (["train", "-photos", "mlp"], "-photos"),
        (["compare", "a", "-b"], "-b"),
        (["report", "-runs"], "-runs"),
        (["data", "check", "-photos"], "-photos"),
        (["attack", "-run", "--radii", "-1"], "-run"),
    ],
)
def test_a_name_that_begins_with_a_dash(type_: Type, words: list[str], word: str) -> None:
    code, out, err = type_(*words)
    command = " ".join(words[:2]) if words[0] == "data" else words[0]
    assert (code, out) == (2, "")
    assert err.startswith(f"{command} has no option {word}")
    assert (
        f"Put `--` before names that begin with a dash, behind all options: stresslens {command} … -- {word}"
        in err
    )
    assert f"or write ./{word}\n" in err


def test_both_ways_out_of_a_dash_lead_to_the_file(type_: Type, tmp_path: Path) -> None:
    (tmp_path / "-t.csv").write_text("model,clean\nm,0.9\n")
    for words in (["--json", "--", "-t.csv"], ["./-t.csv", "--json"]):
        assert type_("audit", *words)[0] == 0


def test_a_command_without_names_says_nothing_of_dashes(type_: Type) -> None:
    expected = "stresslens: doctor has no option --fast; see `stresslens help doctor`\n"
    assert type_("doctor", "--fast")[2] == expected
    assert "predict has no option --topp; did you mean --top?" in type_("predict", "run", "--topp", "3")[2]
