"""Finished runs that the tests of the public functions share."""

from __future__ import annotations

import pytest
from finished_runs import Finished, finished_runs


@pytest.fixture(scope="session")
def subjects(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished_runs(tmp_path_factory.mktemp("api"))
