from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from stresslens.core.answers import predicted
from stresslens.core.data import Split
from stresslens.core.dtypes import device_of
from stresslens.core.errors import ConfigError
from stresslens.core.inspection import features_of
from stresslens.core.panels import Panel, Points
from stresslens.core.pass_memory import images_at_once
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
    """Scatter plot of the last features of class-balanced images, by class, with mistakes marked.

    `pca` shows the two directions with the largest variance, and its share. `tsne` keeps neighbours
    together (van der Maaten & Hinton 2008); distances between groups then have no meaning. The
    sentences give the share of each image's ten nearest neighbours that have its class, for correct
    and for wrong predictions. Images whose features are not finite are left out. Raises ConfigError
    if all are.
    """
    some = split.select(balanced_subset(split.labels.cpu(), min(images, len(split)), seed=seed))
    device = device_of(model)
    of_batches, answers = [], []
    for batch in some.batches(images_at_once(model, some.shape, 256)):
        values, logits = features_of(model, batch.x.to(device, torch.float32))
        of_batches.append(values.cpu())
        answers.append(predicted(logits).cpu())
    features, labels = torch.cat(of_batches).double(), some.labels.cpu()
    wrong, finite = torch.cat(answers) != labels, features.isfinite().all(1)
    if int(finite.sum()) < 2:
        raise ConfigError("embedding: the last features are not finite (NaN or infinity)")
    features, labels, wrong = features[finite], labels[finite], wrong[finite]
    positions, how = _projected(features, method, seed)
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
    sentences = [
        f"{100 * value:.0f} % of the {NEAREST} nearest neighbours in feature space have the class "
        f"of an image that the model classifies {what}"
        for what, value in (("correctly", facts["alike_right"]), ("wrongly", facts["alike_wrong"]))
        if value is not None
    ]
    if left_out := int((~finite).sum()):
        sentences.append(f"{left_out} images are left out: their last features are not finite")
    points = Points(
        f"Last features of {len(labels)} images, {how}",
        positions,
        [classes[int(k)] for k in labels],
        wrong.numpy(),
    )
    return Panel([points], sentences, facts)


def _projected(features: Tensor, method: str, seed: int) -> tuple[np.ndarray, str]:
    values = features.numpy()
    if method == "tsne" and len(values) > 3:
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (len(values) - 1) / 3)
        tsne = TSNE(init="pca", perplexity=perplexity, random_state=seed)
        return tsne.fit_transform(values).astype(float), "t-SNE"
    centred = values - values.mean(0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    share = float(np.square(sizes[:2]).sum() / max(np.square(sizes).sum(), 1e-30))
    signs = np.sign(axes[np.arange(len(axes[:2])), np.abs(axes[:2]).argmax(1)])
    projected = centred @ (axes[:2] * signs[:, None]).T
    if projected.shape[1] < 2:
        projected = np.pad(projected, ((0, 0), (0, 2 - projected.shape[1])))
    return projected, f"their first two principal components ({100 * share:.0f} % of the variation)"


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None
