"""The same within a margin, and not worse by more than it: verdicts, plans, gates, and what is refused."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import stresslens as sl
from stresslens.comparison.difference import Difference, difference_of
from stresslens.comparison.folders import compare_folders
from stresslens.comparison.margins import MarginQuestion, Margins, NotWorseGate, margin_of, with_margins
from stresslens.comparison.metric_difference import difference_of_values
from stresslens.comparison.schema import Contrast, MarginVerdict
from stresslens.core.errors import ConfigError, GateNotMet
from stresslens.core.files import write_json
from stresslens.core.run_folder import RunFolder
from stresslens.core.types import Estimate
from stresslens.metrics.image_values import recall_values
from stresslens.metrics.measures import MEASURES
from stresslens.report.page import _environment

Type = Callable[..., tuple[int, str, str]]


def difference(gain: float, seeds: int = 3, images: int = 20_000, noise: float = 0.01) -> Difference:
    """b minus a, of about `gain`: each seed errs on the images that are hard for it."""
    random = np.random.default_rng(1)
    hard = random.random(images)
    a, b = (hard + noise * random.standard_normal((seeds, images)) < share for share in (0.9, 0.9 + gain))
    return difference_of("all", "a", "b", a.astype(float), b.astype(float))


def same(of: Difference, margin: float = 0.005) -> MarginVerdict:
    (contrast,) = with_margins([of], Margins(margin))
    assert contrast.same is not None
    return contrast.same


def not_worse(of: Difference, margin: float = 0.005) -> MarginVerdict:
    (contrast,) = with_margins([of], Margins({}, margin))
    assert contrast.not_worse is not None
    return contrast.not_worse


def test_a_difference_and_sameness_are_two_questions() -> None:
    """All four answers: neither is shown, one is, the other is, both are."""
    both = difference(0.002, images=60_000)
    found = same(difference(0.0))
    assert found.shown
    assert found.verdict.startswith("a and b are the same within 0.5 points: b minus a is ")
    assert "points, 95 % interval; 3 seeds, 20000 images" in found.verdict
    assert found.plan is None
    assert both.difference.low > 0
    assert "are the same within 0.5 points, though the difference is real" in _with_holm(both)
    assert "differ by more than 0.5 points" in _with_holm(difference(0.03))
    small = difference(0.0, images=2000)
    assert same(small, 0.003).verdict.startswith(
        "a and b: neither a difference nor sameness within 0.3 points"
    )
    assert not small.real
    edge = difference(0.006)
    assert "are not shown to be the same within 0.5 points" in _with_holm(edge)


def _with_holm(of: Difference) -> str:
    return same(replace(of, p_holm=of.p)).verdict


def test_the_interval_lies_inside_the_margin_exactly_where_sameness_is_shown() -> None:
    for images in (500, 1000, 2000, 4000, 8000):
        found = same(difference(0.001, images=images))
        assert found.interval is not None
        assert found.interval.level == pytest.approx(0.95)
        assert found.shown == (found.interval.low > -0.005 and found.interval.high < 0.005)
        assert found.shown == (found.p < 0.05)


def test_the_plan_says_what_shows_sameness() -> None:
    found = same(difference(0.0, images=1000))
    assert not found.shown
    assert found.plan is not None
    assert found.plan.startswith("showing it with 80 % chance, where nothing differs, would take about ")
    one = same(difference(0.0, seeds=1, images=1000))
    assert one.plan is not None
    images = int(one.plan.split("about ")[1].split(" images")[0].replace(",", ""))
    assert 1000 < images < 10_000
    shown = [
        same(
            difference_of(
                "", "a", "b", *(np.random.default_rng(10 * k + s).random((1, images)) < 0.98 for s in (0, 1))
            ),
            0.01,
        ).shown
        for k in range(5)
    ]
    assert any(shown)


def test_one_seed_is_about_the_weights_and_two_are_too_few() -> None:
    assert same(difference(0.0, seeds=1)).verdict.endswith(
        "one seed each, so this is about these weights, not the variants"
    )
    for found in (same(difference(0.0, seeds=2)), not_worse(difference(0.0, seeds=2))):
        assert found.too_few_seeds
        assert not found.shown
        assert found.p == 1
        assert found.verdict.startswith("2 seeds are too few to show that ")


def test_not_worse() -> None:
    assert not_worse(difference(0.0)).verdict.startswith("b is not worse than a by more than 0.5 points: ")
    assert not_worse(difference(0.02)).shown
    worse = not_worse(difference(-0.03))
    assert worse.verdict.startswith("b is really worse than a, by more than 0.5 points: ")
    assert worse.plan is None
    unknown = not_worse(difference(0.0, images=300))
    assert unknown.verdict.startswith("not shown: b may be worse than a by more than 0.5 points: ")
    assert unknown.plan is not None


@pytest.mark.slow
def test_what_is_the_same_is_not_worse_either_way() -> None:
    random = np.random.default_rng(3)
    for _ in range(20):
        right = [random.random((3, 3000)) < 0.97 for _ in range(2)]
        there = difference_of("", "a", "b", *right)
        back = difference_of("", "b", "a", *right[::-1])
        p = [not_worse(each, 0.02).p for each in (there, back)]
        assert same(there, 0.02).p == pytest.approx(max(p))


def test_holm_is_over_the_pairs_of_one_question() -> None:
    pairs = [replace(difference(0.0, images=6000), b=name) for name in ("b", "c", "d")]
    found = [c.same for c in with_margins(pairs, Margins({"all": 0.005}))]
    assert all(each is not None for each in found)
    p = sorted((each.p, each.p_holm) for each in found if each)
    assert p[0][1] == pytest.approx(3 * p[0][0])
    assert with_margins(pairs, Margins({"other": 0.005}))[0].same is None


def test_a_difference_of_another_metric_needs_only_its_ends() -> None:
    estimate = Estimate(0.0, -0.002, 0.002, 50_000, "bootstrap")
    of = Difference(
        "", "a", "b", estimate, 1.0, 3, 50_000, ends_at=lambda level: (-0.002 * level, 0.002 * level)
    )
    assert same(of).shown
    assert same(of, 0.001).plan is None
    assert same(replace(of, ends_at=None)).verdict.startswith("nothing here shows that")


@pytest.mark.slow
def test_a_loss_in_a_rare_class_at_the_margin_is_hardly_ever_called_not_worse() -> None:
    """Balanced accuracy of 1,000 images, 10 of the rarest of 3 classes: one of those counts 33 times an
    average one. Room for one image in 1,000 would be false far more often."""
    random, margin, studies, rare = np.random.default_rng(0), 0.05, 60, 10
    labels = np.arange(1000) % 2 + 1
    labels[:rare] = 0
    present, whole = np.arange(3), 1000 / (3 * rare)
    false = false_without = 0
    for _ in range(studies):
        right = random.random(1000) < 0.97
        a, b = (right & (random.random((3, 1000)) > 0.005) for _ in range(2))
        b &= ~((labels == 0) & (random.random(1000) < 3 * margin / 0.97))
        values = [np.stack([recall_values(seed, labels, present) for seed in seeds]) for seeds in (a, b)]
        balanced = MEASURES["balanced_accuracy"]
        of = difference_of_values("", "a", "b", *values, measure=balanced, whole=whole)
        assert of.whole == whole
        false += not_worse(of, margin).shown
        false_without += not_worse(replace(of, whole=1.0), margin).shown
    assert false <= 0.05 * studies < false_without


def test_room_of_divisions_is_that_of_the_metric() -> None:
    of = replace(difference(0.0), needs=lambda goal: f"{goal.room:.4f}")
    plans = [same(replace(of, whole=whole), 0.0001).plan for whole in (1.0, 10.0)]
    room = [float(str(plan).rsplit(" ", 1)[1]) for plan in plans]
    assert room[1] == pytest.approx(10 * room[0], rel=1e-3)


@pytest.mark.parametrize("value", [0, -0.1, float("nan"), float("inf"), 0.5, 5, "x", True, None])
def test_what_is_no_margin_is_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"0\.005 is half a point"):
        margin_of(value, "--same-within")


def test_a_margin_in_points_gets_a_hint() -> None:
    with pytest.raises(ConfigError, match=r"for 0.5 points give 0.005"):
        margin_of(0.5, "--same-within")


def write(path: Path, right: float, seed: int, images: int = 4000) -> None:
    hard = np.random.default_rng(0).random(images) + 0.005 * np.random.default_rng(seed).standard_normal(
        images
    )
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "label", "pred"])
        table.writerows([k, k % 2, k % 2 if hard[k] < right else 1 - k % 2] for k in range(images))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for seed, (name, right) in enumerate((("main", 0.95), ("good", 0.95), ("bad", 0.8))):
        write(tmp_path / f"{name}.csv", right, seed)
    write(tmp_path / "short-main.csv", 0.95, 5, 100)
    write(tmp_path / "short.csv", 0.95, 6, 100)
    return tmp_path


def test_the_gate_of_files(type_: Type, files: Path) -> None:
    gate = ("--not-worse-than", "main.csv", "--margin", "0.01")
    code, out, err = type_("main.csv", "good.csv", *gate)
    assert (code, "is not worse than main/seed-0 by more than 1 point" in out) == (0, True)
    code, out, err = type_("good.csv", "bad.csv", "main.csv", *gate, "--markdown")
    assert code == 5
    assert out.startswith("### test accuracy: 1 of 2 are not worse by more than 1 point")
    assert "bad/seed-0 is really worse than main/seed-0, by more than 1 point" in err
    code, _, err = type_("short-main.csv", "short.csv", "--not-worse-than", "first", "--margin", "0.005")
    assert code == 5
    assert "not shown: short/seed-0 may be worse than short-main/seed-0" in err
    assert "would take about" in err


@pytest.mark.slow
def test_a_real_but_small_loss_passes_the_gate_and_not_the_plain_comparison(
    type_: Type, tmp_path: Path
) -> None:
    write(tmp_path / "main.csv", 0.95, 0, 20_000)
    write(tmp_path / "new.csv", 0.945, 0, 20_000)
    assert type_("main.csv", "new.csv")[0] == 5
    code, out, _ = type_("main.csv", "new.csv", "--not-worse-than", "main", "--margin", "0.02")
    assert code == 0
    assert "by more than 2 points, and really worse, but by less" in out


def test_what_the_gate_refuses(type_: Type, files: Path) -> None:
    for words, said in (
        (["--not-worse-than", "main"], "needs --margin"),
        (["--margin", "0.01"], "belongs to --not-worse-than"),
        (["--not-worse-than", "mian", "--margin", "0.01"], "the baseline mian is none of those compared"),
        (["--not-worse-than", "main", "--margin", "1"], "for 1 points give 0.01"),
        (["--same-within", "nan"], "expected a share above 0"),
    ):
        code, _, err = type_("main.csv", "good.csv", *words)
        assert (code, said in err) == (2, True), err


@pytest.mark.slow
def test_a_study_states_margins_and_has_a_gate(type_: Type, tmp_path: Path) -> None:
    study = tmp_path / "runs" / "s"
    random = np.random.default_rng(0)
    hard = random.random(6000)
    for run, share in {"main": 0.9, "equal": 0.9, "bad": 0.8}.items():
        for seed in range(3):
            _make(study / run / f"seed-{seed}", hard + 0.004 * random.standard_normal(6000) < share)
    described = {
        "format": 1,
        "name": "s",
        "runs": ["main", "equal", "bad"],
        "seeds": [0, 1, 2],
        "contrasts": [["twins", "main", "equal"], ["others", "main", "bad"]],
    }
    write_json(study / "study.json", {**described, "margins": {"twins": 0.01}})
    contrasts = json.loads(type_("runs/s", "--json")[1])["contrasts"]
    assert [("same" in each, each.get("same", {}).get("shown")) for each in contrasts] == [
        (True, True),
        (False, None),
    ]
    code, out, err = type_("runs/s", "--not-worse-than", "main", "--margin", "0.01")
    assert code == 5
    assert "bad is really worse than main" in err
    code, out, err = type_(
        "runs/s/equal", "runs/s/main", "--not-worse-than", "runs/s/main", "--margin", "0.01"
    )
    assert (code, "equal is not worse than main" in out) == (0, True)
    found = sl.compare(study, same_within=0.01)
    assert "same within 1 point" in found["contrasts"][0]["same"]["verdict"]
    assert "margin" in found.plot().title
    gate = MarginQuestion(gate=NotWorseGate("main", 0.01))
    assert len(compare_folders([study], question=gate).gate_missed) == 1
    html = (type_("runs/s", "--json"), sl.write_report(study).read_text())[1]
    assert "<bdi>" in html


@pytest.mark.slow
def test_a_pair_in_two_contrasts_has_the_answers_to_both_and_other_metrics_have_none(
    type_: Type, tmp_path: Path
) -> None:
    study = tmp_path / "runs" / "s"
    random = np.random.default_rng(0)
    hard = random.random(3000)
    for run in ("main", "equal"):
        for seed in range(3):
            _make(study / run / f"seed-{seed}", hard + 0.004 * random.standard_normal(3000) < 0.9)
    pair = ["main", "equal"]
    contrasts = [["close", *pair], ["far", *pair], ["again", *pair]]
    described = {"format": 1, "name": "s", "runs": pair, "seeds": [0, 1, 2], "contrasts": contrasts}
    margins = {"close": 0.001, "far": 0.02, "again": 0.02}
    write_json(study / "study.json", {**described, "margins": margins})
    for words in ([], ["--markdown"]):
        code, out, _ = type_("runs/s", *words)
        assert code == 0
        assert out.count("within 0.1 points") == 1
        assert out.count("main and equal are the same within 2 points") == 1
        verdict = compare_folders([study]).comparison.contrasts[0].verdict
        assert out.count(verdict) == 1
    for metric in ("macro_f1", "balanced_accuracy", "auroc"):
        found = compare_folders([study], metric=metric).comparison.contrasts
        assert [each.of_margins for each in found] == [[], [], []]
    asked = compare_folders([study], metric="macro_f1", question=MarginQuestion(0.05)).comparison.contrasts
    assert all(each.same is not None for each in asked)


def test_what_is_not_shown_may_be_worse(type_: Type, files: Path) -> None:
    gate = ("--not-worse-than", "first", "--margin", "0.005", "--markdown")
    _, out, _ = type_("short-main.csv", "short.csv", *gate)
    assert out.startswith("### test accuracy: may be worse by more than 0.5 points")
    _, out, _ = type_("main.csv", "good.csv", "--not-worse-than", "first", "--margin", "0.01", "--markdown")
    assert out.startswith("### test accuracy: not worse by more than 1 point")
    cell = _environment().get_template("parts.html.j2").module.contrast_verdict  # type: ignore[attr-defined]
    (contrast,) = with_margins([difference(0.0, images=300)], Margins(0.005, 0.005))
    html = str(cell(contrast, []))
    assert "not shown to be the same within 0.5 points" in html
    assert "may be worse by more than 0.5 points" in html
    (contrast,) = with_margins([difference(0.0)], Margins(0.005, 0.005))
    html = str(cell(contrast, []))
    assert ">the same within 0.5 points" in html
    assert ">not worse by more than 0.5 points" in html


def _make(path: Path, right: np.ndarray) -> None:
    folder, truth = RunFolder(path), np.arange(len(right)) % 3
    folder.predictions("test").parent.mkdir(parents=True)
    scores = np.eye(3)[np.where(right, truth, (truth + 1) % 3)]
    np.savez(
        folder.predictions("test"), scores=scores, labels=truth, index=np.arange(len(truth)), kind="logits"
    )
    record = {"format": 1, "status": "finished", "stages": {}, "data": {"name": "m", "splits": {"test": "0"}}}
    write_json(folder.record, record)


def test_unused_margins_leave_no_key_in_the_file() -> None:
    (contrast,) = with_margins([difference(0.0)], None)
    assert contrast.model_dump(exclude_unset=True).keys().isdisjoint({"same", "not_worse"})
    assert contrast.model_dump().keys().isdisjoint({"same", "not_worse"})
    assert Contrast.model_validate(contrast.model_dump()).of_margins == []
    assert issubclass(GateNotMet, Exception)
