"""Progress in Python: called functions, bars on a terminal and in a notebook, and what is printed."""

from __future__ import annotations

import io
import os
import pty
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from finished_runs import OPTIONS, SMALL
from torch import nn

import stresslens as sl
from stresslens.api import progress_bar
from stresslens.api.progress_bar import LINES, Epochs, shown
from stresslens.core.errors import ConfigError, Notice
from stresslens.core.progress import advance, foretell

Call = tuple[str, float, float]


def test_a_function_hears_of_a_training(tmp_path: Path) -> None:
    heard: list[Call] = []
    options = {**OPTIONS, "epochs": 3}
    run = sl.train("linear", SMALL, out=tmp_path, progress=lambda *call: heard.append(call), **options)
    assert heard[-1] == (run.folder.parent.name, 3, 3)
    assert all(0 <= done <= total for _, done, total in heard)
    heard.clear()
    sl.train("linear", SMALL, out=tmp_path, progress=lambda *call: heard.append(call), **options)
    assert not [call for call in heard if call[0] == run.folder.parent.name], "nothing was trained"


def test_a_function_hears_of_each_run_of_a_study(tmp_path: Path) -> None:
    heard: list[Call] = []
    study = {"data": SMALL, "model": "linear", "train": OPTIONS, "runs": {"a": {}, "b": {"train.lr": 0.1}}}
    sl.run(study, out=tmp_path, progress=lambda *call: heard.append(call))
    assert [call for call in heard if "seed" in call[0]] == [("a seed 0", 1, 1), ("b seed 0", 1, 1)]


def test_a_function_hears_of_an_attack_and_an_explanation() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    x = torch.rand(20, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    heard: list[Call] = []

    def hear(*call: Any) -> None:
        heard.append(call)

    sl.attack(net, x, [0, 1] * 10, radii=0.1, protocol=["fgsm"], audit=False, progress=hear)
    assert heard[-1] == ("attacking", 20, 20)
    sl.explain(net, x, "saliency", progress=hear)
    assert heard[-1] == ("explaining with saliency", 20, 20)
    sl.attack(net, x[:4], [0, 1] * 2, radii=0.1, protocol=["fgsm"], progress=hear)
    assert heard[-1] == ("audits, in percent", 100, 100)


@pytest.mark.slow
def test_a_slow_audit_is_announced_with_the_way_round_it_and_moves_in_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
    x = torch.rand(60, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    labels = net(x).argmax(1)
    told: list[str] = []
    heard: list[Call] = []
    monkeypatch.setattr(progress_bar, "LONG", 0)
    monkeypatch.setattr(progress_bar.Called, "print", lambda self, line: told.append(line))
    radii = [0.02 * k for k in range(1, 11)]
    sl.attack(
        net, x, labels, radii=radii, protocol=["fgsm", "pgd"], progress=lambda *call: heard.append(call)
    )
    assert told[-1].startswith("auditing the result, with attacks on 60 images, takes about ")
    assert told[-1].endswith("; quicker: no audits (audit=False)")
    audits = [done for what, done, total in heard if what == "audits, in percent"]
    assert audits == sorted(audits)
    assert len([done for done in set(audits) if 0 < done < 50]) >= 4  # four radii of doubled_steps


def test_notes_of_an_explanation_are_about_all_images() -> None:
    conv, head = nn.Conv2d(1, 1, 1, bias=False), nn.Linear(64, 2)
    for weights in (conv.weight, head.weight):
        nn.init.ones_(weights)
    x = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    x[::10] = 0
    heard: list[Call] = []
    net = nn.Sequential(conv, nn.Flatten(), head)
    found = sl.explain(net, x, "gradcam", progress=lambda *call: heard.append(call))
    assert any(note.startswith("4 of 40 maps are empty") for note in found.notes), found.notes
    done = [call[1] for call in heard]
    assert done == sorted(done)
    assert heard[-1] == ("explaining with gradcam", 40, 40)


def test_a_function_that_fails_is_told_once_and_the_work_goes_on(tmp_path: Path) -> None:
    with pytest.warns(
        Notice, match=r"progress: your function is not called again \(ZeroDivisionError"
    ) as told:
        run = sl.train("linear", SMALL, out=tmp_path, progress=lambda *call: 1 / 0, **OPTIONS)  # type: ignore[arg-type, return-value]
    assert run.finished
    assert len(told) == 1


@pytest.mark.parametrize("progress", [None, "yes", 1])
def test_what_is_no_progress_is_refused(progress: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected True, False, or a function"):
        sl.train("linear", SMALL, out=tmp_path, progress=progress, **OPTIONS)


def test_nothing_is_shown_without_a_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sl.train("linear", SMALL, out=tmp_path, **{**OPTIONS, "epochs": 2})
    assert capfd.readouterr() == ("", "")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_has_the_share_the_time_left_and_the_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress_bar, "DELAY", 0.0)
    monkeypatch.setenv("COLUMNS", "100")
    with shown(True) as display:
        display("a\x1b[31m run", 0, 4)
        display("a\x1b[31m run", 3, 4, "loss 0.5000")
        display.print("epoch 3/4: loss 0.5")
        display("another", 1, 2)
    drawn = terminal.getvalue()
    assert re.search(r"run \|[█#]+\S*\s*\|  75 %, 00:0\d done, 00:0\d left, loss 0\.5000", drawn)
    assert "epoch 3/4: loss 0.5\n" in drawn
    assert "\x1b[31m" not in drawn
    assert drawn.index("a\ufffd[31m run") < drawn.index("another |")
    assert drawn.rstrip("\r").endswith(" "), "the bar is taken away"


def test_short_work_has_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with shown(True) as display:
        display("short", 0, 2)
        display("short", 1, 2)
    assert terminal.getvalue() == ""


def in_a_terminal(code: str, folder: Path) -> str:
    """What Python shows on a terminal while it carries out this code."""
    main, other = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "120"}
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=folder, stderr=other, env=environment
    )
    os.close(other)
    shown = b""
    while True:
        try:
            part = os.read(main, 10_000)
        except OSError:
            break
        if not part:
            break
        shown += part
    assert process.wait() == 0, shown.decode()
    return shown.decode()


@pytest.mark.slow
def test_on_a_terminal_there_is_a_bar_and_a_line_for_each_epoch(tmp_path: Path) -> None:
    shown = in_a_terminal(
        """
        import time
        import stresslens as sl
        from stresslens.api.progress_bar import shown
        small = {"digits": {"subset": 100}}
        sl.train("linear", small, epochs=3, precision="float32", name="one", out="runs")
        with shown(True) as display:
            for done in range(4):
                display("waiting", done, 4)
                time.sleep(0.3)
        """,
        tmp_path,
    )
    lines = [line for line in shown.replace("\r", "\n").split("\n") if line.startswith("epoch")]
    assert [line.partition(":")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert "loss" in lines[0]
    assert "validation accuracy" in lines[0]
    assert "waiting |" in shown
    assert " left" in shown


@pytest.mark.parametrize(("epochs", "lines"), [(3, 3), (20, 20), (21, 11), (500, 20)])
def test_of_many_epochs_some_are_printed(epochs: int, lines: int, tmp_path: Path) -> None:
    printed: list[str] = []
    display = progress_bar.Display()
    display.print = printed.append  # type: ignore[method-assign]
    watched = Epochs(display, "run", tmp_path, epochs, lines=True)
    text = "".join(f'{{"epoch": {k}, "loss": 0.5}}\n' for k in range(1, epochs + 1))
    (tmp_path / "metrics.jsonl").write_text(text)
    watched.print_new()
    assert len(printed) == lines <= LINES
    assert printed[-1].startswith(f"epoch {epochs}/{epochs}: ")
    watched.print_new()
    assert len(printed) == lines, "each epoch is printed once"


def test_in_a_notebook_lines_go_to_the_cell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """There standard error looks like a failure."""
    ipython = ModuleType("IPython")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert progress_bar.in_notebook()
    with shown(True) as display:
        display.print("epoch 1/2: loss 0.5\x1b[31m")
        foretell("attacking 100 images", 100, "fewer images (--images 100)")
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "\x1b" not in printed.out
    assert "takes about 1 min 40 s; quicker: fewer images (n_images=100)" in printed.out


def test_a_plain_shell_of_ipython_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    ipython = ModuleType("IPython")
    ipython.get_ipython = lambda: SimpleNamespace()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    assert not progress_bar.in_notebook()


def test_reports_from_below_reach_the_function_and_end_with_the_call() -> None:
    heard: list[Call] = []
    with shown(lambda *call: heard.append(call)):
        advance("checking", 1, 2)
    advance("checking", 2, 2)
    assert heard == [("checking", 1, 2)]


@pytest.mark.slow
def test_a_stop_saves_and_says_so_and_the_next_call_goes_on(tmp_path: Path) -> None:
    code = """
    import os, signal, sys
    import stresslens as sl
    def stop(what, done, total):
        if sys.argv[1] == "stop" and what == "long" and done > 2:
            os.kill(os.getpid(), signal.SIGINT)
    run = sl.train("mlp", "digits", epochs=300, batch_size=16, precision="float32", lr=0.0001,
                   out="runs", name="long", progress=stop, select="last")
    print(run.status, run.record["resumed_from"])
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    first = subprocess.run(
        [*command, "stop"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert f"stopped by {signal.Signals.SIGINT.name} after" in first.stderr
    assert "saved, the same call resumes it" in first.stderr
    second = subprocess.run(
        [*command, "go on"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert second.stdout.startswith("finished [{'epoch'")
