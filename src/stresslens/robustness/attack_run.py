"""Attack a run: opens its model and images, measures and audits its robust accuracy, and writes the
result files."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stresslens.config import registry
from stresslens.config.schema import Robustness
from stresslens.config.threat_model import (
    ThreatModel,
    resolved_threat_model,
    why_not_attacked,
    with_class_numbers,
)
from stresslens.config.validation import read_settings
from stresslens.core.answers import predicted
from stresslens.core.attempts import Attempts
from stresslens.core.data import Data, Split
from stresslens.core.devices import pick_device
from stresslens.core.dtypes import device_of
from stresslens.core.files import UnreadableRun
from stresslens.core.fingerprint import fingerprint_of
from stresslens.core.gradient_free import NoGradient
from stresslens.core.layers import straight_through
from stresslens.core.progress import advance, foretell
from stresslens.core.run_folder import EstimatorCard, RunFolder
from stresslens.core.splits import split_named
from stresslens.evaluation.finished_run import finished
from stresslens.evaluation.record import RunRecord
from stresslens.evaluation.run_data import DataPlace
from stresslens.evaluation.saved_model import open_model
from stresslens.robustness import audit
from stresslens.robustness.certify import certify
from stresslens.robustness.example_images import adversarial_rows, ladder_images, save_adversarial_examples
from stresslens.robustness.measure import expected_gradients, measure
from stresslens.robustness.result import AttackResult
from stresslens.robustness.result_file import attacked_images
from stresslens.robustness.surrogate import check_class_names

AUDIT_ROUNDS = 6
"""How often the audits attack an image with the whole protocol: at four radii, and with twice the steps."""


def robustness_config(values: Mapping[str, Any]) -> Robustness:
    """The `robustness:` section that plain values describe. Raises ConfigError, which names every
    wrong setting."""
    return read_settings(Robustness, values, "an attack")


def attack_run(
    folder: RunFolder,
    config: Robustness,
    *,
    base: Path,
    trust: bool = False,
    device: str = "auto",
    module: nn.Module | None = None,
    data: DataPlace = None,
    surrogate: nn.Module | None = None,
) -> AttackResult:
    """Attacks a finished run, or resumes an interrupted attack, and writes the result to the run's
    folder.

    `module` and `data` are as in `open_run`; a `surrogate` comes before that of the configuration.
    Raises ConfigError, before any computing, if the run cannot be attacked in this way.
    """
    # the user typed these settings, so they may name own plug-ins; the opened run needs `trust` for it
    threat = resolved_threat_model(config, base)
    if folder.record.is_file():
        _check_estimator(folder, threat)
    opening: dict[str, Any] = {"trust": trust, "device": device, "module": module, "data": data}
    with finished(folder, config.split, **opening) as (model, found, record):
        other = surrogate or _surrogate(config, found, trust)
        other = None if other is None else other.to(pick_device(device))
        return attack_stage(folder, model, found, threat, record, surrogate=other)


def threat_on(data: Data, threat: ThreatModel) -> ThreatModel:
    """The threat with its targets as classes of the data. Raises ConfigError if the data has no
    such split, or if a target is not one of its classes."""
    split_named(data, threat.config.split, "robustness.split")
    return with_class_numbers(threat, data.classes)


def attack_stage(
    folder: RunFolder,
    model: nn.Module,
    data: Data,
    threat: ThreatModel,
    record: RunRecord,
    *,
    surrogate: nn.Module | None = None,
) -> AttackResult:
    """The attack stage of a run: measures, audits, certifies if the section asks for it, saves
    example images, and counts the result in the record."""
    threat = threat_on(data, threat)
    config = threat.config
    split = data.splits[config.split]
    name = f"{folder.path.parent.name} {folder.path.name}"
    attempts = Attempts()
    with attempts.part("attack"):
        robust, result_folder = measure(
            model,
            split,
            threat,
            home=folder.path / "robustness",
            reported=lambda index: _reported_accuracy(folder, config.split, index),
            surrogate=surrogate,
            on_progress=lambda decided, total: advance(f"attacking {name}", decided, total),
        )
        assert result_folder is not None
        record.count_reads("robustness", [robust.result.key], config.split)
        if config.audit and not robust.result.audited:
            robust = audited(robust, model, split, threat, surrogate=surrogate)
            robust.save(result_folder)
        if not (result_folder / "examples" / "examples.json").is_file():
            _save_examples(result_folder, split, robust)
    with attempts.part("certificates"):
        certified = certify(
            folder.path / "certificates",
            model,
            split,
            config.certificates,
            source=fingerprint_of([record.fingerprint, split.fingerprint]),
            base=threat.base,
            split_name=config.split,
            images=config.images,
            seed=config.seed,
            on_progress=lambda done, total: advance(f"certifying {name}", done, total),
            on_result=lambda result: record.count_reads("certificates", [result.fingerprint], config.split),
        )
    attempts.raise_failed()
    return replace(robust, certificates=certified)


def audited(
    robust: AttackResult,
    model: nn.Module,
    split: Split,
    threat: ThreatModel,
    *,
    surrogate: nn.Module | None = None,
) -> AttackResult:
    """The result with the findings of all audits, which attack the model again for some of them."""
    began = time.perf_counter()
    x, y = _attacked_images(robust, model, split)
    model = straight_through(model, threat.config.bpda)
    attempts = threat.attempts or threat.alone
    probed = min(len(x), audit.PROBED)
    gradients = probed * AUDIT_ROUNDS * sum(expected_gradients(attack) for attack in attempts)
    seconds = gradients * robust.result.compute.seconds
    foretell(f"auditing the result, with attacks on {probed} images,", seconds, "no audits (--no-audit)")
    probe: Any = audit.ExtraAttackProbe(
        model,
        x,
        y,
        threat.norm,
        threat.radii,
        [attack.bound for attack in attempts],
        seed=threat.seed,
        surrogate=surrogate,
        passes=robust.result.compute.passes,
        batch=robust.result.compute.batch,
    )
    findings = audit.audit(
        table=robust.table(),
        curve=robust.curve,
        trace=robust.traces,
        model=model,
        images=(x, y),
        probe=probe,
    )
    cost = robust.result.cost.model_copy(update={"audit_seconds": time.perf_counter() - began})
    update = {"findings": findings, "audited": True, "cost": cost}
    return replace(robust, result=robust.result.model_copy(update=update))


def audited_mode(robust: AttackResult, model: nn.Module, split: Split) -> AttackResult:
    """A kept result with the audit of the mode in which the model is given now."""
    name = "evaluation mode"
    found = audit.audit(model=model, images=_attacked_images(robust, model, split), only=[name])
    findings = [each for each in robust.result.findings if each.audit != name]
    update = {"findings": sorted([*found, *findings], key=lambda finding: finding.rank)}
    return replace(robust, result=robust.result.model_copy(update=update))


def _attacked_images(
    robust: AttackResult, model: nn.Module, split: Split
) -> tuple[torch.Tensor, torch.Tensor]:
    """x (n, C, H, W) and y (n,) of the attacked images, on the model's device."""
    images = split.select(torch.as_tensor(attacked_images(robust.arrays)["index"]))
    device = device_of(model)
    return images.floats(images.images[:]).to(device, torch.float32), images.labels.to(device)


def _reported_accuracy(folder: RunFolder, split: str, index: np.ndarray) -> float | None:
    """The accuracy of the run's saved predictions on the images at the positions `index` (n,); None
    if they are missing for any of them."""
    try:
        saved = folder.load_predictions(split)
    except UnreadableRun:
        return None
    right = dict(zip(saved["index"].tolist(), (predicted(saved["scores"]) == saved["labels"]).tolist()))
    known = [right[position] for position in index.tolist() if position in right]
    return sum(known) / len(known) if len(known) == len(index) else None


def _save_examples(result_folder: Path, split: Split, robust: AttackResult) -> None:
    """Saves image files of some broken images, and of the first image as each individual attack
    returned it at each radius."""
    arrays = robust.arrays
    chosen, entries = adversarial_rows(arrays)
    broken, first = (
        split.images[torch.as_tensor(arrays["index"][rows])] for rows in (arrays["rows"][chosen], slice(0, 1))
    )
    pairs = [
        (arrays["ladder"][a, level], image)
        for (a, level), image in ladder_images(arrays, robust.result.individual_attacks)
    ]
    originals = split.floats(torch.cat([broken, *[first] * len(pairs)]).cpu())
    adversarials = np.concatenate([arrays["adversarials"][chosen], *(pixels[None] for pixels, _ in pairs)])
    save_adversarial_examples(
        result_folder / "examples", originals, adversarials, [*entries, *(image for _, image in pairs)]
    )


def _surrogate(config: Robustness, data: Data, trust: bool) -> nn.Module | None:
    if config.surrogate is None:
        return None
    return open_surrogate(RunFolder(Path(config.surrogate)), data, trust=trust)


def open_surrogate(folder: RunFolder, data: Data, *, trust: bool) -> nn.Module:
    """The model of another run. Raises ConfigError if it was trained on other classes than those of
    the data."""
    check_class_names(folder.load_card().classes, data.classes, folder.path)
    return open_model(folder, trust=trust)


def _check_estimator(folder: RunFolder, threat: ThreatModel) -> None:
    """Raises NoGradient, before the data are read, where attacks follow gradients and the run is that of
    an estimator, or an ensemble with one."""
    card = folder.load_card()
    members = [card] if isinstance(card, EstimatorCard) else card.members
    found = next((each for each in members if isinstance(each, EstimatorCard)), None)
    if found is not None:
        name = registry.name_and_options("estimators", found.estimator)[0]
        what = "the estimator" if found is card else "an ensemble with the estimator"
        if why := why_not_attacked(threat, f"{folder.path} is {what} {name}, which"):
            raise NoGradient(why)
