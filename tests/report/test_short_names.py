"""Eight variants with six overrides: titles, legends and sentences have short names, and the head of
the page says once what all share."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import stresslens as sl
from stresslens.config.run_names import READABLE

STUDY = """\
data: {digits: {subset: 100}}
model: mlp
grid: {train.optimizer: [sgd, adam], train.lr: [0.01, 0.001], train.batch_size: [32, 64]}
"""
OVERRIDES = (
    *("train.epochs=1", "train.precision=float32", "train.threads=1"),
    *("train.schedule=cosine", "model.widths=[8, 8]", "train.shuffle=false"),
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("named")
    (folder / "eight.yaml").write_text(STUDY)
    return sl.run(folder / "eight.yaml", *OVERRIDES, out=folder / "runs")


@pytest.mark.slow
def test_what_all_share_stands_once_at_the_head(study: Path) -> None:
    page = (study / "report.html").read_text()
    head = page[page.index("<header>") : page.index("</header>")]
    for text in OVERRIDES:
        assert f"<code>{text}</code>" in head
    rest = page[page.index("</header>") : page.index('id="reproduce"')]
    for text in ("train.epochs=1", "train.threads=1", "float32,"):
        assert text not in re.sub(r"<bdi>optimizer=[^<]*</bdi>", "", rest)  # the folders in the table


def test_names_in_titles_and_legends_are_short_and_differ(study: Path) -> None:
    page = (study / "report.html").read_text()
    table = page[page.index('id="results"') :]
    names = re.findall(r'<th scope="row"><bdi>(.*?)</bdi>', table[: table.index("</table>")])
    assert names[0] == "sgd, 0.01, 32"
    assert len(set(names)) == 8
    assert max(map(len, names)) <= READABLE
    assert "<code>optimizer</code>, <code>lr</code>, <code>batch_size</code>" in page


def test_the_table_of_settings_has_what_differs_and_what_is_shared(study: Path) -> None:
    page = (study / "report.html").read_text()
    section = page[page.index('<section id="variants">') : page.index('<section id="runs">')]
    columns = re.findall(r'<th scope="col"[^>]*>(.*?)</th>', section)
    assert columns == ["Variant", "train.batch_size", "train.lr", "train.optimizer", "Folder"]
    shared = section[section.index("<details>") :]
    assert "model.widths: <bdi>[8, 8]</bdi>" in shared
    assert "train.lr" not in shared


def test_a_runs_page_has_the_short_name_and_the_overrides(study: Path) -> None:
    run = next(study.glob("*/seed-0"))
    before = (run / "report.html").read_text()
    assert re.search(r"<title>eight · (sgd|adam), 0\.0\d+, \d\d · seed 0", before)
    assert "<code>train.epochs=1</code>" in before
    sl.write_report(run)
    assert (run / "report.html").read_text() == before


def test_folders_have_short_names(study: Path) -> None:
    assert max(len(run.parent.name) for run in study.glob("*/seed-0")) <= 80


def test_the_page_says_what_one_seed_cannot_tell(study: Path) -> None:
    assert (
        "how much another seed would change these figures is not known" in (study / "report.html").read_text()
    )
