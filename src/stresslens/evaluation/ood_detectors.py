"""Detectors of out-of-distribution (OOD) images by name, scored on named sets of images."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.core.data import Data, Split
from stresslens.core.detectors import Floats64, OODScore
from stresslens.core.dtypes import as_input
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.files import UnreadableRun
from stresslens.core.inspection import evaluating, feature_layer, with_features
from stresslens.core.pass_memory import images_at_once
from stresslens.core.run_folder import RunFolder
from stresslens.core.sampling import sampled_positions
from stresslens.core.splits import split_named
from stresslens.core.text import enumeration
from stresslens.core.types import Estimate
from stresslens.evaluation.ood import BATCH, MOST_VALUES, OODDetector, coarse_of
from stresslens.evaluation.ood import Features as LikenessFeatures
from stresslens.evaluation.ood_record import DetectorDifference, DetectorScores, OODRecord, OODSetRecord
from stresslens.evaluation.ood_sets import MOST, OODSet
from stresslens.evaluation.record import RunRecord
from stresslens.metrics.intervals import wilson
from stresslens.metrics.paired import holm
from stresslens.metrics.ranking import auprc, auroc, auroc_difference

FITTED = 10_000
"""Most images that a detector is fitted on."""
FEWEST = 10
"""With fewer images a set says nothing."""
KEPT = 0.95
"""The share of the validation images that passes the threshold of `fpr95`."""
PREDICT = "predict"
"""The detector of `stresslens predict`, of likeness.npz."""
REAL = 0.05
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Read:
    """What a model makes of images: features (N, D), logits (N, K), and coarse pixels (N, d)."""

    features: Floats64
    logits: Floats64
    coarse: NDArray[np.float32]


Scorer = Callable[[Read], Floats64]


def score_ood(
    folder: RunFolder,
    model: nn.Module,
    data: Data,
    record: RunRecord,
    sets: Sequence[OODSet],
    *,
    split: str = "test",
    detectors: Sequence[Any] = (),
    trust: bool = False,
) -> OODRecord:
    """Scores detectors (by default all that there are) on how well they tell the images of `sets` from those
    of a split of the run, writes `record.ood` beside what it holds, and counts a read of test.

    Of each at most `MOST` images are drawn, with a fixed seed. The detectors are fitted on training images,
    and thresholds are chosen on validation images: at most `FITTED`, fewer of large features. Raises
    ConfigError for an unknown detector and a set that holds images of the run, and DataError for a split or
    a set of fewer than `FEWEST` images.
    """
    images = split_named(data, split)
    own = {each.fingerprint: name for name, each in data.splits.items()}
    for each in sets:
        if shared := [own[print_] for print_ in each.fingerprints if print_ in own]:
            raise ConfigError(f"--ood {each.name}: these are the run's own {shared[0]} images")
    if len(images) < FEWEST:
        raise DataError(f"the {split} split has {len(images)} images; at least {FEWEST} are needed")
    layer, width = feature_layer(model, data.shape)
    read, most = partial(_read, model, layer, data), most_fitted(width)
    train = read(_of_split(data.train, most))
    labels = data.train.labels.cpu().numpy()[sampled_positions(len(data.train), most, 0).numpy()]
    fitted, refused = _fitted(layer, train, labels, detectors or _all(), folder, trust)
    inside = read(_of_split(images, MOST))
    held_out = read(_of_split(data.validation, most)) if data.validation is not None else None
    counts = {"n": len(inside.logits), "fitted_on": len(labels)}
    validation = 0 if held_out is None else len(held_out.logits)
    found = OODRecord(split=split, **counts, validation=validation, refused=refused)
    own_scores = {
        name: (score(inside), None if held_out is None else score(held_out)) for name, score in fitted.items()
    }
    known = {} if record.ood is None else record.ood.by_split
    new = {}
    for each in sets:
        outside = read(each.pieces(data.shape, images))
        if len(outside.logits) < FEWEST:
            why = f"{len(outside.logits)} images can be read; at least {FEWEST} are needed"
            raise DataError(f"--ood {each.name}: {why}{each.left_out}")
        new[each.name] = _compared(fitted, own_scores, outside, each)
    found.sets = {**(known[split].sets if split in known else {}), **new}
    for other in (each for name, each in known.items() if name != split):
        found.other_split = other.model_copy(update={"other_split": None})
    record.reads_of_test += split == "test"
    record.ood = found
    return found


def most_fitted(width: int) -> int:
    """The most images that detectors are fitted on, of features (N, width)."""
    return max(BATCH, min(FITTED, MOST_VALUES // width))


def _all() -> list[str]:
    return [*registry.all_names("detectors"), PREDICT]


def _of_split(split: Split, most: int) -> Iterable[Tensor]:
    part = split.select(sampled_positions(len(split), most, 0))
    return (part.floats(images.cpu()) for images in part.pieces())


def _read(model: nn.Module, layer: nn.Module, data: Data, pieces: Iterable[Tensor]) -> Read:
    size = images_at_once(model, data.shape, MOST)
    found: list[tuple[NDArray[Any], ...]] = []
    with evaluating(model), torch.no_grad():
        for x in (part for piece in pieces for part in torch.split(piece, size)):
            logits, features = with_features(model, layer, as_input(x, model))
            values = (features.double(), logits.double(), coarse_of(x.float()))
            found.append(tuple(value.cpu().numpy() for value in values))
    if not found:
        return Read(np.empty((0, 1)), np.empty((0, len(data.classes))), np.empty((0, 1), np.float32))
    return Read(*(np.concatenate(each) for each in zip(*found)))


def _fitted(
    layer: nn.Module,
    train: Read,
    labels: NDArray[np.int64],
    detectors: Sequence[Any],
    folder: RunFolder,
    trust: bool,
) -> tuple[dict[str, Scorer], dict[str, str]]:
    """The fitted detectors by name, and why others are not possible with this model."""
    weight, bias = _last_layer(layer, train)
    usable = np.isfinite(train.features).all(1) & np.isfinite(train.logits).all(1)
    given = {
        "features": train.features[usable],
        "labels": labels[usable],
        "logits": train.logits[usable],
        "weight": weight,
        "bias": bias,
    }
    fitted: dict[str, Scorer] = {}
    refused: dict[str, str] = {}
    for value in detectors:
        name = value if isinstance(value, str) else json.dumps(value)
        try:
            if value == PREDICT:
                fitted[name] = partial(_of_predict, OODDetector.load(folder.likeness))
                continue
            bound = registry.resolve("detectors", value, base=Path.cwd(), trust=trust)
            if weight is None and (bound.asks_for("weight") or bound.asks_for("bias")):
                refused[name] = "it needs a last linear layer that gives the logits, and this model has none"
            elif not usable.any():
                refused[name] = "no training image has finite features"
            else:
                fitted[name] = partial(_of_plugin, bound(**given))
        except MemoryError:
            refused[name] = "its features are too many for the memory of this machine"
        except (ValueError, UnreadableRun) as error:
            refused[name] = str(error)
    if not fitted:
        raise ConfigError("; ".join(f"{name}: {why}" for name, why in refused.items()))
    return fitted, refused


def _last_layer(layer: nn.Module, train: Read) -> tuple[Floats64 | None, Floats64 | None]:
    """The weight (K, D) and bias (K,) of the last linear layer, where it gives the logits."""
    if not isinstance(layer, nn.Linear) or layer.out_features != train.logits.shape[1]:
        return None, None
    weight: Floats64 = layer.weight.detach().double().cpu().numpy()
    bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().double().cpu().numpy()
    if not np.allclose(train.features @ weight.T + bias, train.logits, rtol=TOLERANCE, atol=TOLERANCE):
        return None, None
    return weight, bias


def _of_plugin(score: OODScore, read: Read) -> Floats64:
    """The scores of images; one without a finite score is farthest out."""
    values = np.asarray(score(features=read.features, logits=read.logits), np.float64)
    return np.where(np.isnan(values), np.inf, values)


def _of_predict(detector: OODDetector, read: Read) -> Floats64:
    features = read.features.astype(np.float32)
    labels = np.zeros(len(features), np.int64)
    return np.asarray(detector.distance(LikenessFeatures(features, read.coarse, labels)), np.float64)


def _compared(
    fitted: Mapping[str, Scorer],
    own: Mapping[str, tuple[Floats64, Floats64 | None]],
    outside: Read,
    of: OODSet,
) -> OODSetRecord:
    """The detectors on one set, and whether the best is really better than the others. `own` are their
    scores of the run's split, and of its validation images."""
    inside = len(next(iter(own.values()))[0])
    is_outside = np.repeat([False, True], [inside, len(outside.logits)])
    scores = {name: np.concatenate([own[name][0], score(outside)]) for name, score in fitted.items()}
    found = {name: detector_scores(scores[name], is_outside, own[name][1]) for name in fitted}
    best = max(found, key=lambda name: found[name].auroc.value)
    pairs = {
        pair: auroc_difference(scores[pair[0]], scores[pair[1]], is_outside)
        for pair in combinations([best, *(name for name in found if name != best)], 2)
    }
    corrected = holm({pair: p for pair, (_, p) in pairs.items()})
    differences = {
        other: DetectorDifference(auroc=difference, p=p, p_holm=corrected[one, other])
        for (one, other), (difference, p) in pairs.items()
        if one == best
    }
    return OODSetRecord(
        n=len(outside.logits),
        images=of.images,
        note=of.left_out.removeprefix("; "),
        detectors=found,
        best=best,
        differences=differences,
        verdict=verdict_of(best, differences),
    )


def detector_scores(
    scores: Floats64, is_outside: NDArray[np.bool_], validation: Floats64 | None
) -> DetectorScores:
    """The scores of a detector whose values are `scores` (N,), higher for images out of distribution."""
    ranked = np.stack([-scores, scores], 1)
    labels = is_outside.astype(np.int64)
    found = DetectorScores(auroc=auroc(ranked, labels).each[1], aupr=auprc(ranked, labels).each[1])
    if validation is not None and len(validation):
        found.fpr95 = passing(scores[is_outside], validation)
        threshold = threshold_of(validation)
        found.kept = wilson(int((scores[~is_outside] <= threshold).sum()), int((~is_outside).sum()))
    return found


def threshold_of(validation: Floats64) -> float:
    """The lowest score that at least `KEPT` of the validation images do not exceed."""
    place = int(np.ceil(KEPT * len(validation) - 1e-9)) - 1
    return float(np.sort(validation)[place])


def passing(outside: Floats64, validation: Floats64) -> Estimate:
    """The share of images with scores `outside` (N,) that pass the threshold of `validation` (n,).

    The interval also accounts for the threshold, which other validation images would have moved: each end is
    that of Wilson's 97.5 % interval at an end of the 97.5 % interval of the quantile (order statistics), so
    that both together hold with at least 95 %.
    """
    from scipy.stats import binom

    ordered, n = np.sort(validation), len(outside)
    ranks = binom.ppf([0.0125, 0.9875], len(ordered), KEPT).astype(int)
    lower = ordered[ranks[0] - 1] if ranks[0] > 0 else -np.inf
    upper = ordered[ranks[1]] if ranks[1] < len(ordered) else np.inf
    few, many = (wilson(int((outside <= end).sum()), n, level=0.975) for end in (lower, upper))
    share = float((outside <= threshold_of(validation)).mean())
    method = f"Wilson, with the threshold of {len(ordered):,} validation images"
    return Estimate(share, few.low, many.high, n, method)


def verdict_of(best: str, differences: Mapping[str, DetectorDifference]) -> str:
    """Which detectors the best one is really better than."""
    real = [name for name, each in differences.items() if each.p_holm <= REAL and each.auroc.value > 0]
    others = [name for name in differences if name not in real]
    if not differences:
        return f"{best} alone was scored"
    if not real:
        return f"{best} has the highest AUROC, and is not distinguishable from {enumeration(others, 20)}"
    said = f"{best} is better than {enumeration(real, 20)}"
    return f"{said}; not distinguishable from {enumeration(others, 20)}" if others else said


def set_rows(found: OODRecord) -> Iterator[tuple[str, str, DetectorScores]]:
    """Each set with each detector, and its scores."""
    for name, each in found.sets.items():
        for detector, scores in each.detectors.items():
            yield name, detector, scores
