"""What attacking a model found, put together from its chunks: arrays with an entry an image, and
the figures of result.json."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stresslens.config.threat_model import BoundAttack, ThreatModel
from stresslens.core.ball import Ball, same_radius
from stresslens.core.errors import ConfigError, Notice
from stresslens.core.evidence import CLEAN, Curve, Row, Trace
from stresslens.core.files import read_arrays, write_atomically, write_json
from stresslens.core.types import Estimate, Finding
from stresslens.core.version import __version__
from stresslens.metrics.intervals import wilson
from stresslens.robustness.attack_batch import VerdictModel, batched_logits
from stresslens.robustness.autotune import AttackCompute
from stresslens.robustness.radius_search import ImageChunk
from stresslens.robustness.result_file import (
    AttackCost,
    CurveLevel,
    DescribedAttack,
    IndividualAttackCurve,
    IndividualAttackRow,
    ResultFile,
)


@dataclass(frozen=True)
class AttackResult:
    """What attacking a model found: arrays with one entry an image, and the figures about them.

    arrays: index, labels, clean_prediction, clean_confidence, smallest (0 where wrong unattacked,
    infinite where unbroken), by (place in names, -1 unbroken), steps; of the broken ones, rows,
    adversarials (m, C, H, W), adversarial_prediction, adversarial_confidence, size. ladder (attacks
    alone, radii, C, H, W): the first image as each attack by itself returned it.
    """

    arrays: Mapping[str, np.ndarray]
    result: ResultFile

    @property
    def facts(self) -> dict[str, Any]:
        """The figures as result.json holds them."""
        return self.result.as_json()

    @property
    def minimal_radius(self) -> np.ndarray:
        """(n,) the smallest attacked radius at which each image is broken; infinite where none is, 0 where it is wrong
        without an attack."""
        return self.arrays["smallest"]

    def robust_accuracy(self, eps: float) -> Estimate:
        """The share of images that no attack broke at any radius up to `eps`, with Wilson's interval.

        Raises ConfigError for a radius that was not attacked.
        """
        known = [radius for radius in (0.0, *self.result.radii) if same_radius(radius, eps)]
        if not known:
            asked = ", ".join(f"{radius:g}" for radius in self.result.radii)
            raise ConfigError(f"radius {eps:g} was not attacked; known are {asked}")
        return wilson(int((self.minimal_radius > known[0]).sum()), len(self.minimal_radius))

    @property
    def smallest(self) -> np.ndarray:
        """The name of `minimal_radius` in version 0.1.0."""
        warnings.warn(
            "AttackResult.smallest is now minimal_radius; the old name still works", Notice, stacklevel=2
        )
        return self.minimal_radius

    def robust(self, eps: float) -> Estimate:
        """The name of `robust_accuracy` in version 0.1.0."""
        warnings.warn(
            "AttackResult.robust is now robust_accuracy; the old name still works", Notice, stacklevel=2
        )
        return self.robust_accuracy(eps)

    @property
    def findings(self) -> list[Finding]:
        return list(self.result.findings)

    @property
    def curve(self) -> Curve:
        names = tuple(str(name) for name in self.arrays["names"])
        return Curve(
            self.result.norm,
            tuple(self.result.radii),
            self.minimal_radius,
            self.arrays["by"],
            names,
            self.result.n if self.result.asked is None else self.result.asked,
            self.result.reported_clean,
        )

    def table(self, model: str = "model") -> list[Row]:
        """The figures of each attack by itself and of the worst case, as a table that audits read."""
        n, norm = self.result.n, self.result.norm
        rows = [Row(model, CLEAN, 0.0, self.result.clean.value, n, norm)]
        rows += [
            Row(model, "worst case", level.eps, level.robust.value, n, norm) for level in self.result.curve
        ]
        for attack in self.result.individual_attacks:
            if attack.target is None:
                rows += [
                    Row(model, attack.label, row.eps, row.accuracy.value, n, norm) for row in attack.rows
                ]
        return rows

    @property
    def traces(self) -> list[Trace]:
        return list(self.result.traces)

    def save(self, folder: Path) -> None:
        arrays: dict[str, Any] = dict(self.arrays)
        write_atomically(folder / "result.npz", lambda file: np.savez_compressed(file, **arrays))
        write_json(folder / "result.json", self.result.as_json())

    @staticmethod
    def load(folder: Path) -> AttackResult:
        """Raises UnreadableRun when its files are missing or damaged."""
        return AttackResult(
            read_arrays(folder / "result.npz", f"there is no {folder / 'result.npz'}"),
            ResultFile.read(folder / "result.json"),
        )


Robust = AttackResult
"""The name in version 0.1.0."""


def result_arrays(
    chunks: Sequence[ImageChunk], threat: ThreatModel, float32_logits: VerdictModel
) -> dict[str, np.ndarray]:
    levels = np.array([*(eps for eps in threat.radii if eps > 0), np.inf])

    def joined(of: Callable[[ImageChunk], Any]) -> np.ndarray:
        return np.concatenate([of(chunk).cpu().numpy() for chunk in chunks])

    wrong = ~joined(lambda c: c.right)
    smallest = np.where(wrong, 0.0, levels[joined(lambda c: c.high)])
    by = joined(lambda c: c.by)
    broken = np.flatnonzero((by >= 0) & ~wrong & np.isfinite(smallest))
    clean = torch.cat([c.clean for c in chunks]).double().softmax(1).cpu()
    x_adv, x = torch.cat([c.x_adv for c in chunks])[broken], torch.cat([c.x for c in chunks])[broken]
    after = torch.cat([c.after for c in chunks])[broken].double().softmax(1).cpu()
    by[wrong | ~np.isfinite(smallest)] = -1
    ladder = chunks[0].ladder
    of_ladder = batched_logits(float32_logits, ladder.flatten(0, 1)).double().softmax(1).cpu()
    return {
        "index": joined(lambda c: c.places),
        "labels": joined(lambda c: c.y),
        "clean_prediction": clean.argmax(1).numpy(),
        "clean_confidence": clean.amax(1).numpy().astype(np.float32),
        "smallest": smallest,
        "by": by,
        "names": np.array(threat.names, dtype=np.str_),
        "steps": joined(lambda c: c.steps),
        "rows": broken,
        "adversarials": x_adv.cpu().numpy(),
        "adversarial_prediction": after.argmax(1).numpy(),
        "adversarial_confidence": after.amax(1).numpy().astype(np.float32),
        "ladder": ladder.cpu().numpy(),
        "ladder_size": Ball(threat.norm, 0.0)
        .size((ladder - chunks[0].x[0]).flatten(0, 1))
        .reshape(ladder.shape[:2])
        .cpu()
        .numpy(),
        "ladder_prediction": of_ladder.argmax(1).reshape(ladder.shape[:2]).numpy(),
        "ladder_confidence": of_ladder.amax(1).reshape(ladder.shape[:2]).numpy(),
        "size": Ball(threat.norm, 0.0).size(x_adv - x).double().cpu().numpy(),
    }


def result_file(
    arrays: Mapping[str, np.ndarray],
    chunks: Sequence[ImageChunk],
    threat: ThreatModel,
    key: str,
    fingerprint: str,
    asked: int,
    reported: float | None,
    compute: AttackCompute,
    seconds: float,
) -> ResultFile:
    n, smallest = len(arrays["labels"]), arrays["smallest"]
    traces = _merged([trace for chunk in chunks for trace in chunk.traces])
    return ResultFile(
        version=__version__,
        key=key,
        fingerprint=fingerprint,
        norm=threat.norm,
        radii=list(threat.radii),
        protocol=threat.protocol,
        attacks=[DescribedAttack(**_described(each)) for each in threat.attempts],
        split=threat.settings.get("split", "test"),
        n=n,
        asked=asked,
        seed=threat.seed,
        target=threat.target,
        aimed=threat.targeted_success,
        classes=int(chunks[0].clean.shape[1]),
        clean=wilson(int((smallest > 0).sum()), n),
        reported_clean=reported,
        curve=[
            CurveLevel(
                eps=eps,
                robust=wilson(int((smallest > eps).sum()), n),
                newly_broken_by={
                    name: int(count)
                    for place, name in enumerate(threat.names)
                    if (count := ((smallest == eps) & (arrays["by"] == place)).sum())
                },
            )
            for eps in threat.radii
        ],
        individual_attacks=[_individual(place, each, chunks) for place, each in enumerate(threat.alone)],
        traces=traces,
        compute=compute,
        cost=AttackCost(
            seconds=max(seconds, sum(trace.seconds for trace in traces)),
            forwards=sum(trace.forwards for trace in traces),
            gradients=sum(trace.gradients for trace in traces),
            audit_seconds=0.0,
        ),
        settings=threat_settings(threat),
    )


def _individual(place: int, each: BoundAttack, chunks: Sequence[ImageChunk]) -> IndividualAttackCurve:
    rows = []
    for level, eps in enumerate(each.radii):
        ranks = torch.cat([chunk.ranks[place, level] for chunk in chunks])
        valid = torch.cat([chunk.valid[place, level] for chunk in chunks])
        wrong = torch.cat([~chunk.right for chunk in chunks])
        n, classes = len(ranks), chunks[0].clean.shape[1]
        silent = sum(
            t.silent
            for chunk in chunks
            for t in chunk.traces
            if t.attack == each.label and t.eps == np.float32(eps)
        )
        rows.append(
            IndividualAttackRow(
                eps=eps,
                accuracy=wilson(int((ranks == 0).sum()), n),
                top5=wilson(int((ranks < 5).sum()), n) if classes > 5 else None,
                valid=wilson(int(((ranks == 0) | (~valid & ~wrong)).sum()), n),
                outside=int((~valid).sum()),
                silent=silent,
            )
        )
    return IndividualAttackCurve(**_described(each), attack=each.value, target=each.target, rows=rows)


def _described(each: BoundAttack) -> dict[str, Any]:
    name = each.bound.function.__name__
    value = each.value if isinstance(each.value, dict) else {each.value: {}}
    return {"name": name, "label": each.label, "options": dict(next(iter(value.values())) or {})}


def _merged(traces: Sequence[Trace]) -> list[Trace]:
    """The traces of all chunks, one for each attack and radius, counts added up."""
    together: dict[tuple[str, float], Trace] = {}
    for trace in traces:
        known = together.get((trace.attack, trace.eps))
        if known is None:
            together[trace.attack, trace.eps] = replace(trace)
            continue
        counted = (
            "n",
            "broke",
            "outside",
            "silent",
            "zero_at_start",
            "zero_on_path",
            "gradients",
            "forwards",
        )
        for name in (*counted, "followed", "rising", "seconds"):
            setattr(known, name, getattr(known, name) + getattr(trace, name))
        known.excess = max(known.excess, trace.excess)
    return list(together.values())


def threat_settings(threat: ThreatModel) -> dict[str, Any]:
    """All that a result depends on besides the model and the images, as JSON writes it."""
    return {
        **{key: value for key, value in threat.settings.items() if key != "alone"},
        "radii": list(threat.radii),
        "attempts": [[each.label, each.value] for each in threat.attempts],
        "alone": [[each.label, each.value, each.target, list(each.radii)] for each in threat.alone],
    }
