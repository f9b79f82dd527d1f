"""A check of each source file as one test, which names every file that fails: a test for each would take
longer to start than to run."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "stresslens"


def each_file(check: Callable[[Path], None]) -> Callable[[], None]:
    """A test without arguments that carries out the check of one file for all of them."""

    def test() -> None:
        wrong = []
        gc.disable()  # a syntax tree is many objects, none of them in a ring: half of the time
        try:
            for file in sorted(SOURCE.rglob("*.py")):
                try:
                    check(file)
                except AssertionError as error:
                    wrong.append(f"{file.relative_to(SOURCE)}: {error}")
        finally:
            gc.enable()
        assert not wrong, "\n".join(wrong)

    test.__name__, test.__doc__ = check.__name__, check.__doc__
    return test
