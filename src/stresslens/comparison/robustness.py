"""Robust accuracy differences between runs or variants that were attacked in the same way on the
same images."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stresslens.comparison.accuracy import paired_accuracy
from stresslens.comparison.difference import Difference, difference_of, with_holm
from stresslens.comparison.schema import DifferenceAtRadius, RobustContrast, UncomparedPair
from stresslens.comparison.tested_run import Tested, VariantFolders, variants_of
from stresslens.config.study_record import read_study_record
from stresslens.core.ball import SAME, parse_radius, same_radius
from stresslens.core.errors import ConfigError
from stresslens.core.files import UnreadableRun
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.record import read_record
from stresslens.robustness.result_file import RESULT_ARRAYS, ResultFile, attacked_images
from stresslens.robustness.robust_curves import NORMS

METRIC = (
    "expected accuracy, or robust@RADIUS (robust@0.05, robust@8/255), or robust@RADIUS:KEY "
    "with the start of a result's folder name"
)

ATTACK_KEYS = ("bpda", "passes", "surrogate")
"""Further settings that change what an attack can see, by their keys in a result's `settings`."""


def unbroken(smallest: NDArray[np.floating], eps: float) -> NDArray[np.bool_]:
    """Which images no attack broke at any radius up to `eps`, given each image's minimal radius."""
    return smallest > eps * (1 + SAME)


@dataclass(frozen=True)
class Attacked(Tested):
    """A run's attacked images; `right` says which of them no attack broke at any radius up to
    `eps`."""

    index: NDArray[np.int64]
    smallest: NDArray[np.float64]
    result: ResultFile
    eps: float

    @property
    def under(self) -> str:
        aim = f", target {self.result.toward}" if self.result.aimed else ""
        return f"{NORMS[self.result.norm]} {self.eps:.4g} ({self.result.protocol}{aim})"

    @property
    def measure(self) -> str:
        return f"{self.result.measure} under {self.under}"

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

    def mismatch(self, other: Tested) -> str | None:
        """Why the two cannot be compared: other images, or another attack. None if they can."""
        if not isinstance(other, Attacked):
            return "one was attacked and the other was not"
        if reason := super().mismatch(other):
            return reason
        if not np.array_equal(self.index, other.index):
            shared = len(np.intersect1d(self.index, other.index))
            return (
                f"they were attacked on different images ({shared} of {len(self.index)} "
                f"and {len(other.index)} are the same)"
            )
        mine, theirs = (described_threat(each.result) for each in (self, other))
        if mine != theirs:
            return f"they were attacked in different ways ({_unequal(self.result, other.result)})"
        for name, radii in _radii(self.result, self.eps).items():
            other_radii = _radii(other.result, self.eps)[name]
            if radii != other_radii:
                by = f" by {name}" if name else ""
                return (
                    f"they were attacked{by} at different radii up to {self.eps:g} "
                    f"({_listed(radii)} and {_listed(other_radii)})"
                )
        return None


def described_threat(result: ResultFile) -> str:
    """A key that is equal for two results of the same kind of attack, whatever the radii. Keys sort
    by norm, then protocol."""
    parts = [
        list(NORMS).index(result.norm),
        result.protocol,
        [[each.name, each.label, each.options] for each in result.attacks],
        [[each.label, each.attack, each.target] for each in result.individual_attacks],
        result.target,
        result.aimed,
        result.split,
        [result.settings.get(key) for key in ATTACK_KEYS],
    ]
    return json.dumps(parts, sort_keys=True, default=str)


def attack_family(result: ResultFile) -> str:
    """A key that is equal for two results of the same kind of attack, with the same requested radii
    and the same images drawn."""
    request = [_radii(result, math.inf), result.settings.get("images"), result.seed]
    return described_threat(result) + json.dumps(request)


def _radii(result: ResultFile, most: float) -> dict[str, list[str]]:
    """The positive radii up to `most` of the protocol (key "") and of each attack by itself, to
    nine digits."""
    by_label = {"": result.radii}
    by_label |= {each.label: [row.eps for row in each.rows] for each in result.individual_attacks}
    return {
        name: [f"{r:.9g}" for r in radii if 0 < r <= most * (1 + SAME)] for name, radii in by_label.items()
    }


def _listed(radii: Sequence[str]) -> str:
    return f"[{', '.join(radii)}]"


def _unequal(mine: ResultFile, theirs: ResultFile) -> str:
    for part in ("norm", "protocol", "target", "aimed", "split"):
        value, other = (getattr(each, part) for each in (mine, theirs))
        if value != other:
            return f"{part} {value} and {other}"
    settings, other_settings = mine.settings, theirs.settings
    for part in ATTACK_KEYS:
        if settings.get(part) != other_settings.get(part):
            return f"{part} {settings.get(part)} and {other_settings.get(part)}"
    return "the options of the attacks differ"


def robust_at(metric: str) -> tuple[float, str]:
    """Parse `robust@RADIUS` or `robust@RADIUS:KEY` into the radius and the start of the key. Raises
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
    """A run's robustness at a radius, from the only result on the split that has this radius and
    whose key starts with `key`.

    Raises ConfigError if there is no such result or more than one.
    """
    results = _results_on(folder, split)
    if not results:
        raise ConfigError(
            f"{folder.path} was not attacked on its {split} images; `stresslens attack {folder.path}` does it"
        )
    fitting = _fitting(results, eps, key)
    if not fitting:
        available = "; ".join(
            f"{name} has {', '.join(f'{r:g}' for r in result.radii)}" for name, result in results.items()
        )
        raise ConfigError(
            f"{folder.path} was not attacked at radius {eps:g}{f' under {key}' if key else ''}: {available}"
        )
    if len(fitting) > 1:
        raise ConfigError(
            f"{folder.path} was attacked at radius {eps:g} in several ways{_ways(eps, fitting)}"
        )
    ((name, radius),) = fitting.items()
    return _read(folder, name, results[name]).at(radius)


def shared_key(folders: Sequence[RunFolder], eps: float, key: str = "", *, split: str = "test") -> str:
    """The key of the only result that all runs have at this radius; `key`, with which it starts, if
    they share none.

    Raises ConfigError if they share several.
    """
    of_each = [set(_fitting(_results_on(folder, split), eps, key)) for folder in folders]
    shared = sorted(set.intersection(*of_each)) if of_each else []
    if len(shared) > 1:
        which = f"all {len(folders)} runs were" if len(folders) > 1 else f"{folders[0].path} was"
        raise ConfigError(f"{which} attacked at radius {eps:g} in several ways{_ways(eps, shared)}")
    return shared[0] if shared else key


def _ways(eps: float, keys: Iterable[str]) -> str:
    return f"; say which: {', '.join(f'robust@{eps:g}:{key}' for key in keys)}"


def _results_on(folder: RunFolder, split: str) -> dict[str, ResultFile]:
    return {name: result for name, result in _results(folder).items() if result.split == split}


def _fitting(results: Mapping[str, ResultFile], eps: float, key: str) -> dict[str, float]:
    """The results whose key starts with `key`, with their radius that is `eps`."""
    return {
        name: float(near[0])
        for name, result in results.items()
        if name.startswith(key) and (near := [r for r in result.radii if same_radius(r, eps)])
    }


def compare_study_robustness(
    folder: Path, *, ask: float | None = None
) -> list[RobustContrast | UncomparedPair]:
    """Compare a study's contrasts in robustness, for every threat that both sides of a contrast
    were attacked under.

    Each contrast is tested at one radius per threat, so that more radii do not cost power. This is
    the requested radius at which the robust accuracy of all attacked runs together is nearest to
    half of their unattacked accuracy. The choice does not look at which run an answer comes from,
    so p stays valid. Holm's correction is over contrasts and threats. `curve` has the differences
    at all radii, each with its own interval, for inspection and not for testing. A pair that cannot
    be compared has only a verdict.
    """
    contrasts = read_study_record(folder).contrasts
    differences: list[tuple[Difference, list[DifferenceAtRadius], Attacked]] = []
    refused: list[UncomparedPair] = []
    for tested, radii in threats_of(folder):
        first = next(run for seeds in tested.values() for run in seeds.values())
        for contrast, a, b in contrasts:
            if a in tested and b in tested:
                compared = paired_accuracy(contrast, a, b, tested, ask)
                if isinstance(compared, Difference):
                    differences.append((compared, _curve(tested[a], tested[b], radii), first))
                else:
                    refused.append(UncomparedPair(contrast=contrast, a=a, b=b, verdict=compared))
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


def threats_of(folder: Path) -> Iterator[tuple[dict[str, dict[str, Attacked]], list[float]]]:
    """For each threat that runs of a study were attacked under, these runs at the radius at which they are
    compared, by variant and seed; and all radii that they share."""
    for variants in _by_threat(variants_of(folder, lambda run: bool(_results(run)))):
        attacked_runs = [run for seeds in variants.values() for run in seeds.values()]
        radii = sorted(
            set.intersection(*({float(r) for r in run.result.radii if r > 0} for run in attacked_runs))
        )
        if radii:
            eps = most_informative_radius(attacked_runs, radii)
            yield (
                {
                    name: {seed: run.at(eps) for seed, run in seeds.items()}
                    for name, seeds in variants.items()
                },
                radii,
            )


def _by_threat(variants: VariantFolders) -> list[dict[str, dict[str, Attacked]]]:
    groups: dict[str, dict[str, dict[str, Attacked]]] = {}
    for name, seeds in variants.items():
        for seed, folder in seeds.items():
            for key, result in _results(folder).items():
                groups.setdefault(attack_family(result), {}).setdefault(name, {})[seed] = _read(
                    folder, key, result
                )
    return [members for _, members in sorted(groups.items())]


def most_informative_radius(runs: Sequence[Attacked], radii: Sequence[float]) -> float:
    """The radius at which the robust accuracy of all runs together is nearest to half of their
    unattacked accuracy; of several, the smallest."""
    half = np.mean([(run.smallest > 0).mean() for run in runs]) / 2
    return min(radii, key=lambda eps: abs(np.mean([run.at(eps).right.mean() for run in runs]) - half))


def _curve(
    a: Mapping[str, Attacked], b: Mapping[str, Attacked], radii: Sequence[float]
) -> list[DifferenceAtRadius]:
    pairs = [(a[seed], b[seed]) for seed in a if seed in b]
    if any(pairs[0][0].mismatch(one) for one, _ in pairs[1:]):
        return []
    rows = []
    for eps in radii:
        right = [np.stack([pair[side].at(eps).right for pair in pairs]).astype(np.float32) for side in (0, 1)]
        difference = difference_of("", "a", "b", *right).difference
        rows.append(DifferenceAtRadius(eps=eps, difference=difference))
    return rows


def _results(folder: RunFolder) -> dict[str, ResultFile]:
    """The attack results of a finished run by key."""
    if not folder.record.is_file() or not read_record(folder).usable:
        return {}
    return {
        file.parent.name: ResultFile.read(file)
        for file in sorted(folder.path.glob("robustness/*/result.json"))
    }


def _read(folder: RunFolder, key: str, result: ResultFile) -> Attacked:
    path = folder.path / "robustness" / key / "result.npz"
    arrays = RESULT_ARRAYS.read(
        path, f"there is no {path}; attack the run again", ("index", "labels", "smallest")
    )
    arrays = attacked_images(arrays)
    if len(arrays["smallest"]) != result.n:
        raise UnreadableRun(
            f"{path} has {len(arrays['smallest'])} images, its result.json {result.n}; attack the run again"
        )
    smallest = arrays["smallest"]
    record = read_record(folder)
    return Attacked(
        smallest > 0, arrays["labels"], result.split, record, arrays["index"], smallest, result, 0.0
    )
