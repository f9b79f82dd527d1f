"""The pages in a real browser: nothing requested, no complaint, no sideways scrolling, and
everything by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from attacked import attack, certify, corrupt
from chromium import BINARY, Chromium
from folders import write_study

from stresslens.report.page import write_report

pytestmark = [pytest.mark.skipif(BINARY is None, reason="no Chromium here"), pytest.mark.slow]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A study's page and a run's."""
    long = "a class with a name far too long for any table to hold"
    root = tmp_path_factory.mktemp("runs")
    classes = [long, *(f"class {i}" for i in range(9))]
    study = write_study(
        root, ["sgd", "adam", long.replace(" ", "-")], seeds=2, epochs=30, pictures=90, classes=classes
    )
    for k in range(3):
        for seed in range(2):
            run = study / f"run{k}" / f"seed-{seed}"
            attack(run, side=28)
            corrupt(run)
            certify(run)
    return write_report(study), study / "run1" / "seed-0" / "report.html"


@pytest.mark.parametrize("width", [390, 900, 1440])
@pytest.mark.parametrize("which", [0, 1])
def test_pages_ask_for_nothing_complain_of_nothing_and_fit(
    browser: Chromium, pages: tuple[Path, Path], which: int, width: int
) -> None:
    page = pages[which]
    browser.open(page, width=width)
    assert browser.requests == [page.as_uri()]
    assert browser.errors == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("document.body.innerText.includes('Reproduce')")


def test_a_request_would_be_seen_and_is_refused(browser: Chromium, pages: tuple[Path, Path]) -> None:
    browser.open(pages[0])
    browser.evaluate("document.body.append(Object.assign(new Image(), {src: 'https://example.org/a.png'}))")
    browser.evaluate("new Promise(done => setTimeout(done, 200))")
    assert any("Content Security Policy" in error for error in browser.errors)


def test_tables_sort_by_keyboard(browser: Chromium, pages: tuple[Path, Path]) -> None:
    browser.open(pages[0])
    column = "[...document.querySelectorAll('#results .beside tbody tr')].map(row => row.cells[1].dataset.v)"
    before = browser.evaluate(column)
    browser.evaluate("document.querySelectorAll('#results th button')[1].focus()")
    browser.press("Enter")
    assert browser.evaluate(column) == sorted(before, key=float)
    browser.press(" ")
    assert browser.evaluate(column) == sorted(before, key=float, reverse=True)
    assert browser.evaluate("document.activeElement.parentElement.getAttribute('aria-sort')") == "descending"


def test_a_cell_shows_its_pictures_alone_and_all_come_back(
    browser: Chromium, pages: tuple[Path, Path]
) -> None:
    browser.open(pages[1])
    visible = (
        "[...document.querySelector('#mistakes ~ .pictures').children].filter(p => !p.hidden)"
        ".map(p => p.dataset.of)"
    )
    surest = browser.evaluate(visible)
    assert (
        browser.evaluate("document.querySelector('.shown').textContent")
        == "30 of 60 images shown.Show all 60"
    )
    browser.evaluate("document.querySelector('[data-pair]').focus()")
    pair = browser.evaluate("document.activeElement.dataset.pair")
    browser.press("Enter")
    assert set(browser.evaluate(visible)) == {pair}
    assert browser.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    assert "predicted as class" in browser.evaluate("document.querySelector('[aria-live]').textContent")
    browser.press("Enter")
    assert browser.evaluate(visible) == surest
    browser.evaluate("document.querySelector('.shown button').click()")
    assert len(browser.evaluate(visible)) == 60


def test_charts_read_out_their_values_by_keyboard(browser: Chromium, pages: tuple[Path, Path]) -> None:
    browser.open(pages[1])
    browser.evaluate("document.querySelector('#curves input').focus()")
    browser.press("ArrowRight")
    said = browser.evaluate("document.querySelector('#curves .readout bdi').textContent")
    assert said.startswith("epoch 2: during the epoch 1.2")
    assert browser.evaluate("document.activeElement.getAttribute('aria-valuetext')") == said


def test_charts_name_the_line_under_the_pointer(browser: Chromium, pages: tuple[Path, Path]) -> None:
    browser.open(pages[1])
    browser.evaluate("document.querySelector('#curves').scrollIntoView({behavior: 'instant'})")
    box = "document.querySelector('#curves svg').getBoundingClientRect()"
    right, top, bottom = browser.evaluate(f"[{box}.right, {box}.top, {box}.bottom]")
    for y, names in ((top + 40, "validation"), (bottom - 50, "during the epoch")):
        browser.send("Input.dispatchMouseEvent", type="mouseMoved", x=right - 20, y=y)
        said = browser.evaluate("document.querySelector('#curves .readout bdi').textContent")
        assert said.startswith(f"epoch 30: {names} 0.2")


def test_everything_is_there_without_javascript(browser: Chromium, pages: tuple[Path, Path]) -> None:
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.load(pages[1])
        root = browser.send("DOM.getDocument", depth=1)["root"]["nodeId"]
        found = browser.send("DOM.querySelectorAll", nodeId=root, selector=".pictures li:not([hidden])")[
            "nodeIds"
        ]
        assert len(found) == 90
    finally:
        browser.send("Emulation.setScriptExecutionDisabled", value=False)
