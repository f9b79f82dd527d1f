"""Commands that are killed at a chosen file operation.

As a script it is a warm process, which has imported what commands import and forks a process for each,
so that a command takes a fraction of a second: a line of JSON on standard input asks for a command, a line
on standard output tells how it ended.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")
"""Audit events (PEP 578) of operations that change a folder; opening a file for writing is one more."""


WARM = ("stresslens.api", "stresslens.study.pipeline", "torch._dynamo", "sklearn.base", "scipy.stats")
"""Modules whose import takes long; further ones are imported after the first command that needs them."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code (negative: killed by a signal), its output, and the file
    operations below its working folder, in their order."""

    code: int
    output: str
    operations: list[str]


class WarmProcess:
    """A process that forks one process for each command, in the folder `work`."""

    def __init__(self, work: Path) -> None:
        self.work = work
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
            "XDG_CACHE_HOME": str(work / "cache"),
        }
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def run(self, command: Sequence[str], *, at: int = 0, by: signal.Signals = signal.SIGKILL) -> Outcome:
        """Runs `stresslens COMMAND`; with `at`, a signal comes before its file operation of this
        number."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"command": list(command), "work": str(self.work), "at": at, "by": int(by)}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        return Outcome(**json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.communicate()


def hook(work: str, at: int, by: int, tell: Callable[[str], None]) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook that tells every file operation below `work`, and before that of number `at`
    sends a signal to its own process."""
    seen = 0

    def watch(event: str, args: tuple[Any, ...]) -> None:
        nonlocal seen
        if event == "open" and not isinstance(args[0], int):
            if not args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event not in CHANGES:
            return
        path = _path(event, args)
        without_effect = event != "open" and os.path.lexists(path) == (event == "os.mkdir")
        if without_effect or not path.startswith(f"{work}/"):
            return
        seen += 1
        tell(f"{event} {path.removeprefix(f'{work}/')}")
        if seen == at:
            os.kill(os.getpid(), by)

    return watch


def _path(event: str, args: tuple[Any, ...]) -> str:
    """The absolute path of the file that an operation changes."""
    path, folder = os.fsdecode(args[0]), args[-1] if event in ("os.remove", "os.rmdir") else -1
    return os.path.abspath(path if folder < 0 else os.path.join(os.readlink(f"/proc/self/fd/{folder}"), path))


def _carry_out(request: dict[str, Any], output: int, log: int) -> None:
    """Runs the command in this process, which was forked for it."""
    from stresslens.__main__ import main

    os.chdir(request["work"])
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.argv = ["stresslens", *request["command"]]

    def tell(line: str) -> None:
        os.write(log, f"{line}\n".encode())

    sys.addaudithook(hook(request["work"], request["at"], request["by"], tell))
    code: Any = 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    tell(" ".join(sys.modules))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _import(modules: Sequence[str]) -> None:
    """Imports what a command has imported, so that the next one finds it."""
    for name in modules:
        if name not in sys.modules:
            with suppress(Exception):
                importlib.import_module(name)


def serve() -> None:
    """Carries out the commands that standard input asks for."""
    _import(WARM)
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as log:
            child = os.fork()
            if child == 0:
                _carry_out(json.loads(line), output.fileno(), log.fileno())
            _, status = os.waitpid(child, 0)
            output.seek(0)
            log.seek(0)
            code, operations = os.waitstatus_to_exitcode(status), log.read().decode().splitlines()
            if code >= 0:
                _import(operations.pop().split())
            answer = {
                "code": code,
                "output": output.read().decode(errors="replace"),
                "operations": operations,
            }
        print(json.dumps(answer), file=answers, flush=True)


def fresh(work: Path, start: Path) -> None:
    """Makes `work` a copy of the folder `start`."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(start, work)


if __name__ == "__main__":
    serve()
