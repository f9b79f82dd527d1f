"""Which versions of torch the tests pass with, and whether torch and torchvision fit together."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, requires, version

from stresslens.core.errors import first_line
from stresslens.core.torchvision_compat import is_cured, torchvision

OLDEST, NEWEST = "2.6", "2.13"
"""All tests are run with NEWEST; the quickstart and a part of the tests of the plug-ins and of the
training were run with OLDEST, each with its own torchvision."""

PAIR = (
    "install the pair anew, both from one place: pip install --force-reinstall torch torchvision, with the "
    "same --index-url for both where you give one (pytorch.org shows the command for your system)"
)


def torch_problems() -> list[str]:
    """What a user should know about the installed torch and torchvision, a sentence each."""
    installed = version("torch")
    problems = []
    if not _numbers(OLDEST) <= _numbers(installed) <= _numbers(NEWEST):
        told = "older than" if _numbers(installed) < _numbers(OLDEST) else "newer than"
        problems.append(
            f"torch {installed} is {told} the versions that stresslens is tested with, {OLDEST} to "
            f"{NEWEST} (the oldest in part); it may work all the same"
        )
    if (problem := _torchvision_problem(installed)) is not None:
        problems.append(problem)
    return problems


def torchvision_imports() -> bool:
    """Whether torchvision is installed and can be imported."""
    try:
        torchvision()
    except Exception:  # of torch, where the two do not fit
        return False
    return True


def _torchvision_problem(torch: str) -> str | None:
    try:
        found = version("torchvision")
    except PackageNotFoundError:
        return f"torchvision is not installed; {PAIR}"
    needed = _needed_torch()
    other = f"it was made for torch {needed}, and torch {torch} is installed"
    try:
        torchvision()
    except Exception as error:
        why = other if needed and needed != _release(torch) else first_line(error)
        return f"torchvision {found} cannot be imported ({why}); {PAIR}"
    if is_cured():
        return (
            f"torchvision {found} does not fit torch {torch}: it was built for another build of it. It can "
            "be imported after stresslens only (`import stresslens` before `import torchvision`), and its "
            f"operators, as nms, are missing. To repair it, {PAIR}"
        )
    return f"torchvision {found}: {other}; {PAIR}" if needed and needed != _release(torch) else None


def _needed_torch() -> str | None:
    """The version of torch that the installed torchvision was made for, as its package says."""
    for requirement in requires("torchvision") or []:
        if found := re.fullmatch(r"torch\s*\(?==\s*([\d.]+)\)?(\s*;.*)?", requirement):
            return found[1]
    return None


def _release(text: str) -> str:
    """The release of a version, without what comes after +."""
    return text.partition("+")[0]


def _numbers(text: str) -> tuple[int, int]:
    """The first two numbers of a version."""
    major, minor = (int(part) for part in re.findall(r"\d+", text)[:2])
    return major, minor
