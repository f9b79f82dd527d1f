"""What another system lacks: every module can be imported without it, and no line uses it unasked."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from draw_architecture import FILES, SOURCE
from each_file import each_file

MODULES = {
    *("crypt", "curses", "fcntl", "grp", "nis", "ossaudiodev", "posix", "pty", "pwd", "readline"),
    *("resource", "spwd", "syslog", "termios", "tty"),
}
"""Modules of Python that Windows lacks."""
CALLS = {
    "os": {
        *("chown", "chroot", "confstr", "ctermid", "fchdir", "fchown", "fork", "forkpty"),
        *("getegid", "geteuid", "getgid", "getgrouplist", "getgroups", "getloadavg", "getpgid", "getpgrp"),
        *("getpriority", "getresuid", "getsid", "getuid", "getxattr", "initgroups", "killpg", "lchown"),
        *("lockf", "major", "mkfifo", "mknod", "nice", "openpty", "pathconf", "posix_fadvise"),
        *("posix_fallocate", "posix_spawn", "pread", "preadv", "pwrite", "pwritev", "register_at_fork"),
        *("sched_getaffinity", "sched_setaffinity", "sched_yield", "sendfile", "setegid", "seteuid"),
        *("setgid", "setpgid", "setpriority", "setsid", "setuid", "setxattr", "statvfs", "sync", "sysconf"),
        *("tcgetpgrp", "ttyname", "uname", "wait", "wait3", "wait4", "waitid", "WNOHANG"),
        *("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "O_SYNC", "SCHED_IDLE"),
    },
    "signal": {
        *("SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP", "SIGTSTP"),
        *("SIGTTIN", "SIGTTOU", "SIGUSR1", "SIGUSR2", "SIGWINCH", "alarm", "getitimer", "pause"),
        *("pthread_kill", "pthread_sigmask", "setitimer", "siginterrupt", "sigpending", "sigwait"),
    },
    "time": {"tzset", "pthread_getcpuclockid", "clock_settime"},
    "socket": {"AF_UNIX", "socketpair"},
}
"""Names of Python's modules that Windows lacks."""

HIDDEN = """
import importlib, sys
import stresslens  # cures torchvision
import torch, torchvision, sklearn.linear_model, scipy.stats, filelock, joblib, typer.testing
modules, calls, names = {modules!r}, {calls!r}, {names!r}
for name in modules:
    sys.modules[name] = None
for module, hidden in calls.items():
    for name in hidden:
        vars(importlib.import_module(module)).pop(name, None)
for name in names:
    importlib.import_module(name)
"""


def names_of_modules() -> list[str]:
    parts = (file.relative_to(SOURCE.parent).with_suffix("").parts for file in FILES)
    return [".".join(each).removesuffix(".__init__") for each in parts]


@pytest.mark.slow  # a process that imports everything
def test_every_module_can_be_imported_without_what_windows_lacks(tmp_path: Path) -> None:
    script = HIDDEN.format(modules=MODULES, calls=CALLS, names=names_of_modules())
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr


def uses(tree: ast.AST, *, guarded: bool = False) -> Iterator[tuple[int, str]]:
    """The lines and names that Windows lacks, but for those after a question for the platform or for
    the name itself."""
    if isinstance(tree, ast.If | ast.IfExp):
        asks = any(word in ast.unparse(tree.test) for word in ("sys.platform", "hasattr"))
        guarded = guarded or asks
    if isinstance(tree, ast.Import | ast.ImportFrom):
        named = [alias.name for alias in tree.names]
        found = {*named, getattr(tree, "module", None) or ""} & MODULES
        if isinstance(tree, ast.ImportFrom) and tree.module in CALLS:
            found |= set(named) & CALLS[tree.module]
        yield from ((tree.lineno, name) for name in found if not guarded)
    if isinstance(tree, ast.Attribute) and isinstance(tree.value, ast.Name) and not guarded:
        module = tree.value.id.removesuffix("s") if tree.value.id == "signals" else tree.value.id
        if tree.attr in CALLS.get(module, ()):
            yield tree.lineno, f"{module}.{tree.attr}"
    for field, value in ast.iter_fields(tree):
        asked = guarded and field != "test"
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, ast.AST):
                yield from uses(each, guarded=asked)
            ends = isinstance(each, ast.If) and isinstance(each.body[-1], ast.Return | ast.Raise)
            if ends and "sys.platform" in ast.unparse(each.test):  # guards what comes after it
                asked = True


@each_file
def test_no_line_uses_what_windows_lacks(file: Path) -> None:
    assert not list(uses(ast.parse(file.read_text(encoding="utf-8"))))


@pytest.mark.parametrize(
    "line",
    [
        "import fcntl",
        "from fcntl import flock",
        "from os import fork",
        "os.fork()",
        "os.kill(pid, signal.SIGKILL)",
        "if sys.platform == 'linux':\n    pass\nos.getuid()",
        "def f():\n    os.pread(1, 2, 3)\n    if sys.platform == 'win32':\n        return 0",
    ],
)
def test_such_a_line_is_found(line: str) -> None:
    assert list(uses(ast.parse(line)))


@each_file
def test_text_is_read_and_written_in_a_named_encoding(file: Path) -> None:
    """Windows has another one by default."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            before = {"read_text": 0, "write_text": 1}.get(node.func.attr)
            if before is not None:
                named = any(keyword.arg == "encoding" for keyword in node.keywords)
                assert named or len(node.args) > before, f"{file}:{node.lineno}"


@pytest.mark.slow
def test_the_types_are_right_on_windows_too() -> None:
    """typeshed knows what each system lacks."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--platform", "win32", "--cache-dir", "/dev/null", str(SOURCE)],
        capture_output=True,
        text=True,
        check=False,
        cwd=SOURCE.parents[1],
    )
    assert done.returncode == 0, done.stdout
