"""Everything that docs/results.md tells, one command after the other: `make results`.

    python benchmarks/series.py                        # all; about a day of two idle CPU cores
    python benchmarks/series.py --list                 # the commands, with the time that each took here
    python benchmarks/series.py digits training.py     # those whose command contains one of these words
    python benchmarks/series.py --photos FOLDER        # with those that need photographs
    python benchmarks/series.py --anew                 # also what was printed by other code

What a command prints is kept in runs/printed/, below the command, the commit and the seconds. A command
that has ended well is not run again, and a study that was stopped resumes. A command that fails is
named at the end, and the others are run. MNIST needs STRESSLENS_DATA or the network. The photographs are
a folder with train/ and test/ and in them a folder per class (CIFAR-10 (JPEG) for the figures of
docs/results.md); without it, what needs them is left out, and named. Last of all, the tables of the
studies and what was printed are written to docs/measured.md.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HOME = Path(__file__).parents[1]
RUNS = Path("runs")
PRINTED = RUNS / "printed"
MEASURED = HOME / "docs" / "measured.md"
PHOTOS = "photos"
"""The folder of photographs, as commands call it."""

COMMANDS = """
stresslens run studies/digits-losses-as-published.yaml --jobs 2
stresslens run studies/digits-losses.yaml --jobs 2
stresslens run studies/digits-ablation.yaml train.threads=1 train.precision=float32
stresslens run studies/digits-hardening.yaml
stresslens run studies/digits-sweep.yaml --jobs 2
stresslens run studies/transfer-offline.yaml --jobs 2
stresslens run studies/clip-from-scratch.yaml --jobs 2
stresslens run studies/mnist-adversarial-as-published.yaml
stresslens run studies/mnist-adversarial.yaml --jobs 2
stresslens run studies/mnist-optimizers.yaml --seed 0
stresslens run studies/mnist-optimizers-longer.yaml
stresslens run studies/mnist-evaluation-mode.yaml --seed 0
stresslens run studies/mnist-inside.yaml
stresslens run studies/mnist-lenet.yaml --seed 0
stresslens run studies/mnist-settings.yaml
stresslens run studies/mnist-depth.yaml --seed 0
stresslens run studies/mnist-size.yaml
stresslens run studies/mnist-vit.yaml
stresslens run studies/mnist-classical.yaml
stresslens run studies/own-images.yaml data.path=photos
stresslens run studies/photos-attack-as-published.yaml data.path=photos
stresslens run studies/photos-crops.yaml data.path=photos train.threads=1
stresslens run studies/photos-defence.yaml data.path=photos --jobs 2
stresslens run studies/photos-design.yaml data.path=photos --jobs 2
stresslens run studies/photos-vit.yaml data.path=photos --jobs 2
stresslens run studies/transfer-offline-photos.yaml data.path=photos --jobs 2
stresslens run studies/cifar-ablation.yaml data.path=photos train.threads=1 train.precision=float32
stresslens run studies/cifar-ingredients.yaml data.path=photos train.threads=1 train.precision=float32
stresslens run studies/cifar-teacher.yaml data.path=photos train.threads=1 train.precision=float32
stresslens run studies/cifar-soup.yaml data.path=photos train.threads=1 train.precision=float32
stresslens run studies/cifar-first-cnn.yaml 'data={folder: {path: photos, validation: 10000}}'
stresslens run studies/cifar-fgsm.yaml 'data={folder: {path: photos}}'
python benchmarks/training.py
python benchmarks/sweep.py
python benchmarks/sweep.py quick
python benchmarks/processes.py
python benchmarks/compute.py
python benchmarks/augmentations.py
python benchmarks/images.py photos
python benchmarks/transfer.py photos
python benchmarks/memory.py
python benchmarks/memory.py --nets resnet18 --sides 224 --counts 200 --defaults
python benchmarks/memory.py passes
python benchmarks/memory.py recompute
python benchmarks/stack.py
python benchmarks/operators.py --turns 1
python benchmarks/growth.py --charts docs
python benchmarks/report.py
python benchmarks/serving.py
python benchmarks/serving.py soak --seconds 600
python benchmarks/serving.py malformed
python benchmarks/page.py
python benchmarks/explain.py
python benchmarks/explanation_checks.py
python benchmarks/attacks.py
python benchmarks/agreement.py mnist
python benchmarks/agreement.py mnist standard 1000 0.2 0.175
python benchmarks/decisions.py ours
python benchmarks/known_radii.py
python benchmarks/hardening.py
python benchmarks/audits.py controls 3000 3200
python benchmarks/audits.py faults 0 3
python benchmarks/verdicts.py
python benchmarks/metric_verdicts.py
python benchmarks/equivalence.py
python benchmarks/folds.py
python benchmarks/intervals.py
python benchmarks/importance.py
python benchmarks/conformal.py --scores digits --draws 2000 --part thresholds
python benchmarks/conformal.py --scores digits --draws 2000 --evaluated 200 --part sets
python benchmarks/conformal.py --scores mnist --draws 2000
python benchmarks/duplicates.py '{folder: {path: photos}}' 20000
python benchmarks/label_errors.py digits mnist
python benchmarks/drift.py digits
python benchmarks/slices.py
"""


@dataclass(frozen=True)
class Measurement:
    """One command; `photos` in it is a folder of photographs."""

    command: str

    @property
    def name(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.command.partition("/")[2].lower()).strip("-")

    @property
    def needs_photographs(self) -> bool:
        return bool(re.search(r"\bphotos\b(?![-.])", self.command.partition("/")[2].partition(" ")[2]))

    @property
    def file(self) -> Path:
        return PRINTED / f"{self.name}.txt"

    @property
    def seconds(self) -> float | None:
        """How long it took when it ended well; None if it did not yet."""
        found = re.search(r"^# ([\d.]+) seconds", self._head, re.MULTILINE)
        return float(found[1]) if found else None

    @property
    def code(self) -> str:
        """The code that printed it (`code_now`); empty without one."""
        found = re.search(r"^# code (\w+)", self._head, re.MULTILINE)
        return found[1] if found else ""

    @property
    def _head(self) -> str:
        return self.file.read_text(encoding="utf-8")[:2000] if self.file.exists() else ""

    def carry_out(self, photographs: Path | None) -> bool:
        """Runs it, keeps what it prints, and returns whether it ended well."""
        words = shlex.split(self.command)
        if photographs is not None:
            place = str(photographs.resolve())
            words = [re.sub(rf"\b{PHOTOS}\b(?![-.])", lambda _: place, word) for word in words]
        program = [sys.executable, "-m", "stresslens"] if words[0] == "stresslens" else [sys.executable]
        began, code, load = time.perf_counter(), code_now(), os.getloadavg()[0]
        done = subprocess.run(
            [*program, *words[1:]], cwd=HOME, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        seconds = time.perf_counter() - began
        ended = f"{seconds:.0f} seconds" if done.returncode == 0 else f"exit code {done.returncode}"
        head = f"$ {self.command}\n# {ended}; load {load:.1f} on {os.cpu_count()} CPU cores at its start\n"
        PRINTED.mkdir(parents=True, exist_ok=True)
        self.file.write_text(f"{head}# code {code}\n\n{done.stdout}", encoding="utf-8")
        return done.returncode == 0


def code_now() -> str:
    """The hash of the sources that measure: the trees of src/, benchmarks/ and studies/ in git."""
    trees = [f"HEAD:{folder}" for folder in ("src", "benchmarks", "studies")]
    found = subprocess.run(["git", "rev-parse", *trees], cwd=HOME, capture_output=True, text=True)
    return "".join(tree[:8] for tree in found.stdout.split())


def write_tables() -> None:
    """docs/measured.md: the tables of the studies, and what the benchmarks printed."""
    tables = subprocess.run(
        [sys.executable, "benchmarks/results.py", str(RUNS)],
        cwd=HOME,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    printed = [
        f"## {Measurement(line).name}\n\n```\n{Measurement(line).file.read_text(encoding='utf-8')}```\n"
        for line in COMMANDS.strip().splitlines()
        if line.startswith("python") and Measurement(line).seconds is not None
    ]
    text = "\n".join([tables.stdout, *printed])
    MEASURED.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="only commands that contain one of these")
    parser.add_argument("--list", action="store_true", help="print the commands, and run nothing")
    parser.add_argument("--photos", type=Path, help="a folder of photographs")
    parser.add_argument("--anew", action="store_true", help="also what other code printed")
    asked = parser.parse_args()
    os.chdir(HOME)
    known = [Measurement(line) for line in COMMANDS.strip().splitlines()]
    chosen = [m for m in known if not asked.words or any(word in m.command for word in asked.words)]
    failed, left_out = [], []
    for number, each in enumerate(chosen, 1):
        finished = each.seconds is not None and not (asked.anew and each.code != code_now())
        told = "not run yet" if each.seconds is None else f"{each.seconds:,.0f} s"
        if asked.list or finished:
            print(f"[{number}/{len(chosen)}] {each.command}: {told}", flush=True)
        elif each.needs_photographs and asked.photos is None:
            left_out.append(each.command)
        else:
            print(f"[{number}/{len(chosen)}] {each.command} …", flush=True)
            if not each.carry_out(asked.photos):
                failed.append(f"{each.command}: see {each.file}")
    if asked.list:
        return
    write_tables()
    for command in left_out:
        print(f"left out, it needs --photos FOLDER: {command}")
    if failed:
        sys.exit("\n".join(["failed:", *failed]))


if __name__ == "__main__":
    main()
