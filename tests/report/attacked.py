"""Results of attacks as they lie on the disk, written by hand for tests of the report: every image
has a margin of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from folders import PLAN, estimate, write_json

from stresslens.metrics.intervals import wilson
from stresslens.robustness.example_images import adversarial_rows, save_adversarial_examples

RADII = [0.0, 0.02, 0.04, 0.06, 0.08, 0.1]
NAMES = ["fgsm", "pgd 20", "apgd ce"]
AUDITS = [
    {
        "audit": "gradients",
        "status": "sign",
        "severity": "serious",
        "evidence": "the gradient of 31 of 128 images is exactly zero",
        "n": 128,
        "remedy": "attack the logits, or a loss that does not vanish",
    },
    {
        "audit": "converged",
        "status": "sign",
        "severity": "minor",
        "evidence": "twice the steps break 3 images more",
        "n": 128,
    },
    {"audit": "evaluation mode", "status": "no sign", "severity": "none", "evidence": "", "n": 200},
    {
        "audit": "transfer",
        "status": "not checked",
        "severity": "none",
        "evidence": "no surrogate was given",
        "n": 0,
    },
]


def attack(
    run: Path,
    *,
    strength: float = 0.06,
    n: int = 200,
    seed: int = 0,
    norm: str = "linf",
    protocol: str = "fast",
    key: str = "",
    radii: list[float] | None = None,
    side: int = 8,
    channels: int = 1,
    alone: bool = True,
    findings: list[dict[str, Any]] | None = None,
    index: np.ndarray | None = None,
    **changes: Any,
) -> Path:
    """A result in `run`; its images have margins around `strength`, and 5 % are wrong unattacked."""
    radii = RADII if radii is None else radii
    random = np.random.default_rng(1000 + seed)
    hard = np.random.default_rng(7).normal(0, 0.4, n)
    margin = strength * np.exp(hard + random.normal(0, 0.2, n))
    margin[np.random.default_rng(8).random(n) < 0.05] = 0
    positive = [r for r in radii if r > 0]
    smallest = np.array([0 if m == 0 else next((r for r in positive if r > m), np.inf) for m in margin])
    broken = np.flatnonzero((smallest > 0) & np.isfinite(smallest))
    by = np.where((smallest > 0) & np.isfinite(smallest), random.choice(3, n, p=[0.6, 0.3, 0.1]), -1)
    labels = np.arange(n) % 10
    index = np.arange(n) if index is None else index
    clean = np.where(smallest > 0, labels, (labels + 1) % 10)
    images = pictures(n, side, channels)
    arrays = {
        "index": index.astype(np.int64),
        "labels": labels,
        "clean_prediction": clean,
        "clean_confidence": 0.5 + 0.5 * random.random(n),
        "smallest": smallest,
        "by": by,
        "names": np.array(NAMES),
        "steps": random.integers(1, 30, n),
        "rows": broken,
        "adversarials": np.clip(
            images[broken] + smallest[broken, None, None, None] * signs(n, side, channels)[broken], 0, 1
        ),
        "adversarial_prediction": (labels[broken] + 1) % 10,
        "adversarial_confidence": 0.4 + 0.5 * random.random(len(broken)),
        "size": smallest[broken],
    }
    key = key or f"{norm}-{protocol}-0a1b2c3d"
    folder = run / "robustness" / key
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "result.npz", **arrays)

    def share(right: int) -> dict[str, Any]:
        return wilson(right, n).as_json()

    rows = []
    for r in positive:
        at = np.bincount(by[(smallest == r)], minlength=3)
        rows.append(
            {
                "eps": r,
                "robust": share(int((smallest > r).sum())),
                "newly_broken_by": dict(zip(NAMES, map(int, at))),
            }
        )
    single = []
    for label, name, factor in (("fgsm", "fgsm", 1.15), ("pgd 40", "pgd", 1.02)):
        each = [
            {
                "eps": r,
                "accuracy": share(right),
                "top5": None,
                "valid": share(right),
                "outside": 0,
                "silent": 0,
            }
            for r in radii
            for right in [int((factor * margin > r).sum())]
        ]
        single.append({"label": label, "attack": {name: {}}, "target": None, "rows": each})
    result = {
        "format": 1,
        "key": key,
        "fingerprint": "f",
        "norm": norm,
        "radii": radii,
        "protocol": protocol,
        "attacks": [{"name": name.split()[0], "label": name, "options": {}} for name in NAMES],
        "split": "test",
        "n": n,
        "asked": n,
        "seed": 0,
        "target": None,
        "aimed": False,
        "classes": 10,
        "clean": share(int((smallest > 0).sum())),
        "reported_clean": float((smallest > 0).mean()),
        "curve": rows,
        "alone": single if alone else [],
        "findings": AUDITS if findings is None else findings,
        "traces": [],
        "steering": {"precision": "float32", "batch": 128, "passes": 1, "threads": 2},
        "cost": {"seconds": 12.5, "forwards": 123_456, "gradients": 98_765, "audit_seconds": 3.5},
        "version": "0.1.0",
        "settings": {},
    }
    write_json(folder / "result.json", result | changes)
    places, facts = adversarial_rows(arrays)
    save_adversarial_examples(
        folder / "examples", images[broken[places]], arrays["adversarials"][places], facts
    )
    return folder


def pictures(n: int, side: int, channels: int) -> np.ndarray:
    """(n, channels, side, side) gradients between 0 and 1, each its own."""
    y, x = np.mgrid[0:side, 0:side] / max(1, side - 1)
    each = [(0.5 + 0.5 * np.sin(3 * x + k) * np.cos(4 * y + 2 * k)) for k in range(n)]
    return np.repeat(np.stack(each)[:, None], channels, axis=1)


def signs(n: int, side: int, channels: int) -> np.ndarray:
    return np.random.default_rng(3).choice([-1.0, 1.0], (n, channels, side, side))


def corrupt(run: Path, *, start: float = 0.95) -> None:
    rows = []
    for k, name in enumerate(("noise", "blur", "contrast", "fog")):
        accuracies = [max(0.05, start - (0.02 + 0.02 * k) * s * s / 2) for s in range(1, 6)]
        severities = [{"severity": s, "accuracy": estimate(a)} for s, a in enumerate(accuracies, 1)]
        rows.append({"name": name, "options": {}, "severities": severities})
    facts = {"format": 1, "fingerprint": "c", "split": "test", "n": 360, "seed": 0, "cost": {"seconds": 2.0}}
    facts |= {
        "clean": estimate(start),
        "corruptions": rows,
        "mean": estimate(start - 0.2, method="bootstrap"),
    }
    write_json(run / "corruptions" / "result.json", facts)


def certify(run: Path, *, start: float = 0.9, top: float = 1.0) -> np.ndarray:
    """100 images: 7 abstained, some wrong, the others certified for radii up to `top`. Returns the radii."""
    radius = np.linspace(0.001, top, 100)
    radius[:7] = np.nan
    radius[7 : round(100 * (1 - start))] = -np.inf
    curve = [
        {"radius": r, "certified": wilson(int((radius > r).sum()), 100).as_json()}
        for r in np.linspace(0, top, 11)
    ]
    facts = {
        "format": 1,
        "certificate": "smoothing",
        "options": {"sigma": 0.25},
        "split": "test",
        "n": 100,
        "norm": "l2",
    }
    facts |= {
        "abstained": 7,
        "curve": curve,
        "smoothed_accuracy": estimate(start, n=100),
        "cost": {"seconds": 9.0},
    }
    folder = run / "certificates" / "smoothing-0a1b2c3d"
    write_json(folder / "result.json", facts)
    np.savez(folder / "result.npz", radius=radius, index=np.arange(100), labels=np.arange(100) % 10)
    return radius


def robust_row(a: str, b: str, value: float, *, real: bool, **more: Any) -> dict[str, Any]:
    curve = [{"eps": eps, "difference": estimate(value * eps / 0.1)} for eps in (0.05, 0.1)]
    verdict = (
        f"{b} is more robust than {a} under L∞ 0.05 (fast) by 5 points"
        if real
        else f"{a} and {b} are not distinguishable"
    )
    row = {
        "contrast": "training",
        "a": a,
        "b": b,
        "norm": "linf",
        "protocol": "fast",
        "eps": 0.05,
        "difference": estimate(value),
    }
    return (
        row
        | {"p": 0.01, "p_holm": 0.02, "real": real, "verdict": verdict, "plan": PLAN, "curve": curve}
        | more
    )


def with_robustness(study: Path, rows: list[dict[str, Any]]) -> None:
    comparison = json.loads((study / "comparison.json").read_text())
    write_json(study / "comparison.json", comparison | {"robustness": rows})


def transfer(names: list[str], *, eps: float = 0.1) -> dict[str, Any]:
    cells = [
        [wilson(0 if i == j else 60 + 5 * (i % 4), 100).as_json() for j in range(len(names))]
        for i in range(len(names))
    ]
    group = {
        "norm": "linf",
        "protocol": "fast",
        "key": "k",
        "eps": eps,
        "sources": names,
        "targets": names,
        "accuracy": cells,
    }
    return {
        "format": 1,
        "fingerprint": "f",
        "groups": [group],
        "left_out": ["own: not run unless --trust"],
        "findings": [],
    }
