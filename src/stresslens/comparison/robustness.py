"""Which differences in robustness are real: pairs of runs or recipes that were attacked in the same
way on the same images."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stresslens.comparison.accuracy import paired_accuracy
from stresslens.comparison.difference import Difference, difference_of, with_holm
from stresslens.comparison.schema import DifferenceAtRadius, RobustContrast, UncomparedPair
from stresslens.comparison.tested_run import Recipes, Tested, recipes_of
from stresslens.config.study_record import read_study_record
from stresslens.core.ball import SAME, parse_radius, same_radius
from stresslens.core.errors import ConfigError
from stresslens.core.files import UnreadableRun, read_arrays
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.record import read_record
from stresslens.robustness.result_file import ResultFile

NORMS = {"linf": "L∞", "l2": "L2", "l1": "L1"}
METRIC = "expected accuracy, or robust@RADIUS (robust@0.05, robust@8/255), or robust@RADIUS:KEY with the start of a result's folder name"

ASKED = ("bpda", "passes", "surrogate")
"""What else was asked for that changes what an attack can see, by its key in a result's settings."""


def unbroken(smallest: NDArray[np.floating], eps: float) -> NDArray[np.bool_]:
    """Which images nothing broke at any radius up to `eps`, of the smallest radii that broke each."""
    return smallest > eps * (1 + SAME)


@dataclass(frozen=True)
class Attacked(Tested):
    """Which of a run's attacked images nothing broke at any radius up to `eps`."""

    index: NDArray[np.int64]
    smallest: NDArray[np.float64]
    result: ResultFile
    eps: float

    @property
    def under(self) -> str:
        return f"{NORMS[self.result.norm]} {self.eps:.4g} ({self.result.protocol})"

    @property
    def threat(self) -> str:
        return attack_family(self.result)

    def at(self, eps: float) -> Attacked:
        return Attacked(
            unbroken(self.smallest, eps),
            self.labels,
            self.split,
            self.record,
            self.index,
            self.smallest,
            self.result,
            eps,
        )

    def unlike(self, other: Tested) -> str | None:
        """Where the images are the same, also whether the attacks are."""
        if not isinstance(other, Attacked):
            return "one was attacked and the other was not"
        if why := super().unlike(other):
            return why
        if not np.array_equal(self.index, other.index):
            shared = len(np.intersect1d(self.index, other.index))
            return f"they were attacked on different images ({shared} of {len(self.index)} and {len(other.index)} are the same)"
        mine, theirs = (described_threat(each.result) for each in (self, other))
        if mine != theirs:
            return f"they were attacked in different ways ({_unequal(self.result, other.result)})"
        for name, own in _radii(self.result, self.eps).items():
            against = _radii(other.result, self.eps)[name]
            if own != against:
                by = f" by {name}" if name else ""
                return f"they were attacked{by} at different radii up to {self.eps:g} ({_listed(own)} and {_listed(against)})"
        return None


def described_threat(result: ResultFile) -> str:
    """Equal where two results come from the same kind of attack, whatever the radii; the order is
    by norm, then protocol."""
    parts = [
        list(NORMS).index(result.norm),
        result.protocol,
        [[each.name, each.label, each.options] for each in result.attacks],
        [[each.label, each.attack, each.target] for each in result.individual_attacks],
        result.target,
        result.aimed,
        result.split,
        [result.settings.get(key) for key in ASKED],
    ]
    return json.dumps(parts, sort_keys=True, default=str)


def attack_family(result: ResultFile) -> str:
    """Equal where two results come from the same kind of attack, were asked for the same radii and
    drew their images alike."""
    asked = [_radii(result, math.inf), result.settings.get("images"), result.seed]
    return described_threat(result) + json.dumps(asked)


def _radii(result: ResultFile, most: float) -> dict[str, list[str]]:
    """The positive radii up to `most` of the protocol (named "") and of each attack by itself, to
    nine digits."""
    asked = {"": result.radii}
    asked |= {each.label: [row.eps for row in each.rows] for each in result.individual_attacks}
    return {name: [f"{r:.9g}" for r in radii if 0 < r <= most * (1 + SAME)] for name, radii in asked.items()}


def _listed(radii: Sequence[str]) -> str:
    return f"[{', '.join(radii)}]"


def _unequal(mine: ResultFile, theirs: ResultFile) -> str:
    for part in ("norm", "protocol", "target", "aimed", "split"):
        own, against = (getattr(each, part) for each in (mine, theirs))
        if own != against:
            return f"{part} {own} and {against}"
    asked, of_other = mine.settings, theirs.settings
    for part in ASKED:
        if asked.get(part) != of_other.get(part):
            return f"{part} {asked.get(part)} and {of_other.get(part)}"
    return "the options of the attacks differ"


def robust_at(metric: str) -> tuple[float, str]:
    """The radius and the start of the key that `robust@RADIUS` or `robust@RADIUS:KEY` names. Raises
    ConfigError."""
    words, _, key = metric.removeprefix("robust@").partition(":")
    try:
        eps = parse_radius(words)
    except ConfigError:
        eps = math.nan
    if not metric.startswith("robust@") or not 0 <= eps < math.inf:
        raise ConfigError(f"--metric {metric}: {METRIC}")
    return eps, key


def attacked_of(folder: RunFolder, eps: float, key: str = "", *, split: str = "test") -> Attacked:
    """A run's robustness at a radius, from the only result on a split that has it and whose key
    starts with `key`.

    Raises ConfigError.
    """
    results = {name: result for name, result in _results(folder).items() if result.split == split}
    if not results:
        raise ConfigError(
            f"{folder.path} was not attacked on its {split} images; `stresslens attack {folder.path}` does it"
        )
    fitting = {}
    for name, result in results.items():
        near = [r for r in result.radii if same_radius(r, eps)]
        if near and name.startswith(key):
            fitting[name] = float(near[0])
    if not fitting:
        told = "; ".join(
            f"{name} has {', '.join(f'{r:g}' for r in result.radii)}" for name, result in results.items()
        )
        raise ConfigError(
            f"{folder.path} was not attacked at radius {eps:g}{f' under {key}' if key else ''}: {told}"
        )
    if len(fitting) > 1:
        ways = ", ".join(f"robust@{eps:g}:{name}" for name in fitting)
        raise ConfigError(f"{folder.path} was attacked at radius {eps:g} in several ways; say which: {ways}")
    ((name, radius),) = fitting.items()
    return _read(folder, name, results[name]).at(radius)


def compare_study_robustness(
    folder: Path, *, ask: float | None = None
) -> list[RobustContrast | UncomparedPair]:
    """The contrasts of a study's study.json in robustness, for every threat that both sides of one
    were attacked under.

    Each contrast is tested at one radius of each threat, so that the number of radii costs no
    power: the one asked for at which the robust accuracy of all attacked runs together is nearest
    to half of their unattacked accuracy. This does not look at which run an answer is from, so that
    p keeps its meaning. Holm corrects over contrasts and threats. `curve` has the differences at
    all radii with their intervals, each for itself: to look at, not to test by. A pair that cannot
    be compared has a verdict alone.
    """
    contrasts = read_study_record(folder).contrasts
    differences: list[tuple[Difference, list[DifferenceAtRadius], Attacked]] = []
    refused: list[UncomparedPair] = []
    for recipes in _by_threat(recipes_of(folder, lambda each: bool(_results(each)))):
        everyone = [each for seeds in recipes.values() for each in seeds.values()]
        radii = sorted(
            set.intersection(*({float(r) for r in each.result.radii if r > 0} for each in everyone))
        )
        if not radii:
            continue
        eps = radius_that_tells(everyone, radii)
        tested = {
            name: {seed: each.at(eps) for seed, each in seeds.items()} for name, seeds in recipes.items()
        }
        for contrast, a, b in contrasts:
            if a in tested and b in tested:
                found = paired_accuracy(contrast, a, b, tested, ask)
                if isinstance(found, Difference):
                    differences.append((found, _curve(tested[a], tested[b], radii), everyone[0].at(eps)))
                else:
                    refused.append(UncomparedPair(contrast=contrast, a=a, b=b, verdict=found))
    corrected = with_holm([difference for difference, _, _ in differences])
    rows = [
        RobustContrast(
            **dict(difference.as_contrast()),
            norm=attacked.result.norm,
            protocol=attacked.result.protocol,
            eps=attacked.eps,
            curve=curve,
        )
        for difference, (_, curve, attacked) in zip(corrected, differences)
    ]
    return [*rows, *refused]


def _by_threat(recipes: Recipes) -> list[dict[str, dict[str, Attacked]]]:
    together: dict[str, dict[str, dict[str, Attacked]]] = {}
    for name, seeds in recipes.items():
        for seed, folder in seeds.items():
            for key, result in _results(folder).items():
                together.setdefault(attack_family(result), {}).setdefault(name, {})[seed] = _read(
                    folder, key, result
                )
    return [members for _, members in sorted(together.items())]


def radius_that_tells(everyone: Sequence[Attacked], radii: Sequence[float]) -> float:
    """The radius at which all runs together are nearest to half of what they are unattacked; of
    equals the smallest."""
    half = np.mean([(each.smallest > 0).mean() for each in everyone]) / 2
    return min(radii, key=lambda eps: abs(np.mean([each.at(eps).right.mean() for each in everyone]) - half))


def _curve(
    a: Mapping[str, Attacked], b: Mapping[str, Attacked], radii: Sequence[float]
) -> list[DifferenceAtRadius]:
    pairs = [(a[seed], b[seed]) for seed in a if seed in b]
    if any(pairs[0][0].unlike(one) for one, _ in pairs[1:]):
        return []
    rows = []
    for eps in radii:
        right = [np.stack([pair[side].at(eps).right for pair in pairs]).astype(np.float32) for side in (0, 1)]
        difference = difference_of("", "a", "b", *right).difference
        rows.append(DifferenceAtRadius(eps=eps, difference=difference))
    return rows


def _results(folder: RunFolder) -> dict[str, ResultFile]:
    """The results of a finished run by key."""
    if not folder.record.is_file() or read_record(folder).status != "finished":
        return {}
    return {
        file.parent.name: ResultFile.read(file)
        for file in sorted(folder.path.glob("robustness/*/result.json"))
    }


def _read(folder: RunFolder, key: str, result: ResultFile) -> Attacked:
    path = folder.path / "robustness" / key / "result.npz"
    arrays = read_arrays(path, f"there is no {path}; attack the run again", ("index", "labels", "smallest"))
    if len(arrays["smallest"]) != result.n:
        raise UnreadableRun(
            f"{path} has {len(arrays['smallest'])} images, its result.json {result.n}; attack the run again"
        )
    smallest = arrays["smallest"]
    record = read_record(folder)
    return Attacked(
        smallest > 0, arrays["labels"], result.split, record, arrays["index"], smallest, result, 0.0
    )
