"""Folders of runs and of studies as they lie on the disk, written by hand, for tests of the report
and its benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SPLITS = ("test", "validation", "train")


def estimate(
    value: float, *, spread: float = 0.02, n: int = 360, unit: str = "images", method: str = "Wilson"
) -> dict[str, Any]:
    low, high = value - spread, value + spread
    return {"value": value, "low": low, "high": high, "n": n, "method": method, "level": 0.95, "unit": unit}


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def layer(name: str, kind: str, output: list[int], parameters: int, multiply_adds: int) -> dict[str, Any]:
    counts = {
        "parameters": parameters,
        "trainable": parameters,
        "neurons": 8 * len(output),
        "multiply_adds": multiply_adds,
    }
    return {"name": name, "type": kind.title(), "kind": kind, "output": output} | counts


def layers(width: int = 8) -> dict[str, Any]:
    rows = [
        layer("conv", "conv", [width, 8, 8], 10 * width, 576 * width),
        layer("fc", "linear", [10], 641 * width, 640 * width),
    ]
    total = sum(row["parameters"] for row in rows)
    megabytes = {"input_megabytes": 0.0002, "activation_megabytes": 0.004, "parameter_megabytes": 0.02}
    return {"layers": rows, "parameters": total, "trainable": total, "neurons": 32, **megabytes}


def scores(accuracy: float, images: int) -> dict[str, dict[str, Any]]:
    spread = 1 / images**0.5 / 2
    named = {
        "accuracy": accuracy,
        "top5": 0.999,
        "balanced_accuracy": accuracy - 0.001,
        "majority_baseline": 0.103,
    }
    named |= {"cross_entropy": 0.1, "brier": 0.07, "ece": 0.03, "auroc": 0.998, "auprc": 0.991, "aurc": 0.004}
    named |= {"cross_entropy_calibrated": 0.09, "brier_calibrated": 0.06, "ece_calibrated": 0.01}
    return {
        name: estimate(
            value,
            spread=min(spread, value / 2, 1 - value),
            n=images,
            method="Wilson" if value == accuracy else "bootstrap",
        )
        for name, value in named.items()
    }


def bins(images: int, slope: float) -> list[dict[str, Any]]:
    rows = []
    for k in range(15):
        confidence, n = (k + 0.5) / 15, images * k**3 // 11025
        accuracy = estimate(max(0.03, min(0.97, confidence**slope)), spread=0.03, n=n) if n else None
        rows.append(
            {
                "low": k / 15,
                "high": (k + 1) / 15,
                "n": n,
                "confidence": confidence if n else None,
                "accuracy": accuracy,
            }
        )
    return rows


def slices(accuracy: float) -> list[dict[str, Any]]:
    def rows(*values: str) -> list[dict[str, Any]]:
        return [
            {"value": v, "n": 120 - k, "accuracy": estimate(accuracy - 0.03 * k)}
            for k, v in enumerate(values)
        ]

    by_light = rows("bright (0.41 to 0.56)", "medium (0.31 to 0.41)", "dark (0.02 to 0.31)")
    return [
        {"by": "brightness", "p": 0.012, "rows": by_light},
        {"by": "camera", "p": None, "rows": rows("phone", "scanner")},
    ]


FINDINGS = [
    {
        "audit": "near duplicates across splits",
        "status": "sign",
        "severity": "serious",
        "evidence": "3 test images are near duplicates of training images",
        "n": 360,
        "remedy": "remove them from the training split, or give both a group",
        "items": [f"cats/{i:04d}.jpg" for i in range(30)],
    },
    {
        "audit": "class imbalance",
        "status": "sign",
        "severity": "minor",
        "evidence": "9 has 4 times as many images as 3",
        "n": 1797,
    },
    {
        "audit": "constant images",
        "status": "no sign",
        "severity": "none",
        "evidence": "",
        "n": 1797,
        "remedy": "",
        "items": [],
    },
    {
        "audit": "group leakage",
        "status": "not checked",
        "severity": "none",
        "evidence": "no group is given",
        "n": 0,
    },
]


def write_pictures(folder: Path, k: int, pictures: int, side: int, channels: int) -> list[dict[str, Any]]:
    """A sheet of gradients and examples.json: a third samples, a third the surest mistakes, a third
    more of confused pairs."""
    if not pictures:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    columns = 16
    rows = -(-pictures // columns)
    random = np.random.default_rng(k)
    y, x = np.mgrid[0 : rows * side, 0 : columns * side]
    sheet = (x * 7 + y * 5 + random.integers(0, 40, (rows * side, columns * side))) % 256
    grid = np.stack([sheet, 255 - sheet, sheet // 2], -1) if channels == 3 else sheet
    Image.fromarray(grid.astype(np.uint8)).save(folder / "pictures.png")
    entries = []
    for i in range(pictures):
        kind = ("sample", "mistake", "cell")[3 * i // pictures]
        truth = i % k
        predicted = (truth + (0 if kind == "sample" else 1 + i % 2)) % k
        p = 0.99 - 0.4 * i / pictures
        entries.append(
            {
                "file": "pictures.png",
                "box": [i % columns * side, i // columns * side, side, side],
                "index": i,
                "truth": truth,
                "predicted": predicted,
                "probability": p,
                "probabilities": [
                    [predicted, p],
                    [(predicted + 1) % k, 0.7 * (1 - p)],
                    [(predicted + 2) % k, 0.3 * (1 - p)],
                ],
                "kind": kind,
                "source": f"test/{truth}/picture-{i:05d}.jpg",
            }
        )
    write_json(folder / "examples.json", entries)
    return entries


def write_run(
    study: Path,
    run: str,
    seed: int,
    *,
    folder: str = "",
    epochs: int = 5,
    pictures: int = 18,
    images: int = 360,
    side: int = 8,
    channels: int = 1,
    accuracy: float | None = None,
    **changes: Any,
) -> Path:
    """A finished run; `changes` replace keys of its record, None removing them."""
    path = study / (folder or run) / f"seed-{seed}"
    classes = changes.get("classes") or [str(i) for i in range(10)]
    k, each = len(classes), max(4, images // len(classes))
    right = accuracy if accuracy is not None else 0.95 + 0.01 * ((sum(map(ord, run)) + 3 * seed) % 4)
    missed = max(2, round(each * (1 - right)))
    confusion = [[0] * k for _ in range(k)]
    for i, row in enumerate(confusion):
        row[i] = each - missed
        row[(i + 1) % k] += missed - missed // 2
        row[(i + 2) % k] += missed // 2
    table = {
        name: [estimate(0.9 + 0.1 * i / k, spread=0.02) for i in range(k)]
        for name in ("precision", "recall", "f1", "auroc", "auprc")
    }
    coverage = [c / 100 for c in range(1, 101)]
    record = {
        "format": 1,
        "version": "0.1.0",
        "status": "finished",
        "message": "",
        "study": study.name,
        "run": run,
        "seed": seed,
        "classes": classes,
        "shape": [channels, side, side],
        "data": {
            "name": "digits",
            "fingerprint": "8f3c",
            "sizes": {"train": 1077, "validation": images, "test": images},
            "notes": ["a note"],
            "findings": FINDINGS,
        },
        "training": {
            "epochs": epochs,
            "chosen_epoch": epochs - 1,
            "steps": 17 * epochs,
            "seconds": 4.2 + len(run) / 10 + seed / 5,
            "images_per_second": 1300.0,
            "stopped": "all epochs done",
            "select": "accuracy",
            "peak_memory": 812_000_000,
        },
        "layers": layers(8 * (1 + sum(map(ord, run)) % 5)),
        "scores": {split: scores(right, images) for split in SPLITS},
        "per_class": {"test": table | {"support": [each] * k}},
        "confusion": {"test": confusion},
        "reliability": {"test": {"bins": bins(images, 1.6), "calibrated": bins(images, 1.05)}},
        "risk_coverage": {"test": {"coverage": coverage, "risk": [(1 - right) * c**3 for c in coverage]}},
        "slices": {"test": slices(right)},
        "calibration": {"temperature": 1.83, "fitted_on": "validation", "n": images},
        "reads_of_test": 1,
        "watched_test": False,
        "resumed_from": [{"epoch": 1, "step": 3}],
        "findings": [{"kind": "checkpoint", "message": "checkpoint.pt could not be read"}],
        "stages": {},
    }
    record = {key: value for key, value in (record | changes).items() if value is not None}
    write_json(path / "record.json", record)
    random = np.random.default_rng(seed + len(run))
    noise = random.normal(0, 0.02, epochs)
    lines = [
        {
            "epoch": e,
            "loss": 2 / e**0.7 + 0.02 * seed + abs(noise[e - 1]),
            "lr": 0.001,
            "validation": {
                "loss": 1.5 / e**0.5,
                "accuracy": min(1.0, right * (1 - 0.6 / (e + 1)) + noise[e - 1] / 4),
            },
        }
        for e in range(1, epochs + 1)
    ]
    (path / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines) + '{"epoch": 99, "lo'
    )
    write_json(
        path / "environment.json",
        {"python": "3.11.9", "packages": {"torch": "2.13"}, "command": ["stresslens", "run", "a b.yaml"]},
    )
    (path / "config.yaml").write_text("train:\n  lr: 1e-3  # </pre><script>\n")
    write_pictures(path / "examples", k, pictures, side, channels)
    return path


def matrix(runs: list[str]) -> dict[str, Any]:
    k = len(runs)
    place = [(7 * i) % k for i in range(k)]
    difference = [[None if i == j else 0.004 * (place[i] - place[j]) for j in range(k)] for i in range(k)]

    def around(by: float) -> list[list[float | None]]:
        return [[None if d is None else d + by for d in row] for row in difference]

    return {
        "recipes": runs,
        "difference": difference,
        "low": around(-0.01),
        "high": around(0.01),
        "p_holm": [[None if d is None else min(1.0, 0.0004 / abs(d)) for d in row] for row in difference],
        "real": [[d is not None and abs(d) > 0.01 for d in row] for row in difference],
    }


PLAN = "telling 0.5 points apart would take about 9,000 test images and 5 seeds"


def write_study(
    root: Path,
    runs: list[str],
    seeds: int = 1,
    name: str = "digits-optimizers",
    *,
    contrasts: str = "optimizer",
    **options: Any,
) -> Path:
    study = root / "study"
    for place, run in enumerate(runs):
        for seed in range(seeds):
            write_run(study, run, seed, folder=f"run{place}", **options)
    pairs = [[contrasts, runs[0], other] for other in runs[1:]]
    head = (
        "stresslens run studies/x.yaml   about 1 min\n\nIs adam\nbetter?\nExpect:\n"
        "  adam 98.0    sgd 97.1\nNone differs."
    )
    command = ["stresslens", "run", "studies/x.yaml", "train.epochs=5"]
    about = {
        "runs": runs,
        "seeds": list(range(seeds)),
        "contrasts": pairs,
        "command": command,
        "source": "studies/x.yaml",
    }
    write_json(study / "study.json", {"format": 1, "name": name, "head": head, **about})
    rows, costs = [], []
    for place, (contrast, a, b) in enumerate(pairs):
        real = place % 3 == 1
        unclear = (
            f"{a} and {b} are not distinguishable: {b} is ahead by 0.4 points (-1.6 to 2.4; "
            f"{seeds} seeds, 360 images)"
        )
        verdict = (
            f"{b} is better than {a} by 3.4 points (1.4 to 5.4; {seeds} seeds, 360 images)"
            if real
            else unclear
        )
        pair = {"contrast": contrast, "a": a, "b": b}
        figures = {
            "p": 0.001 if real else 0.21,
            "p_holm": 0.002 if real else 0.42,
            "plan": None if real else PLAN,
        }
        rows.append(
            pair
            | figures
            | {
                "difference": estimate(0.034 if real else 0.004, unit="both"),
                "real": real,
                "verdict": verdict,
            }
        )
        ratio = estimate(2.1, spread=0.2, n=seeds, unit="seeds", method="paired t of the logarithms")
        exact = ratio | {"value": 1.6, "low": None, "high": None}
        costs.append(
            pair
            | {
                "measure": "seconds per epoch",
                "ratio": ratio,
                "real": True,
                "verdict": f"{b} takes 2.1 times as long",
            }
        )
        costs.append(
            pair
            | {
                "measure": "parameters",
                "ratio": exact,
                "real": True,
                "verdict": f"{b} has 1.6 times the parameters",
            }
        )
    recipes = {
        run: estimate(0.95 + 0.004 * (i % 7), unit="both", method="crossed bootstrap")
        for i, run in enumerate(runs)
    }
    comparison = {
        "format": 1,
        "split": "test",
        "metric": "accuracy",
        "level": 0.95,
        "recipes": recipes,
        "contrasts": rows,
    }
    verdicts = ["highest mean accuracy: adam, 98.2 % (96.3 to 99.4)", *(row["verdict"] for row in rows)]
    comparison |= {"costs": costs, "verdicts": verdicts} | (
        {"matrix": matrix(runs)} if 3 <= len(runs) <= 24 else {}
    )
    write_json(study / "comparison.json", comparison)
    return study
