"""The command `compare`, typed in the folder of the runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

Type = Callable[..., tuple[int, str, str]]


@pytest.fixture
def type_(type_: Type) -> Type:
    """Types `stresslens compare …`."""
    return partial(type_, "compare")
