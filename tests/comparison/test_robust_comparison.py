"""Differences in robustness: which radius, which test, what is refused, and from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from stresslens.comparison import robustness
from stresslens.comparison.difference import difference_of
from stresslens.comparison.folders import compare_folders
from stresslens.comparison.robustness import (
    Attacked,
    attack_family,
    attacked_of,
    most_informative_radius,
    robust_at,
)
from stresslens.comparison.schema import RobustContrast, UncomparedPair
from stresslens.core.errors import ConfigError
from stresslens.core.files import read_json, write_json
from stresslens.core.layer_table import LayerTable
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.record import RunRecord
from stresslens.metrics.intervals import wilson
from stresslens.metrics.paired import mcnemar
from stresslens.robustness.result_file import ResultFile

RADII = [0.0, 0.02, 0.04, 0.06, 0.08, 8 / 255 + 0.06]
ATTACKS = [{"name": "pgd", "label": "pgd", "options": {"steps": 20}}]


def margins(strength: float, seed: int, n: int = 300) -> np.ndarray:
    hard = np.random.default_rng(0).normal(0, 0.4, n)
    margin = strength * np.exp(hard + np.random.default_rng(seed + 1).normal(0, 0.15, n))
    margin[:12] = 0
    return margin


def make(
    path: Path,
    margin: np.ndarray,
    *,
    key: str = "linf-fast-00000000",
    index: np.ndarray | None = None,
    **changes: Any,
) -> Path:
    folder = path / "robustness" / key
    folder.mkdir(parents=True, exist_ok=True)
    n = len(margin)
    radii = changes.get("radii", RADII)
    smallest = np.array([0 if m == 0 else next((r for r in radii if r > m), np.inf) for m in margin])
    np.savez(
        folder / "result.npz",
        smallest=smallest,
        labels=np.arange(n) % 10,
        index=np.arange(n) if index is None else index,
    )
    result = {
        "key": key,
        "norm": "linf",
        "protocol": "fast",
        "radii": RADII,
        "attacks": ATTACKS,
        "split": "test",
        "n": n,
        "target": None,
        "clean": wilson(int((smallest > 0).sum()), n).as_json(),
    }
    write_json(folder / "result.json", result | {"aimed": False} | changes)
    record = {
        "format": 1,
        "status": "finished",
        "stages": {},
        "data": {"name": "made", "splits": {"test": "0"}},
    }
    write_json(
        path / "record.json",
        record
        | {"training": {"seconds": 2.0, "epochs": 2}, "layers": LayerTable((), 10, 10, 0, 0, 0).as_json()},
    )
    return path


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """weak, as weak, and strong, of three seeds each."""
    root = tmp_path / "runs" / "study"
    for k, (run, strength) in enumerate({"weak": 0.03, "alike": 0.0301, "strong": 0.05}.items()):
        for seed in range(3):
            make(root / run / f"seed-{seed}", margins(strength, 10 * k + seed))
    contrasts = [["training", "weak", "alike"], ["training", "weak", "strong"]]
    write_json(
        root / "study.json",
        {
            "format": 1,
            "name": "study",
            "runs": ["weak", "alike", "strong"],
            "seeds": [0, 1, 2],
            "contrasts": contrasts,
        },
    )
    return root


def smallest_of(study: Path, run: str) -> np.ndarray:
    folders = [study / run / f"seed-{seed}" / "robustness" / "linf-fast-00000000" for seed in range(3)]
    return np.stack([np.load(folder / "result.npz")["smallest"] for folder in folders])


def test_a_study_by_hand(study: Path) -> None:
    rows = robustness.compare_study_robustness(study)
    assert [(row.a, row.b, row.real) for row in rows] == [
        ("weak", "alike", False),
        ("weak", "strong", True),
    ]
    everyone = np.concatenate([smallest_of(study, run) for run in ("weak", "alike", "strong")])
    shares = {eps: (everyone > eps).mean() for eps in RADII}
    eps = min(RADII[1:], key=lambda eps: abs(shares[eps] - shares[0.0] / 2))
    for row in rows:
        assert (row.norm, row.protocol, row.eps) == ("linf", "fast", eps)
        a, b = (smallest_of(study, getattr(row, side)) > eps for side in "ab")
        by_hand = difference_of("training", row.a, row.b, a.astype(float), b.astype(float))
        assert row.difference.value == pytest.approx(b.mean() - a.mean())
        assert row.p == pytest.approx(by_hand.p)
        assert [point.eps for point in row.curve] == RADII[1:]
        assert row.plan
    assert rows[1].p_holm == pytest.approx(min(1, 2 * rows[1].p))
    assert f"weak and alike are not distinguishable under L∞ {eps:g} (fast): " in rows[0].verdict
    assert f"strong is more robust than weak under L∞ {eps:g} (fast) by " in rows[1].verdict
    json.dumps([row.as_json() for row in rows], allow_nan=False)


def test_the_radius_does_not_depend_on_which_run_an_answer_is_from(study: Path) -> None:
    before = {row.eps for row in robustness.compare_study_robustness(study)}
    described = read_json(study / "study.json")
    write_json(
        study / "study.json",
        described | {"contrasts": [[name, b, a] for name, a, b in described["contrasts"]]},
    )
    assert {row.eps for row in robustness.compare_study_robustness(study)} == before


def test_every_threat_is_tested_and_holm_counts_them_all(study: Path) -> None:
    for run, strength in (("weak", 0.3), ("strong", 0.32)):
        for seed in range(3):
            make(
                study / run / f"seed-{seed}",
                margins(strength, seed),
                key="l2-fast-1",
                norm="l2",
                radii=[0.0, 0.2, 0.3, 0.4],
            )
    rows = robustness.compare_study_robustness(study)
    assert [(row.norm, row.b) for row in rows] == [
        ("linf", "alike"),
        ("linf", "strong"),
        ("l2", "strong"),
    ]
    assert rows[1].p_holm == pytest.approx(min(1, 3 * rows[1].p))


@pytest.mark.breadth(2)
@pytest.mark.parametrize(
    "changes",
    [
        {"protocol": "own", "attacks": [{"name": "square", "label": "square", "options": {}}]},
        {"target": "least_likely"},
        {"settings": {"images": 250}},
        {"settings": {"bpda": ["features.0"]}},
        {"settings": {"passes": 20}},
        {"settings": {"surrogate": "runs/other/seed-0"}},
    ],
)
def test_threats_described_alike_keep_their_own_p(study: Path, changes: dict[str, Any]) -> None:
    """Two ways of attacking at the same radii, one telling and one not: neither overwrites or joins
    the other."""
    protocol = changes.get("protocol", "fast")
    for k, run in enumerate(("weak", "alike", "strong")):
        for seed in range(3):
            make(
                study / run / f"seed-{seed}",
                margins((0.03, 0.0301, 0.05)[k], 10 * k + seed),
                protocol=protocol,
            )
            make(study / run / f"seed-{seed}", margins(0.03, 10 * k + seed), key="linf-other-1", **changes)
    rows = [row for row in robustness.compare_study_robustness(study) if row.b == "strong"]
    assert len({row.eps for row in rows}) == 1
    assert len({row.p for row in rows}) == 2
    assert all(row.p_holm >= row.p for row in rows)
    assert sorted(row.real for row in rows) == [False, True]


def test_one_seed_is_mcnemars_test(study: Path) -> None:
    runs = [study / run / "seed-1" for run in ("weak", "strong")]
    found = compare_folders(runs, metric="robust@0.04")
    a, b = (smallest_of(study, run)[1] > 0.04 for run in ("weak", "strong"))
    only = int((a & ~b).sum()), int((b & ~a).sum())
    assert found.comparison.contrasts[0].p == pytest.approx(binomtest(only[0], sum(only)).pvalue)
    assert found.comparison.metric == "robust@0.04"
    assert "so this is about these weights" in found.comparison.contrasts[0].verdict


def test_a_pair_that_was_not_attacked_alike_is_told_and_left_out(study: Path) -> None:
    for seed in range(3):
        make(study / "strong" / f"seed-{seed}", margins(0.05, seed), index=np.arange(300) + 5)
    rows = robustness.compare_study_robustness(study)
    assert isinstance(rows[0], RobustContrast)
    assert isinstance(rows[1], UncomparedPair)
    assert rows[1].verdict == (
        "weak and strong were not compared: they were attacked on different images (295 of 300 and 300 are "
        "the same)"
    )


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"protocol": "standard"}, "they were attacked in different ways (protocol fast and standard)"),
        (
            {"attacks": [ATTACKS[0] | {"options": {"steps": 5}}]},
            "they were attacked in different ways (the options of the attacks differ)",
        ),
        (
            {"settings": {"bpda": ["features.0"]}},
            "they were attacked in different ways (bpda None and ['features.0'])",
        ),
        ({"settings": {"passes": 5}}, "they were attacked in different ways (passes None and 5)"),
        (
            {"settings": {"surrogate": "runs/s"}},
            "they were attacked in different ways (surrogate None and runs/s)",
        ),
        (
            {"radii": [0.0, 0.03, 0.04, 0.06]},
            "they were attacked at different radii up to 0.04 ([0.02, 0.04] and [0.03, 0.04])",
        ),
    ],
)
def test_other_attacks_are_refused(study: Path, changes: dict[str, Any], why: str) -> None:
    other = make(study / "other" / "seed-0", margins(0.04, 1), **changes)
    with pytest.raises(ConfigError) as error:
        compare_folders([study / "weak" / "seed-0", other], metric="robust@0.04")
    assert str(error.value) == f"weak/seed-0 and other/seed-0 were not compared: {why}"


def test_radii_of_attacks_by_themselves_are_compared_up_to_the_one_asked_for(study: Path) -> None:
    """They break images too, and images broken by them count at the next radius of the protocol."""

    def alone(*radii: float) -> dict[str, Any]:
        rows = [{"eps": eps, "accuracy": wilson(1, 2).as_json()} for eps in radii]
        return {"alone": [{"label": "fgsm", "attack": "fgsm", "target": None, "rows": rows}]}

    one, near, far = (
        make(study / name / "seed-0", margins(0.04, 1), **alone(*radii))
        for name, radii in {"one": [0.01, 0.03], "near": [0.02, 0.03], "far": [0.01, 0.03, 0.09]}.items()
    )
    assert compare_folders([one, far], metric="robust@0.04").comparison.contrasts[0].difference.value == 0
    with pytest.raises(
        ConfigError, match=r"by fgsm at different radii up to 0\.04 \(\[0\.01, 0\.03\] and \[0\.02, 0\.03\]\)"
    ):
        compare_folders([one, near], metric="robust@0.04")
    results = [
        ResultFile.read(folder / "robustness" / "linf-fast-00000000" / "result.json")
        for folder in (one, near, far)
    ]
    assert len({attack_family(result) for result in results}) == 3


def test_other_labels_are_refused_before_other_attacks(study: Path) -> None:
    short = make(study / "short" / "seed-0", margins(0.04, 1, n=100))
    with pytest.raises(ConfigError, match="their test images differ"):
        compare_folders([study / "weak" / "seed-0", short], metric="robust@0.04")


@pytest.mark.parametrize(
    "metric",
    ["f1", "robust", "robust@", "robust@-1", "robust@1/0", "robust@nan", "robust@inf", "accuracy@0.1"],
)
def test_odd_metrics_are_refused(metric: str) -> None:
    with pytest.raises(ConfigError, match="expected accuracy, or robust@RADIUS"):
        robust_at(metric)


def test_radii_and_keys() -> None:
    assert robust_at("robust@8/255") == (pytest.approx(8 / 255), "")
    assert robust_at("robust@0.05:linf-standard") == (0.05, "linf-standard")


def test_what_is_asked_of_a_run_must_be_there_and_be_one(study: Path) -> None:
    folder = RunFolder(study / "weak" / "seed-0")
    assert attacked_of(folder, 8 / 255 + 0.06).right.mean() <= attacked_of(folder, 0.02).right.mean()
    assert attacked_of(folder, 0.0).right.sum() == 288
    with pytest.raises(
        ConfigError, match=r"not attacked at radius 0\.05: linf-fast-00000000 has 0, 0.02, 0.04"
    ):
        attacked_of(folder, 0.05)
    with pytest.raises(ConfigError, match=r"not attacked at radius 0\.04 under l2"):
        attacked_of(folder, 0.04, "l2")
    with pytest.raises(ConfigError, match="not attacked on its validation images"):
        attacked_of(folder, 0.04, split="validation")
    make(folder.path, margins(0.03, 0), key="linf-standard-1", protocol="standard")
    with pytest.raises(
        ConfigError,
        match=r"in several ways; say which: robust@0.04:linf-fast-00000000, robust@0.04:linf-standard-1",
    ):
        attacked_of(folder, 0.04)
    assert attacked_of(folder, 0.04, "linf-s").under == "L∞ 0.04 (standard)"
    (folder.path / "robustness" / "linf-standard-1" / "result.npz").unlink()
    with pytest.raises(ConfigError, match=r"there is no .*result\.npz; attack the run again"):
        attacked_of(folder, 0.04, "linf-s")


def test_of_several_attacks_the_one_that_all_runs_share_is_compared(study: Path) -> None:
    first, *others = sorted(path.parent for path in study.glob("*/seed-*/record.json"))
    sides = [study / "weak", study / "strong"]
    before = [compare_folders(given, metric="robust@0.04").comparison for given in (sides, [study])]
    make(first, margins(0.03, 0), key="linf-standard-1", protocol="standard")
    after = [compare_folders(given, metric="robust@0.04").comparison for given in (sides, [study])]
    assert [each.contrasts for each in after] == [each.contrasts for each in before]
    assert "(fast)" in after[0].contrasts[0].verdict
    for folder in others:
        make(folder, margins(0.03, 0), key="linf-standard-1", protocol="standard")
    ways = "robust@0.04:linf-fast-00000000, robust@0.04:linf-standard-1"
    with pytest.raises(ConfigError, match=rf"all 6 runs were attacked .* say which: {ways}$"):
        compare_folders(sides, metric="robust@0.04")
    found = compare_folders(sides, metric="robust@0.04:linf-standard").comparison.contrasts[0]
    assert found.difference.value == 0


def test_from_the_command_line(type_: Callable[..., tuple[int, str, str]], study: Path) -> None:
    code, out, err = type_("runs/study", "--metric", "robust@0.04", "--plan")
    assert (code, err) == (0, "")
    assert "highest mean robust accuracy under L∞ 0.04 (fast): strong" in out
    assert "strong is more robust than weak under L∞ 0.04 (fast) by" in out
    assert " apart" in out
    assert "test robust@0.04" in out
    code, _, err = type_("runs/study/strong", "runs/study/weak", "--metric", "robust@0.04")
    assert code == 5
    assert "strong is more robust than weak" in err
    code, _, err = type_("runs/study/strong", "runs/study/weak", "--metric", "robust@0.3")
    assert code == 2
    assert "was not attacked at radius 0.3" in err


@pytest.mark.slow
def test_choosing_the_radius_raises_no_false_alarm() -> None:
    """Pairs of runs of equal robustness: p below 0.05 in no more than 5 of 100, as if the radius
    had been given."""
    random = np.random.default_rng(0)
    radii, studies, alarms, chosen = RADII[1:], 600, 0, set()
    result = ResultFile(key="", norm="linf", radii=radii, n=120, clean=wilson(120, 120))
    for _ in range(studies):
        hard = 0.04 * np.exp(random.normal(0, 0.5) * 0.5 + random.normal(0, 0.4, 120))
        runs = []
        for _ in range(2):
            margin = hard * np.exp(random.normal(0, 0.3, 120))
            smallest = np.array([*radii, np.inf])[np.searchsorted(radii, margin, side="right")]
            runs.append(
                Attacked(
                    smallest > 0,
                    np.zeros(120, np.int64),
                    "test",
                    RunRecord(status=""),
                    np.arange(120),
                    smallest,
                    result,
                    0.0,
                )
            )
        eps = most_informative_radius(runs, radii)
        chosen.add(eps)
        a, b = (run.at(eps).right for run in runs)
        alarms += mcnemar(int((a & ~b).sum()), int((b & ~a).sum())) < 0.05
    assert len(chosen) > 1
    assert alarms / studies <= 0.05 + 3 * (0.05 * 0.95 / studies) ** 0.5
