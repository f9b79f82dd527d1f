"""A run under attack: its model and images opened, its robustness measured and audited, its files written."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from stresslens import auditing, find, study
from stresslens.adversarial_examples import examples_of, ladder_facts, save_adversarial_examples
from stresslens.building import data_of, open_model
from stresslens.certifying import certify
from stresslens.core.data import Data, Split
from stresslens.core.devices import pick_device
from stresslens.core.errors import ConfigError, Problems
from stresslens.core.layers import evaluating, straight_through
from stresslens.core.progress import advance
from stresslens.core.results import EstimatorCard, RunFolder, UnreadableRun, read_record, write_json
from stresslens.recipe import Robustness
from stresslens.recipe_check import read_settings
from stresslens.robust_result import Robust
from stresslens.robustness import measure
from stresslens.threat import Threat, threat_of


def asked_of(values: Mapping[str, Any]) -> Robustness:
    """A `robustness:` section from plain values. Raises ConfigError naming every setting that is wrong."""
    return read_settings(Robustness, values, "an attack")


def opened(folder: RunFolder, *, trust: bool = False) -> tuple[nn.Sequential, Data]:
    """A run's model and the data it was trained on. Raises ConfigError where the data has changed since."""
    record = read_record(folder)
    model, data = open_model(folder, trust=trust), data_of(folder, trust=trust)
    if data.fingerprint != record["data"]["fingerprint"]:
        raise ConfigError(
            f"{folder.path}: the data set has changed since the run was trained; what is measured on it would not be of this run"
        )
    return model, data


def attack_run(folder: RunFolder, asked: Robustness, *, base: Path, trust: bool = False, device: str = "auto") -> Robust:
    """Measures a finished run's robustness, or goes on with it, and writes it to the run's folder.

    Raises ConfigError, before any computing, for what cannot be done.
    """
    if folder.record.is_file():
        _check_gradients(folder, "attacks follow gradients; attacked blindly alone it would look more robust than it is")
    threat = resolved(asked, base)  # what was typed is trusted; the run that is opened need not be
    with finished(folder, asked.split, trust=trust, device=device) as (model, data, record):
        other = _surrogate(asked, trust)
        surrogate = None if other is None else other.to(pick_device(device))
        return stress(folder, model, data, asked, threat, record, surrogate=surrogate)


@contextmanager
def finished(
    folder: RunFolder, split: str, *, trust: bool = False, device: str = "auto"
) -> Iterator[tuple[nn.Module, Data, dict[str, Any]]]:
    """A finished run's model, data and record, which is written back at the end; nobody else may write to the folder meanwhile.

    Raises ConfigError for a folder that is no run's, and a split that its data does not have.
    """
    if not folder.record.is_file():
        raise ConfigError(f"{folder.path} is no run's folder (…/seed-0): there is no record.json in it")
    with folder.locked():
        model, data = opened(folder, trust=trust)
        if split not in data.splits:
            raise ConfigError(f"{data.name} has no {split} split here; it has {', '.join(data.splits)}")
        record = read_record(folder)
        yield model.to(pick_device(device)), data, record
        write_json(folder.record, record)


def resolved(asked: Robustness, base: Path) -> Threat:
    try:
        return threat_of(asked, base=base, path=())
    except Problems as error:
        raise ConfigError("\n".join(f"{p.path[0]}: {p.message}" if p.path else p.message for p in error.problems)) from None


def check_data(asked: Robustness, threat: Threat, data: Data) -> None:
    """Raises ConfigError for a split that the data does not have, or a target that is none of its classes."""
    if asked.split not in data.splits:
        raise ConfigError(f"robustness.split: {data.name} has no {asked.split} split here; it has {', '.join(data.splits)}")
    for target in (threat.target, *(each.target for each in threat.alone)):
        if isinstance(target, int) and target >= len(data.classes):
            raise ConfigError(
                f"robustness: the target {target} is no class of {data.name}, whose classes are 0 to {len(data.classes) - 1}"
            )


def stress(
    folder: RunFolder,
    model: nn.Module,
    data: Data,
    asked: Robustness,
    threat: Threat,
    record: dict[str, Any],
    *,
    surrogate: nn.Module | None = None,
) -> Robust:
    """The stage of a run: measures, audits, keeps pictures, and names the result in the record."""
    check_data(asked, threat, data)
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
    if asked.audit and not robust.facts["audited"]:
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
            of=study.fingerprint([record["fingerprint"], split.fingerprint]),
            base=threat.base,
            split_name=asked.split,
            images=asked.images,
            seed=asked.seed,
            tell=lambda done, total: advance(f"certifying {folder.path.parent.name} {folder.path.name}", done, total),
        )
        count_reads(record, "certificates", [each["fingerprint"] for each in certified], asked.split)
    count_reads(record, "robustness", [robust.facts["key"]], asked.split)
    return robust


def count_reads(record: dict[str, Any], kind: str, results: Sequence[str], split: str) -> None:
    """Names results in the record; each that is not there yet has read its split once."""
    kept = record.setdefault(kind, [])
    new = [result for result in dict.fromkeys(results) if result not in kept]
    kept += new
    record["reads_of_test"] += len(new) if split == "test" else 0


def audited(robust: Robust, model: nn.Module, split: Split, threat: Threat, *, surrogate: nn.Module | None = None) -> Robust:
    """The result with what the audits found."""
    arrays, began = robust.arrays, time.perf_counter()
    own = split.select(torch.as_tensor(arrays["index"]))
    first = next((p for p in model.parameters()), torch.empty(0))
    x, y = own.floats(own.images[:]).to(first.device, torch.float32), own.labels.to(first.device)
    model = straight_through(model, threat.settings["bpda"])
    attacks = [each.bound for each in threat.attempts or threat.alone]
    with evaluating(model):  # as it was attacked
        probe: Any = auditing.Probe(
            model,
            x,
            y,
            threat.norm,
            threat.radii,
            attacks,
            seed=threat.seed,
            surrogate=surrogate,
            passes=robust.facts["steering"]["passes"],
            batch=robust.facts["steering"]["batch"],
        )
        found = auditing.audit(
            table=robust.table(), curve=robust.curve, trace=robust.traces, model=model, images=(x, y), probe=probe
        )
    cost = robust.facts["cost"] | {"audit_seconds": time.perf_counter() - began}
    return replace(robust, facts={**robust.facts, "findings": [f.as_json() for f in found], "audited": True, "cost": cost})


def _reported(folder: RunFolder, split: str, index: np.ndarray) -> float | None:
    """The share of these images that the run's saved predictions have right."""
    try:
        kept = folder.load_predictions(split)
    except UnreadableRun:
        return None
    right = dict(zip(kept["index"].tolist(), (kept["scores"].argmax(1) == kept["labels"]).tolist()))
    known = [right[place] for place in index.tolist() if place in right]
    return sum(known) / len(known) if len(known) == len(index) else None


def _save_examples(place: Path, split: Split, robust: Robust) -> None:
    """Pictures of some of the broken images, and of the first image as each attack by itself left it at each radius."""
    arrays = robust.arrays
    chosen, facts = examples_of(arrays)
    broken, first = (split.images[torch.as_tensor(arrays["index"][rows])] for rows in (arrays["rows"][chosen], slice(0, 1)))
    pairs = [(arrays["ladder"][a, level], fact) for (a, level), fact in ladder_facts(arrays, robust.facts["alone"])]
    originals = split.floats(torch.cat([broken, *[first] * len(pairs)]).cpu())
    adversarials = np.concatenate([arrays["adversarials"][chosen], *(image[None] for image, _ in pairs)])
    save_adversarial_examples(place / "examples", originals, adversarials, [*facts, *(fact for _, fact in pairs)])


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
        raise ConfigError(f"{folder.path} is the estimator {find.named('estimators', card.estimator)[0]}, without gradients: {why}")
