"""Which runs are fooled by images that were made to fool another: every model on every run's saved
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
from stresslens.core.attack_base import attacked, margins
from stresslens.core.errors import ConfigError
from stresslens.core.files import read_arrays, read_json
from stresslens.core.run_folder import RunFolder
from stresslens.core.types import Estimate, Finding
from stresslens.evaluation.record import read_record
from stresslens.evaluation.saved_model import open_model
from stresslens.metrics.intervals import wilson
from stresslens.robustness.attack_batch import batched_logits, verdict_model
from stresslens.robustness.result_file import ResultFile

FEWEST = 20
"""Images below which a cell is left empty."""
MOST_RUNS = 24
"""Of more, only the first seed of each."""
ROUNDING = 1e-4
"""How far logits of the same image may lie apart from batch to batch."""
DRAWS, SPREADS = 5, 5.0
"""Verdicts of a random model by other draws, and by how many of their standard deviations the true
class must lead in the mean of them before a saved image counts as answered right: it was kept for
the first of many draws that it fooled."""

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class TransferSource:
    """A run with adversarial images of its own, under one threat."""

    name: str
    folder: RunFolder
    key: str
    result: ResultFile

    def adversarials(self) -> Arrays:
        """index, labels, images (float32 in [0, 1]) of those that were right unattacked and were broken."""
        path = self.folder.path / "robustness" / self.key / "result.npz"
        arrays = read_arrays(
            path, f"there is no {path}", ("index", "labels", "smallest", "rows", "adversarials")
        )
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
        """Over how many passes its verdicts were the mean; above 1 the model is random, or was
        asked to be treated so."""
        return self.result.compute.passes

    @property
    def seed(self) -> int:
        return self.result.seed


def study_transferability(
    folder: Path, *, trust: bool = False, known: Mapping[str, Any] | None = None
) -> TransferFile | None:
    """What transfers.json holds; None without two runs that were attacked. `known` is what it held
    before, which is returned where nothing has changed since.

    For every norm and protocol, each pair of runs: the accuracy of the target's model (column) on
    the images with which the source (row) was fooled, each at the smallest radius that it needed,
    among those that both answer right unattacked. A random model is judged by the mean of as many
    passes as in the attack on it. Of itself a model's accuracy is 0, a random one's what other
    draws answer right; that is checked, and a finding says where it is not so. Runs that cannot be
    opened without `trust` are left out by name.
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
    """Every attacked run of a study's study.json, by name and seed."""
    described = read_json(folder / "study.json")
    seeds = sorted(described["seeds"])
    if len(seeds) * len(described["runs"]) > MOST_RUNS:
        seeds = seeds[:1]
    found = []
    for run in described["runs"]:
        for seed in seeds:
            own = RunFolder(folder / run / f"seed-{seed}")
            if not own.record.is_file() or read_record(own).status != "finished":
                continue
            name = f"{run} seed {seed}" if len(seeds) > 1 else str(run)
            files = sorted(own.path.glob("robustness/*/result.json"))
            found += [TransferSource(name, own, file.parent.name, ResultFile.read(file)) for file in files]
    return found


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
    """The accuracies, a row for each source, and whether every model is fooled by what fooled it before."""
    rows: list[list[Estimate | None]] = []
    unmoved, checked = 0, 0
    items: list[str] = []
    for source in members:
        fooling = source.adversarials()
        row: list[Estimate | None] = []
        for target in members:
            shared = fooling if target is source else _right_for(target, source, fooling)
            model = models[target.name]
            lead = _lead(model, shared, target.passes, target.seed)
            if target is source:
                n = _unmoved(model, shared, target, lead)
                unmoved, checked = unmoved + n, checked + len(lead)
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
    return group, _finding(unmoved, checked, items, drawn)


def _finding(unmoved: int, checked: int, items: Sequence[str], drawn: bool) -> Finding:
    if not unmoved:
        said = f"all {checked} do{', but for what the draws of random models explain' if drawn else ''}"
        return Finding("saved adversarials fool their own model", "no sign", "none", said, checked)
    return Finding(
        "saved adversarials fool their own model",
        "sign",
        "serious",
        f"{unmoved} of {checked} saved adversarial images are answered right by the saved weights of the run they were made on",
        checked,
        "the weights or the images were replaced since, or the model is random; attack the run again, or average its passes",
        tuple(items),
    )


def _right_for(target: TransferSource, source: TransferSource, fooling: Arrays) -> Arrays:
    """The images that the target answers right unattacked; none where it was tested on other images."""
    splits = [read_record(each.folder).data.splits.get(source.split) for each in (source, target)]
    predicted = target.folder.load_predictions(source.split)
    right = predicted["index"][predicted["scores"].argmax(1) == predicted["labels"]]
    shared = np.isin(fooling["index"], right) & (splits[0] == splits[1])
    return {name: values[shared] for name, values in fooling.items()}


def _unmoved(model: nn.Module, own: Arrays, source: TransferSource, lead: NDArray[np.floating]) -> int:
    """How many of its own adversarials a model answers right: by more than rounding, and by more
    than a random one's draws vary."""
    if source.passes == 1 or not len(lead):
        return int((lead > ROUNDING).sum())
    leads = np.stack(
        [lead, *(_lead(model, own, source.passes, source.seed + k) for k in range(1, DRAWS))]
    ).astype(np.float64)
    spread = leads.std(0, ddof=1)
    spread = np.maximum(
        spread, np.sqrt((spread**2).mean())
    )  # of few draws one image's may be small by chance
    return int((leads.mean(0) > np.maximum(ROUNDING, SPREADS * spread)).sum())


def _lead(model: nn.Module, arrays: Arrays, passes: int, seed: int) -> NDArray[np.floating]:
    """(m,) how far the true class lies above the others for each image, in float32."""
    if not len(arrays["labels"]):
        return np.zeros(0)
    x, y = torch.from_numpy(arrays["images"]).float(), torch.from_numpy(arrays["labels"]).long()
    with attacked(model, seed=seed), torch.no_grad():
        return margins(batched_logits(verdict_model(model, passes=passes, seed=seed), x), y).numpy()
