"""Notes on intervals: one symbol in the head cell of a column, and the text once, at the end of the page."""

from __future__ import annotations

import re
from pathlib import Path

from folders import write_run, write_study
from pages import page_of, pages_of

from stresslens.core.types import Estimate
from stresslens.report.footnotes import Footnotes

WILSON = Estimate(0.9, 0.8, 0.95, 360, "Wilson")


def test_a_text_has_one_number_wherever_it_is_referred_to() -> None:
    notes = Footnotes()
    first, other, again = notes.of([WILSON]), notes.mark("another"), notes.of([None, WILSON])
    assert first == again != other
    assert notes.texts == ["95\u00a0%, Wilson, over images (n = 360)", "another"]
    assert 'href="#note-2"' in other


def test_columns_without_intervals_have_no_symbol() -> None:
    notes = Footnotes()
    nan = float("nan")
    assert notes.of([None, Estimate(0.9, nan, nan, 360, "exact")]) == ""
    assert notes.texts == []


def test_every_reference_leads_to_a_note_and_every_note_is_referred_to(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["sgd", "adam", "lion"], seeds=2)
    for html, page in pages_of(study):
        referred = set(re.findall(r'class="note" href="#(note-\d+)"', html))
        listed = [id for id in page.attributes("id") if id.startswith("note-")]
        assert referred == set(listed) != set()
        assert len(listed) == len(set(listed))
        heads = re.findall(r"<th [^>]*>(?:(?!</th>).)*class=\"note\"", html, re.S)
        assert len(heads) >= 5
        assert "Intervals of accuracy" not in page.text


def test_hostile_methods_stay_text(tmp_path: Path) -> None:
    bad = {
        "value": 0.9,
        "low": 0.8,
        "high": 0.95,
        "n": 9,
        "method": "<script>alert(1)</script>",
        "level": 0.95,
    }
    write_run(tmp_path, "a", 0, scores={"test": {"accuracy": bad | {"unit": "images"}}})
    html, page = page_of(tmp_path)
    assert "<script>alert" not in html
    assert "<script>alert(1)</script>" in page.text
