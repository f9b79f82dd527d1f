"""How often a planted slice is found, and how often chance makes one.

    python benchmarks/slices.py          # about 4 minutes on one core

simple_cnn is trained on digits (3 epochs) and on 3,000 images of MNIST. Some of the test images then get a
white square in a corner, a quarter of the side, and a random label: that is the slice. Prints how often
any slice is found in which most images are marked, which share of the images in the slices found is
marked (precision), and which share of the marked images that were tested is in them (recall). Then the
correctness of the same images is shuffled, so that every slice found is a false alarm.
"""

from __future__ import annotations

import tempfile

import numpy as np
import torch

import stresslens as sl
from stresslens.core.inspection import features_of
from stresslens.evaluation.ood import coarse_of
from stresslens.metrics.intervals import Floats, wilson
from stresslens.metrics.slice_discovery import discover_slices

DRAWS, SHUFFLED = 10, 200
DATA = {"digits": (("digits", (360,))), "MNIST": ({"mnist": {"subset": 3000}}, (1000, 4000))}


def features_and_answers(run: sl.Run, n: int, share: float, seed: int) -> tuple[dict[str, Floats], ...]:
    """Features by their kind of n test images, which are right, and which are marked."""
    test, random = run.data.splits["test"], np.random.default_rng(seed)
    rows = torch.from_numpy(random.permutation(len(test))[:n])
    x, y = test.floats(test.images[rows]).clone(), test.labels[rows].numpy().copy()
    marked = random.random(n) < share
    side = x.shape[2] // 4
    x[torch.from_numpy(marked), :, :side, :side] = 1
    y[marked] = random.integers(0, 10, marked.sum())
    values, logits = features_of(run.model(), x)
    features = {"network": values.double().numpy(), "pictures": coarse_of(x).double().numpy()}
    return features, logits.argmax(1).numpy() == y, marked


if __name__ == "__main__":
    print("| images | marked | found | precision | recall | draws |")
    print("|---|--:|---|--:|--:|--:|")
    alarms: dict[str, int] = {}
    for name, (data, sizes) in DATA.items():
        with tempfile.TemporaryDirectory() as out:
            run = sl.train("simple_cnn", data, epochs=3, lr=0.002, out=out, progress=False, threads=1)
            for n in sizes:
                for share in (0.05, 0.1, 0.2):
                    hits, precision, recall = 0, [], []
                    for seed in range(DRAWS):
                        features, right, marked = features_and_answers(run, n, share, seed)
                        found = discover_slices(features, right, seed=seed).slices
                        hits += any(marked[each.members].mean() > 0.5 for each in found)
                        members = np.unique(np.concatenate([[], *(e.members for e in found)]).astype(int))
                        tested = np.random.default_rng(seed).permutation(n)[n // 2 :]
                        recall.append(marked[members].sum() / marked[tested].sum())
                        precision += [marked[members].mean()] if len(members) else []
                    print(
                        f"| {n:,} of {name} | {100 * share:.0f} % | {hits} of {DRAWS} | "
                        f"{100 * np.mean(precision):.0f} % | {100 * np.mean(recall):.0f} % | {DRAWS} |",
                        flush=True,
                    )
            features, right, _ = features_and_answers(run, sizes[0], 0.1, 0)
            shuffled = [np.random.default_rng(seed).permutation(right) for seed in range(SHUFFLED)]
            alarms[name] = sum(bool(discover_slices(features, each).slices) for each in shuffled)
    for name, count in alarms.items():
        rate = wilson(count, SHUFFLED)
        print(
            f"{name}, correctness shuffled: a slice in {100 * rate.value:.1f} % of {SHUFFLED} draws "
            f"({100 * rate.low:.1f} to {100 * rate.high:.1f})"
        )
