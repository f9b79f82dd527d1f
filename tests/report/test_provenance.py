"""The environment on a page: keys in words, and nothing that is unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from folders import write_json, write_run

from stresslens.core.run_folder import Environment, RunFolder
from stresslens.report.load import read_run
from stresslens.report.provenance import NAMES, environment_rows


def rows(root: Path, *environments: dict[str, Any]) -> dict[str, str]:
    runs = []
    for seed, environment in enumerate(environments):
        path = write_run(root, "cnn", seed, pictures=0)
        write_json(path / "environment.json", environment)
        runs.append(read_run(RunFolder(path)))
    return dict(environment_rows(runs))


def test_keys_are_words(tmp_path: Path) -> None:
    found = rows(
        tmp_path,
        {
            "processor_count": 2,
            "packages": {"opencv-python-headless": "5.0"},
            "commit": None,
            "memory_format": "contiguous",
            "device": "",
            "later key": 3,
        },
    )
    assert {key: found[key] for key in ("Processor cores", "Package opencv-python-headless")} == {
        "Processor cores": "2",
        "Package opencv-python-headless": "5.0",
    }
    assert found["Memory format"] == "contiguous"
    assert not {"commit", "Commit of the working folder", "Device", "null"} & found.keys()
    assert "null" not in found.values()


def test_every_key_has_a_name() -> None:
    assert set(Environment.model_fields) <= set(NAMES)


def test_values_that_differ_say_of_how_many_runs(tmp_path: Path) -> None:
    found = rows(tmp_path, {"threads": 1}, {"threads": 2}, {"threads": 2})
    assert found["Threads"] == "1 (1 run), 2 (2 runs)"
    found = rows(tmp_path, *({"threads": k} for k in range(6)))
    assert found["Threads"].endswith(", and 2 more")
