"""Copies of held-out images by the features of a trained network, which small grey pictures may miss.

The features in front of the last linear layer, less their mean over the training images, are compared by
their cosine, for all pairs of a held-out image with one of an earlier split. The threshold is the largest
cosine among all pairs of up to `SAMPLE` of the images, without pairs that the search by pixels calls
copies. So look-alikes decide it: a network that maps a class to one point finds few copies.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from stresslens.core.data import Data, Split
from stresslens.core.errors import ConfigError
from stresslens.core.findings import LISTED, no_sign, not_checked, sign
from stresslens.core.progress import advance
from stresslens.core.run_folder import ModelCard, RunFolder
from stresslens.core.splits import image_names, pooled, split_numbers
from stresslens.core.types import Finding
from stresslens.evaluation.duplicates import PLANTED, copies_in_earlier_splits, duplicate_pairs
from stresslens.evaluation.near_duplicates import COPIES, Planted
from stresslens.evaluation.network_features import OfNetwork, features_of_network
from stresslens.evaluation.saved_model import as_computed, open_model
from stresslens.metrics.intervals import wilson

AUDIT = "near duplicates by features across splits"
SAMPLE = 4000
"""Images, among whose pairs is the most similar one that is no copy."""
NEAREST = 5
"""Images of earlier splits that a held-out image can be a copy of."""
BATCH = 256


def features_model(place: str | Path, data: Data, *, trust: bool = False) -> nn.Module:
    """The model of a run whose features can compare the images of `data`. Raises ConfigError for what is
    no run, for an estimator, and for a run with images of another shape."""
    folder = RunFolder(Path(place))
    if not folder.record.is_file():
        raise ConfigError(
            f"features: {place} is no run's folder (…/seed-0). A network of the zoo becomes a run, with the "
            "weights that are on this machine or can be fetched, by `stresslens train DATA MODEL "
            "train.epochs=0`, for example with MODEL {timm: {name: resnet18, pretrained: true}}"
        )
    card = folder.load_card()
    if not isinstance(card, ModelCard):
        raise ConfigError(f"features: {place} is an estimator, which has no features; give a network's run")
    if tuple(card.shape) != tuple(data.shape):
        has, takes = ("×".join(map(str, shape)) for shape in (data.shape, card.shape))
        raise ConfigError(
            f"features: {data.name} has images of {has} (channels, height, width), and {place} takes {takes}"
        )
    return as_computed(open_model(folder, trust=trust), folder)


def feature_finding(data: Data, model: nn.Module, name: str) -> Finding:
    """The finding on held-out images with a copy in an earlier split, by the features of `model`, which is
    called `name`."""
    if len(data.splits) < 2:
        return not_checked(AUDIT, "there is one split only")
    whole, part = pooled(data), split_numbers(data)
    network = features_of_network(model, whole.shape)
    raw = _features(network, whole, f"features of {data.name}")
    mean = raw[torch.from_numpy(part == 0)].mean(0)
    features = F.normalize(raw - mean, dim=1)
    threshold, pairs = _threshold(whole, features)
    planted = _planted(network, whole, raw, mean, threshold)
    found = _above(features, part, threshold)
    chance = wilson(0, pairs).high
    compared = sum(int((part == k).sum()) * int((part < k).sum()) for k in range(1, len(data.splits)))
    recall = ", ".join(f"{seen} {kind}" for kind, seen, _ in planted)
    looked = (
        f"cosines above {threshold:.4f} of the features of {name}; of {pairs:,} pairs of images that are no "
        f"copies none is above (at most {chance:.1e} of such pairs, so up to {chance * compared:,.0f} of the "
        f"{compared:,} compared; 95 %); of {planted[0].n} copies of each kind that were made of these "
        f"images, {recall} are found"
    )
    if not len(found):
        return no_sign(AUDIT, f"none found: {looked}", len(part))
    splits = list(data.splits)
    counts = ", ".join(
        f"{n} of {int((part == k).sum())} {split}"
        for k, split in enumerate(splits)
        if (n := len(np.unique(found[part[found[:, 1]] == k, 1])))
    )
    names = image_names(data)
    by_pixels = _known_copies(data)[np.unique(found[:, 1])]
    return sign(
        AUDIT,
        f"{counts} images may have a copy in an earlier split ({by_pixels.sum()} of these {len(by_pixels)} "
        f"have one by pixels as well): {looked}",
        len(part),
        "look at these pictures: some may only be look-alikes",
        serious=False,
        items=[f"{names[b]} = {names[a]}" for a, b in found[:LISTED]],
        places=found[:LISTED].ravel().tolist(),
    )


def _known_copies(data: Data) -> NDArray[np.bool_]:
    """(N,) whether the search by pixels finds a copy of an image in an earlier split."""
    copies, known = copies_in_earlier_splits(data), []
    for name, split in data.splits.items():
        known.append(np.isin(np.arange(len(split)), copies.get(name, [])))
    return np.concatenate(known)


def _features(network: OfNetwork, split: Split, what: str) -> Tensor:
    """(N, D) features of all images."""
    rows = []
    for piece in split.pieces(BATCH):
        rows.append(network(split.floats(piece.cpu())))
        advance(what, sum(map(len, rows)), len(split))
    return torch.cat(rows)


def _threshold(whole: Split, features: Tensor) -> tuple[float, int]:
    """The largest cosine of two images that are no copies by pixels, among up to `SAMPLE` images, and the
    number of these pairs."""
    rows = np.sort(np.random.default_rng(0).permutation(len(whole))[:SAMPLE])
    copies = duplicate_pairs(whole.select(torch.from_numpy(rows)))
    first = features[torch.from_numpy(np.delete(rows, np.unique(copies[:, 1])))]
    cosines = (first @ first.T).fill_diagonal_(-1)
    return float(cosines.max()), len(first) * (len(first) - 1) // 2


def _planted(network: OfNetwork, whole: Split, raw: Tensor, mean: Tensor, threshold: float) -> list[Planted]:
    """How many copies of each kind, of up to `PLANTED` images, have a cosine above the threshold."""
    rows = torch.from_numpy(np.sort(np.random.default_rng(0).permutation(len(whole))[:PLANTED]))
    images = whole.select(rows)
    x = images.floats(images.images[:].cpu())
    own = F.normalize(raw[rows] - mean, dim=1)
    results = []
    for kind, change in COPIES.items():
        changed = change(x.flatten(0, 1)[:, None]).view_as(x)  # each channel by itself
        cosines = (own * F.normalize(network(changed) - mean, dim=1)).sum(1)
        results.append(Planted(kind, int((cosines > threshold).sum()), len(rows)))
    return results


def _above(features: Tensor, part: NDArray[np.int64], threshold: float) -> NDArray[np.int64]:
    """(P, 2) pairs of an image with a later one of another split whose cosine is above the threshold, the
    most similar first; of each image the `NEAREST` ones."""
    pairs: list[NDArray[np.int64]] = []
    cosines: list[NDArray[np.float32]] = []
    for k in range(1, int(part.max()) + 1):
        earlier = features[torch.from_numpy(part < k)]
        own = np.flatnonzero(part == k)
        for block in np.array_split(own, max(1, len(own) // BATCH)):
            near = (features[torch.from_numpy(block)] @ earlier.T).topk(min(NEAREST, len(earlier)))
            i, j = (places.numpy() for places in torch.nonzero(near.values > threshold, as_tuple=True))
            pairs.append(np.stack([near.indices.numpy()[i, j], block[i]], 1))
            cosines.append(near.values.numpy()[i, j])
    order = np.argsort(-np.concatenate(cosines), kind="stable")
    return np.concatenate(pairs)[order]
