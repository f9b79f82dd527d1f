from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from stresslens.core.data import Split
from stresslens.core.inspection import features_of
from stresslens.core.panels import Panel, Points
from stresslens.core.sampling import balanced_subset
from stresslens.core.types import Count, Seed

NEAREST = 10


def embedding(
    model: nn.Module,
    split: Split,
    classes: Sequence[str],
    *,
    method: Literal["pca", "tsne"] = "pca",
    images: Count = 500,
    seed: Seed = 0,
) -> Panel:
    """The last features of class-balanced images of the split in a plane, by class, mistakes marked.

    `pca` keeps the two directions that vary most (and says how much of all they hold), `tsne` keeps
    neighbours together (van der Maaten & Hinton 2008): there distances between groups mean nothing.
    How many of each image's ten nearest by the features have its class is told for right and wrong
    images apart.
    """
    some = split.select(balanced_subset(split.labels.cpu(), min(images, len(split)), seed=seed))
    first = next(model.parameters(), torch.empty(0))
    found, guesses = [], []
    for batch in some.batches(256):
        seen, logits = features_of(model, batch.x.to(first.device, torch.float32))
        found.append(seen.cpu())
        guesses.append(logits.argmax(1).cpu())
    features, labels = torch.cat(found).double(), some.labels.cpu()
    wrong = torch.cat(guesses) != labels
    places, how = _placed(features, method, seed)
    nearest = (
        torch.cdist(features, features)
        .fill_diagonal_(torch.inf)
        .topk(min(NEAREST, len(labels) - 1), largest=False)
        .indices
    )
    alike = (labels[nearest] == labels[:, None]).double().mean(1)
    facts = {
        "alike_right": _mean(alike[~wrong]),
        "alike_wrong": _mean(alike[wrong]),
        "wrong": int(wrong.sum()),
        "n": len(labels),
    }
    said = [
        f"of the {NEAREST} nearest by the features {100 * value:.0f} % have the class of an image that the model has {what}"
        for what, value in (("right", facts["alike_right"]), ("wrong", facts["alike_wrong"]))
        if value is not None
    ]
    points = Points(
        f"Last features of {len(labels)} images, {how}",
        places,
        [classes[int(k)] for k in labels],
        wrong.numpy(),
    )
    return Panel([points], said, facts)


def _placed(features: Tensor, method: str, seed: int) -> tuple[np.ndarray, str]:
    values = features.numpy()
    if method == "tsne" and len(values) > 3:
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (len(values) - 1) / 3)
        return TSNE(init="pca", perplexity=perplexity, random_state=seed).fit_transform(values).astype(
            float
        ), "t-SNE"
    centred = values - values.mean(0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    share = float(np.square(sizes[:2]).sum() / max(np.square(sizes).sum(), 1e-30))
    signs = np.sign(axes[np.arange(len(axes[:2])), np.abs(axes[:2]).argmax(1)])
    placed = centred @ (axes[:2] * signs[:, None]).T
    if placed.shape[1] < 2:
        placed = np.pad(placed, ((0, 0), (0, 2 - placed.shape[1])))
    return placed, f"their first two principal components ({100 * share:.0f} % of the variation)"


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None
