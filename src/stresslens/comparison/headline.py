"""The sentences at the head of a comparison: the variant that validation chose, the highest accuracy,
and variants that are not better than naming the largest class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stresslens.comparison.difference import Right, difference_of, estimate_over_divisions
from stresslens.comparison.measured_run import Measured
from stresslens.comparison.metric_difference import balanced_figure
from stresslens.comparison.tested_run import Tested
from stresslens.core.format import percent_sign, plain
from stresslens.core.text import enumeration
from stresslens.core.types import Estimate
from stresslens.metrics import random_effects
from stresslens.metrics.intervals import balanced, wilson
from stresslens.metrics.measures import ACCURACY, Measure

UNBALANCED = 3.0
"""Classes count as unbalanced if the largest has this many times as many images as the smallest."""

LISTED = 4
"""Most variants of equal accuracy that a sentence names."""

TestedVariants = Mapping[str, Mapping[str, Tested]]
"""The runs of each variant by seed."""


def headline_sentences(accuracies: Mapping[str, Estimate], tested: TestedVariants) -> list[str]:
    """The sentences; `accuracies` are those on the tested images, of at least one variant.

    Validation chooses, so the variant of the highest validation accuracy comes first, and the
    highest accuracy on the tested images is told as what it is. Where no validation accuracy is
    known, or the images were attacked, only the latter is.
    """
    runs = {name: list(tested[name].values()) for name in accuracies}
    groups = _by_images(runs)
    if len(groups) > 1:
        each = [
            f"{_data_of(group, groups)}: {sentence}"
            for group in groups
            for sentence in headline_sentences({name: accuracies[name] for name in group}, tested)
        ]
        return ["the runs were tested on different images; only those of the same images are ranked", *each]
    first, *others = (seeds[0] for seeds in runs.values())
    named = f"mean {first.measure}" if others else first.measure
    if isinstance(first, Measured):
        chosen = f"; chosen by the {first.split} images, so a little too good" if others else ""
        return [f"{_highest(named, accuracies, first.metric.measure)}{chosen}"]
    if first.under:
        return [_highest(named, accuracies)]
    sentences = _ranked(accuracies, runs) if others else [_highest("accuracy", accuracies)]
    shared = not any(first.mismatch(seed) for seeds in runs.values() for seed in seeds)
    divided = all(seed.division for seeds in runs.values() for seed in seeds)
    if (shared or divided) and unbalanced(class_sizes(first.labels)):
        sentences += _by_balanced_accuracy(runs, shared)
    return sentences + [sentence for name, seeds in runs.items() for sentence in _no_better(name, seeds)]


def _by_images(runs: Mapping[str, Sequence[Tested]]) -> list[dict[str, Tested]]:
    """The variants, each with its first run, by the images that they were tested on."""
    groups: list[dict[str, Tested]] = []
    for name, (run, *_) in runs.items():
        for group in groups:
            first = next(iter(group.values()))
            if first.division is not None or not first.mismatch(run):
                group[name] = run
                break
        else:
            groups.append({name: run})
    return groups


def _data_of(group: Mapping[str, Tested], groups: Sequence[Mapping[str, Tested]]) -> str:
    """The name of a group's data, with the number of images where another group has the same name."""
    names = [next(iter(each.values())).record.data.name for each in groups]
    first = next(iter(group.values()))
    name = first.record.data.name or "data without a name"
    return f"{name} ({len(first.labels)} images)" if names.count(first.record.data.name) > 1 else name


def unbalanced(sizes: Sequence[int]) -> bool:
    """Whether the largest class has `UNBALANCED` times as many images as the smallest; `sizes` are
    those of the classes that have images."""
    return len(sizes) > 1 and max(sizes) >= UNBALANCED * min(sizes)


def class_sizes(labels: NDArray[np.int64]) -> list[int]:
    """The numbers of images of the classes that have any."""
    return [int(n) for n in np.unique(labels, return_counts=True)[1]]


def balanced_weights(labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """(images,) weights of mean 1 that give every class the same weight; a mean of weighted answers
    is the balanced accuracy."""
    _, group, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    return np.asarray(len(labels) / (len(sizes) * sizes[group]), float)


def balanced_accuracy_of(right: Right, labels: NDArray[np.int64]) -> Estimate:
    """The balanced accuracy of answers (seeds, images).

    With several seeds, an end of the interval is that of seeds × images or the mean of the seeds'
    own, whichever is wider. Two seeds are too few for that: see `random_effects.over_seeds`.
    """
    groups = [labels == k for k in np.unique(labels)]
    each = [balanced([wilson(int(seed[of].sum()), int(of.sum())) for of in groups]) for seed in right]
    if len(each) < random_effects.FEWEST_SEEDS and (found := random_effects.over_seeds(each, bounded=True)):
        return found
    table = random_effects.crossed(random_effects.moments(right * balanced_weights(labels)))
    mean, margin = float(table.mean), float(table.margin(1 - each[0].level))
    low = min(mean - margin, float(np.mean([e.low for e in each])))
    high = max(mean + margin, float(np.mean([e.high for e in each])))
    method = f"wider of seeds × images and a run's own ({len(each)} seeds)"
    return Estimate(mean, max(0.0, low), min(1.0, high), len(labels), method, each[0].level, "both")


def chosen_by_validation(runs: Mapping[str, Sequence[Tested]]) -> tuple[list[str], float] | None:
    """The variants of the highest validation accuracy, averaged over their seeds, and that
    accuracy. None if a variant has none, or if these are the validation images themselves."""
    means: dict[str, float] = {}
    for name, seeds in runs.items():
        found = [seed.record.scores.get("validation", {}).get("accuracy") for seed in seeds]
        known = [estimate.value for estimate in found if estimate is not None]
        if len(known) < len(seeds) or seeds[0].split == "validation":
            return None
        means[name] = float(np.mean(known))
    highest = max(means.values())
    return [name for name, mean in means.items() if mean >= highest - 1e-9], highest


def _ranked(accuracies: Mapping[str, Estimate], runs: Mapping[str, Sequence[Tested]]) -> list[str]:
    split = next(iter(runs.values()))[0].split
    choice = chosen_by_validation(runs)
    if choice is None:
        alone = "" if split == "validation" else f"; chosen by the {split} images, so a little too high"
        return [f"{_highest('mean accuracy', accuracies)}{alone}"]
    chosen, on_validation = choice
    there = f"({100 * on_validation:.1f} % on the validation images)"
    highest = _highest(f"mean accuracy on the {split} images", accuracies)
    if len(chosen) > 1:
        return [f"validation does not choose between {enumeration(chosen, LISTED)} {there}", highest]
    (name,) = chosen
    score, best = percent_sign(accuracies[name]), _best(accuracies)
    if name in best:
        as_high = [other for other in best if other != name]
        equal = (
            f"; {enumeration(as_high, LISTED)} {'is' if len(as_high) == 1 else 'are'} equal there"
            if as_high
            else ""
        )
        also = f"it also has the highest mean accuracy on the {split} images: {score}{equal}"
        return [f"validation chooses {name} {there}; {also}"]
    not_chosen = f"validation did not choose {'it' if len(best) == 1 else 'them'}"
    return [
        f"validation chooses {name} {there}: {score} on the {split} images",
        f"{highest}; {not_chosen}",
    ]


def _best(figures: Mapping[str, Estimate], measure: Measure = ACCURACY) -> list[str]:
    """The names of the best figure; several whose difference vanishes as it is written."""
    sign = 1 if measure.higher_is_better else -1
    best = max(sign * estimate.value for estimate in figures.values())
    return [name for name, each in figures.items() if best - sign * each.value < measure.smallest]


def _highest(called: str, figures: Mapping[str, Estimate], measure: Measure = ACCURACY) -> str:
    """`highest MEASURE: NAME, 94.4 % (91.6 to 96.4)`, or lowest where that is better, with each name
    where several are equal."""
    best, written = _best(figures, measure), percent_sign if measure.is_share else plain
    scored = "; ".join(f"{name}, {written(figures[name])}" for name in best[:LISTED])
    more = f"; and {len(best) - LISTED} more" if len(best) > LISTED else ""
    first = "highest " if measure.higher_is_better else "lowest "
    prefix = f"equal {first}" if len(best) > 1 else first if len(figures) > 1 else ""
    return f"{prefix}{called}: {scored}{more}"


def _by_balanced_accuracy(runs: Mapping[str, Sequence[Tested]], shared: bool) -> list[str]:
    """By the images that all runs share, or by the division of each seed."""
    labels = next(iter(runs.values()))[0].labels
    each = {
        name: balanced_accuracy_of(_answers(seeds), labels) if shared else _over_divisions(seeds)
        for name, seeds in runs.items()
    }
    largest = max(class_sizes(labels))
    of = f"the largest class has {100 * largest / len(labels):.1f} % of the images"
    return [f"{of}; {_highest('balanced accuracy', each)}"]


def _over_divisions(seeds: Sequence[Tested]) -> Estimate:
    figures = np.array([balanced_figure(seed) for seed in seeds])
    if len(figures) < 2:
        return balanced_accuracy_of(seeds[0].right[None].astype(float), seeds[0].labels)
    found, _ = estimate_over_divisions(figures, [seed.division for seed in seeds if seed.division])
    return replace(found, low=max(0.0, found.low), high=min(1.0, found.high))


def _no_better(name: str, seeds: Sequence[Tested]) -> list[str]:
    """A sentence if the variant always names one class, or is not better than the largest class."""
    constant = [only for seed in seeds if (only := _only_class(seed)) is not None]
    if len(constant) == len(seeds) and len(set(constant)) == 1:
        classes = seeds[0].record.classes
        called = classes[constant[0]] if constant[0] < len(classes) else f"class {constant[0]}"
        return [f"{name} always names the same class, {called}: it has learned nothing else"]
    if constant:
        return [f"{name} always names the same class in {len(constant)} of {len(seeds)} seeds"]
    baseline = seeds[0].record.scores.get(seeds[0].split, {}).get("majority_baseline")
    if baseline is None or any(seeds[0].mismatch(seed) for seed in seeds[1:]):
        return []
    labels = seeds[0].labels
    largest = [k for k in np.unique(labels) if abs((labels == k).mean() - baseline.value) < 1e-9]
    if not largest:
        return []
    right = _answers(seeds)
    always = np.broadcast_to((labels == largest[0]).astype(np.float32), right.shape)
    gain = difference_of("", "", "", always, right)
    if gain.difference.low > 0 or (gain.too_few_seeds and gain.difference.value > 0):
        return []
    percent = f"{100 * baseline.value:.1f} %"
    return [f"{name} is not shown to be better than always naming the largest class ({percent})"]


def _only_class(run: Tested) -> int | None:
    """The class that is always named, as far as labels and right answers show it: every image of it
    is right, and every other wrong."""
    found = np.unique(run.labels[run.right])
    if len(found) == 1 and len(np.unique(run.labels)) > 1 and run.right[run.labels == found[0]].all():
        return int(found[0])
    return None


def _answers(seeds: Sequence[Tested]) -> NDArray[np.float32]:
    return np.stack([seed.right for seed in seeds]).astype(np.float32)
