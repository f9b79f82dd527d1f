"""One training on all cores: in one process with a thread for each, or in as many processes
(torchrun) with one thread each.

    python benchmarks/processes.py        # about 3 minutes on two idle cores

Prints ratios with n. The two take turns, so that a busy machine slows both; the seconds are those
of training steps, as record.json has them, and the medians of the turns are compared.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TURNS = 5
CORES = os.cpu_count() or 1
STUDY = """
data: digits
model: {model}
input: {{size: {size}}}
train:
  {{epochs: {epochs}, batch_size: {batch}, watch: [], select: last, precision: float32, threads: {threads},
    memory_format: contiguous}}
"""
CASES = {
    "mlp, batches of 64, 8×8": {"model": "{mlp: {widths: [64]}}", "size": 8, "epochs": 20, "batch": 64},
    "simple_cnn, batches of 64, 28×28": {"model": "simple_cnn", "size": 28, "epochs": 2, "batch": 64},
    "simple_cnn, batches of 512, 28×28": {"model": "simple_cnn", "size": 28, "epochs": 2, "batch": 512},
}


def seconds(case: str, processes: int, folder: Path) -> float:
    """Of the training steps of one run."""
    folder.mkdir(parents=True)
    study = folder / "study.yaml"
    study.write_text(STUDY.format(threads=CORES, **CASES[case]))
    launcher = (
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        if processes > 1
        else []
    )
    command = [sys.executable, *launcher, "-m", "stresslens", "run", str(study), "--out", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    record = json.loads((folder / "study" / "run" / "seed-0" / "record.json").read_text())
    return float(record["training"]["seconds"])


def main() -> None:
    home = Path(tempfile.mkdtemp())
    for place, case in enumerate(CASES):
        taken: dict[int, list[float]] = {1: [], CORES: []}
        for turn in range(TURNS):
            for processes, values in taken.items():
                values.append(seconds(case, processes, home / f"{place}-{turn}-{processes}"))
        medians = {processes: statistics.median(values) for processes, values in taken.items()}
        ratios = sorted(one / several for one, several in zip(taken[1], taken[CORES]))
        print(
            f"{case}: {CORES} processes are {medians[1] / medians[CORES]:.2f} times as fast as one with "
            f"{CORES} threads "
            f"(turn by turn {ratios[0]:.2f} to {ratios[-1]:.2f}, n = {TURNS}; load {os.getloadavg()[0]:.1f} "
            f"on {CORES} cores)",
            flush=True,
        )


if __name__ == "__main__":
    main()
