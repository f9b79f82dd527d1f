"""Commands on a study one of whose JSON files is damaged: what they still do, and how the file is made
anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from stresslens.core.errors import Notice

Type = Callable[..., tuple[int, str, str]]
HOME = Path("runs/tiny")
RUN = HOME / "l" / "seed-0"


def trained(type_: Type) -> None:
    Path("tiny.yaml").write_text(
        "data: {digits: {subset: 60}}\nmodel: linear\n"
        "train: {epochs: 1, threads: 1, precision: float32}\nruns: {l: {}}\n"
    )
    assert type_("run", "tiny.yaml")[0] == 0


@pytest.mark.slow
def test_a_damaged_comparison_is_left_out(type_: Type) -> None:
    trained(type_)
    file = HOME / "comparison.json"
    file.write_text("{")
    remedy = "the command of the study (`stresslens run` or `train`) writes it anew"
    with pytest.warns(Notice, match="the page is written without the comparison") as told:
        code, out, _ = type_("report", str(HOME))
    assert remedy in str(told[0].message)
    assert (code, out) == (0, "runs/tiny/report.html\n")
    with pytest.warns(Notice, match="the page is written without the comparison"):
        code, out, err = type_("attack", str(RUN), "--images", "4", "--radii", "0.1")
    assert code == 0, err
    assert "0.1" in out
    assert type_("run", "tiny.yaml")[0] == 0
    assert json.loads(file.read_text())["format"] == 1


def test_a_damaged_study_file_is_replaced(type_: Type) -> None:
    trained(type_)
    file = HOME / "study.json"
    before = json.loads(file.read_text())
    file.write_text("{")
    code, out, err = type_("compare", str(HOME))
    assert (code, out) == (2, "")
    assert "(`stresslens run` or `train`) writes it anew" in err
    with pytest.warns(Notice, match=r"study\.json is damaged; it is written anew"):
        code, out, err = type_("run", "tiny.yaml")
    assert code == 0, err
    after = json.loads(file.read_text())
    assert [after[key] for key in ("runs", "seeds")] == [before[key] for key in ("runs", "seeds")]


@pytest.mark.slow
def test_damaged_files_of_a_run_are_made_anew_as_the_message_says(type_: Type) -> None:
    trained(type_)
    card = (RUN / "model.json").read_bytes()
    (RUN / "model.json").write_text("{")
    code, _, err = type_("attack", str(RUN), "--radii", "0.1")
    assert code == 2
    assert "to make it anew, give the command of the run again" in err
    with pytest.warns(Notice, match=r"model\.json is damaged, and was written again"):
        assert type_("run", "tiny.yaml")[0] == 0
    assert (RUN / "model.json").read_bytes() == card
    (RUN / "record.json").write_text("{")
    code, _, err = type_("run", "tiny.yaml")
    assert code == 2
    assert "set it aside, and the command of the run makes it anew, from checkpoint.pt" in err
    (RUN / "record.json").unlink()
    assert type_("run", "tiny.yaml")[0] == 0
    assert (RUN / "model.json").read_bytes() == card
    assert len(json.loads((RUN / "record.json").read_text())["resumed_from"]) == 1
