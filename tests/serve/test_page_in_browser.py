"""The page in a real browser: a person draws, moves the radius, drops a file, and asks other runs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import BINARY, Chromium
from pictures_of_page import trained
from servers import Server, serving
from small_models import SMALL

import stresslens as sl

THREE = [(0.3, 0.22), (0.5, 0.15), (0.68, 0.25), (0.65, 0.4), (0.48, 0.48)]
THREE += [(0.66, 0.55), (0.7, 0.72), (0.5, 0.84), (0.3, 0.76)]
TOKEN = "one-two-three-four"

pytestmark = [pytest.mark.skipif(BINARY is None, reason="no Chromium here"), pytest.mark.slow]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    runs = trained(tmp_path_factory.mktemp("shown"))
    with serving(*(run.folder for run in runs), STRESSLENS_TOKEN=TOKEN) as found:
        yield found


def wait(tab: Chromium, condition: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not tab.evaluate(f"!!({condition})"):
        assert time.monotonic() < end, (condition, tab.errors, tab.evaluate("document.body.innerText"))
        time.sleep(0.1)


def opened(tab: Chromium, server: Server, width: int) -> str:
    """The page, after its token was typed in."""
    url = f"http://127.0.0.1:{server.port}/"
    tab.visit(url, width=width)
    tab.evaluate("sessionStorage.clear()")
    tab.visit(url, width=width)
    wait(tab, "!document.getElementById('gate').hidden")
    assert tab.evaluate("document.activeElement.id") == "token"
    tab.send("Input.insertText", text=TOKEN)
    tab.press("Enter")
    wait(tab, "!document.getElementById('main').hidden")
    tab.errors = [each for each in tab.errors if "401" not in each]  # the one that asks for the token
    return url


def draw(tab: Chromium) -> None:
    left, top, width, height = tab.evaluate(
        "(() => { const canvas = document.getElementById('canvas'); canvas.scrollIntoView({block: 'center'});"
        "const box = canvas.getBoundingClientRect(); return [box.left, box.top, box.width, box.height]; })()"
    )
    places = [(left + width * x, top + height * y) for x, y in THREE]
    for kind, (x, y) in [
        ("mousePressed", places[0]),
        *(("mouseMoved", place) for place in places),
        ("mouseReleased", places[-1]),
    ]:
        buttons = 0 if kind == "mouseReleased" else 1
        tab.send(
            "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=buttons, clickCount=1
        )


ANSWERED = "!document.querySelector('.busy') && document.querySelector('#cards .verdict')"


@pytest.mark.parametrize("width", [390, 1280])
def test_a_person_tries_the_page(browser: Chromium, server: Server, width: int) -> None:
    url = opened(browser, server, width)
    draw(browser)
    wait(browser, ANSWERED)
    cards = browser.evaluate("[...document.querySelectorAll('#cards .card')].map(each => each.innerText)")
    assert len(cards) == 2
    for card in cards:
        assert "The set at 95 %" in card
        assert "the training images" in card
        assert "nearest training images are labelled" in card
    said = browser.evaluate("document.querySelector('[role=status]').textContent")
    assert "net/seed-0: " in said
    assert "nearest/seed-0: " in said
    assert browser.evaluate("document.documentElement.scrollWidth") <= width

    browser.evaluate(
        "(() => { const radius = document.getElementById('radius'); radius.value = 22;"
        "radius.dispatchEvent(new Event('input')); })()"
    )
    wait(browser, "document.querySelectorAll('#attacks .three').length === 2")
    wait(browser, "!document.querySelector('.busy')")
    shown = browser.evaluate("[...document.querySelectorAll('#attacks .card')].map(each => each.innerText)")
    assert all("no proof" in each or "A smaller one may exist" in each for each in shown)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width

    box = "document.querySelector('#runs input')"
    browser.evaluate(f"{box}.click()")
    wait(browser, f"{ANSWERED} && document.querySelectorAll('#cards .card').length === 1")
    assert "nearest/seed-0" in browser.evaluate("document.querySelector('#cards').innerText")
    browser.evaluate(f"{box}.click()")
    wait(browser, f"{ANSWERED} && document.querySelectorAll('#cards .card').length === 2")
    assert browser.errors == []

    browser.evaluate(
        "(() => { const files = new DataTransfer(); files.items.add(new File(['no picture'], 'a.png'));"
        "document.body.dispatchEvent(new DragEvent('drop', "
        "{dataTransfer: files, bubbles: true, cancelable: true})); })()"
    )
    wait(browser, "!document.getElementById('trouble').hidden")
    assert "cannot be read" in browser.evaluate("document.getElementById('trouble').textContent")
    assert browser.evaluate("document.querySelectorAll('#cards .card').length") == 0
    assert [each for each in browser.errors if "422" not in each] == []
    assert {each.partition("?")[0] for each in browser.requests if not each.startswith("blob:")} <= {
        url,
        *(f"{url}page/{name}" for name in ("page.css", "page.js", "runs", "look", "attack")),
    }


def test_a_single_run(browser: Chromium, tmp_path: Path) -> None:
    with serving(trained(tmp_path)[0].folder) as server:
        browser.visit(f"http://127.0.0.1:{server.port}/", width=390)
        wait(browser, "!document.getElementById('main').hidden")
        draw(browser)
        wait(browser, ANSWERED)
        browser.evaluate("document.getElementById('go').click()")
        wait(browser, "!document.querySelector('.busy') && document.querySelector('#attacks .card')")
        assert browser.evaluate("document.getElementById('shown-runs').hidden")
        assert browser.errors == []


def test_the_camera(tmp_path: Path) -> None:
    """Chromium's own moving picture takes the place of a camera."""
    fake = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    run = sl.train("mlp", "digits", epochs=1, precision="float32", out=tmp_path, progress=False)
    with serving(run.folder) as server, Chromium(tmp_path / "profile", fake) as tab:
        tab.visit(f"http://127.0.0.1:{server.port}/", width=390)
        wait(tab, "!document.getElementById('main').hidden")
        for button in ("tab-camera", "start"):
            tab.evaluate(f"document.getElementById('{button}').click()")
        wait(tab, "!document.getElementById('shoot').hidden")
        tab.evaluate("document.getElementById('shoot').click()")
        wait(tab, ANSWERED)
        assert "from the camera" in tab.evaluate("document.getElementById('chosen-picture').innerText")
        tab.evaluate("document.getElementById('stop').click()")
        assert tab.evaluate("document.getElementById('video').hidden")
        assert tab.errors == []


def test_captions_of_ones_own(browser: Chromium, tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 0, "out": tmp_path, "progress": False}
    run = sl.train({"openclip": SMALL["openclip"]}, "digits", **options)
    with serving(run.folder) as server:
        browser.visit(f"http://127.0.0.1:{server.port}/", width=390)
        wait(browser, "!document.getElementById('main').hidden")
        draw(browser)
        wait(browser, ANSWERED)
        typed = "const box = document.getElementById('own-captions'); box.value = 'a house\\na tree\\na fish'"
        browser.evaluate(f"{{ {typed}; box.dispatchEvent(new Event('change')); }}")
        wait(browser, f"{ANSWERED} && document.querySelector('#cards').innerText.includes('a fish')")
        shown = browser.evaluate("document.querySelector('#cards').innerText")
        assert all(caption in shown for caption in ("a house", "a tree"))
        assert browser.errors == []


def test_everything_by_keyboard(browser: Chromium, server: Server) -> None:
    opened(browser, server, 1280)
    browser.evaluate("document.getElementById('tab-own').focus()")
    browser.press("ArrowRight")
    assert browser.evaluate("document.activeElement.id") == "tab-draw"
    browser.evaluate("document.getElementById('canvas').focus()")
    for key in (" ", "ArrowRight", " ", "ArrowRight", " "):
        browser.press(key)
    wait(browser, ANSWERED)
    assert not browser.evaluate("document.getElementById('cursor').hidden")
    ink = "new Set(document.getElementById('canvas').getContext('2d').getImageData(0, 0, 8, 8).data).size"
    assert browser.evaluate(ink) > 1
    unnamed = (
        "[...document.querySelectorAll('main button, main input, main select, main textarea, main canvas')]"
        ".filter(each => !(each.ariaLabel || each.textContent.trim() || each.labels?.length))"
        ".map(each => each.outerHTML)"
    )
    assert browser.evaluate(unnamed) == []
    browser.evaluate("document.getElementById('tab-own').focus(); document.getElementById('tab-own').click()")
    wait(browser, "document.querySelectorAll('#thumbs button').length === 24")
    browser.evaluate("document.querySelector('#thumbs button').focus()")
    browser.press("Enter")
    wait(browser, f"{ANSWERED} && document.querySelector('#cards .mark').textContent.match(/right|wrong/)")
    assert browser.errors == []
