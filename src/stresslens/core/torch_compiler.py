"""torch's compiler kept out of methods without the second that its import takes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

MARK = "__dynamo_disable"
"""Where torch (torch/_compile.py) keeps a method with the compiler kept out, once it is made."""


@contextmanager
def without_compiler(*methods: Callable[..., Any]) -> Iterator[None]:
    """Some methods of torch import its compiler at their first call, only to keep it out: inside the
    context these do without.

    Where the compiler is imported already, or torch does not look for the mark, nothing changes.
    """
    bare = [method.__wrapped__ for method in methods if hasattr(method, "__wrapped__")]
    marked = [] if "torch._dynamo" in sys.modules else [each for each in bare if not hasattr(each, MARK)]
    for each in marked:
        setattr(each, MARK, each)
    try:
        yield
    finally:
        for each in marked:
            delattr(each, MARK)
