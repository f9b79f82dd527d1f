"""The shells' own protocol: what each shell asks, and the candidates that it gets."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer.main

from stresslens.cli.completion import plugin_kinds, plugins_of
from stresslens.cli.main import app
from stresslens.config import registry

Type = Callable[..., tuple[int, str, str]]
Complete = Callable[[str], list[str]]
RUN = "runs/study/cnn/seed-0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    run = tmp_path / RUN
    run.mkdir(parents=True)
    for name in ("record.json", "config.yaml"):
        (run / name).write_text("{}")
    (tmp_path / "runs/study/study.json").write_text("{}")
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "mine.yaml").write_text("{}")
    (tmp_path / "photos").mkdir()
    return tmp_path


@pytest.fixture
def complete(folder: Path, type_: Type, monkeypatch: pytest.MonkeyPatch) -> Complete:
    """The candidates that bash gets at the end of a line."""

    def candidates(line: str) -> list[str]:
        words = line.split(" ")
        monkeypatch.setenv("_STRESSLENS_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        code, out, err = type_()
        assert (code, err) == (0, "")
        return out.split()

    return candidates


@pytest.mark.breadth(10)
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("stresslens tr", ["train"]),
        ("stresslens data ", ["check", "stats", "card", "labels", "compare"]),
        ("stresslens help dat", ["data"]),
        ("stresslens list expl", ["explainers"]),
        ("stresslens list ru", ["runs"]),
        ("stresslens list losses ", ["asymmetric", "bce", "cross_entropy", "focal", "mse"]),
        ("stresslens list models si", ["simple_cnn", "simple_net"]),
        ("stresslens train dig", ["digits"]),
        ("stresslens train digits simple_c", ["simple_cnn"]),
        ("stresslens train digits hog", ["hog_svm"]),
        ("stresslens train digits mlp --track t", ["tensorboard"]),
        ("stresslens train digits mlp --dev", ["--device"]),
        ("stresslens train digits mlp --device c", ["cpu", "cuda"]),
        ("stresslens data check colo", ["coloured_mnist"]),
        ("stresslens run studies/m", ["studies/mine.yaml"]),
        ("stresslens run ", ["studies/mine.yaml"]),
        ("stresslens run studies/mine.yaml --executor r", ["ray"]),
        ("stresslens run studies/mine.yaml --fail", ["--fail-under", "--fail-over"]),
        ("stresslens attack r", [RUN]),
        (f"stresslens attack {RUN} --norm l", ["linf", "l2", "l1"]),
        (f"stresslens attack {RUN} --protocol s", ["standard", "square"]),
        (f"stresslens attack {RUN} --individual-attack dee", ["deepfool"]),
        (f"stresslens attack {RUN} --certificate ", ["interval", "smoothing"]),
        (f"stresslens attack {RUN} --surrogate ", [RUN]),
        ("stresslens explain runs/study/", [RUN]),
        (f"stresslens explain {RUN} --explainer grad", ["gradcam"]),
        (f"stresslens explain {RUN} --view fil", ["filters"]),
        (f"stresslens explain {RUN} --images-from ", [RUN]),
        ("stresslens evaluate ", [RUN]),
        (f"stresslens evaluate {RUN} --split ", ["train", "validation", "test"]),
        ("stresslens verify ", [RUN]),
        ("stresslens predict ", [RUN]),
        (f"stresslens export {RUN} --to o", ["onnx"]),
        ("stresslens compare runs/study/c", ["runs/study/cnn", RUN]),
        ("stresslens report runs/", ["runs/study", "runs/study/cnn", RUN]),
        ("stresslens init --study digits-h", ["digits-hardening"]),
        ("stresslens layers len", ["lenet"]),
        ("stresslens studies/mine.yaml --x", []),
        ("stresslens predict photos/", []),
        ("stresslens train photos/ ml", ["mlp"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bash(complete: Complete, line: str, expected: list[str]) -> None:
    assert complete(line) == expected


def test_verbs_and_options(complete: Complete) -> None:
    assert set(complete("stresslens ")) == set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert {"--radii", "--norm", "--protocol", "--help"} <= set(complete(f"stresslens attack {RUN} --"))


def test_zsh(folder: Path, type_: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_STRESSLENS_COMPLETE", "complete_zsh")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", f"stresslens explain {RUN} --explainer grad")
    code, out, _ = type_()
    assert (code, out.count("gradcam")) == (0, 1)
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "stresslens sche")
    assert "schema" in type_()[1]


def test_fish(folder: Path, type_: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_STRESSLENS_COMPLETE", "complete_fish")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "stresslens list models len")
    assert type_()[:2] == (0, "lenet\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script(type_: Type, shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_STRESSLENS_COMPLETE", f"source_{shell}")
    code, out, _ = type_()
    assert code == 0
    assert f"_STRESSLENS_COMPLETE=complete_{shell}" in out


def test_all_plugins_and_kinds_are_candidates() -> None:
    assert plugin_kinds("") == [*sorted(registry.VOCABULARY), "runs", "studies"]
    for folder in registry.VOCABULARY:
        assert plugins_of(folder)("") == registry.all_names(folder)


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **more}


@pytest.mark.breadth(1)
@pytest.mark.parametrize(
    "line", ["stresslens train digits ", "stresslens init --study ", "stresslens attack "]
)
def test_a_completion_imports_no_torch_and_no_numpy(folder: Path, line: str) -> None:
    code = (
        "import sys; sys.argv = ['stresslens']\n"
        "from stresslens.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'numpy', 'rich'} & set(sys.modules)))"
    )
    words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment(_STRESSLENS_COMPLETE="complete_bash", **words),
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(found.stdout.splitlines()) > 1
    assert found.stdout.splitlines()[-1] == "[]", found.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_a_real_bash(folder: Path) -> None:
    program = folder / "bin" / "stresslens"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m stresslens "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(_STRESSLENS_COMPLETE=source_bash stresslens)"; complete -p stresslens\n'
        "COMP_WORDS=(stresslens list explainers grad); COMP_CWORD=3\n"
        '_stresslens_completion stresslens; echo "${COMPREPLY[*]}"'
    )
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    found = subprocess.run(
        ["bash", "--norc", "-c", script],
        cwd=folder,
        env=environment(PATH=path),
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.splitlines() == [
        "complete -o default -F _stresslens_completion stresslens",
        "gradcam",
    ]
