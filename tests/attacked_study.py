"""A study of small models trained on digits and really attacked, for tests of what is made from
such results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import stresslens as sl
from stresslens.config import registry
from stresslens.core.attack_base import BatchedModel, attacked
from stresslens.core.ball import Ball
from stresslens.core.draws import Draws
from stresslens.core.files import write_json
from stresslens.metrics.intervals import wilson
from stresslens.plugins.datasets.digits import digits
from stresslens.robustness.attack_batch import AttackBatch, verdict_model

RADII = (0.02, 0.05, 0.1)
KEY = "linf-own-00000000"


def make_study(root: Path, models: dict[str, Any], *, seeds: int = 1, n: int = 120) -> Path:
    """`root/study` with its study.json, every run trained for two epochs and attacked by PGD in linf."""
    study = root / "study"
    for name, model in models.items():
        for seed in range(seeds):
            run = sl.train(model, out=study, name=name, seed=seed, epochs=2, lr=0.05, threads=1)
            attack_run(Path(run.folder), n=n)
    names = list(models)
    contrasts = [["model", names[0], other] for other in names[1:]]
    described = {
        "format": 1,
        "name": "study",
        "runs": names,
        "seeds": list(range(seeds)),
        "contrasts": contrasts,
    }
    write_json(study / "study.json", described)
    return study


def attack_run(
    folder: Path,
    *,
    n: int = 120,
    radii: tuple[float, ...] = RADII,
    key: str = KEY,
    steps: int = 5,
    first: int = 0,
    passes: int = 1,
    wrap: Callable[[nn.Module], nn.Module] = lambda model: model,
) -> None:
    """Each radius on the images that the smaller ones left, by the search that every attack is
    checked by; `wrap` makes of the run's model the one that is attacked."""
    test = digits().test
    assert test is not None
    index = np.arange(first, first + n)
    x, y = test.floats(test.images[index]).float(), test.labels[index]
    model = wrap(sl.load(folder))
    smallest, adversarials = torch.full((n,), torch.inf, dtype=torch.float64), x.clone()
    with attacked(model):
        float32_logits = verdict_model(model, passes=passes)
        smallest[float32_logits(x).argmax(1) != y] = 0
        for eps in radii:
            left = torch.isinf(smallest).nonzero().flatten()
            search = AttackBatch(float32_logits, x[left], y[left], Ball("linf", eps))
            bound = registry.resolve("attacks", {"pgd": {"steps": steps}})
            search.attack_unbroken(bound, BatchedModel(model, passes=passes), Draws(0, left), name="pgd")
            smallest[left[search.is_adversarial]] = eps
            adversarials[left[search.is_adversarial]] = search.x_adv[search.is_adversarial]
    broken = torch.isfinite(smallest) & (smallest > 0)
    rows = broken.nonzero().flatten()
    where = folder / "robustness" / key
    where.mkdir(parents=True, exist_ok=True)
    arrays = {
        "index": index,
        "labels": y.numpy(),
        "smallest": smallest.numpy(),
        "by": np.where(broken, 0, -1),
    }
    arrays |= {"names": np.array(["pgd"]), "steps": np.ones(n, np.int64), "rows": rows.numpy()}
    np.savez(where / "result.npz", **arrays, adversarials=adversarials[rows].numpy())
    attacks = [{"name": "pgd", "label": "pgd", "options": {"steps": steps}}]
    curve = [{"eps": eps, "robust": wilson(int((smallest > eps).sum()), n).as_json()} for eps in radii]
    result = {
        "format": 1,
        "key": key,
        "fingerprint": f"{key} {steps}",
        "norm": "linf",
        "radii": [0.0, *radii],
        "protocol": "own",
    }
    result |= {
        "attacks": attacks,
        "split": "test",
        "n": n,
        "asked": n,
        "seed": 0,
        "target": None,
        "aimed": False,
        "curve": curve,
    }
    clean = wilson(int((smallest > 0).sum()), n).as_json()
    compute = {"passes": passes}
    write_json(
        where / "result.json", result | {"clean": clean, "alone": [], "findings": [], "steering": compute}
    )
