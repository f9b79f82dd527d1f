"""Attack result: minimal radii and adversarial images in result.npz, robust accuracy and its curve
in result.json."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stresslens.charts.chart import Chart
from stresslens.config.threat_model import BoundAttack, ThreatModel, settings_of_result
from stresslens.core.answers import NO_ANSWER, confidence, predicted
from stresslens.core.ball import Ball, same_radius, single_radius
from stresslens.core.errors import ConfigError, Notice, ends_at_caller
from stresslens.core.evidence import CLEAN, Curve, Row, Trace, largest_class
from stresslens.core.files import write_arrays
from stresslens.core.fingerprint import repeated
from stresslens.core.result_lists import Findings
from stresslens.core.tables import ResultTable, RowTable
from stresslens.core.types import Estimate
from stresslens.core.version import __version__
from stresslens.metrics.classification import top_k
from stresslens.metrics.intervals import wilson
from stresslens.robustness.attack_batch import VerdictModel, batched_logits
from stresslens.robustness.autotune import AttackCompute
from stresslens.robustness.certificate_file import CertificateFile
from stresslens.robustness.query_curves import query_levels
from stresslens.robustness.radius_search import ImageChunk
from stresslens.robustness.result_cards import result_card, result_line, result_table
from stresslens.robustness.result_file import (
    RESULT_ARRAYS,
    AttackCost,
    CurveLevel,
    DescribedAttack,
    IndividualAttackCurve,
    IndividualAttackRow,
    ResultFile,
    attacked_images,
)
from stresslens.robustness.robust_curves import result_chart
from stresslens.robustness.trace_totals import merged_traces


@dataclass(frozen=True, repr=False)
class AttackResult(RowTable):
    """The result of an attack on n images: the arrays of result.npz and the contents of
    result.json.

    Predictions are classes or -1, no answer (`core.answers`), with confidence 0.

    Arrays with an entry for each image (n,): index, labels, clean_prediction, clean_confidence,
    smallest (the minimal radius: 0 if the image is misclassified without attack, infinite if it is
    not broken, NaN if it is of a fixed target class and thus not attacked), by (position of the
    attack in `names`, -1 if not broken), steps, repeated (whether an earlier image has the same
    pixels and label). Arrays with an entry for each of the m broken images: rows (their positions in
    the arrays above), adversarials (m, C, H, W), adversarial_prediction, adversarial_confidence,
    size (norm of the perturbation). query_sizes (n, individual attacks, radii, marks) is there if an
    individual attack counts queries (`query_curves`). ladder (individual attacks, radii, C, H, W) holds
    the first image as each individual attack returned it. `certificates` are those that the attack of
    a run asked for.
    """

    arrays: Mapping[str, np.ndarray]
    result: ResultFile
    certificates: Sequence[CertificateFile] = ()

    def __repr__(self) -> str:
        return f"AttackResult({result_line(self.result)}{self.findings.warning})"

    def _repr_html_(self) -> str:
        return result_card(self.result, self.arrays)

    def _table(self) -> ResultTable:
        return result_table(self.result)

    def plot(self) -> Chart:
        """The accuracy over the radius: in the worst case, and under each individual attack by itself."""
        return result_chart(self.result, self.result.individual_attacks)

    @property
    def facts(self) -> dict[str, Any]:
        """The contents of result.json."""
        return self.result.as_json()

    @property
    def minimal_radius(self) -> np.ndarray:
        """(n,) the smallest attacked radius at which each image is broken: 0 if it is misclassified
        without attack, infinite if no attack breaks it, NaN for an image of a fixed target class,
        which cannot be attacked towards it and which no figure counts."""
        return self.arrays["smallest"]

    @ends_at_caller
    def robust_accuracy(self, eps: float | str) -> Estimate:
        """The robust accuracy: the share of images that are classified correctly and that no attack
        breaks at any radius up to `eps` (0.03 or "8/255"), with Wilson's interval. An image that is
        there several times counts once.

        If only the target counts as success, it is the share of images that are correct and not
        driven to the target; see `targeted_success_rate`.
        Raises ConfigError for a radius that was not attacked.
        """
        wanted = single_radius(eps)
        known = [radius for radius in (0.0, *self.result.radii) if same_radius(radius, wanted)]
        if not known:
            attacked = ", ".join(f"{radius:g}" for radius in self.result.radii)
            raise ConfigError(f"radius {eps} was not attacked; known are {attacked}")
        counted = attacked_images(self.arrays)["smallest"]
        return wilson(int((counted > known[0]).sum()), len(counted))

    @ends_at_caller
    def targeted_success_rate(self, eps: float | str) -> Estimate:
        """The share of the images that are correct without attack that the attacks drive to the
        target at a radius up to `eps`, with Wilson's interval. Raises ConfigError for a radius that
        was not attacked, and unless only the target counts as success."""
        if not self.result.aimed:
            raise ConfigError("any wrong class counted as success; attack with success: target")
        return self.result.targeted_success(self.robust_accuracy(eps))

    @property
    def no_answer(self) -> np.ndarray:
        """(n,) images without an answer: before the attack, or at their minimal radius."""
        return _without_answer(self.arrays)

    @property
    def smallest(self) -> np.ndarray:
        """The name of `minimal_radius` in version 0.1.0."""
        warnings.warn(
            "AttackResult.smallest is now minimal_radius; the old name still works", Notice, stacklevel=2
        )
        return self.minimal_radius

    def robust(self, eps: float | str) -> Estimate:
        """The name of `robust_accuracy` in version 0.1.0."""
        warnings.warn(
            "AttackResult.robust is now robust_accuracy; the old name still works", Notice, stacklevel=2
        )
        return self.robust_accuracy(eps)

    @property
    def findings(self) -> Findings:
        return Findings(self.result.findings)

    @property
    def curve(self) -> Curve:
        """The minimal radii and the attacks that broke the images, for audits."""
        arrays = attacked_images(self.arrays)
        names = tuple(str(name) for name in arrays["names"])
        return Curve(
            self.result.norm,
            tuple(self.result.radii),
            arrays["smallest"],
            arrays["by"],
            names,
            self.result.n if self.result.asked is None else self.result.asked,
            self.result.reported_clean,
            arrays["labels"],
            self.result.aimed,
            self.result.chunk,
            self.result.repeated,
            _without_answer(arrays),
        )

    def table(self, model: str = "model") -> list[Row]:
        """The accuracies without attack, under the whole protocol and under each individual attack,
        for audits."""
        n, norm = self.result.n, self.result.norm
        largest = largest_class(self.curve) / max(n, 1)
        rows = [Row(model, CLEAN, 0.0, self.result.clean.value, n, norm, largest_class=largest)]
        rows += [
            Row(model, "protocol", level.eps, level.robust.value, n, norm, largest_class=largest)
            for level in self.result.curve
        ]
        for attack in self.result.individual_attacks:
            if attack.target is None:
                rows += [
                    Row(model, attack.label, row.eps, row.accuracy.value, n, norm, largest_class=largest)
                    for row in attack.rows
                ]
        return rows

    @property
    def traces(self) -> list[Trace]:
        return list(self.result.traces)

    def save(self, folder: Path) -> None:
        """Writes result.npz, timings.json and result.json into `folder`."""
        write_arrays(folder / "result.npz", dict[str, Any](self.arrays), compressed=True)
        self.result.save(folder)

    @staticmethod
    def load(folder: Path) -> AttackResult:
        """Reads the files that `save` wrote. Raises UnreadableRun if they are missing or
        damaged."""
        return AttackResult(
            RESULT_ARRAYS.read(folder / "result.npz"),
            ResultFile.read(folder / "result.json"),
        )


Robust = AttackResult
"""The name in version 0.1.0."""


def result_arrays(
    chunks: Sequence[ImageChunk], threat: ThreatModel, float32_logits: VerdictModel
) -> dict[str, np.ndarray]:
    """The arrays of `AttackResult`, joined from all chunks."""
    radii = np.array([*(eps for eps in threat.radii if eps > 0), np.inf])

    def joined(values: Callable[[ImageChunk], Any]) -> np.ndarray:
        return np.concatenate([values(chunk).cpu().numpy() for chunk in chunks])

    wrong, labels = ~joined(lambda c: c.right), joined(lambda c: c.y)
    minimal_radius = np.where(wrong, 0.0, radii[joined(lambda c: c.broken_level)])
    if isinstance(threat.target, int):
        minimal_radius[labels == threat.target] = np.nan
    broken_by = joined(lambda c: c.broken_by)
    broken = np.flatnonzero((broken_by >= 0) & ~wrong & np.isfinite(minimal_radius))
    clean_answer, clean_confidence = _answers(torch.cat([c.clean_logits for c in chunks]))
    x_adv, x = torch.cat([c.x_adv for c in chunks])[broken], torch.cat([c.x for c in chunks])[broken]
    answer, sure = _answers(torch.cat([c.adversarial_logits for c in chunks])[broken])
    broken_by[wrong | ~np.isfinite(minimal_radius)] = -1
    ladder = chunks[0].ladder
    ladder_answer, ladder_confidence = _answers(batched_logits(float32_logits, ladder.flatten(0, 1)))
    return {
        "index": joined(lambda c: c.positions),
        "labels": labels,
        "clean_prediction": clean_answer,
        "clean_confidence": clean_confidence,
        "smallest": minimal_radius,
        "repeated": repeated([c.x for c in chunks], torch.from_numpy(labels)).numpy(),
        "by": broken_by,
        "names": np.array(threat.names, dtype=np.str_),
        "steps": joined(lambda c: c.steps),
        "rows": broken,
        "adversarials": x_adv.cpu().numpy(),
        "adversarial_prediction": answer,
        "adversarial_confidence": sure,
        "ladder": ladder.cpu().numpy(),
        "ladder_size": Ball(threat.norm, 0.0)
        .size((ladder - chunks[0].x[0]).flatten(0, 1))
        .reshape(ladder.shape[:2])
        .cpu()
        .numpy(),
        "ladder_prediction": ladder_answer.reshape(ladder.shape[:2]),
        "ladder_confidence": ladder_confidence.reshape(ladder.shape[:2]),
        "size": Ball(threat.norm, 0.0).size(x_adv - x).double().cpu().numpy(),
        **({"query_sizes": sizes} if (sizes := joined(lambda c: c.query_sizes)).size else {}),
    }


def _answers(logits: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(n,) the predicted classes (`core.answers`), and (n,) the confidence in them."""
    sure = confidence(logits.double().softmax(1))
    return predicted(logits).cpu().numpy(), sure.cpu().numpy().astype(np.float32)


def _without_answer(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """(n,) see `AttackResult.no_answer`."""
    missing: np.ndarray = arrays["clean_prediction"] == NO_ANSWER
    missing[arrays["rows"][arrays["adversarial_prediction"] == NO_ANSWER]] = True
    return missing


def result_file(
    arrays: Mapping[str, np.ndarray],
    chunks: Sequence[ImageChunk],
    threat: ThreatModel,
    key: str,
    fingerprint: str,
    n_requested: int,
    reported: float | None,
    compute: AttackCompute,
    seconds: float,
) -> ResultFile:
    """The contents of result.json; `reported` is the clean accuracy that the model's record has,
    and `seconds` is the duration of the attack."""
    everything, arrays = arrays, attacked_images(arrays)
    n, left_out = len(arrays["labels"]), int(np.isnan(everything["smallest"]).sum())
    traces = merged_traces([chunk.traces for chunk in chunks])
    return ResultFile(
        version=__version__,
        key=key,
        fingerprint=fingerprint,
        norm=threat.norm,
        radii=list(threat.radii),
        protocol=threat.protocol,
        attacks=[DescribedAttack(**_described(attack)) for attack in threat.attempts],
        split=threat.config.split,
        n=n,
        asked=n_requested - (len(everything["labels"]) - n),
        repeated=len(everything["labels"]) - n - left_out,
        chunk=len(chunks[0].y),
        seed=threat.seed,
        target=threat.target,
        target_name=threat.target_name,
        aimed=threat.targeted_success,
        left_out=left_out,
        classes=int(chunks[0].clean_logits.shape[1]),
        clean=wilson(int((arrays["smallest"] > 0).sum()), n),
        clean_top5=_clean_top5(everything, chunks),
        reported_clean=reported,
        curve=_curve(arrays, threat),
        individual_attacks=[
            _individual(attack_index, attack, chunks, torch.from_numpy(~everything["repeated"]))
            for attack_index, attack in enumerate(threat.alone)
        ],
        traces=traces,
        compute=compute,
        cost=AttackCost(
            seconds=max(seconds, sum(trace.seconds for trace in traces)),
            forwards=sum(trace.forwards for trace in traces),
            gradients=sum(trace.gradients for trace in traces),
            audit_seconds=0.0,
        ),
        settings=settings_of_result(threat),
    )


def _clean_top5(arrays: Mapping[str, np.ndarray], chunks: Sequence[ImageChunk]) -> Estimate | None:
    """The top-5 accuracy without attack, of the images that count; None with five classes or fewer."""
    logits = torch.cat([chunk.clean_logits for chunk in chunks]).cpu().numpy()
    if logits.shape[1] <= 5:
        return None
    counted = ~np.isnan(arrays["smallest"]) & ~arrays["repeated"]
    return top_k(logits[counted], arrays["labels"][counted], 5)


def _curve(arrays: Mapping[str, np.ndarray], threat: ThreatModel) -> list[CurveLevel]:
    """The robust accuracy at each radius, from the arrays of the attacked images."""
    minimal_radius, no_answer = arrays["smallest"], _without_answer(arrays)
    return [
        CurveLevel(
            eps=eps,
            robust=wilson(int((minimal_radius > eps).sum()), len(minimal_radius)),
            no_answer=int(((minimal_radius <= eps) & no_answer).sum()),
            newly_broken_by={
                name: int(count)
                for attack_index, name in enumerate(threat.names)
                if (count := ((minimal_radius == eps) & (arrays["by"] == attack_index)).sum())
            },
        )
        for eps in threat.radii
    ]


def _individual(
    attack_index: int, attack: BoundAttack, chunks: Sequence[ImageChunk], counted: Tensor
) -> IndividualAttackCurve:
    """The accuracies under the individual attack at position `attack_index` of the threat model, of
    the images that are `counted` (n,), without those of its target class, which cannot be attacked
    towards it."""
    rows = []
    target = attack.target if isinstance(attack.target, int) else -1
    kept = torch.cat([chunk.y for chunk in chunks]) != target
    kept &= counted.to(kept.device)
    for level, eps in enumerate(attack.radii):
        ranks = torch.cat([chunk.ranks[attack_index, level] for chunk in chunks])[kept]
        valid = torch.cat([chunk.valid[attack_index, level] for chunk in chunks])[kept]
        wrong = torch.cat([~chunk.right for chunk in chunks])[kept]
        n, classes = len(ranks), chunks[0].clean_logits.shape[1]
        sizes = torch.cat([chunk.query_sizes[:, attack_index, level] for chunk in chunks])[kept]
        silent = sum(
            t.silent
            for chunk in chunks
            for t in chunk.traces
            if t.attack == attack.label and t.eps == np.float32(eps)
        )
        rows.append(
            IndividualAttackRow(
                eps=eps,
                accuracy=wilson(int((ranks == 0).sum()), n),
                top5=wilson(int((ranks < 5).sum()), n) if classes > 5 else None,
                valid=wilson(int(((ranks == 0) | (~valid & ~wrong)).sum()), n),
                outside=int((~valid).sum()),
                silent=silent,
                by_queries=query_levels(attack.bound, sizes.cpu().numpy(), ~wrong.cpu().numpy(), eps),
            )
        )
    left_out = int((~kept).sum())
    return IndividualAttackCurve(
        **_described(attack), attack=attack.value, target=attack.target, left_out=left_out, rows=rows
    )


def _described(attack: BoundAttack) -> dict[str, Any]:
    name = attack.bound.function.__name__
    value = attack.value if isinstance(attack.value, dict) else {attack.value: {}}
    return {"name": name, "label": attack.label, "options": dict(next(iter(value.values())) or {})}
