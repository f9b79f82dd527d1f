"""Attacks that leave out some of their images: each gives a serious sign through `sl.attack`, also on
images that are sorted by class; the same attack without the fault does not."""

from __future__ import annotations

from functools import cache

import numpy as np
import planted
import pytest
import torch
from controls import Control, alarms, control
from sound import only_audits, signs

import stresslens as sl
from stresslens.core.evidence import Curve, Trace, groups
from stresslens.plugins.audits._left_out import standing_out
from stresslens.robustness.audit import audit

FAST = ("first_batch_only", "last_batch_dropped", "one_class_in_noise", "labels_in_another_order")


@cache
def victim() -> Control:
    drawn = control(
        1, architecture="mlp", shape=(3, 8, 8), classes=5, norm="linf", precision=torch.float32, images=150
    )
    assert bool((drawn.y.diff() >= 0).all())  # sorted by class
    return drawn


@pytest.mark.breadth(1)
@pytest.mark.parametrize(
    "fault", [*FAST, *(pytest.param(f, marks=pytest.mark.slow) for f in planted.FAULTS if f not in FAST)]
)
def test_an_attack_that_leaves_images_out_is_serious(fault: str) -> None:
    with only_audits("skipped images", "reference wins"):
        result = sl.attack(
            victim().model, victim().x, victim().y, radii=[victim().radii[1]], protocol=[planted.named(fault)]
        )
    assert alarms(result)


@pytest.mark.slow
def test_the_same_attack_without_the_fault_is_no_sign() -> None:
    result = sl.attack(
        victim().model, victim().x, victim().y, radii=[victim().radii[1]], protocol=[planted.named("sound")]
    )
    assert not alarms(result)
    assert {"skipped images", "untouched images"}.isdisjoint(alarms(result, "minor"))


def test_images_that_come_back_untouched_are_counted_by_class_and_place() -> None:
    drawn = victim()
    attack = planted.named("exception_swallowed")
    with only_audits("untouched images"):
        result = sl.attack(drawn.model, drawn.x, drawn.y, radii=[drawn.radii[1]], protocol=[attack])
    (trace,) = result.traces
    half = trace.n - trace.n // 16 * 8  # eight images at a time, up to the middle or just before it
    assert half - 8 <= trace.untouched <= half
    assert (
        trace.untouched_in["part 8 of 8 of the batch"][0] == trace.untouched_in["part 8 of 8 of the batch"][1]
    )
    assert trace.untouched_in["part 1 of 8 of the batch"][0] == 0
    assert sum(trace.untouched_in[f"class {k}"][0] for k in range(5)) == trace.untouched
    assert trace.untouched_in["chunk 1"] == (trace.untouched, trace.n - trace.broke)
    assert Trace.from_json(trace.as_json()) == trace
    assert "untouched images" in alarms(result)


def attempt(**changes: object) -> list[Trace]:
    values = {"attack": "mine", "options": {}, "eps": 0.1, "n": 100, "broke": 40, **changes}
    return [Trace(**values)]  # type: ignore[arg-type]


SOME = Curve("linf", (0.1,), np.full(100, np.inf), np.full(100, -1), ("mine",), 100)


@pytest.mark.parametrize(
    ("trace", "severity"),
    [
        (attempt(untouched=1), None),
        (attempt(untouched=2), "minor"),
        (attempt(untouched=3), "serious"),
        (attempt(untouched=60), "minor"),  # it may return the original where it fails
        (attempt(untouched=100, broke=0), "serious"),
        (attempt(untouched=3, n=1000, broke=400), "minor"),
        (attempt(untouched=30, attack="deepfool"), None),
        (attempt(untouched=30, eps=0.0), None),
    ],
)
def test_from_when_on_untouched_images_are_a_sign(trace: list[Trace], severity: str | None) -> None:
    (found,) = audit(curve=SOME, trace=trace, only=["untouched images"])
    assert (found.severity if found.status == "sign" else None) == severity


def test_untouched_images_of_one_class_stand_out() -> None:
    counts = {"class 0": (4, 50), "class 1": (0, 550), "even places of the batch": (2, 300)}
    trace = attempt(
        n=1000, broke=400, untouched=4, untouched_in={**counts, "odd places of the batch": (2, 300)}
    )
    (found,) = audit(curve=SOME, trace=trace, only=["untouched images"])
    assert found.severity == "serious"
    assert "class 0 (4 of 50)" in found.evidence


def test_what_stands_out_is_beyond_chance() -> None:
    numbers = np.random.default_rng(0)
    called = 0
    for _ in range(300):
        labels, special = numbers.integers(0, 10, 128), numbers.random(128) < 0.1
        found = groups(labels, np.arange(128), 128)
        counts = {name: (int(special[group].sum()), int(group.sum())) for name, group in found.items()}
        called += bool(standing_out(counts, (int(special.sum()), 128)))
    assert called <= 9  # 1 % of 300, and three deviations of the count
    last = np.arange(128) >= 112
    counts = {name: (int(last[group].sum()), int(group.sum())) for name, group in found.items()}
    assert standing_out(counts, (16, 128))[0] == "part 8 of 8 of the batch (16 of 16)"


def test_groups_are_classes_parts_and_halves() -> None:
    labels = np.array([3, 3, 5, 5, 5, 3, 3, 3])
    found = groups(labels, np.arange(8), 8)
    assert found["class 5"].tolist() == (labels == 5).tolist()
    assert np.flatnonzero(found["part 3 of 8 of the batch"]).tolist() == [2]
    assert np.flatnonzero(found["odd places of the batch"]).tolist() == [1, 3, 5, 7]
    assert not any(name.startswith("class") for name in groups(np.arange(200), np.arange(200), 200))


def test_only_the_result_s_own_images_are_looked_at() -> None:
    drawn = victim()
    options = {"radii": [drawn.radii[1]], "protocol": ["fgsm"], "target": 0, "success": "target"}
    with only_audits("skipped images"):
        (found,) = sl.attack(drawn.model, drawn.x, drawn.y, **options).findings  # type: ignore[arg-type]
    assert (found.status, "target" in found.evidence) == ("not checked", True)


@only_audits("repeated images")
def test_an_image_that_is_there_several_times_counts_once() -> None:
    drawn = victim()
    x, y = drawn.x[::5], drawn.y[::5]
    options = {"radii": [drawn.radii[1]], "protocol": ["fgsm"], "individual_attacks": ["fgsm"]}
    once = sl.attack(drawn.model, x, y, **options)  # type: ignore[arg-type]
    often = sl.attack(drawn.model, x.repeat(4, 1, 1, 1), y.repeat(4), **options)  # type: ignore[arg-type]
    assert often.result.clean == once.result.clean
    assert often.robust_accuracy(drawn.radii[1]) == once.robust_accuracy(drawn.radii[1])
    assert often.result.individual_attacks[0].rows == once.result.individual_attacks[0].rows
    assert (often.result.n, often.result.repeated, len(often.minimal_radius)) == (30, 90, 120)
    assert "repeated images" in alarms(often)
    few = sl.attack(drawn.model, torch.cat([x, x[:2]]), torch.cat([y, y[:2]]), **options)  # type: ignore[arg-type]
    assert "repeated images" in alarms(few, "minor")
    assert "repeated images" not in signs(once.findings)
