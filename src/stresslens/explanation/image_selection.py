"""Image selection: chooses the images of a split to explain or to view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stresslens.config.schema import Choice, Explain, TargetClass
from stresslens.core.answers import NO_ANSWER, NOT_FINITE, answered, confidence, predicted
from stresslens.core.class_names import class_number
from stresslens.core.data import Split
from stresslens.core.errors import ConfigError
from stresslens.core.sampling import rank_within
from stresslens.core.spelling import closest
from stresslens.evaluation.example_images import thumbnails
from stresslens.evaluation.scores import Predictions, predictions_of
from stresslens.explanation.map_file import ExplainedImage

Positions = NDArray[np.int64]


def selected_images(
    split: Split,
    choose: Choice | Sequence[int] | Sequence[str],
    count: int,
    predictions: Predictions,
    seed: int = 0,
    *,
    answering: Predictions | None = None,
) -> Positions:
    """Positions of the selected images in the split: at most `count` by a rule, or all that are
    given by position or by the end of their file's name.

    `one_per_class` takes the first image of each class, then the second, and so on. It depends on
    no model, so all models of a study are shown on the same images. `random` draws with the seed.
    `most_confident_correct`, `most_confident_wrong` and `least_confident` sort by the probability
    of the predicted class. `confused_pairs` takes one image for each pair of confused classes, the
    most frequent pair first: the most confident mistake. There may be fewer than `count` such
    images. A rule passes over images without an answer in `answering`. Raises ConfigError if the
    split does not have a given image, if that has no answer, or if there is no image at all.
    """
    known = np.ones(len(split), bool) if answering is None else answered(answering.scores)
    if isinstance(choose, str) and not known.all():
        rows = np.flatnonzero(known)
        some = split.select(torch.from_numpy(rows))
        return rows[selected_images(some, choose, count, predictions.select(rows), seed)]
    positions = (
        _by_rule(split, cast(Choice, choose), count, predictions, seed)
        if isinstance(choose, str)
        else _given(split, choose)
    )
    if not len(positions):
        raise ConfigError(f"choose: there is no image of the kind {choose} here; choose another way")
    _check_answers(split, positions[~known[positions]])
    return positions


def classes_to_explain(model: nn.Module, split: Split) -> Positions:
    """(N,) the predicted class of each image. Raises ConfigError if there is none."""
    answers = predicted(predictions_of(model, split).scores)
    _check_answers(split, np.flatnonzero(answers == NO_ANSWER))
    return answers


def _check_answers(split: Split, missing: Positions) -> None:
    if len(missing):
        named = split.columns["file"][missing[0]] if "file" in split.columns else f"image {missing[0]}"
        raise ConfigError(f"{named}: {NOT_FINITE}, so there is no predicted class to explain")


def _by_rule(split: Split, rule: Choice, count: int, predictions: Predictions, seed: int) -> Positions:
    labels = split.labels.cpu().numpy()
    probabilities = predictions.probabilities
    answers, sure = predicted(probabilities), confidence(probabilities)
    right = answers == labels
    if rule == "one_per_class":
        return np.lexsort((labels, rank_within(labels)))[:count]
    if rule == "random":
        return np.sort(np.random.default_rng(seed).permutation(len(labels))[:count])
    if rule == "confused_pairs":
        wrong = np.flatnonzero(~right)
        pairs: dict[tuple[int, int], list[int]] = {}
        for position in wrong[np.argsort(-sure[wrong], kind="stable")]:
            pair = int(labels[position]), int(answers[position])
            pairs.setdefault(pair, []).append(int(position))
        most_frequent = sorted(pairs.values(), key=len, reverse=True)
        return np.array([mistakes[0] for mistakes in most_frequent][:count], np.int64)
    eligible = {
        "most_confident_correct": right,
        "most_confident_wrong": ~right,
        "least_confident": np.ones_like(right),
    }[rule]
    positions = np.flatnonzero(eligible)
    sorted_by = sure[positions] if rule == "least_confident" else -sure[positions]
    return np.asarray(positions[np.argsort(sorted_by, kind="stable")][:count])


def _given(split: Split, images: Sequence[int] | Sequence[str]) -> Positions:
    """The positions of images given by position or by the end of their file's name. Raises
    ConfigError."""
    files = split.columns.get("file")
    positions = []
    for image in images:
        if isinstance(image, int):
            if not 0 <= image < len(split):
                raise ConfigError(
                    f"explain.choose: there is no image {image}; the split's are 0 to {len(split) - 1}"
                )
            positions.append(image)
            continue
        if files is None:
            raise ConfigError(
                f"explain.choose: {image!r}: these images have no file names; "
                "choose by number, or one_per_class, …"
            )
        matches = [
            position
            for position, name in enumerate(files)
            if str(name) == image or str(name).endswith(f"/{image}")
        ]
        if len(matches) != 1:
            reason = (
                f"{len(matches)} images end in that name; give more of the path"
                if matches
                else closest(image, list(map(str, files)))
            )
            raise ConfigError(f"explain.choose: {image!r}: {reason}")
        positions += matches
    return np.array(positions, np.int64)


@dataclass(frozen=True)
class SelectedImages:
    """The n images that are explained."""

    positions: NDArray[np.int64]
    """(n,) in the split that they are from."""
    split: Split
    targets: NDArray[np.int64]
    """(n,) the class that each map explains."""
    thumbnails: NDArray[np.uint8]
    entries: list[ExplainedImage]


def images_to_explain(
    split: Split,
    predictions: Predictions,
    selecting: Predictions,
    config: Explain,
    classes: Sequence[str],
    labelled: bool,
    count: int,
) -> SelectedImages:
    """The images of a split that a configuration selects by the predictions `selecting`, at most
    `count` by a rule, and the class that is explained for each.

    `labelled` says whether the labels are true labels. Raises ConfigError if the images or the target
    class do not exist."""
    answering = predictions if config.target_class == "predicted" else None
    positions = selected_images(split, config.choose, count, selecting, config.seed, answering=answering)
    targets = _target_classes(config.target_class, predictions, split, positions, classes)
    selected = split.select(torch.from_numpy(positions))
    probabilities, files = predictions.probabilities[positions], selected.columns.get("file")
    entries = [
        ExplainedImage(
            index=int(position),
            truth=int(selected.labels[row]) if labelled else None,
            predicted=int(predicted(probabilities[row])),
            probability=float(confidence(probabilities[row])),
            answer=int(targets[row]),
            answer_probability=float(np.nan_to_num(probabilities[row, targets[row]])),
            source=str(files[row]) if files is not None else None,
        )
        for row, position in enumerate(positions)
    ]
    thumbnails_ = thumbnails(selected, list(range(len(selected))))
    return SelectedImages(positions, selected, targets, thumbnails_, entries)


def _target_classes(
    target_class: TargetClass,
    predictions: Predictions,
    split: Split,
    positions: NDArray[np.int64],
    classes: Sequence[str],
) -> NDArray[np.int64]:
    """(n,) the class that is explained for each image. Raises ConfigError if it does not exist."""
    if target_class == "predicted":
        return predicted(predictions.scores[positions])
    if target_class == "label":
        return np.asarray(split.labels.cpu().numpy()[positions])
    return np.full(len(positions), class_number(target_class, classes, "explain.target_class"), np.int64)
