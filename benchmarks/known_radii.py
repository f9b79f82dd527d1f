"""Do the protocols break what can be broken? Models whose smallest radii are known, attacked.

    python benchmarks/known_radii.py               # the table of docs/results.md; 20 minutes, most for Square
    python benchmarks/known_radii.py fast l1       # one protocol, one norm
    python benchmarks/known_radii.py radial        # the models whose name contains the word

An image counts as breakable if its smallest radius, the box [0, 1] included, is at most the
attacked radius divided by `MARGIN`. The smallest radius comes from a closed form, a linear program
(linf, l1) or a least-distance program (l2); where it says so, from an adversarial image that was
constructed. The table shows how many breakable images a protocol leaves standing: 0 is wanted.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from stresslens.core.ball import Norm
from stresslens.metrics.intervals import wilson

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from models_of_known_radii import CASES, N, standing

NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")
PROTOCOLS = ("fast", "standard")


def main(words: list[str]) -> None:
    protocols = [name for name in PROTOCOLS if name in words] or list(PROTOCOLS)
    norms = [norm for norm in NORMS if norm in words] or list(NORMS)
    names = [word for word in words if word not in (*PROTOCOLS, *NORMS)]
    print(f"| model | {' | '.join(f'{norm}: {name}' for norm in norms for name in protocols)} |")
    print(f"|---|{'--:|' * len(protocols) * len(norms)}")
    began, total = time.perf_counter(), dict.fromkeys(protocols, (0, 0))
    for make in CASES:
        case = make(N)
        if names and not any(word in case.name for word in names):
            continue
        cells = []
        for norm in norms:
            left, n = standing(case, norm, protocols)
            cells += [f"{count} of {n}" for count in left]
            total |= {p: (total[p][0] + k, total[p][1] + n) for p, k in zip(protocols, left)}
        print(f"| {case.name} | {' | '.join(cells)} |", flush=True)
    for protocol, (left_standing, n) in total.items():
        share = wilson(left_standing, n)
        print(f"{protocol}: {left_standing} of {n:,} ({100 * share.low:.2f} to {100 * share.high:.2f} %)")
    print(f"{(time.perf_counter() - began) / 60:.1f} minutes")


if __name__ == "__main__":
    main(sys.argv[1:])
