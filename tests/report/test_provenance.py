"""Where a page comes from: the environment in words, and the head of the study file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from folders import write_json, write_run

from stresslens.config import study_file
from stresslens.core.run_folder import Environment, RunFolder
from stresslens.report.load import load_study, read_run
from stresslens.report.provenance import NAMES, environment_rows, expectation
from stresslens.study import pipeline


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


@pytest.mark.breadth(1)
@pytest.mark.parametrize(
    ("head", "shown"),
    [
        ("# s.yaml\n", []),
        ("# s.yaml\n# Does it help?\n", [(False, "Does it help?")]),
        ("# s.yaml asks this.\n", [(False, "s.yaml asks this.")]),
    ],
)
def test_a_head_that_is_the_name_of_the_file_is_not_shown(
    head: str, shown: list[tuple[bool, str]], tmp_path: Path
) -> None:
    study = tmp_path / "s.yaml"
    study.write_text(f"{head}data: digits\nmodel: linear\ntrain: {{epochs: 1}}\n")
    folder = pipeline.run(study_file.read_study(study), out=tmp_path / "runs")
    assert expectation(load_study(folder)) == shown
    page = (folder / "report.html").read_text()
    assert ('id="expectation"' in page) == bool(shown)


def test_the_line_for_editors_is_not_shown(tmp_path: Path) -> None:
    study = tmp_path / "s.yaml"
    lines = [
        "# stresslens run s.yaml   about 1 s",
        "#",
        "# What does it ask?",
        "# yaml-language-server: $schema=a.json",
    ]
    study.write_text("\n".join([*lines, "data: digits", "model: linear", "train: {epochs: 1}", ""]))
    folder = pipeline.run(study_file.read_study(study), out=tmp_path / "runs")
    assert expectation(load_study(folder)) == [(False, "What does it ask?")]
