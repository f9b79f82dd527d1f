"""Everything that Python returns can be looked at: in a line, as HTML, as rows, and as a chart."""

from __future__ import annotations

import csv
import io
import json
import re
import traceback
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import stresslens as sl
from stresslens.charts.chart import Chart
from stresslens.core.errors import ConfigError

MOST_REPR, MOST_TEXT, MOST_HTML = 400, 3_000, 100_000
VOID = {"img", "br", "meta", "path", "rect", "circle", "image"}
CLASSES = [
    "</table><script>alert(1)</script>",
    "bee \u202e\x07",
    "a class with a name " + 9 * "far " + "too long",
]
NAMES = [
    "run",
    "study",
    "estimate",
    "scores",
    "evaluated",
    "attack",
    "verification",
    "explanation",
    "comparison",
    "layers",
    "data",
    "split",
    "finding",
    "exported",
    "predictions",
    "confusion",
    "reliability",
    "risk",
    "classes",
    "lost",
    "findings",
    "recounted",
    "checked",
    "label errors",
    "drift",
    "history",
    "rows",
    "results",
]
PLOTTED = ("run", "study", "attack", "explanation", "comparison", "confusion", "reliability", "risk")


class Tags(HTMLParser):
    """Fails where an element is closed that is not open, and gathers the text that is seen."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.open += [] if tag in VOID else [tag]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        folded = "details" in self.open and "summary" not in self.open
        self.text += "" if "style" in self.open or folded else data


def looked_at(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    tags.close()
    assert tags.open == []
    return tags


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """One of everything, with hostile class names."""
    home = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        yield _results(home)


def _with_wrong_labels(data: sl.Data) -> sl.Data:
    labels = data.train.labels.clone()
    labels[:5] = (labels[:5] + 1) % 3
    return replace(data, train=replace(data.train, labels=labels))


def _results(home: Path) -> dict[str, Any]:
    random = np.random.default_rng(0)
    labels = np.arange(180) % 3
    images = (random.random((180, 3, 9, 8)) * 0.5 + labels[:, None, None, None] * 0.2).astype(np.float32)
    data = sl.Data.from_arrays(images, labels, classes=CLASSES, name="<b>photos</b>")
    assert data.test is not None
    options = {"out": home / "runs", "precision": "float32", "lr": 0.02}
    run = sl.train("linear", data, epochs=3, name="linear", **options)
    other = sl.train("linear", data, epochs=1, seed=1, name="brief", **options)
    model = run.model()
    found = sl.attack(model, data.test, radii=[0, 0.05, "8/255"], individual_attacks=["fgsm"], audit=False)
    audited = sl.attack(model, data.test, radii=[0.05], protocol=["fgsm"])
    x = data.test.floats(data.test.images[:20])
    verified = sl.verify(model, (x + 0.04).clamp(0, 1), x, data.test.labels[:20], eps=0.05)
    lost = sl.open(run.folder)
    return {
        "run": run,
        "study": sl.open(home / "runs"),
        "estimate": run.scores()["accuracy"],
        "scores": run.scores(),
        "evaluated": sl.evaluate(model, data.test),
        "attack": found,
        "verification": verified,
        "explanation": sl.explain(model, data.test.select(range(9)), "saliency", check=True),
        "comparison": sl.compare(run, other),
        "layers": sl.layer_table(model, data.shape),
        "data": data,
        "split": data.test,
        "finding": sl.Finding("a <b>", "sign", "serious", "</div><script>" * 99, 5, "do", ("x",) * 50),
        "exported": sl.export(run, "safetensors", out=home / "<exported>", module=None),
        "predictions": run.predictions(),
        "confusion": run.confusion,
        "reliability": run.reliability,
        "risk": run.risk_coverage,
        "classes": run.per_class,
        "findings": audited.findings,
        "recounted": verified.findings,
        "checked": sl.check_data(data),
        "label errors": sl.find_label_errors(_with_wrong_labels(data), "knn", folds=2, seeds=1),
        "drift": sl.compare_data(run, data, split_b="test"),
        "history": run.history,
        "rows": sl.open(home / "runs").rows(),
        "results": run.results("validation"),
        "lost": type(lost)(home / "gone", lost.record),
    }


@pytest.mark.parametrize("name", NAMES)
def test_it_is_shown_in_a_line_and_as_safe_html(results: dict[str, Any], name: str) -> None:
    shown = results[name]
    assert len(repr(shown)) < MOST_REPR
    assert repr(shown).count("\n") < 4
    html = shown._repr_html_()
    assert len(html) < MOST_HTML
    html.encode("utf-8")
    tags = looked_at(html)
    assert 20 < len(tags.text) < MOST_TEXT
    assert "script" not in tags.seen
    assert html.startswith('<div class="stresslens"><style>')
    assert {link[:11] for link in re.findall(r"(?:src|href)=\"([^\"]*)", html)} <= {"data:image/"}
    assert not re.search(r"url\(|@import|https?:", html)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "results"])
def test_its_rows_are_plain_and_alike(results: dict[str, Any], name: str) -> None:
    frame = results[name].to_frame()
    rows = frame if isinstance(frame, list) else frame.to_dict("records")
    assert rows
    assert all(list(row) == list(rows[0]) for row in rows)
    for row in rows:
        for value in row.values():
            assert value is None or isinstance(value, str | int | float | bool | list | tuple)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("estimate", "finding", "results")])
def test_its_csv_and_latex_have_all_rows(results: dict[str, Any], name: str, tmp_path: Path) -> None:
    shown = results[name]
    rows = list(csv.reader(io.StringIO(shown.to_csv(), newline="")))
    assert len(rows) == len(shown.to_frame()) + 1
    assert {len(row) for row in rows} == {len(rows[0])}
    assert shown.to_csv(tmp_path / "rows.csv").read_text(encoding="utf-8", errors="replace")
    lines = shown.to_latex().splitlines()
    assert lines[1] == r"\toprule"
    assert len({line.count(" & ") for line in lines if line.endswith(r"\\")}) == 1


@pytest.mark.parametrize("name", PLOTTED)
def test_its_chart_is_drawn_with_its_numbers(results: dict[str, Any], name: str, tmp_path: Path) -> None:
    chart = results[name].plot()
    assert isinstance(chart, Chart)
    assert len(chart.rows) > 0
    looked_at(chart._repr_html_())
    assert chart.save(tmp_path / "chart.svg").stat().st_size > 500


def test_scores_and_comparisons_stay_dictionaries(results: dict[str, Any]) -> None:
    scores, comparison = results["evaluated"], results["comparison"]
    assert isinstance(scores, dict)
    assert dict(scores) == scores
    assert scores["accuracy"] == max(scores["accuracy"], scores["majority_baseline"])
    assert isinstance(comparison, dict)
    assert comparison["contrasts"][0]["difference"]["n"] == 36
    (row,) = csv.DictReader(io.StringIO(comparison.to_csv()))
    assert float(row["difference"]) == comparison["contrasts"][0]["difference"]["value"]


@pytest.mark.parametrize("name", ["findings", "recounted", "checked"])
def test_the_card_of_findings_names_each_check(results: dict[str, Any], name: str) -> None:
    html = results[name]._repr_html_()
    listed = html.partition("<summary>What each check found</summary>")[2].partition("</details>")[0]
    assert listed.count("<li>") == len(results[name]) > 1
    for finding in results[name]:
        severity = finding.severity if finding.status == "sign" else finding.status
        assert f"<bdi>{finding.audit} ({severity}): " in listed


def test_the_line_of_an_attack_and_of_a_recount_names_the_serious_signs() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(4, 2))
    x = torch.rand(30, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    y = net.eval()(x).argmax(1)
    attacked = sl.attack(net.train(), x, y, radii=[0.1], protocol=["fgsm"])
    recounted = sl.verify(net, x.roll(1, 0), x, y, eps=0.1)
    for shown in (attacked, recounted):
        serious = [f.audit for f in shown.findings.signs if f.severity == "serious"]
        assert serious
        assert repr(shown).endswith(f"{shown.findings.warning})")
        assert f"serious sign{'s' if len(serious) > 1 else ''}: {', '.join(serious[:3])}" in repr(shown)


def test_the_chart_of_an_attack_has_the_figures_of_the_result(results: dict[str, Any]) -> None:
    found = results["attack"]
    rows = [row for row in found.plot().rows if row["line"] == "worst case of all attempts"]
    accuracy = next(key for key in rows[0] if key.startswith("accuracy"))
    x = next(key for key in rows[0] if key.startswith("radius"))
    for row in rows:
        estimate = found.robust_accuracy(row[x])
        assert (row[accuracy], row["low"], row["high"]) == pytest.approx(
            (100 * float(estimate), 100 * estimate.low, 100 * estimate.high)
        )


@pytest.mark.parametrize("radius", ["8/255", 8 / 255, " 8 / 255", "0.05", 0])
def test_a_radius_is_taken_as_it_was_given(results: dict[str, Any], radius: str | float) -> None:
    assert results["attack"].robust_accuracy(radius).n == 36


@pytest.mark.parametrize("radius", ["9/255", "a lot", "1/0"])
def test_another_radius_is_refused_in_words(results: dict[str, Any], radius: str) -> None:
    with pytest.raises(ConfigError, match="radius"):
        results["attack"].robust_accuracy(radius)


def test_one_curve_of_a_run_can_be_chosen(results: dict[str, Any]) -> None:
    run = results["run"]
    assert run.plot("loss").title == "Loss"
    assert {row["epoch"] for row in run.plot("accuracy").rows} == {1, 2, 3}
    assert len(run.plot().rows) == len(run.plot("loss").rows) + len(run.plot("accuracy").rows)
    with pytest.raises(ConfigError, match="'f1'; it has 'loss', 'accuracy'"):
        run.plot("f1")


def test_a_confusion_matrix_is_its_counts(results: dict[str, Any]) -> None:
    confusion = results["confusion"]
    rows = [list(row.values())[1:] for row in confusion.plot().rows]
    assert rows == confusion.counts.tolist()


def test_an_explanation_shows_the_images_it_was_given(results: dict[str, Any]) -> None:
    why = results["explanation"]
    assert why.images.shape == (9, 3, 9, 8)
    assert why.plot(3).drawing.count("<image") == 2 * 3 + 1
    with pytest.raises(ConfigError, match="expected 1 or more"):
        why.plot(0)


def test_the_traceback_of_a_method_ends_at_the_callers_line(results: dict[str, Any], tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).random((20, 1, 4, 4)) * 255, np.arange(20) % 2
    chart = results["run"].plot()
    for call in (
        lambda: sl.Data.from_arrays(x, y),
        lambda: results["attack"].robust_accuracy(0.7),
        lambda: results["attack"].targeted_success_rate(0.05),
        lambda: results["explanation"].plot(0),
        lambda: results["run"].results("tset"),
        lambda: chart.save(tmp_path / "chart.gif"),
    ):
        with pytest.raises(sl.StresslensError) as refused:
            call()
        frames = traceback.extract_tb(refused.value.__traceback__)
        assert {frame.filename for frame in frames} == {__file__}


def test_the_quality_of_maps_is_a_dictionary_in_one_line(results: dict[str, Any]) -> None:
    quality = results["explanation"].quality
    assert len(repr(quality)) < MOST_REPR
    checks, failed = quality["checks"], quality["failed"]
    assert repr(quality).startswith(f"QualityChecks({len(checks)} checks, {len(failed)} failed: ")
    name, mean = next(iter(checks.items()))
    assert f"{name} {mean['value']:.3g}" in repr(quality)
    assert json.loads(json.dumps(quality)) == quality
    assert len(quality["each"][name]) == 9


def test_an_explanation_shows_the_truth_and_says_how_many_images_it_leaves_out(
    results: dict[str, Any],
) -> None:
    data = results["data"]
    net = nn.Sequential(nn.Flatten(), nn.Linear(216, 3))
    some, all_ = data.test.select(range(6)), data.test.select(range(10))
    why = sl.explain(net, all_, "saliency", answers=(all_.labels + 1) % 3)
    assert why.truths.tolist() == all_.labels.tolist()
    assert [why._caption(k) for k in range(3)] == [f"{y} → {(y + 1) % 3}" for y in all_.labels[:3].tolist()]
    rows = why.plot(2).rows
    assert [row["truth"] for row in rows] == [str(y) for y in all_.labels[:2].tolist()]
    text = looked_at(why._repr_html_()).text
    assert "after the true class where they differ. The first 6 of 10 images; plot(10) shows all." in text
    right = sl.explain(net, some, "saliency", answers=some.labels)
    assert right._caption(0) == str(int(some.labels[0]))
    assert "The first 6" not in right._repr_html_()
    unknown = sl.explain(net, some.floats(some.images[:]), "saliency", answers=some.labels)
    assert unknown.truths is None
    assert "true class" not in unknown._repr_html_()
    assert "truth" not in unknown.plot().rows[0]
    own = sl.explain(results["run"], "saliency", n_images=3)
    assert own.truths.tolist() == [results["run"].data.test.labels[k] for k in _indices(results["run"])]


def _indices(run: sl.Run) -> list[int]:
    """Where the images of the run's only explanation are in its test split."""
    (result,) = (run.folder / "explanations").glob("saliency-*/result.json")
    return [image["index"] for image in json.loads(result.read_text())["images"]]


@pytest.mark.parametrize("shape", [(1, 5, 5), (2, 60, 40), (3, 300, 200)], ids=["grey", "two", "large"])
def test_cards_of_images_stay_small(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * shape[0], 12))
    x, y = torch.rand(24, *shape), torch.arange(24) % 12
    data = sl.Data.from_arrays(x, y, validation=0, test=0)
    why = sl.explain(net, x, "saliency")
    for shown in (data, data.train, why, sl.attack(net, x, net(x).argmax(1), radii=[0.3], audit=False)):
        looked_at(shown._repr_html_())
        assert len(shown._repr_html_()) < MOST_HTML
        assert shown._repr_html_().count("<ima") + shown._repr_html_().count("<img") > 3
