"""CONTRIBUTING.md: the files it names are there, and so is every kind of plug-in with what it needs."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from stresslens.config.registry import VOCABULARY
from stresslens.core import errors

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "stresslens"
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
HEAD, _, REST = PAGE.partition("\n## Checks")
CHANGES = re.findall(r"^\| (?!change |--)(.*?) \| (.*) \|$", HEAD, re.MULTILINE)
PLUGINS = re.findall(r"^\| (\w+) \| `plugins/(\w+)/NAME.py` \| (.*?) \|", REST, re.MULTILINE)
NAMED = re.findall(r"`((?:\w+/)+[\w.]+)`", PAGE)


@pytest.mark.parametrize(("change", "answer"), CHANGES, ids=[change for change, _ in CHANGES])
def test_a_change_leads_to_files_that_exist(change: str, answer: str) -> None:
    files = re.findall(r"`([^`]+/[^`]+)`", answer)
    assert 1 <= len(files) <= 2
    for file in files:
        path = SOURCE / file
        assert path.is_file() or (path.name == "NAME.py" and path.parent.is_dir()), file


def test_there_are_fourteen_changes() -> None:
    assert len(CHANGES) == 14


def test_the_other_files_that_are_named_exist() -> None:
    named = {file for file in NAMED if not file.endswith("/NAME.py")}
    assert len(named) > 15
    answers = {file for _, answer in CHANGES for file in re.findall(r"`([^`]+/[^`]+)`", answer)}
    assert {f for f in named - answers if not ((ROOT / f).exists() or (SOURCE / f).exists())} == set()


def test_every_kind_of_plugin_is_in_the_table_with_what_it_may_need() -> None:
    assert {kind for _, kind, _ in PLUGINS} == set(VOCABULARY)
    for _, kind, needs in PLUGINS:
        assert set(re.findall(r"\w+", needs.replace(" or ", " "))) == set(VOCABULARY[kind]), kind


def test_the_exit_codes_for_users_are_those_of_the_exceptions() -> None:
    from stresslens.cli.main import app

    kinds = [each for each in vars(errors).values() if isinstance(each, type)]
    defined = {each.exit_code for each in kinds if issubclass(each, errors.StresslensError)}
    stopped = {errors.Stopped("", number).exit_code for number in (signal.SIGINT, signal.SIGTERM)}
    overview = (ROOT / "docs" / "overview.md").read_text(encoding="utf-8").partition("## Exit codes")[2]
    rows = re.findall(r"^\| ([\d, ]+) \|", overview, re.MULTILINE)
    told = re.search(r"Exit codes: (.*)", app.info.help or "")
    assert told
    codes = {0, *defined, *stopped, 128 + signal.SIGPIPE}
    assert {int(code) for row in rows for code in row.split(", ")} == codes
    assert {int(code) for code in re.findall(r"\d+", told[1])} == codes
