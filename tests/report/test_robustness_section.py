"""Robustness in a study's page: curves, tables, what is odd, audits."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attacked import AUDITS, RADII, attack
from folders import estimate, write_json, write_run, write_study
from pages import STUDY, page_of

from stresslens.charts.curve_colours import COLOURS, DASHES, place_of
from stresslens.core.format import other_radius, radius
from stresslens.metrics import random_effects
from stresslens.metrics.intervals import wilson
from stresslens.report.attack_audits import audits
from stresslens.report.load import load_study
from stresslens.report.study_robustness import robustness_sections
from stresslens.report.threats import threats
from stresslens.robustness.robust_curves import shown_radii


def study_of(
    root: Path,
    runs: list[str],
    seeds: int = 1,
    strength_of: Callable[[int], float] = lambda k: 0.03 + 0.02 * k,
    **options: Any,
) -> Path:
    study = write_study(root, runs, seeds=seeds)
    for k in range(len(runs)):
        for seed in range(seeds):
            attack(study / f"run{k}" / f"seed-{seed}", strength=strength_of(k), seed=10 * k + seed, **options)
    return study


def arrays_of(study: Path, k: int = 0, seed: int = 0) -> dict[str, np.ndarray]:
    with np.load(
        study / f"run{k}" / f"seed-{seed}" / "robustness" / "linf-fast-0a1b2c3d" / "result.npz"
    ) as arrays:
        return dict(arrays)


def test_the_section_is_there_and_in_its_place(tmp_path: Path) -> None:
    html, page = page_of(study_of(tmp_path, ["clean", "fgsm", "pgd"], seeds=2))
    places = STUDY.split()
    places.insert(places.index("curves"), "robustness")
    assert page.sections == places
    for said in (
        "Robust accuracy, L∞, protocol fast",
        "Attempts, in order: fgsm, pgd 20, apgd ce",
        "12.75/255",
        "Seeds",
        "no sign",
    ):
        assert (said in page.text) == (said != "12.75/255"), said
    assert "5.1/255" in page.text
    assert len(html) < 300_000


def test_nothing_is_shown_when_there_is_nothing(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["a", "b"])
    assert robustness_sections(load_study(study)) == []
    assert audits(load_study(study)) is None
    assert "obust" not in page_of(study)[1].text


def test_figures_of_one_seed_are_wilsons_and_of_several_are_crossed(tmp_path: Path) -> None:
    study = study_of(tmp_path, ["a", "b"], seeds=3)
    (threat,) = threats(load_study(study))
    smallest = np.stack([arrays_of(study, seed=seed)["smallest"] for seed in range(3)])
    assert threat.members[0].at(0.04) == random_effects.proportion((smallest > 0.04).astype(np.float32))
    alone = study_of(tmp_path / "alone", ["a"])
    (threat,) = threats(load_study(alone))
    right = int((arrays_of(alone)["smallest"] > 0.04).sum())
    found, by_hand = threat.members[0].at(0.04), wilson(right, 200)
    assert found is not None
    assert (found.value, found.low, found.high, found.n) == pytest.approx(
        (by_hand.value, by_hand.low, by_hand.high, 200)
    )
    clean = threat.members[0].at(0.0)
    assert clean is not None
    assert clean.value == pytest.approx((arrays_of(alone)["smallest"] > 0).mean())


@pytest.mark.parametrize("k", [1, 2, 4, 8, 16])
def test_an_image_broken_exactly_at_a_radius_is_not_robust_there(tmp_path: Path, k: int) -> None:
    study = study_of(tmp_path, ["a"], radii=[0.0, k / 255, 2 * k / 255], strength_of=lambda _: 1.2 * k / 255)
    smallest = arrays_of(study)["smallest"]
    assert (smallest == k / 255).any()
    (section,) = robustness_sections(load_study(study))
    (_, clean, estimates, *_) = section.rows[0]
    assert clean is not None
    assert clean.value == pytest.approx((smallest > 0).mean())
    assert [e and e.value for e in estimates] == pytest.approx(
        [(smallest > eps).mean() for eps in (k / 255, 2 * k / 255)]
    )


def test_without_arrays_or_with_other_images_the_estimates_are_averaged(tmp_path: Path) -> None:
    study = study_of(tmp_path, ["a"], seeds=2)
    (study / "run0" / "seed-0" / "robustness" / "linf-fast-0a1b2c3d" / "result.npz").write_bytes(b"damaged")
    for prepare in (
        lambda: None,
        lambda: [attack(study / "run0" / f"seed-{s}", index=np.arange(200) + s) for s in range(2)],
    ):
        prepare()
        (threat,) = threats(load_study(study))
        found = threat.members[0].at(0.04)
        assert found is not None
        assert "2 seeds are too few for an interval over seeds" in found.method


def test_chosen_radii() -> None:
    assert shown_radii([0.1, 0.2]) == [0.1, 0.2]
    ten = [k / 100 for k in range(1, 11)]
    assert len(shown_radii(ten)) == 6
    assert (shown_radii(ten)[0], shown_radii(ten)[-1]) == (0.01, 0.1)
    assert shown_radii(ten) == sorted(set(shown_radii(ten)))


@pytest.mark.parametrize(
    ("eps", "said", "other"),
    [
        (0.05, "0.05", "12.75/255"),
        (8 / 255, "8/255", "0.03137"),
        (0.2, "0.2", "51/255"),
        (1.0, "1", "255/255"),
        (0.031, "0.031", "7.905/255"),
    ],
)
def test_radii_in_words(eps: float, said: str, other: str) -> None:
    assert (radius(eps), other_radius(eps)) == (said, other)


def test_threats_are_kept_apart(tmp_path: Path) -> None:
    study = study_of(tmp_path, ["a", "b"])
    attack(study / "run0" / "seed-0", norm="l2", protocol="standard", radii=[0.25, 0.5])
    attack(study / "run0" / "seed-0", key="linf-fast-ffffffff", target="least_likely")
    driven = "L∞, protocol fast, towards target least likely"
    assert {threat.title: len(threat.members) for threat in threats(load_study(study))} == {
        "L∞, protocol fast": 2,
        driven: 1,
        "L2, protocol standard": 1,
    }
    _, page = page_of(study)
    assert "L2, protocol standard" in page.text
    assert "ε = 0.25" in page.text
    assert "63.75/255" not in page.text


def test_what_broke_the_images_by_hand(tmp_path: Path) -> None:
    study = study_of(tmp_path, ["a"])
    arrays = arrays_of(study)
    table = robustness_sections(load_study(study))[0].breaking
    assert table is not None
    ((name, n, wrong, counts, survivors, steps, middle),) = table.rows
    assert (name, n, table.attempts) == ("a", 200, ["fgsm", "pgd 20", "apgd ce"])
    assert wrong == (arrays["smallest"] == 0).sum()
    assert survivors == np.isinf(arrays["smallest"]).sum()
    assert counts == [int((arrays["by"] == k).sum()) for k in range(3)]
    assert wrong + sum(counts) + survivors == n
    broken = arrays["steps"][arrays["by"] >= 0]
    assert steps.split(" ")[0] == str(sorted(broken)[round((len(broken) - 1) / 2)])
    right = np.sort(arrays["smallest"][arrays["smallest"] > 0])
    assert middle == radius(float(right[(len(right) - 1) // 2]))


def rows(accuracies: list[float], **more: Any) -> list[dict[str, Any]]:
    return [
        {"eps": r, "accuracy": estimate(a, n=1000), "valid": estimate(a), **more}
        for r, a in zip(RADII, accuracies)
    ]


def single(
    label: str, accuracies: list[float], target: str | int | None = None, **more: Any
) -> dict[str, Any]:
    return {
        "label": label,
        "attack": {label.split()[0]: {}},
        "target": target,
        "rows": rows(accuracies, **more),
    }


SOUND = [single("fgsm", [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]), single("pgd 40", [0.9, 0.7, 0.5, 0.3, 0.2, 0.1])]


@pytest.mark.breadth(3)
@pytest.mark.parametrize(
    ("alone", "said"),
    [
        (SOUND, []),
        (
            [SOUND[0], single("pgd 40", [0.9, 0.85, 0.6, 0.5, 0.4, 0.3])],
            [
                (
                    "pgd 40 breaks fewer images of a than the single step of fgsm: "
                    "accuracy is 85.0 % against "
                    "80.0 % at radius 0.02"
                )
            ],
        ),
        (
            [
                SOUND[0],
                single("pgd 40 toward least likely", [0.9, 0.85, 0.8, 0.75, 0.7, 0.6], target="least_likely"),
            ],
            [],
        ),
        ([SOUND[0], single("pgd 40 toward 0", [0.9, 0.85, 0.8, 0.75, 0.7, 0.6], target=0)], []),
        (
            [single("pgd 40", [0.9, 0.7, 0.5, 0.3, 0.4, 0.1])],
            [
                "pgd 40 on a breaks fewer images at a larger radius: "
                "accuracy is 30.0 % at 0.06, 40.0 % at 0.08"
            ],
        ),
        (
            [single("pgd 40", [0.9, 0.7, 0.5, 0.3, 0.2, 0.1], outside=12)],
            [
                "pgd 40 on a returned images outside the ball or the box: 12 at radius 0; "
                "without them, accuracy is 90.0 (88.0 to 92.0) %"
            ],
        ),
        (
            [single("pgd 40", [0.9, 0.7, 0.5, 0.3, 0.2, 0.1], silent=1)],
            ["pgd 40 on a found 6 adversarial images but returned others"],
        ),
    ],
)
def test_what_is_odd_about_an_attack_by_itself(
    tmp_path: Path, alone: list[dict[str, Any]], said: list[str]
) -> None:
    study = write_study(tmp_path, ["a"])
    attack(study / "run0" / "seed-0")
    rewrite(study / "run0" / "seed-0", alone=alone)
    table = robustness_sections(load_study(study))[0].individual_attacks
    assert table is not None
    assert list(table.warnings) == said
    assert "as it returned its images" in page_of(study)[1].text


def rewrite(run: Path, key: str = "linf-fast-0a1b2c3d", **changes: Any) -> None:
    file = run / "robustness" / key / "result.json"
    write_json(file, json.loads(file.read_text()) | changes)


def test_every_model_and_attack_is_a_line_of_its_own(tmp_path: Path) -> None:
    study = study_of(tmp_path, ["clean", "fgsm", "pgd"])
    found = robustness_sections(load_study(study))[0]
    assert found.individual_attacks is not None
    ((_, lines),) = found.individual_attacks.overlays
    assert len({line.place for line in lines}) == len(lines) == 6
    assert [line.place % COLOURS for line in lines] == [0, 0, 1, 1, 2, 2]
    assert [line.place % DASHES for line in lines] == [0, 1] * 3
    assert sorted(place_of(c, d) for c in range(COLOURS) for d in range(DASHES)) == list(
        range(COLOURS * DASHES)
    )


def test_lines_that_are_too_many_for_one_chart_have_one_for_each_attack(tmp_path: Path) -> None:
    study = study_of(tmp_path, ["clean", "fgsm", "pgd", "large", "wide"])
    found = robustness_sections(load_study(study))[0].individual_attacks
    assert found is not None
    assert len(found.overlays) == 2
    for title, lines in found.overlays:
        assert "by itself" in title
        assert len({line.place for line in lines}) == len(lines) == 5


def test_serious_findings_are_told_at_the_head_with_their_runs(tmp_path: Path) -> None:
    study = study_of(tmp_path, ["a", "b"], findings=AUDITS[1:])
    attack(study / "run1" / "seed-0", findings=AUDITS)
    text = " ".join(page_of(study)[1].text.split())
    head, rest = text.split("Results on the test split")
    assert "An audit of the attacks found a serious sign: gradients (b)." in head
    assert "converged" not in head
    assert "gradients serious the gradient of 31 of 128 images is exactly zero (b; n = 128)" in rest
    assert "attack the logits, or a loss that does not vanish" in rest
    found = audits(load_study(study))
    assert found is not None
    assert found.variants == ["a", "b"]
    cells = {audit: [said for _, said in row] for audit, row in found.rows}
    assert cells == {"gradients": ["–", "sign"], "converged": ["sign", "sign"]}
    assert (found.clean, found.unchecked) == (["evaluation mode"], ["transfer"])
    assert "with no sign on any run: evaluation mode." in rest


def test_damaged_results_are_told_and_harmless(tmp_path: Path) -> None:
    study = study_of(tmp_path, ["a", "b"])
    file = study / "run0" / "seed-0" / "robustness" / "linf-fast-0a1b2c3d" / "result.json"
    file.write_text('{"format": 1, "key"')
    assert [m.variant.name for m in threats(load_study(study))[0].members] == ["b"]
    assert "robustness/linf-fast-0a1b2c3d/result.json" in page_of(study)[1].text


def test_unknown_figures_are_dashes(tmp_path: Path) -> None:
    study = study_of(tmp_path, ["a"])
    unknown = {
        "value": None,
        "low": None,
        "high": None,
        "n": 0,
        "method": "Wilson",
        "level": 0.95,
        "unit": "images",
    }
    curve = [{"eps": r, "robust": unknown, "newly_broken_by": {}} for r in RADII[1:]]
    rewrite(
        study / "run0" / "seed-0",
        curve=curve,
        clean=unknown,
        alone=[{"label": "x", "rows": [{"eps": 0.1, "accuracy": unknown}]}],
    )
    (study / "run0" / "seed-0" / "robustness" / "linf-fast-0a1b2c3d" / "result.npz").unlink()
    text = page_of(study)[1].text
    assert "nan" not in text.lower()
    found = robustness_sections(load_study(study))[0].rows[0][1]
    assert found is not None
    assert math.isnan(found.value)


def test_runs_that_did_not_finish_are_left_out(tmp_path: Path) -> None:
    study = study_of(tmp_path, ["a", "b"])
    write_run(study, "b", 0, folder="run1", status="stopped")
    assert [m.variant.name for m in threats(load_study(study))[0].members] == ["a"]


def test_attacks_with_radii_of_their_own_and_a_top5_are_a_row_each(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["a"])
    run = study / "run0" / "seed-0"
    attack(run)
    first = {"eps": 0.1, "accuracy": estimate(0.4), "top5": estimate(0.65)}
    second = {"eps": 0.05, "accuracy": estimate(0.41), "top5": None}
    alone = [
        {"label": "pgd 10", "attack": "pgd", "rows": [first]},
        {"label": "pgd 20", "attack": "pgd", "rows": [second]},
    ]
    rewrite(run, alone=alone, clean_top5=estimate(0.99))
    table = robustness_sections(load_study(study))[0].individual_attacks
    assert table is not None
    assert table.rows == []
    found = [(label, eps, e.value, five.value if five else None) for _, label, eps, e, five in table.long]
    unattacked = ("no attack", 0.0, 0.97, 0.99)
    assert found == [unattacked, ("pgd 10", 0.1, 0.4, 0.65), ("pgd 20", 0.05, 0.41, None)]
    text = page_of(study)[1].text
    assert "Top-5 accuracy, %" in text
    assert "65.0 (63.0 to 67.0)" in text
    rewrite(run, alone=[each | {"rows": [first]} for each in alone])
    table = robustness_sections(load_study(study))[0].individual_attacks
    assert table is not None
    assert (table.long, table.radii) == ([], [0.0, 0.1])
    for rows, expected in ((table.rows, [0.97, 0.4]), (table.rows5, [0.99, 0.65])):
        figures = [(label, [e and e.value for e in estimates]) for _, label, estimates in rows]
        assert figures == [("pgd 10", expected), ("pgd 20", expected)]
    assert "The same, as top-5 accuracy" in page_of(study)[1].text


def test_results_without_a_top5_of_unattacked_images_leave_it_out(tmp_path: Path) -> None:
    """Those of earlier versions; a radius of 0 of the attack itself stays its own figure."""
    study = write_study(tmp_path, ["a"])
    run = study / "run0" / "seed-0"
    attack(run)
    rows = [{"eps": eps, "accuracy": estimate(0.9 - eps), "top5": estimate(0.95)} for eps in (0, 0.1)]
    rewrite(run, alone=[{"label": "pgd", "attack": "pgd", "rows": rows}])
    table = robustness_sections(load_study(study))[0].individual_attacks
    assert table is not None
    assert [e and e.value for e in table.rows[0][2]] == [0.9, 0.8]
    rewrite(run, alone=[{"label": "pgd", "attack": "pgd", "rows": rows[1:]}])
    table = robustness_sections(load_study(study))[0].individual_attacks
    assert table is not None
    assert [e and e.value for e in table.rows5[0][2]] == [None, 0.95]


def test_attacks_by_themselves_need_no_protocol(tmp_path: Path) -> None:
    study = write_study(tmp_path, ["a"])
    attack(study / "run0" / "seed-0", radii=[], protocol="none")
    rewrite(study / "run0" / "seed-0", key="linf-none-0a1b2c3d", alone=SOUND, attacks=[])
    (section,) = robustness_sections(load_study(study))
    assert section.threat.title == "L∞, individual attacks"
    assert section.radii == []
    for folder in (study, study / "run0" / "seed-0"):
        assert "pgd 40" in page_of(folder)[1].text


def test_results_asked_for_differently_are_not_mixed(tmp_path: Path) -> None:
    study = study_of(tmp_path, ["a", "b"])
    attack(study / "run0" / "seed-0", key="linf-fast-ffffffff", n=100, settings={"images": 100})
    attack(study / "run0" / "seed-0", key="linf-fast-eeeeeeee", radii=[0.05])
    found = threats(load_study(study))
    assert sorted([m.variant.name for m in threat.members] for threat in found) == [["a"], ["a"], ["a", "b"]]
    assert len({threat.title for threat in found}) == 3
