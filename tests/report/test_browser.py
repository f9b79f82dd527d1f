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


def test_a_long_aside_of_a_sentence_stays_on_a_phones_page(
    browser: Chromium, pages: tuple[Path, Path]
) -> None:
    browser.open(pages[0], width=390)
    aside = "(2 seeds, 360 images; 2 seeds are too few to leave out more)"
    browser.evaluate(
        "document.querySelector('#verdicts').insertAdjacentHTML('beforeend', '<p class=\"lead\"><bdi>none is "
        f'worse <span class="interval">{aside}</span></bdi></p>\')'
    )
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390
    assert browser.evaluate("getComputedStyle(document.querySelector('td .interval')).whiteSpace") == "nowrap"


def test_a_request_would_be_seen_and_is_refused(browser: Chromium, pages: tuple[Path, Path]) -> None:
    browser.open(pages[0])
    browser.evaluate("document.body.append(Object.assign(new Image(), {src: 'https://example.org/a.png'}))")
    browser.evaluate("new Promise(done => setTimeout(done, 200))")
    assert any("Content Security Policy" in error for error in browser.errors)


def test_tables_sort_by_keyboard(browser: Chromium, pages: tuple[Path, Path]) -> None:
    browser.open(pages[0])
    rows = "[...document.querySelector('#results table').tBodies[0].rows]"
    column = f"{rows}.map(row => row.cells[1].dataset.v)"
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


def test_charts_speak_their_values_by_keyboard(browser: Chromium, pages: tuple[Path, Path]) -> None:
    browser.open(pages[1])
    assert browser.evaluate("document.querySelectorAll('input').length") == 0
    browser.press("Tab")
    browser.evaluate("document.querySelector('#curves svg[tabindex]').focus()")
    assert "arrow keys" in browser.evaluate("document.activeElement.getAttribute('aria-label')")
    said = "document.querySelector('#curves .readout').textContent"
    assert browser.evaluate(said).startswith("epoch 1: during the epoch")
    browser.press("ArrowRight")
    assert browser.evaluate(said).startswith("epoch 2: during the epoch 1.2")
    assert browser.evaluate("document.querySelector('#curves .readout').ariaLive") == "polite"
    browser.press("End")
    assert browser.evaluate(said).startswith("epoch 30:")


def test_charts_name_the_line_under_the_pointer(browser: Chromium, pages: tuple[Path, Path]) -> None:
    browser.open(pages[1])
    browser.evaluate("document.querySelector('#curves').scrollIntoView({behavior: 'instant'})")
    box = "document.querySelector('#curves svg').getBoundingClientRect()"
    right, top, bottom = browser.evaluate(f"[{box}.right, {box}.top, {box}.bottom]")
    for y, names in ((top + 40, "validation"), (bottom - 50, "during the epoch")):
        browser.send("Input.dispatchMouseEvent", type="mouseMoved", x=right - 20, y=y)
        said = browser.evaluate("document.querySelector('#curves .readout').textContent")
        assert said.startswith(f"epoch 30: {names} 0.2")
    assert browser.evaluate("document.querySelector('#curves .readout').ariaLive") == "off"


def test_a_name_in_a_long_legend_brings_out_its_lines(browser: Chromium, tmp_path: Path) -> None:
    page = write_report(write_study(tmp_path, [f"r{k}" for k in range(9)], epochs=4, pictures=0))
    browser.open(page)
    browser.evaluate("document.querySelectorAll('#curves .legend li')[4].focus()")
    named = (
        "[...document.querySelectorAll('#curves > .charts .line.now')]"
        ".map(line => line.querySelector('title').textContent)"
    )
    assert set(browser.evaluate(named)) == {"r4"}
    assert browser.evaluate("document.querySelectorAll('#curves .picked').length") == 3
    browser.evaluate("document.activeElement.blur()")
    assert browser.evaluate("document.querySelectorAll('#curves .picked').length") == 0


def test_a_note_is_shown_beside_its_reference(browser: Chromium, pages: tuple[Path, Path]) -> None:
    browser.open(pages[0])
    tip = "document.querySelector('[role=tooltip]')"
    assert browser.evaluate(f"{tip}.hidden")
    browser.evaluate("document.querySelector('#results a.note').focus({preventScroll: true})")
    assert "95" in browser.evaluate(f"{tip}.textContent")
    assert not browser.evaluate(f"{tip}.hidden")
    browser.press("Escape")
    assert browser.evaluate(f"{tip}.hidden")


@pytest.mark.parametrize("width", [390, 700])
def test_a_table_that_is_cut_says_how_many_columns_are_out_of_sight(
    browser: Chromium, pages: tuple[Path, Path], width: int
) -> None:
    browser.open(pages[0], width=width)
    told = """const hintOf = box => {
            let next = box.nextElementSibling;
            while (!next.classList.contains('more')) next = next.nextElementSibling;
            return next;
        };
        [...document.querySelectorAll('.scroll')]
        .filter(box => !box.closest('details:not([open]), .folded')).map(box => [
        box.scrollWidth > box.clientWidth + 4, !hintOf(box).hidden, box.tabIndex])"""
    found = browser.evaluate(told)
    assert any(cut for cut, *_ in found)
    assert all(said == cut and (tab == 0 or not cut) for cut, said, tab in found)
    hint = "document.querySelector('#results .more')"
    assert "more column" in browser.evaluate(f"{hint}.textContent")
    browser.evaluate(
        "new Promise(done => { const box = document.querySelector('#results .scroll');"
        "box.scrollLeft = 9999; setTimeout(done, 100); })"
    )
    assert browser.evaluate(f"getComputedStyle({hint}).visibility") == "hidden"


def test_no_table_of_results_is_cut_on_a_wide_screen(browser: Chromium, tmp_path: Path) -> None:
    page = write_report(write_study(tmp_path, ["sgd", "adam"], seeds=2))
    for width in (1200, 1280):
        browser.open(page, width=width)
        for table in ("#results", "#contrasts"):
            assert browser.evaluate(f"document.querySelector('{table} .more').hidden"), (width, table)


def test_the_contents_stay_in_sight_on_a_wide_screen(browser: Chromium, pages: tuple[Path, Path]) -> None:
    browser.open(pages[0], width=1280)
    browser.evaluate("document.documentElement.style.scrollBehavior = 'auto'; scrollTo(0, 4000)")
    browser.evaluate("new Promise(done => setTimeout(done, 200))")
    top = browser.evaluate("document.querySelector('nav').getBoundingClientRect().top")
    assert 0 <= top < 100
    assert browser.evaluate("document.querySelectorAll('nav [aria-current]').length") == 1
    browser.open(pages[0], width=900)
    assert browser.evaluate("getComputedStyle(document.querySelector('nav')).position") == "static"


def test_sections_fold_on_a_phone_and_links_open_them(browser: Chromium, pages: tuple[Path, Path]) -> None:
    browser.open(pages[0], width=390)
    folded = "document.querySelector('#curves').classList.contains('folded')"
    assert browser.evaluate(folded)
    assert not browser.evaluate("document.querySelector('#results').classList.contains('folded')")
    assert browser.evaluate("document.querySelector('#curves .charts').getBoundingClientRect().height") == 0
    browser.evaluate("document.querySelector('#curves h2 button').focus()")
    browser.press("Enter")
    assert not browser.evaluate(folded)
    assert browser.evaluate("document.activeElement.ariaExpanded") == "true"
    browser.evaluate("document.querySelector('nav a[href=\\'#classes\\']').click()")
    assert not browser.evaluate("document.querySelector('#classes').classList.contains('folded')")
    browser.open(pages[0], width=1280)
    assert browser.evaluate("document.querySelectorAll('.folded, h2 button').length") == 0


def test_a_folded_page_prints_whole(browser: Chromium, pages: tuple[Path, Path]) -> None:
    browser.open(pages[0], width=390)
    browser.send("Emulation.setEmulatedMedia", media="print")
    try:
        hidden = "getComputedStyle(document.querySelector('#curves .charts')).display"
        assert browser.evaluate(hidden) != "none"
        assert browser.evaluate("getComputedStyle(document.querySelector('#notes ol')).display") != "none"
    finally:
        browser.send("Emulation.setEmulatedMedia", media="")


def test_everything_is_there_without_javascript(browser: Chromium, pages: tuple[Path, Path]) -> None:
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.load(pages[1].resolve().as_uri())
        root = browser.send("DOM.getDocument", depth=1)["root"]["nodeId"]
        found = browser.send("DOM.querySelectorAll", nodeId=root, selector=".pictures li:not([hidden])")[
            "nodeIds"
        ]
        assert len(found) == 90
    finally:
        browser.send("Emulation.setScriptExecutionDisabled", value=False)
