"""Cost as work grows: CPU seconds and peak memory of commands against the number of images, classes,
runs, variants and radii, with fitted exponents and a chart for each.

    python benchmarks/growth.py                    everything, about 40 minutes of one CPU core
    python benchmarks/growth.py radii classes      some of it
    python benchmarks/growth.py --charts docs      writes growth-images.svg, …

Each command runs in a process of its own (n = 1; CPU seconds of it and of the processes that it starts).
What it takes for next to no work is measured too, and taken off: the exponent is the slope of the
straight line through log(cost - cost of next to no work) against log(size). About 1 is linear, 2 is
quadratic. The images are scikit-learn's digits at 28×28, each with noise of its own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from memory import measured
from sklearn.datasets import load_digits

from stresslens.charts.axes import log_axis
from stresslens.charts.chart import Chart
from stresslens.charts.line_charts import Series, line_chart

PROGRAM = [sys.executable, "-m", "stresslens"]
BASE_MB = 40.0
"""Less growth of the peak than this is noise of the allocator."""
SHORT = 0.5
"""Less growth than so many CPU seconds is noise of the start of a process."""

Command = list[str]
Prepare = Callable[[Path, int], Command]
"""Writes the input of one size into a folder, and returns the arguments of the command. Size 0 is next
to no work."""


def images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, 28, 28) uint8 digits, each with noise of its own, and their labels."""
    draws = np.random.default_rng(seed)
    chosen = draws.integers(0, 1797, count)
    small = load_digits().images[chosen] * (255 / 16)
    large = np.pad(small.repeat(3, 1).repeat(3, 2), ((0, 0), (2, 2), (2, 2)))
    noisy = large + draws.normal(0, 20, large.shape)
    return noisy.clip(0, 255).astype(np.uint8), load_digits().target[chosen]


def arrays(home: Path, count: int, *, test: int = 1000, classes: int = 10) -> str:
    """A file of `count` training and `test` test images; returns the data set that reads it."""
    whole: dict[str, np.ndarray] = {}
    for part, number, seed in (("train", count, 0), ("test", test, 1)):
        x, y = images(max(number, 2 * classes), seed)
        whole[f"x_{part}"], whole[f"y_{part}"] = x, y if classes == 10 else np.arange(len(x)) % classes
    np.savez(home / "images.npz", **whole)
    return "{npz: {path: images.npz, validation: 0.1}}"


def predictions(home: Path, name: str, count: int, classes: int, seed: int = 0) -> str:
    """A file of predictions that are right for about seven images of ten."""
    draws = np.random.default_rng([seed, classes])
    labels = np.arange(count) % classes
    logits = draws.normal(0, 1, (count, classes)).astype(np.float32)
    logits[np.arange(count), np.where(draws.random(count) < 0.7, labels, (labels + 1) % classes)] += 4
    odds = np.exp(logits)
    np.savez(home / name, probabilities=odds / odds.sum(1, keepdims=True), labels=labels)
    return name


def train(home: Path, size: int) -> Command:
    data = arrays(home, size or 200)
    return ["train", data, "simple_cnn", "train.epochs=1", "train.threads=1", "--out", "runs"]


def evaluate_model(home: Path, size: int) -> Command:
    data = arrays(home, 200, test=size or 100)
    return ["train", data, "linear", "train.epochs=1", "train.threads=1", "--out", "runs"]


def data_stats(home: Path, size: int) -> Command:
    return ["data", "stats", arrays(home, size or 200)]


def data_check(home: Path, size: int) -> Command:
    return ["data", "check", arrays(home, size or 200)]


def label_errors(home: Path, size: int) -> Command:
    data = arrays(home, size or 200)
    return ["data", "labels", data, "--model", "linear", "train.epochs=1", "train.threads=1"]


def compare_files(home: Path, size: int) -> Command:
    return ["compare", *(predictions(home, f"{name}.npz", size or 100, 10, k) for k, name in enumerate("ab"))]


def attack(home: Path, size: int) -> Command:
    data = arrays(home, 200, test=size or 20)
    settings = "robustness={radii: [0.05], protocol: [{pgd: {steps: 5}}], images: all}"
    return ["train", data, "linear", "train.epochs=1", "train.threads=1", settings, "--out", "runs"]


def classes_trained(home: Path, size: int) -> Command:
    data = arrays(home, 20_000 if size else 200, classes=size or 2, test=10_000 if size else 100)
    return ["train", data, "linear", "train.epochs=1", "train.threads=1", "--out", "runs"]


def classes_evaluated(home: Path, size: int) -> Command:
    return ["evaluate", predictions(home, "a.npz", 10_000 if size else 100, size or 2)]


def classes_compared(home: Path, size: int) -> Command:
    count = 10_000 if size else 100
    return [
        "compare",
        *(predictions(home, f"{name}.npz", count, size or 2, k) for k, name in enumerate("ab")),
    ]


def seeds(home: Path, size: int) -> Command:
    settings = ["train.epochs=1", "train.threads=1", f"repeats={size or 1}"]
    return ["train", "digits", "linear", *settings, "--out", "runs"]


def seeds_compared(home: Path, size: int) -> Command:
    """Two variants of so many seeds."""
    names = [f"{v}-seed{k}" for v in "ab" for k in range(size or 1)]
    return ["compare", *(predictions(home, f"{name}.npz", 1000, 10, k) for k, name in enumerate(names))]


def variants(home: Path, size: int) -> Command:
    rates = ", ".join(f"{0.01 * (1 + k):g}" for k in range(size or 1))
    text = "data: digits\nmodel: linear\ntrain: {epochs: 1, threads: 1}\n"
    (home / "grid.yaml").write_text(f"{text}grid: {{train.lr: [{rates}]}}\n")
    return ["run", "grid.yaml", "--out", "runs"]


def radii(home: Path, size: int) -> Command:
    listed = ", ".join(f"{0.2 * (1 + k) / (size or 1):g}" for k in range(size or 1))
    settings = f"robustness={{radii: [{listed}], protocol: [{{pgd: {{steps: 10}}}}], images: 360}}"
    return ["train", "digits", "simple_cnn", "train.epochs=2", "train.threads=1", settings, "--out", "runs"]


@dataclass(frozen=True)
class Growth:
    """What grows, to which sizes, and the commands whose cost is measured."""

    sizes: Sequence[int]
    unit: str
    commands: Mapping[str, Prepare]


GROWTHS = {
    "images": Growth(
        (1_000, 10_000, 60_000),
        "images",
        {
            "train, one epoch": train,
            "evaluate and audit": evaluate_model,
            "data stats": data_stats,
            "data check": data_check,
            "data labels": label_errors,
            "compare two files": compare_files,
            "attack, 5 steps of PGD": attack,
        },
    ),
    "classes": Growth(
        (10, 100, 1_000),
        "classes",
        {
            "train and evaluate": classes_trained,
            "evaluate a file": classes_evaluated,
            "compare two files": classes_compared,
        },
    ),
    "runs": Growth((1, 10, 100), "seeds of a variant", {"train": seeds, "compare files": seeds_compared}),
    "variants": Growth((3, 10, 30, 100), "variants of a study", {"train and report": variants}),
    "radii": Growth((1, 10, 100), "radii of a curve", {"attack": radii}),
}


@dataclass
class Cost:
    """CPU seconds and peak memory in MB of one command at each size; size 0 is next to no work."""

    seconds: dict[int, float] = field(default_factory=dict)
    megabytes: dict[int, float] = field(default_factory=dict)


def exponent(costs: Mapping[int, float], floor: float) -> float | None:
    """The slope of log(cost - cost of next to no work) against log(size), by least squares over the sizes
    whose cost grew by more than `floor`; None where fewer than two did."""
    grown = [(size, cost - costs[0]) for size, cost in costs.items() if size and cost - costs[0] > floor]
    if len(grown) < 2:
        return None
    x, y = np.log(np.array(grown, float)).T
    return float(np.polyfit(x, y, 1)[0])


def cost_of(prepare: Prepare, size: int) -> tuple[float, float]:
    """CPU seconds and peak memory in MB of a command in a process of its own. Raises SystemExit if it
    fails."""
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        variables = {"XDG_CACHE_HOME": str(home / "cache"), "OMP_NUM_THREADS": "1"}
        usage, _, _ = measured([*PROGRAM, *prepare(home, size)], home, variables)
        return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000


def costs_of(growth: Growth) -> Iterator[tuple[str, Cost]]:
    for name, prepare in growth.commands.items():
        cost = Cost()
        for size in (0, *growth.sizes):
            cost.seconds[size], cost.megabytes[size] = cost_of(prepare, size)
        yield name, cost


def written(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f}"


def chart(growth: Growth, found: Mapping[str, Cost]) -> Chart:
    """The CPU seconds of each command, on two logarithmic axes, with the exponents in the legend."""
    series = [
        Series(
            f"{name}: exponent {written(exponent(cost.seconds, SHORT))}",
            [(float(size), seconds) for size, seconds in cost.seconds.items() if size],
            place,
        )
        for place, (name, cost) in enumerate(found.items())
    ]
    highest = [seconds for each in series for _, seconds in each.points]
    axes = (log_axis([float(size) for size in growth.sizes]), log_axis(highest))
    return line_chart(
        series,
        title=f"CPU seconds of a command against the number of {growth.unit}",
        x_label=growth.unit,
        y_label="CPU seconds",
        axes=axes,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", choices=[*GROWTHS, []], help="default: everything")
    parser.add_argument("--charts", type=Path, help="the folder of the charts")
    asked = parser.parse_args()
    for what in asked.what or GROWTHS:
        growth, found = GROWTHS[what], {}
        sizes = [f"{size:,}" for size in growth.sizes]
        print(f"\n| {growth.unit} | none | {' | '.join(sizes)} | exponent | MB | exponent of memory |")
        print(f"|---|{'--:|' * (len(sizes) + 4)}", flush=True)
        for name, cost in costs_of(growth):
            found[name] = cost
            seconds = [f"{value:.1f}" for value in cost.seconds.values()]
            slope, peak = exponent(cost.seconds, SHORT), max(cost.megabytes.values())
            slopes = f"{written(slope)} | {peak:,.0f} | {written(exponent(cost.megabytes, BASE_MB))}"
            print(f"| {name} | {' | '.join(seconds)} | {slopes} |", flush=True)
        if asked.charts:
            chart(growth, found).save(asked.charts / f"growth-{what}.svg")


if __name__ == "__main__":
    main()
