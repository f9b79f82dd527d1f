"""Transferability of adversarial images: the accuracy of every model on every run's saved
adversarial images."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from stresslens.comparison.robustness import attack_family
from stresslens.comparison.transfer_file import TransferFile, TransferGroup
from stresslens.config.study_record import read_study_record
from stresslens.core.answers import predicted
from stresslens.core.attack_base import attacked, margins
from stresslens.core.errors import ConfigError
from stresslens.core.run_folder import RunFolder
from stresslens.core.types import Estimate, Finding
from stresslens.evaluation.record import read_record
from stresslens.evaluation.saved_model import open_model
from stresslens.metrics.intervals import wilson
from stresslens.robustness.attack_batch import batched_logits, verdict_model
from stresslens.robustness.result_file import RESULT_ARRAYS, ResultFile

FEWEST = 20
"""With fewer images, a cell is left empty."""
MOST_RUNS = 24
"""With more runs, only the first seed of each variant is used."""
ROUNDING = 1e-4
"""Largest difference of the logits of one image between batches."""
DRAWS, SPREADS = 5, 5.0
"""For a random model: the number of verdicts with other draws, and a threshold in their standard
deviations. A saved image counts as classified correctly only if the mean lead of its true class is
above the threshold. The image was kept for the first of many draws that it fooled, so other draws
may classify it correctly by chance."""

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class TransferSource:
    """A run that has its own adversarial images, under one threat."""

    name: str
    folder: RunFolder
    key: str
    result: ResultFile

    def adversarials(self) -> Arrays:
        """index, labels, images (float32 in [0, 1]) of those that were classified correctly
        unattacked and were broken."""
        path = self.folder.path / "robustness" / self.key / "result.npz"
        arrays = RESULT_ARRAYS.read(path, only=("index", "labels", "smallest", "rows", "adversarials"))
        broken = arrays["smallest"][arrays["rows"]] > 0
        rows = arrays["rows"][broken]
        return {
            "index": arrays["index"][rows],
            "labels": arrays["labels"][rows],
            "images": arrays["adversarials"][broken],
        }

    @property
    def split(self) -> str:
        return self.result.split

    @property
    def passes(self) -> int:
        """Number of forward passes that a verdict is averaged over (EOT samples). Above 1, the
        model is random, or the attack was told to treat it so."""
        return self.result.compute.passes

    @property
    def seed(self) -> int:
        return self.result.seed


def study_transferability(
    folder: Path, *, trust: bool = False, known: Mapping[str, Any] | None = None
) -> TransferFile | None:
    """Compute what transfers.json holds; None if fewer than two runs were attacked. `known` is the
    previous content, which is returned if nothing has changed since.

    For every norm and protocol, each pair of runs has a cell: the accuracy of the target's model
    (column) on the images that fooled the source (row), each at its minimal radius, among those
    that both classify correctly unattacked. A random model's verdict is the mean of as many passes
    as in the attack on it. On its own images a model's accuracy is 0; for a random model it is the
    share that other draws classify correctly. This is checked, and a finding says if it does not
    hold. Runs that need `trust` to be opened are left out and listed by name.
    """
    sources = _sources(folder)
    if len({source.name for source in sources}) < 2:
        return None
    fingerprint = _fingerprint(sources)
    if known is not None and known.get("fingerprint") == fingerprint:
        return TransferFile.model_validate(known)
    models, left_out = _models({source.name: source.folder for source in sources}, trust)
    families: dict[str, dict[str, TransferSource]] = {}
    for source in sources:
        if source.name in models:
            families.setdefault(attack_family(source.result), {})[source.name] = source
    groups, findings = [], []
    for _, members in sorted(families.items()):
        if len(members) > 1:
            group, found = _matrix(list(members.values()), models)
            groups.append(group)
            findings.append(found)
    return TransferFile(fingerprint=fingerprint, groups=groups, left_out=left_out, findings=findings)


def _sources(folder: Path) -> list[TransferSource]:
    """Every attacked run that a study's study.json lists, with its name and seed."""
    study = read_study_record(folder)
    seeds_of = {run: sorted(study.seeds_of(run)) for run in study.runs}
    if sum(map(len, seeds_of.values())) > MOST_RUNS:
        seeds_of = {run: seeds[:1] for run, seeds in seeds_of.items()}
    several = any(len(seeds) > 1 for seeds in seeds_of.values())
    sources = []
    for run, seeds in seeds_of.items():
        for seed in seeds:
            run_folder = RunFolder(folder / run / f"seed-{seed}")
            if not run_folder.record.is_file() or not read_record(run_folder).usable:
                continue
            name = f"{run} seed {seed}" if several else run
            files = sorted(run_folder.path.glob("robustness/*/result.json"))
            sources += [
                TransferSource(name, run_folder, file.parent.name, ResultFile.read(file)) for file in files
            ]
    return sources


def _fingerprint(sources: Sequence[TransferSource]) -> str:
    parts = [[s.name, s.key, s.result.fingerprint, read_record(s.folder).fingerprint] for s in sources]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _models(folders: Mapping[str, RunFolder], trust: bool) -> tuple[dict[str, nn.Module], list[str]]:
    models: dict[str, nn.Module] = {}
    left_out = []
    for name, folder in folders.items():
        try:
            models[name] = open_model(folder, trust=trust)
        except ConfigError as error:
            left_out.append(f"{name}: {error}")
    return models, left_out


def _matrix(
    members: Sequence[TransferSource], models: Mapping[str, nn.Module]
) -> tuple[TransferGroup, Finding]:
    """The accuracies, a row for each source, and a finding on whether every model is still fooled
    by its own images."""
    rows: list[list[Estimate | None]] = []
    n_correct, checked = 0, 0
    items: list[str] = []
    for source in members:
        fooling = source.adversarials()
        row: list[Estimate | None] = []
        for target in members:
            shared = fooling if target is source else _correct_unattacked(target, source, fooling)
            model = models[target.name]
            lead = _lead(model, shared, target.passes, target.seed)
            if target is source:
                n = _correct_on_own(model, shared, target, lead)
                n_correct, checked = n_correct + n, checked + len(lead)
                items += [f"{source.name}: {n} of {len(lead)}"] if n else []
            row.append(wilson(int((lead > 0).sum()), len(lead)) if len(lead) >= FEWEST else None)
        rows.append(row)
    result, names = members[0].result, [member.name for member in members]
    group = TransferGroup(
        norm=result.norm,
        protocol=result.protocol,
        eps=max(result.radii, default=0.0),
        sources=names,
        targets=names,
        accuracy=rows,
    )
    drawn = any(member.passes > 1 for member in members)
    return group, _finding(n_correct, checked, items, drawn)


def _finding(n_correct: int, checked: int, items: Sequence[str], drawn: bool) -> Finding:
    if not n_correct:
        except_draws = ", except for what the draws of random models explain" if drawn else ""
        return Finding(
            "saved adversarials fool their own model",
            "no sign",
            "none",
            f"all {checked} do{except_draws}",
            checked,
        )
    return Finding(
        "saved adversarials fool their own model",
        "sign",
        "serious",
        f"the saved weights of a run classify {n_correct} of {checked} of its own saved adversarial "
        "images correctly",
        checked,
        "the weights or the images were replaced since, or the model is random; attack the run again, "
        "or average over more passes",
        tuple(items),
    )


def _correct_unattacked(target: TransferSource, source: TransferSource, fooling: Arrays) -> Arrays:
    """The images that the target classifies correctly unattacked; none if it was tested on other
    images."""
    splits = [read_record(each.folder).data.splits.get(source.split) for each in (source, target)]
    saved = target.folder.load_predictions(source.split)
    right = saved["index"][predicted(saved["scores"]) == saved["labels"]]
    shared = np.isin(fooling["index"], right) & (splits[0] == splits[1])
    return {name: values[shared] for name, values in fooling.items()}


def _correct_on_own(
    model: nn.Module, adversarials: Arrays, source: TransferSource, lead: NDArray[np.floating]
) -> int:
    """How many of its own adversarial images a model classifies correctly, by more than rounding
    and, for a random model, by more than its draws vary."""
    if source.passes == 1 or not len(lead):
        return int((lead > ROUNDING).sum())
    leads = np.stack(
        [lead, *(_lead(model, adversarials, source.passes, source.seed + k) for k in range(1, DRAWS))]
    ).astype(np.float64)
    spread = leads.std(0, ddof=1)
    # with few draws, one image's spread may be small by chance
    spread = np.maximum(spread, np.sqrt((spread**2).mean()))
    return int((leads.mean(0) > np.maximum(ROUNDING, SPREADS * spread)).sum())


def _lead(model: nn.Module, arrays: Arrays, passes: int, seed: int) -> NDArray[np.floating]:
    """(m,) the logit of the true class minus the largest other logit for each image, in float32."""
    if not len(arrays["labels"]):
        return np.zeros(0)
    x, y = torch.from_numpy(arrays["images"]).float(), torch.from_numpy(arrays["labels"]).long()
    with attacked(model, seed=seed), torch.no_grad():
        return margins(batched_logits(verdict_model(model, passes=passes, seed=seed), x), y).numpy()
