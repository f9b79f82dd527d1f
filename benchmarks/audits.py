"""How often are the audits wrong? Sound controls drawn at random, and planted faults.

    python benchmarks/audits.py                      # 200 controls, then every fault; about an hour
    python benchmarks/audits.py controls 2000 2200   # the controls of these seeds
    python benchmarks/audits.py faults 0 4           # every fault on four settings

The controls and faults are those of the tests (tests/plugins/audits/controls.py, planted.py), and
go through `sl.attack` with all its audits. A control is a small network of one of nine kinds, of 2
to 20 classes, on images of 5×5 to 40×40 pixels and 1 to 4 channels, in linf, l2 or l1, in float32,
float64, float16 or bfloat16, attacked with `fast` or with FGSM, PGD and APGD. A serious sign there
is a false alarm. A fault is caught if some audit gives a serious sign.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import torch

from stresslens.metrics.intervals import wilson

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "plugins" / "audits"))

from controls import NORMS, Control, alarms, control
from planted import FAULTS, named


def false_alarms(first: int, last: int) -> None:
    """Prints every control with its serious signs, and the share of controls with one."""
    began, wrong, signs = time.perf_counter(), 0, Counter[str]()
    unchecked: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for seed in range(first, last):
        drawn = control(seed)
        result = drawn.attacked()
        serious = alarms(result)
        wrong += bool(serious)
        signs.update(serious)
        unchecked.update(f.audit for f in result.findings if "could not be carried out" in f.evidence)
        kinds.update(drawn.name.split(", ")[3:5])
        print(f"{seed}: {drawn.name}: {', '.join(serious) or 'no serious sign'}", flush=True)
        for finding in result.findings:
            if finding.severity == "serious":
                print(f"  {finding.audit}: {finding.evidence}", flush=True)
    n = last - first
    share = wilson(wrong, n)
    print(
        f"{n} sound controls (seeds {first} to {last - 1}; {dict(sorted(kinds.items()))}): {wrong} with a "
        f"serious sign, {100 * share.value:.1f} % ({100 * share.low:.1f} to {100 * share.high:.1f}); "
        f"by audit {dict(signs)}; audits that failed {dict(unchecked)}; {time.perf_counter() - began:.0f} s"
    )


def settings(first: int, last: int) -> list[Control]:
    """Controls of 120 images with two to four channels, linf and l2 and four precisions in turn. In l1
    the planted attacks, which are PGD of one pixel a step, are too weak without any fault."""
    precisions = (torch.float32, torch.float16, torch.float64, torch.bfloat16)
    kinds = ("mlp", "cnn with batch norm", "linear", "max-pool net")
    return [
        control(
            seed,
            architecture=kinds[seed % 4],
            norm=NORMS[seed % 2],
            precision=precisions[seed % 4],
            shape=(2 + seed % 3, 8, 8),
            classes=3 + seed % 5,
            images=120,
        )
        for seed in range(first, last)
    ]


def caught(first: int, last: int) -> None:
    """Prints for each fault in how many settings an audit gives a serious sign, and which ones."""
    drawn = settings(first, last)
    print(f"| fault | caught as serious, of {len(drawn)} | by |\n|---|--:|---|")
    for fault in ("sound", *FAULTS):
        found = [alarms(one.attacked([named(fault)])) for one in drawn]
        by = Counter(audit for audits in found for audit in audits)
        names = ", ".join(f"{audit} {count}" for audit, count in by.most_common())
        print(f"| {fault.replace('_', ' ')} | {sum(map(bool, found))} | {names} |", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    what, *numbers = sys.argv[1:] or ["all"]
    if what in ("all", "controls"):
        false_alarms(*(map(int, numbers) if what == "controls" else (2000, 2200)))
    if what in ("all", "faults"):
        caught(*(map(int, numbers) if what == "faults" else (0, 4)))
