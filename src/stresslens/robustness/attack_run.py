"""A run under attack: its model and images opened, its robustness measured and audited, its files written."""

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
from stresslens.config.threat_model import ThreatModel, resolve_threat_model
from stresslens.config.validation import read_settings
from stresslens.core.data import Data, Split
from stresslens.core.devices import pick_device
from stresslens.core.errors import ConfigError, Problems
from stresslens.core.files import UnreadableRun
from stresslens.core.fingerprint import fingerprint_of
from stresslens.core.inspection import evaluating
from stresslens.core.layers import straight_through
from stresslens.core.progress import advance
from stresslens.core.run_folder import EstimatorCard, RunFolder
from stresslens.evaluation.finished_run import finished
from stresslens.evaluation.record import RunRecord
from stresslens.evaluation.saved_model import open_model
from stresslens.robustness import audit
from stresslens.robustness.certify import certify
from stresslens.robustness.example_images import adversarial_rows, ladder_images, save_adversarial_examples
from stresslens.robustness.measure import measure
from stresslens.robustness.result import AttackResult


def robustness_config(values: Mapping[str, Any]) -> Robustness:
    """A `robustness:` section from plain values. Raises ConfigError naming every setting that is wrong."""
    return read_settings(Robustness, values, "an attack")


def attack_run(
    folder: RunFolder, asked: Robustness, *, base: Path, trust: bool = False, device: str = "auto"
) -> AttackResult:
    """Measures a finished run's robustness, or goes on with it, and writes it to the run's folder.

    Raises ConfigError, before any computing, for what cannot be done.
    """
    if folder.record.is_file():
        _check_gradients(
            folder, "attacks follow gradients; attacked blindly alone it would look more robust than it is"
        )
    threat = resolved_threat_model(
        asked, base
    )  # what was typed is trusted; the run that is opened need not be
    with finished(folder, asked.split, trust=trust, device=device) as (model, data, record):
        other = _surrogate(asked, trust)
        surrogate = None if other is None else other.to(pick_device(device))
        return attack_stage(folder, model, data, asked, threat, record, surrogate=surrogate)


def resolved_threat_model(asked: Robustness, base: Path) -> ThreatModel:
    try:
        return resolve_threat_model(asked, base=base, path=())
    except Problems as error:
        raise ConfigError(
            "\n".join(f"{p.path[0]}: {p.message}" if p.path else p.message for p in error.problems)
        ) from None


def check_attack_data(asked: Robustness, threat: ThreatModel, data: Data) -> None:
    """Raises ConfigError for a split that the data does not have, or a target that is none of its classes."""
    if asked.split not in data.splits:
        raise ConfigError(
            f"robustness.split: {data.name} has no {asked.split} split here; it has {', '.join(data.splits)}"
        )
    for target in (threat.target, *(each.target for each in threat.alone)):
        if isinstance(target, int) and target >= len(data.classes):
            raise ConfigError(
                f"robustness: the target {target} is no class of {data.name}, whose classes are 0 to {len(data.classes) - 1}"
            )


def attack_stage(
    folder: RunFolder,
    model: nn.Module,
    data: Data,
    asked: Robustness,
    threat: ThreatModel,
    record: RunRecord,
    *,
    surrogate: nn.Module | None = None,
) -> AttackResult:
    """The stage of a run: measures, audits, keeps pictures, and names the result in the record."""
    check_attack_data(asked, threat, data)
    split = data.splits[asked.split]
    name = f"attacking {folder.path.parent.name} {folder.path.name}"
    robust, place = measure(
        model,
        split,
        threat,
        home=folder.path / "robustness",
        reported=lambda index: _reported(folder, asked.split, index),
        surrogate=surrogate,
        tell=lambda decided, total: advance(name, decided, total),
    )
    assert place is not None
    if asked.audit and not robust.result.audited:
        robust = audited(robust, model, split, threat, surrogate=surrogate)
        robust.save(place)
    if not (place / "examples" / "examples.json").is_file():
        _save_examples(place, split, robust)
    if asked.certificates:
        certified = certify(
            folder.path / "certificates",
            model,
            split,
            asked.certificates,
            of=fingerprint_of([record.fingerprint, split.fingerprint]),
            base=threat.base,
            split_name=asked.split,
            images=asked.images,
            seed=asked.seed,
            tell=lambda done, total: advance(
                f"certifying {folder.path.parent.name} {folder.path.name}", done, total
            ),
        )
        record.count_reads("certificates", [each.fingerprint for each in certified], asked.split)
    record.count_reads("robustness", [robust.result.key], asked.split)
    return robust


def audited(
    robust: AttackResult,
    model: nn.Module,
    split: Split,
    threat: ThreatModel,
    *,
    surrogate: nn.Module | None = None,
) -> AttackResult:
    """The result with what the audits found."""
    arrays, began = robust.arrays, time.perf_counter()
    own = split.select(torch.as_tensor(arrays["index"]))
    first = next((p for p in model.parameters()), torch.empty(0))
    x, y = own.floats(own.images[:]).to(first.device, torch.float32), own.labels.to(first.device)
    model = straight_through(model, threat.settings["bpda"])
    attacks = [each.bound for each in threat.attempts or threat.alone]
    with evaluating(model):  # as it was attacked
        probe: Any = audit.ExtraAttackProbe(
            model,
            x,
            y,
            threat.norm,
            threat.radii,
            attacks,
            seed=threat.seed,
            surrogate=surrogate,
            passes=robust.result.compute.passes,
            batch=robust.result.compute.batch,
        )
        found = audit.audit(
            table=robust.table(),
            curve=robust.curve,
            trace=robust.traces,
            model=model,
            images=(x, y),
            probe=probe,
        )
    cost = robust.result.cost.model_copy(update={"audit_seconds": time.perf_counter() - began})
    update = {"findings": found, "audited": True, "cost": cost}
    return replace(robust, result=robust.result.model_copy(update=update))


def _reported(folder: RunFolder, split: str, index: np.ndarray) -> float | None:
    """The share of these images that the run's saved predictions have right."""
    try:
        kept = folder.load_predictions(split)
    except UnreadableRun:
        return None
    right = dict(zip(kept["index"].tolist(), (kept["scores"].argmax(1) == kept["labels"]).tolist()))
    known = [right[place] for place in index.tolist() if place in right]
    return sum(known) / len(known) if len(known) == len(index) else None


def _save_examples(place: Path, split: Split, robust: AttackResult) -> None:
    """Pictures of some of the broken images, and of the first image as each attack by itself left
    it at each radius."""
    arrays = robust.arrays
    chosen, known = adversarial_rows(arrays)
    broken, first = (
        split.images[torch.as_tensor(arrays["index"][rows])] for rows in (arrays["rows"][chosen], slice(0, 1))
    )
    pairs = [
        (arrays["ladder"][a, level], image)
        for (a, level), image in ladder_images(arrays, robust.result.individual_attacks)
    ]
    originals = split.floats(torch.cat([broken, *[first] * len(pairs)]).cpu())
    adversarials = np.concatenate([arrays["adversarials"][chosen], *(picture[None] for picture, _ in pairs)])
    save_adversarial_examples(
        place / "examples", originals, adversarials, [*known, *(image for _, image in pairs)]
    )


def _surrogate(asked: Robustness, trust: bool) -> nn.Module | None:
    if asked.surrogate is None:
        return None
    folder = RunFolder(Path(asked.surrogate))
    _check_gradients(folder, "a surrogate lends its gradients; name a run that was trained")
    return open_model(folder, trust=trust)


def _check_gradients(folder: RunFolder, why: str) -> None:
    """Raises ConfigError where a run's model is an estimator."""
    card = folder.load_card()
    if isinstance(card, EstimatorCard):
        raise ConfigError(
            f"{folder.path} is the estimator {registry.name_and_options('estimators', card.estimator)[0]}, without gradients: {why}"
        )
