"""Whatever the files hold, a page runs no code of theirs, asks no host, reads well and stays small."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from folders import estimate, write_json, write_run, write_study
from pages import page_of, pages_of

from stresslens.report.page import write_report

HOSTILE = "<script>alert(1)</script>\"'\u202e‮&{{ 7*7 }}</style>" + "x" * 300
BUDGET = 2_000_000


def test_hostile_names_are_text(tmp_path: Path) -> None:
    classes = [HOSTILE, "</bdi><img src=x onerror=alert(1)>", "שלום", "", *(f"'{i}\"" for i in range(6))]
    slices = {
        "test": [{"by": HOSTILE, "p": 0.5, "rows": [{"value": HOSTILE, "n": 3, "accuracy": estimate(0.5)}]}]
    }
    finding = {
        "audit": HOSTILE,
        "status": "sign",
        "severity": "serious",
        "evidence": HOSTILE,
        "n": 1,
        "remedy": HOSTILE,
    }
    data = {"name": HOSTILE, "fingerprint": HOSTILE, "sizes": {"test": 9}, "notes": [HOSTILE]}
    data |= {"findings": [finding | {"items": [HOSTILE]}]}
    options: dict[str, Any] = {"classes": classes, "slices": slices, "data": data, "seeds": 2}
    study = write_study(
        tmp_path, [HOSTILE, "' onload='alert(1)", ""], name=HOSTILE, contrasts=HOSTILE, **options
    )
    example = study / "run0" / "seed-0" / "examples" / "examples.json"
    write_json(example, [entry | {"source": HOSTILE} for entry in json.loads(example.read_text())])
    write_run(
        study,
        "<b>",
        0,
        status="diverged",
        message=HOSTILE,
        folder="bold",
        findings=[{"kind": HOSTILE, "message": HOSTILE}],
    )
    plain = write_study(tmp_path / "plain", ["sgd", "adam", "lion"], seeds=2)
    write_run(plain, "bold", 0, status="diverged", folder="bold")
    known = {tag for _, page in pages_of(plain) for tag, _ in page.tags}
    for html, page in pages_of(study):
        assert html.count("<script>") == html.count("</script>") == 1
        assert "{{ 7*7 }}" in page.text
        assert [name for _, attrs in page.tags for name in attrs if name.startswith("on")] == []
        assert "alert(1)" in page.text
        assert {tag for tag, _ in page.tags} <= known
        assert len(html.encode()) < BUDGET


def test_lone_surrogates_and_controls_do_not_stop_the_page(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["a\ud800b\x00"])
    assert "a?b" in write_report(study).read_text(encoding="utf-8")


def test_the_policy_allows_nothing_but_the_one_script(tmp_path: Path) -> None:
    for html, page in pages_of(write_study(tmp_path, ["sgd", "adam"])):
        (policy,) = [
            attrs["content"]
            for tag, attrs in page.tags
            if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
        ]
        (script,) = page.raw["script"]
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert (
            policy
            == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
        )
        assert html.index("Content-Security-Policy") < html.index("<style") < html.index("<script")


def test_no_request_to_any_host(tmp_path: Path) -> None:
    for html, page in pages_of(write_study(tmp_path, ["sgd", "adam"])):
        for name in (
            "src",
            "srcset",
            "poster",
            "action",
            "formaction",
            "data",
            "background",
            "ping",
            "xlink:href",
        ):
            assert page.attributes(name) == []
        assert all(
            re.fullmatch(r"#[\w-]+|(\.\./\.\./|run\d/seed-0/)report\.html", href)
            for href in page.attributes("href")
        )
        assert set(re.findall(r"url\((.{5})", html)) <= {"data:"}
        assert "@import" not in html
        assert "://" not in html.replace("http://www.w3.org/2000/svg", "")  # a name, not an address


def test_headings_go_down_one_level_at_a_time_and_everything_is_named(tmp_path: Path) -> None:
    for _, page in pages_of(write_study(tmp_path, ["sgd", "adam", "lion"], seeds=2)):
        levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after <= before + 1 for before, after in pairwise(levels))
        tags = [tag for tag, _ in page.tags]
        assert tags.count("table") == tags.count("caption") > 0
        assert set(tags) >= {"header", "nav", "main"}
        assert all(attrs.get("scope") for tag, attrs in page.tags if tag == "th")
        assert all(
            attrs.get("aria-label") for _, attrs in page.tags if attrs.get("role") in ("img", "region")
        )
        ids = page.attributes("id")
        assert len(set(ids)) == len(ids)
        assert {href[1:] for href in page.attributes("href") if href.startswith("#")} <= set(ids)
        assert ("html", {"lang": "en"}) in page.tags


def test_pictures_come_from_the_folder_of_examples_only(tmp_path: Path) -> None:
    run = write_run(tmp_path, "adam", 0, pictures=1)
    (run / "secret.png").write_bytes((run / "examples" / "pictures.png").read_bytes())
    (run / "examples" / "text.png").write_text("<svg>")
    (run / "examples" / "link.png").symlink_to(run / "secret.png")
    entry = {"truth": 0, "predicted": 1, "probability": 0.5, "kind": "sample"}
    files = ("../secret.png", str(run / "secret.png"), "text.png", "link.png", "missing.png", "\0")
    write_json(run / "examples" / "examples.json", [entry | {"file": file} for file in files])
    html, page = page_of(run)
    assert "data:image" not in html
    assert "6 more are not shown" in page.text


@pytest.mark.slow
def test_a_thousand_classes_stay_below_two_megabytes(tmp_path: Path) -> None:
    classes = [f"n{i:08d} a class of a long name number {i}" for i in range(1000)]
    study = write_study(
        tmp_path, ["sgd", "adam"], classes=classes, images=20_000, pictures=240, side=32, channels=3
    )
    for html, page in pages_of(study):
        assert len(html.encode()) < BUDGET
        assert "more are" in page.text


@pytest.mark.slow
def test_a_hundred_runs_stay_below_two_megabytes_and_are_quick_to_write_again(tmp_path: Path) -> None:
    study = write_study(tmp_path, [f"recipe-{i}" for i in range(25)], seeds=4, epochs=200, pictures=30)
    assert all(len(html.encode()) < BUDGET for html, _ in pages_of(study))
    start = time.process_time()
    write_report(study)
    assert time.process_time() - start < 5
