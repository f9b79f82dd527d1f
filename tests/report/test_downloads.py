"""What a page saves of its charts and tables, in a real browser: the numbers that it shows, without a
request."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from attacked import attack
from chromium import BINARY, Chromium
from folders import write_study

from stresslens.report.load import load_study
from stresslens.report.page import write_report
from stresslens.report.summary import headline

pytestmark = [pytest.mark.skipif(BINARY is None, reason="no Chromium here"), pytest.mark.slow]
HOSTILE = '<b>"x", y & z</b>'


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = write_study(tmp_path_factory.mktemp("runs"), ["sgd", HOSTILE], seeds=2, epochs=12)
    attack(study / "run0" / "seed-0")
    return write_report(study)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, page: Path) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("profile")) as tab:
        tab.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        tab.open(page)
        tab.evaluate(
            "URL.createObjectURL = (blob) => { window.kept = blob; return 'data:,'; };"
            "HTMLAnchorElement.prototype.click = function () { window.file = this.download; };"
        )
        yield tab


def saved(browser: Chromium, inside: str, name: str) -> tuple[str, str]:
    """The name and the text of the file that a button makes, by the keyboard."""
    button = f"[...document.querySelectorAll('{inside} .files button')].find(b => b.textContent === '{name}')"
    browser.evaluate(f"{button}.focus()")
    browser.press("Enter")
    return browser.evaluate("window.file"), browser.evaluate("window.kept.text()")


def test_every_chart_and_table_has_its_buttons(browser: Chromium) -> None:
    names = "row => [...row.children].map(b => b.textContent).join()"
    kinds = browser.evaluate(f"[...document.querySelectorAll('.files')].map({names})")
    charts = browser.evaluate("document.querySelectorAll('figure.chart').length")
    tables = browser.evaluate("document.querySelectorAll('table:not(.maps)').length")
    assert kinds.count("SVG,CSV") == charts > 3
    assert kinds.count("CSV") + kinds.count("CSV,LaTeX") == tables > 5
    assert kinds.count("CSV,LaTeX") > 2
    labels = browser.evaluate("[...document.querySelectorAll('.files button')].map(b => b.ariaLabel)")
    assert all(re.match(r"Save as (SVG|CSV|LaTeX): .", label) for label in labels)


def test_the_csv_of_a_table_has_value_low_and_high(browser: Chromium, page: Path) -> None:
    name, text = saved(browser, "#results", "CSV")
    assert name.endswith(".csv")
    rows = list(csv.DictReader(io.StringIO(text)))
    study = load_study(page.parent)
    assert [row["Variant"] for row in rows] == [variant.name for variant in headline(study)]
    assert HOSTILE in [row["Variant"] for row in rows]
    for row, variant in zip(rows, headline(study)):
        estimate = variant.score(study.split, "accuracy")
        assert estimate is not None
        shown = [float(row[f"Accuracy, %{end}"]) for end in ("", " low", " high")]
        assert shown == pytest.approx(
            [100 * x for x in (estimate.value, estimate.low, estimate.high)], abs=0.051
        )
        assert row["Parameters"].isdecimal()


def test_the_csv_of_a_chart_has_its_numbers(browser: Chromium, page: Path) -> None:
    _, text = saved(browser, "#curves figure.chart", "CSV")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert {row["line"] for row in rows} == {"sgd", HOSTILE}
    assert len(rows) == 2 * 12
    run = load_study(page.parent).variants[0].runs
    losses = [dict(each.curve("loss"))[3.0] for each in run]
    (third,) = [row for row in rows if row["epoch"] == "3" and row["line"] == "sgd"]
    assert float(third["loss"]) == pytest.approx(sum(losses) / 2, rel=1e-4)
    assert (float(third["low"]), float(third["high"])) == pytest.approx((min(losses), max(losses)), rel=1e-4)


def test_the_svg_of_a_chart_is_light_and_has_its_legend(browser: Chromium) -> None:
    _, text = saved(browser, "#curves figure.chart", "SVG")
    root = ElementTree.fromstring(text)
    words = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "sgd" in words
    assert HOSTILE in words
    assert "var(" not in text
    (ink,) = {
        each.get("fill") for each in root.iter("{http://www.w3.org/2000/svg}text") if each.text == "epoch"
    }
    red, green, blue = map(int, re.findall(r"\d+", str(ink))[:3])
    assert max(red, green, blue) < 128, "dark text, though the page is dark"
    assert (
        browser.evaluate("document.querySelector('#curves figure.chart').style.getPropertyValue('--ink')")
        == ""
    )


def test_latex_has_the_rows_of_the_table(browser: Chromium) -> None:
    name, text = saved(browser, "#results", "LaTeX")
    assert name.endswith(".tex")
    lines = text.splitlines()
    assert lines[0].startswith(r"\begin{tabular}{l")
    assert [lines[1], lines[3], lines[-2]] == [r"\toprule", r"\midrule", r"\bottomrule"]
    assert any(line.startswith(r'\textless{}b\textgreater{}"x", y \& z') for line in lines)
    assert len({line.count(" & ") for line in lines if line.endswith(r"\\")}) == 1


def test_nothing_is_requested_and_nothing_complains(browser: Chromium, page: Path) -> None:
    saved(browser, "#results", "CSV")
    assert browser.requests == [page.as_uri()]
    assert browser.errors == []
