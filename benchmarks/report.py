"""The report of large studies: how large its pages are, how long they take to write, and to open in
headless Chromium.

    python benchmarks/report.py              # 1, 24 and 100 runs of 10 classes, and 4 runs of 1,000 classes

The folders of runs are written by the tests' generator: 10,000 test images, 200 epochs, 238
pictures a run. "Again" is the same report with nothing changed, "changed" with one run's record
changed. Prints megabytes, and seconds with their n.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tests" / "report"))

from chromium import BINARY, Chromium
from folders import write_study

from stresslens.report.page import write_report

TURNS = 5
STUDIES: dict[str, tuple[int, int, int, int]] = {
    "1 run": (1, 1, 10, 28),
    "24 runs": (8, 3, 10, 28),
    "24 recipes": (24, 1, 10, 28),
    "100 runs": (10, 10, 10, 28),
    "100 recipes": (100, 1, 10, 32),
    "4 runs, 1,000 classes": (2, 2, 1000, 40),
}
"""Recipes, seeds, classes, and the pictures' sides."""


def seconds_to_write(study: Path) -> float:
    start = time.perf_counter()
    write_report(study)
    return time.perf_counter() - start


def main() -> None:
    print(
        f"median of {TURNS} turns; the first write is one turn; the largest of the runs' pages; seconds to "
        "open study and run"
    )
    print(
        f"{'study':22} {'write':>7} {'again':>7} {'changed':>7} {'study MB':>9} {'run MB':>7} {'open s':>11}"
    )
    with tempfile.TemporaryDirectory() as root:
        tab = Chromium(Path(root) / "profile") if BINARY else None
        for name, (recipes, seeds, classes, side) in STUDIES.items():
            images = max(10_000, 20 * classes)
            options = {
                "classes": [f"class {k}" for k in range(classes)],
                "images": images,
                "side": side,
                "channels": 3,
            }
            names = [f"recipe-{k:03d}" for k in range(recipes)]
            study = write_study(
                Path(root) / name, names, seeds, epochs=200, pictures=238, accuracy=0.9, **options
            )
            first = seconds_to_write(study)
            again = float(np.median([seconds_to_write(study) for _ in range(TURNS)]))
            (study / "run0" / "seed-0" / "config.yaml").write_text("lr: 0.1")
            changed = seconds_to_write(study)
            pages = [study / "report.html", study / "run0" / "seed-0" / "report.html"]
            sizes = [page.stat().st_size / 1e6 for page in (pages[0], *study.glob("run*/*/report.html"))]
            opened = "–"
            if tab:
                times = []
                for page in pages:
                    times.append(float(np.median([tab.open(page, width=1440) for _ in range(TURNS)])))
                    assert tab.errors == [], tab.errors
                    assert tab.requests == [page.as_uri()], tab.requests
                opened = " ".join(f"{t:.2f}" for t in times)
            print(
                f"{name:22} {first:7.2f} {again:7.2f} {changed:7.2f} {sizes[0]:9.2f} {max(sizes[1:]):7.2f} "
                f"{opened:>11}"
            )
        if tab:
            tab.__exit__(None, None, None)


if __name__ == "__main__":
    main()
