"""Every command that the documents and the heads of the studies print is one that the command line
takes: studies and trainings up to their dry run, lists for real, the others up to their arguments."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from stresslens.cli.main import app

Type = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
RUNS = ("runs/quickstart/cnn/seed-0", "runs/study/run/seed-0", "runs/train/run,photos,mlp/seed-0")
MEANT = {
    **dict.fromkeys(("RUN", "A", "BASELINE"), RUNS[0]),
    **dict.fromkeys(("B", "CANDIDATE"), RUNS[1]),
    **dict.fromkeys(("STUDY.yaml", "study.yaml", "FILE"), "studies/quickstart.yaml"),
    **dict.fromkeys(("IMAGES", "FILES-OR-FOLDERS", "FILES"), "photos"),
    **{"DATA": "digits", "MODEL": "linear", "FOLDER": "photos", "[models|…|runs]": "models"},
    **{"FILE.npz": "x.npz", "TABLE.csv": "table.csv", "SCORE": "accuracy", "COMMAND": "train"},
}
"""What the words in capitals stand for in this test."""


def commands_of(text: str) -> Iterator[str]:
    """The commands of a document: in blocks, and in a line between backquotes."""
    blocks = re.findall(r"^```(?:sh)?\n(.*?)^```", text, re.S | re.M) + re.findall(
        r"(?:^    .*\n)+", text, re.M
    )
    for line in "\n".join(blocks).replace("\\\n", " ").splitlines():
        if found := re.match(r"\s*(?:torchrun .*-m )?(stresslens [^#]*)", line):
            yield found[1].strip()
    yield from re.findall(r"`(stresslens [^`\n]*)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))


def commands_of_head(text: str) -> Iterator[str]:
    """The commands in the comment at the head of a study file."""
    head = re.match(r"(?:#.*\n)*", text)
    lines = (head[0] if head else "").replace("\\\n#", " ").splitlines()
    for line in lines:
        if found := re.match(r"#\s+(stresslens .*?)(?:\s{2,}[^'\"]*)?$", line):
            yield found[1]


FOUND = sorted(
    {
        (file.name, command)
        for file in DOCUMENTS
        for command in commands_of(file.read_text(encoding="utf-8"))
        if not re.match(r"stresslens (trains|is|calls|from|opens)\b", command)
    }
    | {
        (file.name, command)
        for file in sorted((ROOT / "studies").glob("*.yaml"))
        for command in commands_of_head(file.read_text(encoding="utf-8"))
    }
)


def words_of(command: str) -> list[str]:
    """The words as the shell gives them, with something in place of the words in capitals."""
    words: list[str] = []
    for word in shlex.split(command)[1:]:
        meant = MEANT.get(word, word)
        paths = sorted(Path().glob(meant.replace("…", "*"))) if re.search(r"/.*[*…]", meant) else []
        if meant == "…" and words and words[-1].startswith("--"):
            words.append("8/255")
        elif not re.fullmatch(r"…|\[[A-Z]+\]", meant) or meant in MEANT:
            words += map(str, paths) if paths else [meant]
    return words


@pytest.fixture
def folder(tmp_path: Path) -> None:
    """What the documents' commands find in the folder where they are typed."""
    (tmp_path / "studies").symlink_to(ROOT / "studies")
    for run in RUNS:
        (tmp_path / run).mkdir(parents=True)
        for name in ("record.json", "config.yaml"):
            (tmp_path / run / name).write_text("{}")
    for name in ("photos", "new-photos"):
        (tmp_path / name).mkdir()
    for name in ("resnet.csv", "net.onnx"):
        (tmp_path / name).touch()


def test_there_are_commands() -> None:
    assert len(FOUND) > 80
    verbs = {command.split()[1] for _, command in FOUND}
    assert set(typer.main.get_command(app).commands) <= verbs  # type: ignore[attr-defined]


@pytest.mark.breadth(20)
@pytest.mark.filterwarnings("ignore::stresslens.core.errors.Notice")
@pytest.mark.parametrize(("where", "command"), FOUND, ids=[f"{where}: {it}" for where, it in FOUND])
def test_a_documented_command_is_one(where: str, command: str, folder: None, type_: Type) -> None:
    words = words_of(command)
    if words[0] in ("run", "train") and len(words) > 1:  # alone it is the name of the command
        code, _, err = type_(*words, "--dry-run")
        assert code == 0, err
    elif words[0] in ("list", "help", "--version", "-h", "--help"):
        assert type_(*words)[0] == 0
    elif words[0] in ("--install-completion", "--show-completion"):  # of the shell that it is typed in
        assert words[0] in {name for each in typer.main.get_command(app).params for name in each.opts}
    else:
        group: Any = typer.main.get_command(app)
        while words and words[0] in getattr(group, "commands", {}):
            group = group.commands[words.pop(0)]
        assert group.name is not None, "a command"
        if words:
            context = group.make_context(group.name, words)
            assert len(context.params.get("paths", "12")) >= 2, "an image behind the run"
