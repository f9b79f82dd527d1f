"""Which images are looked into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from stresslens.config.schema import Choice
from stresslens.core.data import Split
from stresslens.core.errors import ConfigError, closest
from stresslens.core.sampling import rank_within
from stresslens.evaluation.scores import Predictions

Places = NDArray[np.int64]
Asked = Choice | Sequence[int] | Sequence[str]


def selected_images(split: Split, how: Asked, count: int, predictions: Predictions, seed: int = 0) -> Places:
    """At most `count` places in the split, or those asked for by place or by the end of their file's name.

    `one_per_class` takes the first image of each class, then the second, whatever a model says, so
    that all models of a study are shown the same; `random` draws from the seed; `surest_right`,
    `surest_wrong` and `least_sure` go by the probability of the predicted class; `cells` takes of
    each confused pair, the commonest first, the mistake that the model was surest of. May be fewer
    than were asked for. Raises ConfigError for what the split does not hold, also where that leaves
    no image.
    """
    found = (
        _of_kind(split, cast(Choice, how), count, predictions, seed)
        if isinstance(how, str)
        else _named(split, how)
    )
    if not len(found):
        raise ConfigError(f"choose: there is no image of the kind {how} here; choose another way")
    return found


def _of_kind(split: Split, how: Choice, count: int, predictions: Predictions, seed: int) -> Places:
    labels = split.labels.cpu().numpy()
    probabilities = predictions.probabilities
    guess, sure = probabilities.argmax(1), probabilities.max(1)
    right = guess == labels
    if how == "one_per_class":
        return np.lexsort((labels, rank_within(labels)))[:count]
    if how == "random":
        return np.sort(np.random.default_rng(seed).permutation(len(labels))[:count])
    if how == "confused_pairs":
        wrong = np.flatnonzero(~right)
        pairs: dict[tuple[int, int], list[int]] = {}
        for place in wrong[np.argsort(-sure[wrong], kind="stable")]:
            pairs.setdefault((int(labels[place]), int(guess[place])), []).append(int(place))
        commonest = sorted(pairs.values(), key=len, reverse=True)
        return np.array([each[0] for each in commonest][:count], np.int64)
    among = {
        "most_confident_correct": right,
        "most_confident_wrong": ~right,
        "least_confident": np.ones_like(right),
    }[how]
    places = np.flatnonzero(among)
    order = np.argsort(sure[places] if how == "least_confident" else -sure[places], kind="stable")
    return np.asarray(places[order][:count])


def _named(split: Split, asked: Sequence[int] | Sequence[str]) -> Places:
    files = split.columns.get("file")
    places = []
    for each in asked:
        if isinstance(each, int):
            if not 0 <= each < len(split):
                raise ConfigError(
                    f"explain.choose: there is no image {each}; the split's are 0 to {len(split) - 1}"
                )
            places.append(each)
            continue
        if files is None:
            raise ConfigError(
                f"explain.choose: {each!r}: these images have no file names; choose by number, or one_per_class, …"
            )
        found = [
            place for place, name in enumerate(files) if str(name) == each or str(name).endswith(f"/{each}")
        ]
        if len(found) != 1:
            what = (
                f"{len(found)} images end in that name; give more of the path"
                if found
                else closest(each, list(map(str, files)))
            )
            raise ConfigError(f"explain.choose: {each!r}: {what}")
        places += found
    return np.array(places, np.int64)
