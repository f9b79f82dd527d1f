"""What is drawn of several seeds and of calibration."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from folders import estimate, write_run
from markupsafe import escape

from stresslens.core.run_folder import RunFolder
from stresslens.report.curves import (
    confidence_charts,
    learning_curves,
    learning_series,
    run_curves,
    run_reliability,
)
from stresslens.report.load import load_study, read_run
from stresslens.report.page import render_run


def values(chart: str, kind: str = "dot") -> list[tuple[float, float]]:
    """(x, y) that hovering over a chart's dots says."""
    found = re.findall(rf'<circle class="{kind} [^>]*><title>[^<]*?([\d.]+): ([\d.]+)</title>', chart)
    return [(float(x), float(y)) for x, y in found]


def of_bin(n: int, confidence: float, accuracy: float) -> dict[str, object]:
    return {"low": 0.0, "high": 1.0, "n": n, "confidence": confidence, "accuracy": estimate(accuracy, n=n)}


def test_bins_of_several_seeds_are_pooled_by_their_images(tmp_path: Path) -> None:
    for seed, bins in enumerate(
        ([of_bin(10, 0.5, 0.4), of_bin(2, 0.9, 1.0)], [of_bin(30, 0.7, 0.8), of_bin(2, 0.9, 1.0)])
    ):
        write_run(
            tmp_path, "cnn", seed, reliability={"test": {"bins": bins, "calibrated": None}}, risk_coverage={}
        )
    found = confidence_charts(load_study(tmp_path))
    assert found is not None
    assert values(escape(found.charts[0])) == [
        pytest.approx(((10 * 50 + 30 * 70) / 40, (10 * 40 + 30 * 80) / 40))
    ]


def test_bins_of_few_images_are_not_drawn(tmp_path: Path) -> None:
    bins = [of_bin(4, 0.2, 0.0), of_bin(5, 0.4, 0.6), of_bin(50, 0.8, 0.9)]
    run = write_run(tmp_path, "cnn", 0, reliability={"test": {"bins": bins, "calibrated": bins}})
    chart = escape(run_reliability(read_run(RunFolder(run)), "test"))
    assert values(chart) == [(40, 60), (80, 90)] * 2


def test_seeds_are_averaged_as_far_as_all_go_within_the_band_of_all(tmp_path: Path) -> None:
    for seed, losses in enumerate(([4.0, 2.0, 1.0], [2.0, 1.0])):
        run = write_run(tmp_path, "cnn", seed)
        (run / "metrics.jsonl").write_text(
            "".join(f'{{"epoch": {e + 1}, "loss": {x}}}\n' for e, x in enumerate(losses))
        )
    found = learning_curves(learning_series(load_study(tmp_path)))
    assert found is not None
    (chart,) = map(escape, found.charts)
    assert values(chart) == [(1, 3), (2, 1.5)]
    (band,) = re.findall(r'<path class="band [^"]*" d="M([^Z]*)Z', chart)
    assert len(band.split("L")) == 6


def test_many_recipes_share_one_legend(tmp_path: Path) -> None:
    for k in range(9):
        write_run(tmp_path, f"run {k}", 0)
    found = learning_curves(learning_series(load_study(tmp_path)))
    assert found is not None
    assert str(found.legend).count("<li>") == 9
    assert "<li>" not in "".join(map(escape, found.charts))


def test_the_training_loss_begins_before_any_update(tmp_path: Path) -> None:
    run = write_run(tmp_path, "cnn", 0)
    (run / "metrics.jsonl").write_text('{"epoch": 100, "loss": 3.8}\n{"epoch": 200, "loss": 2.0}\n')
    record = json.loads((run / "record.json").read_text())
    record["training"]["first_loss"] = 17.7
    (run / "record.json").write_text(json.dumps(record))
    found = learning_curves(learning_series(load_study(tmp_path)))
    assert found is not None
    assert values(escape(found.charts[0])) == [(0, 17.7), (100, 3.8), (200, 2.0)]


@pytest.mark.parametrize(("last", "drawn"), [(0.9, True), (0.995, False)], ids=str)
def test_top5_is_drawn_where_there_is_something_to_see(tmp_path: Path, last: float, drawn: bool) -> None:
    run = write_run(tmp_path, "cnn", 0)
    lines = [{"epoch": k + 1, "validation": {"top5": y}} for k, y in enumerate((0.5, last))]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = learning_curves(learning_series(load_study(tmp_path)))
    charts = run_curves(read_run(RunFolder(run)))
    for each in (found, charts):
        assert (each is not None and "top-5" in escape(each.charts[0]).lower()) == drawn


@pytest.mark.parametrize(
    ("select", "said"),
    [
        ("last", "The last epoch, 4, was kept; validation chose nothing."),
        ("accuracy", "Epoch 4 was chosen by the accuracy on validation."),
        ("robust", "Epoch 4 was chosen by the robust accuracy on validation."),
    ],
)
def test_how_the_epoch_was_chosen_is_said(tmp_path: Path, select: str, said: str) -> None:
    run = write_run(tmp_path, "cnn", 0)
    record = json.loads((run / "record.json").read_text())
    record["training"] |= {"chosen_epoch": 4, "select": select}
    (run / "record.json").write_text(json.dumps(record))
    assert said in render_run(read_run(RunFolder(run)))
