"""The pages of a study and of its runs, from folders whose files are written here by hand."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from folders import PLAN, estimate, write_json, write_run, write_study
from PIL import Image
from torch import nn

from stresslens.core.errors import ConfigError
from stresslens.core.layers import layer_table
from stresslens.report.files import Record
from stresslens.report.page import render_study, write_report
from stresslens.report.reading import read_study

HOSTILE = "<script>alert(1)</script>\"'\u202e‮&{{ 7*7 }}</style>" + "x" * 300
BUDGET = 2_000_000


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, the text outside scripts and styles, and the raw scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag if tag in self.raw else ""

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.raw[self.inside].append(data)
        else:
            self.text += data

    def attributes(self, name: str) -> list[str]:
        return [value for _, attrs in self.tags if (value := attrs.get(name))]

    @property
    def sections(self) -> list[str | None]:
        return [attrs["id"] for tag, attrs in self.tags if tag == "section"]


def page_of(folder: Path) -> tuple[str, Page]:
    html = write_report(folder).read_text(encoding="utf-8")
    return html, Page(html)


def pages_of(study: Path) -> list[tuple[str, Page]]:
    """The study's page and every run's."""
    write_report(study)
    return [(html, Page(html)) for path in sorted(study.rglob("report.html")) if (html := path.read_text(encoding="utf-8"))]


STUDY = "verdicts expectation results contrasts matrix cost curves confusion classes confidence data runs environment reproduce"
RUN = "verdicts scores curves confusion pictures classes confidence slices layers data history environment reproduce"


def test_every_section_of_a_study_in_order(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["sgd", "adam", "lion"], seeds=2)
    html, page = page_of(study)
    assert page.sections == STUDY.split()
    for said in (
        "Highest mean accuracy: adam",
        "Is adam better?",
        "95.4 (93.4 to 97.4)",
        "+0.4 (−1.6 to +2.4)",
        "720 predictions of 2 seeds",
        "0.420",
        "crossed bootstrap",
        "2.10 (1.90 to 2.30)",
        "a note",
        "stresslens run studies/x.yaml train.epochs=5",
        "packages.torch",
        "majority class 10.3",
        "Calibrated ECE",
        "near duplicates across splits",
    ):
        assert said in page.text, said
    assert len(html) < 200_000
    assert not list(study.rglob(".report*"))


def test_every_section_of_a_run_in_order(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["sgd", "adam"], seeds=2)
    write_report(study)
    page = Page((study / "run1" / "seed-1" / "report.html").read_text(encoding="utf-8"))
    assert page.sections == RUN.split()
    for said in (
        "study · adam · seed 1",
        "T = 1.83, fitted on validation",
        "test/3/picture-00003.jpg",
        "AUPRC",
        "after temperature scaling",
        "By brightness p 0.012",
        "dark (0.02 to 0.31)",
        "8 × 8",
        "checkpoint: checkpoint.pt could not be read",
        "resumed from epoch 1, step 3",
        "stresslens run config.yaml",
        "Not checked: group leakage (no group is given).",
    ):
        assert said in page.text, said


def test_pages_link_to_each_other(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["a b", "ü/#?"], seeds=2)
    _, page = page_of(study)
    links = [href for href in page.attributes("href") if not href.startswith("#")]
    assert links == [f"run{k}/seed-{seed}/report.html" for k in (0, 1) for seed in (0, 1)]
    odd = write_run(study, "odd", 0, folder="100% 'ü#?")
    _, page = page_of(study)
    assert "100%25%20%27%C3%BC%23%3F/seed-0/report.html" in page.attributes("href")
    assert "../../report.html" in page_of(odd)[1].attributes("href")
    alone = write_run(tmp_path / "elsewhere", "adam", 0)
    assert all(href.startswith("#") for href in page_of(alone)[1].attributes("href"))


def test_a_page_is_made_again_only_when_its_files_have_changed(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["sgd", "adam"])
    write_report(study)
    first, second = (study / f"run{k}" / "seed-0" / "report.html" for k in (0, 1))
    before = [path.stat().st_mtime_ns for path in (first, second)]
    (second.parent / "config.yaml").write_text("train: {lr: 7}")
    write_report(study, anew=False)
    assert first.stat().st_mtime_ns == before[0]
    assert second.stat().st_mtime_ns > before[1]
    assert "lr: 7" in second.read_text()
    first.write_text("damaged")
    write_report(study, anew=False)
    assert "Scores" in first.read_text()
    before = second.stat().st_mtime_ns
    write_report(study)
    assert second.stat().st_mtime_ns > before


def test_a_folder_of_several_studies_is_refused(tmp_path: Path) -> None:
    study = write_study(tmp_path / "a", ["sgd"])
    write_study(tmp_path / "b", ["sgd"])
    for folder in (tmp_path, study / "run0"):
        with pytest.raises(ConfigError, match="is no study's folder"):
            write_report(folder)


def test_the_same_files_give_the_same_page(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["sgd", "adam"])
    assert render_study(read_study(study)) == render_study(read_study(study))


def test_real_verdicts_come_first_and_the_others_say_what_it_would_take(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["sgd", "adam", "adam-bn", "lion"])
    head = page_of(study)[1].text.split("Results on the test split")[0]
    places = [
        head.index(said) for said in ("Highest", "optimizer 1 of 3 real", "adam-bn is better than sgd", "sgd and adam are not")
    ]
    assert places == sorted(places)
    assert head.count(PLAN) == 2


def test_names_of_contrasts_group_the_verdicts(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["a", "b", "c", "d"])
    comparison = json.loads((study / "comparison.json").read_text())
    for row, name in zip(comparison["contrasts"], ("unclear", "clear", "unclear")):
        row["contrast"] = name
    write_json(study / "comparison.json", comparison)
    html, page = page_of(study)
    assert html.count('<div class="question">') == 2
    head = page.text.split("Results on")[0]
    assert head.index("clear 1 of 1 real") < head.index("unclear nothing can be told apart")


def test_many_verdicts_are_shortened_at_the_head_and_whole_in_the_table(tmp_path: Path) -> None:
    study = write_study(tmp_path, [f"r{i:02d}" for i in range(60)])
    _, page = page_of(study)
    head, rest = page.text.split("Results on the test split")
    assert head.count("is better than r00") == 20
    assert head.count("are not distinguishable") == 4
    assert "20 of 59 real" in head
    assert "35 more in the table of contrasts" in head
    assert rest.count("are not distinguishable") == 39
    assert "Holm corrects" in rest


def test_the_matrix_shades_what_is_real_and_puts_the_best_first(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["a", "b", "c"])
    comparison = json.loads((study / "comparison.json").read_text())
    third = [[None, 0.02, -0.03], [-0.02, None, 0.001], [0.03, -0.001, None]]
    comparison["matrix"] |= {"difference": third, "real": [[d is not None and abs(d) > 0.01 for d in row] for row in third]}
    write_json(study / "comparison.json", comparison)
    table = page_of(study)[0].split('<table class="matrix">')[1].split("</table>")[0]
    assert re.findall(r'<td title="[^"]*"(?: class="(\w+)")?>([^< ]*)', table) == [
        ("ahead", "+3.0"),
        ("", "−0.1"),
        ("behind", "−3.0"),
        ("ahead", "+2.0"),
        ("", "+0.1"),
        ("behind", "−2.0"),
    ]


def test_serious_findings_come_first_with_what_to_do(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["sgd"])
    _, page = page_of(study)
    said = ["near duplicates across splits serious", "remove them from the training split", "cats/0011.jpg", "and 18 more"]
    said += ["class imbalance minor", "with no sign of it: constant images", "Not checked: group leakage"]
    text = " ".join(page.text.split())
    places = [text.index(each) for each in said]
    assert places == sorted(places)
    assert "cats/0012.jpg" not in text
    assert "found something serious: near duplicates across splits" in text


def test_folds_are_one_data_set(tmp_path: Path) -> None:
    for seed in range(3):
        facts = {"name": "own", "fingerprint": f"f{seed}", "sizes": {"train": 20, "test": 10}}
        write_run(tmp_path, "cnn", seed, data=facts | {"division": {"kind": "folds", "folds": 3, "fold": seed, "repetition": 0}})
    _, page = page_of(tmp_path)
    assert "3 folds, other images for each seed" in page.text
    assert page.text.count("Fingerprint") == 1
    assert "fold 2 of 3, repetition 1" in page_of(tmp_path / "cnn" / "seed-1")[1].text


def test_runs_of_an_older_version_still_render(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["sgd", "adam"])
    later = dict.fromkeys(("reliability", "risk_coverage", "slices", "calibration", "findings", "resumed_from"))
    table = {name: [estimate(0.9)] * 10 for name in ("precision", "recall", "f1")} | {"support": [36] * 10}
    older = {"scores": {"test": {"accuracy": estimate(0.97)}}, "per_class": {"test": table}, "data": {"name": "digits"}}
    for k, run in enumerate(("sgd", "adam")):
        folder = write_run(study, run, 0, folder=f"run{k}", pictures=0, **later, **older)
        (folder / "examples").mkdir(exist_ok=True)
        Image.new("L", (8, 8), 90).save(folder / "examples" / "000003.png")
        entry = {"file": "000003.png", "index": 3, "truth": 4, "predicted": 7, "probability": 0.91, "kind": "mistake"}
        write_json(folder / "examples" / "examples.json", [entry])
    comparison = json.loads((study / "comparison.json").read_text())
    comparison = {key: value for key, value in comparison.items() if key not in ("costs", "matrix")}
    comparison["contrasts"] = [{k: v for k, v in row.items() if k != "plan"} for row in comparison["contrasts"]]
    write_json(study / "comparison.json", comparison)
    _, page = page_of(study)
    assert page.sections == [s for s in STUDY.split() if s not in ("matrix", "confidence")]
    _, page = page_of(study / "run0" / "seed-0")
    assert page.sections == [s for s in RUN.split() if s not in ("confidence", "slices", "history")]
    assert "7: 91 %" in page.text
    assert len([style for style in page.raw["style"] if "url(data:image/png" in style]) == 1


def test_hostile_names_are_text(tmp_path: Path) -> None:
    classes = [HOSTILE, "</bdi><img src=x onerror=alert(1)>", "שלום", "", *(f"'{i}\"" for i in range(6))]
    slices = {"test": [{"by": HOSTILE, "p": 0.5, "rows": [{"value": HOSTILE, "n": 3, "accuracy": estimate(0.5)}]}]}
    finding = {"audit": HOSTILE, "status": "sign", "severity": "serious", "evidence": HOSTILE, "n": 1, "remedy": HOSTILE}
    data = {"name": HOSTILE, "fingerprint": HOSTILE, "sizes": {"test": 9}, "notes": [HOSTILE]}
    data |= {"findings": [finding | {"items": [HOSTILE]}]}
    options: dict[str, Any] = {"classes": classes, "slices": slices, "data": data, "seeds": 2}
    study = write_study(tmp_path, [HOSTILE, "' onload='alert(1)", ""], name=HOSTILE, contrasts=HOSTILE, **options)
    example = study / "run0" / "seed-0" / "examples" / "examples.json"
    write_json(example, [entry | {"source": HOSTILE} for entry in json.loads(example.read_text())])
    write_run(study, "<b>", 0, status="diverged", message=HOSTILE, folder="bold", findings=[{"kind": HOSTILE, "message": HOSTILE}])
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
            attrs["content"] for tag, attrs in page.tags if tag == "meta" and attrs.get("http-equiv") == "Content-Security-Policy"
        ]
        (script,) = page.raw["script"]
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
        assert html.index("Content-Security-Policy") < html.index("<style") < html.index("<script")


def test_no_request_to_any_host(tmp_path: Path) -> None:
    for html, page in pages_of(write_study(tmp_path, ["sgd", "adam"])):
        for name in ("src", "srcset", "poster", "action", "formaction", "data", "background", "ping", "xlink:href"):
            assert page.attributes(name) == []
        assert all(re.fullmatch(r"#[\w-]+|(\.\./\.\./|run\d/seed-0/)report\.html", href) for href in page.attributes("href"))
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
        assert all(attrs.get("aria-label") for _, attrs in page.tags if attrs.get("role") in ("img", "region"))
        ids = page.attributes("id")
        assert len(set(ids)) == len(ids)
        assert {href[1:] for href in page.attributes("href") if href.startswith("#")} <= set(ids)
        assert ("html", {"lang": "en"}) in page.tags


def test_cells_of_the_confusion_lead_to_their_pictures(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["sgd"], pictures=60)
    html, page = page_of(study / "run0" / "seed-0")
    pairs = set(page.attributes("data-pair"))
    assert pairs == {f"{i}-{(i + step) % 10}" for i in range(10) for step in (1, 2)} & set(page.attributes("data-of"))
    assert len(pairs) >= 10
    assert {f"p{pair}" for pair in pairs} <= set(page.attributes("id"))
    assert html.count("data:image/") == 1


@pytest.mark.parametrize("status", ["running", "stopped", "diverged", "something else"])
def test_a_run_that_did_not_finish_is_shown(tmp_path: Path, status: str) -> None:
    study = write_study(tmp_path, ["sgd", "adam"])
    gone = dict.fromkeys(("training", "layers", "scores", "per_class", "confusion", "reliability", "risk_coverage", "slices"))
    write_run(study, "adam", 0, folder="run1", status=status, message="the loss is NaN in epoch 3", **gone)
    for _, page in (page_of(study), page_of(study / "run1" / "seed-0")):
        assert status in page.text
        assert "the loss is NaN in epoch 3" in page.text
    assert "1 of 2 runs did not finish" in page_of(study)[1].text


def test_a_listed_run_without_a_record_and_a_damaged_record_are_shown(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["sgd", "adam", "lion"])
    (study / "run1" / "seed-0" / "record.json").write_text('{"format": 1, "stat')
    for file in (study / "run2").rglob("*.*"):
        file.unlink()
    _, page = page_of(study)
    assert "unreadable" in page.text
    assert "not started" in page.text
    assert "lion" in page.text


def test_nothing_finished_yet(tmp_path: Path) -> None:
    write_json(tmp_path / "sgd" / "seed-0" / "record.json", {"format": 1, "status": "running"})
    _, page = page_of(tmp_path)
    assert "No run has finished yet." in page.text
    assert page.sections == ["verdicts", "unfinished", "runs", "reproduce"]
    assert page_of(tmp_path / "sgd" / "seed-0")[1].sections == ["verdicts", "reproduce"]


def test_watching_the_test_split_is_bannered(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["sgd", "adam"])
    assert "never used to choose" not in page_of(study)[1].text
    write_run(study, "sgd", 0, folder="run0", watched_test=True, reads_of_test=6)
    for folder in (study, study / "run0" / "seed-0"):
        assert "The test split was shown after every epoch (6 reads), never used to choose." in page_of(folder)[1].text


def test_a_single_run_has_its_own_page(tmp_path: Path) -> None:
    run = write_run(tmp_path / "study", "adam", 0)
    _, page = page_of(run)
    assert (run / "report.html").is_file()
    assert "study · adam · seed 0" in page.text
    assert "of the test split is classified correctly, against 10.3 for always naming the commonest class" in page.text


def test_several_seeds_without_a_comparison_give_a_mean_over_seeds(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path, "adam", seed)
        write_run(tmp_path, "sgd", seed)
    _, page = page_of(tmp_path)
    assert "wider of t over 3 seeds and a run's own" in page.text
    assert "No comparison has been made" in page.text


def test_no_run_is_a_clear_error(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ConfigError, match="there is no run in"):
            write_report(folder)


def test_a_damaged_comparison_is_named(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["sgd"])
    (study / "comparison.json").write_text('{"format": 2}')
    with pytest.raises(ConfigError, match=r"comparison\.json: format"):
        write_report(study)
    matrix = {"recipes": ["a", "b"], "difference": [[0]], "low": [], "high": [], "p_holm": [], "real": []}
    write_json(study / "comparison.json", {"matrix": matrix})
    with pytest.raises(ConfigError, match="not 2 by 2"):
        write_report(study)


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
    assert "6 more not shown" in page.text


def test_many_classes_show_the_most_confused_pairs(tmp_path: Path) -> None:
    run = write_run(tmp_path, "adam", 0, classes=[f"class {i}" for i in range(50)], images=5000)
    _, page = page_of(run)
    assert "The 20 pairs confused most often, of 50 classes" in page.text
    assert "class 0 taken for class 1: " in page.text


def test_layers_are_read_as_core_writes_them() -> None:
    table = layer_table(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 10)), (1, 8, 8))
    assert Record.model_validate_json(json.dumps({"status": "finished", "layers": table.as_json()})).layers == table


def test_missing_figures_and_cut_off_curves_are_harmless(tmp_path: Path) -> None:
    unknown = {"value": None, "low": None, "high": None, "n": 0, "method": "bootstrap", "level": 0.95, "unit": "images"}
    scores = {"test": dict.fromkeys(("accuracy", "cross_entropy", "auroc"), unknown)}
    table = {name: [unknown] * 10 for name in ("precision", "recall", "f1", "auroc", "auprc")} | {"support": [0] * 10}
    empty = {"low": 0.0, "high": 1.0, "n": 0, "confidence": None, "accuracy": None}
    options: dict[str, Any] = {"reliability": {"test": {"bins": [empty], "calibrated": None}}}
    options["risk_coverage"] = {"test": {"coverage": [0.5, 1.0], "risk": [None, None]}}
    options["slices"] = {"test": [{"by": "size", "p": None, "rows": [{"value": "none", "n": 0, "accuracy": unknown}]}]}
    run = write_run(tmp_path, "adam", 0, scores=scores, per_class={"test": table}, **options)
    (run / "metrics.jsonl").write_text('{"epoch": 1, "loss": null}\n[]\n{"epoch": 2, "loss": NaN}\n{"epoch"')
    for folder in (run, tmp_path):
        _, page = page_of(folder)
        assert "curves" not in page.sections
        assert not re.search(r"\bnan\b", page.text.lower())


def test_a_thousand_classes_stay_below_two_megabytes(tmp_path: Path) -> None:
    classes = [f"n{i:08d} a class of a long name number {i}" for i in range(1000)]
    study = write_study(tmp_path, ["sgd", "adam"], classes=classes, images=20_000, pictures=240, side=32, channels=3)
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
