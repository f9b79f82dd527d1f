"""Runs that were tested on different images: each set has its own table, charts and baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from attacked import attack
from folders import scores, write_run
from pages import page_of

from stresslens.charts.chart import Chart
from stresslens.report.data_sets import by_data_set, data_set_results
from stresslens.report.load import load_study
from stresslens.report.study_robustness import robustness_sections


def drawn(chart: Chart | None) -> str:
    return chart.drawing if chart else ""


def data(name: str, fingerprint: str, images: int) -> dict[str, Any]:
    return {"name": name, "fingerprint": fingerprint, "sizes": {"train": 900, "test": images}}


def mixed(root: Path) -> Path:
    """Two runs on photographs, whose baseline is 50 %, and one on rare birds, whose is 87.8 %."""
    for run, accuracy in (("a", 0.9), ("b", 0.8)):
        write_run(root, run, 0, accuracy=accuracy, data=data("photos", "f1", 360))
    rare = scores(0.748, 90)
    rare["majority_baseline"] |= {"value": 0.878, "low": 0.8, "high": 0.93}
    write_run(root, "ro", 0, accuracy=0.748, data=data("birds", "f2", 90), scores={"test": rare})
    return root


def test_each_set_of_images_has_results_of_its_own(tmp_path: Path) -> None:
    parts = data_set_results(load_study(mixed(tmp_path)), lambda run: "")
    assert [(part.title, [variant.name for variant in part.variants]) for part in parts] == [
        ("photos, 360 test images", ["a", "b"]),
        ("birds, 90 test images", ["ro"]),
    ]
    baselines = [part.baseline.value for part in parts if part.baseline]
    assert baselines == pytest.approx([0.103, 0.878])
    assert "majority class 10.3" in drawn(parts[0].accuracy_chart)
    assert "majority class 87.8" not in drawn(parts[0].accuracy_chart)
    assert "majority class 87.8" in drawn(parts[1].accuracy_chart)
    for part, others in zip(parts, (["ro"], ["a", "b"])):
        charts = [part.accuracy_chart, *part.cost_charts, *(part.curves.charts if part.curves else ())]
        for chart in charts:
            assert not any(f"<title>{name}" in drawn(chart) for name in others)


def test_a_page_of_several_sets_names_each(tmp_path: Path) -> None:
    _, page = page_of(mixed(tmp_path))
    for section in ("results", "curves", "confusion"):
        assert section in page.sections
    assert page.text.count("photos, 360 test images") >= 4
    assert page.text.count("birds, 90 test images") >= 3


def test_one_set_of_images_has_no_title(tmp_path: Path) -> None:
    for run in "ab":
        write_run(tmp_path, run, 0)
    (part,) = data_set_results(load_study(tmp_path), lambda run: "")
    assert part.title == ""


@pytest.mark.parametrize(
    ("first", "second", "sets"),
    [
        ({"splits": {"test": "t1"}}, {"splits": {"test": "t1"}, "fingerprint": "other"}, 1),
        ({"splits": {"test": "t1"}}, {"splits": {"test": "t2"}}, 2),
        ({"fingerprint": "f1"}, {"fingerprint": "f2"}, 2),
        ({"fingerprint": ""}, {"fingerprint": ""}, 1),
        (
            {"fingerprint": "f1", "division": {"kind": "folds"}},
            {"fingerprint": "f2", "division": {"kind": "folds"}},
            1,
        ),
    ],
    ids=["other training images", "other test images", "older records", "no data recorded", "folds"],
)
def test_test_images_decide_which_runs_belong_together(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], sets: int
) -> None:
    for run, facts in (("a", first), ("b", second)):
        write_run(tmp_path, run, 0, data={"name": "photos", "sizes": {"test": 360}} | facts)
    assert len(by_data_set(load_study(tmp_path))) == sets


def test_attacks_on_different_images_are_not_drawn_together(tmp_path: Path) -> None:
    for run, facts in (("a", data("photos", "f1", 360)), ("b", data("birds", "f2", 90))):
        attack(write_run(tmp_path, run, 0, data=facts))
    study = load_study(tmp_path)
    for part in by_data_set(study):
        (section,) = robustness_sections(part, part.name)
        assert len(section.rows) == 1
        assert section.threat.title.endswith(part.name)


def test_pictures_are_of_the_run_that_validation_chooses(tmp_path: Path) -> None:
    for run, accuracy in (("a", 0.9), ("b", 0.95)):
        chosen = {split: scores(accuracy, 360) for split in ("test", "train")}
        write_run(tmp_path, run, 0, scores=chosen | {"validation": scores(0.99 if run == "a" else 0.97, 360)})
    (part,) = data_set_results(load_study(tmp_path), lambda run: f"{run.name}.html")
    assert part.chosen == "a"
    assert part.mistakes is not None
    assert (part.mistakes.of, part.mistakes.link) == ("a, seed 0", "a.html")
    assert len(part.mistakes.pictures) == 4
    probabilities = [picture.probability for picture in part.mistakes.pictures]
    assert probabilities == sorted(probabilities, reverse=True)
    _, page = page_of(tmp_path)
    assert page.text.count("validation chooses it") == 1


def test_runs_without_pictures_have_none_at_the_head(tmp_path: Path) -> None:
    write_run(tmp_path, "a", 0, pictures=0)
    (part,) = data_set_results(load_study(tmp_path), lambda run: "")
    assert part.mistakes is None
    html, _ = page_of(tmp_path)
    assert "The surest mistakes" not in html
