"""The runs that an ensemble or a soup is made of: where they are, whether they fit, and what it keeps of
them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import nn

from stresslens.config import registry
from stresslens.config.ensembles import member_runs
from stresslens.config.kept_files import FOLDER
from stresslens.config.run_config import read_run_data
from stresslens.config.schema import VariantConfig
from stresslens.core.class_names import plain_form
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError
from stresslens.core.files import UnreadableRun, write_atomically
from stresslens.core.run_folder import EstimatorCard, ModelCard, RunFolder
from stresslens.core.text import counted
from stresslens.evaluation.ensemble_record import EnsembleRecord, MemberRecord
from stresslens.evaluation.record import RunRecord, read_record
from stresslens.evaluation.saved_model import open_model

MOST = 100
"""Most members of an ensemble or a soup."""


def member_folders(config: VariantConfig, base: Path, study: Path) -> list[RunFolder]:
    """The folders of the runs that an ensemble or a soup is made of, in the order in which it names them; a
    variant stands for all its seeds. None for another model. `study` is the folder of its own study;
    for a run that is repeated from the config.yaml in `base`, the variants of the original study count too.

    Raises ConfigError for a name without a trained model, and for a run that is named twice.
    """
    original_study = [base.parent.parent] if (base / "config.yaml").is_file() else []
    found: list[RunFolder] = []
    for name in member_runs(config):
        for folder in _runs_called(name, [study, *original_study]):
            if any(folder.path.resolve() == other.path.resolve() for other in found):
                why = "every member counts once"
                raise ConfigError(f"runs: {folder.path} is named twice; {why}")
            found.append(folder)
    if len(found) > MOST:
        raise ConfigError(f"runs: {len(found)} runs; at most {MOST} can be members")
    return found


def _runs_called(name: str, studies: Sequence[Path]) -> list[RunFolder]:
    places = [Path(name)] if "/" in name else [study / name for study in studies]
    for place in places:
        folders = [place, *sorted(place.glob("seed-*"), key=lambda path: (len(path.name), path.name))]
        if found := [folder for folder in map(RunFolder, folders) if _has_model(folder)]:
            return found
    variants = sorted({path.parent for path in Path(name).glob("*/seed-*")})
    if variants:
        hint = f"it is the folder of a study; name a variant in it, such as {variants[0]}"
    elif "/" not in name and any(map(_has_model, map(RunFolder, [Path(name), *Path(name).glob("seed-*")]))):
        hint = f"a folder is named with a slash: ./{name}"
    else:
        hint = "give another run of the study, or the folder of a run or of a variant"
    raise ConfigError(f"runs: {name} has no trained model; {hint}")


def _has_model(folder: RunFolder) -> bool:
    return any(path.is_file() for path in (folder.weights, folder.estimator))


def open_members(folders: Sequence[RunFolder], data: Data, study: Path) -> list[nn.Module]:
    """The models of the members. Code of the user's own is executed in members of the same study alone.

    Raises ConfigError for a member of other classes or another shape of images than the data, one whose
    data were divided anew for its seed, one that is an ensemble itself, and one that was trained on a
    module of the caller's own.
    """
    members: list[nn.Module] = []
    for folder in folders:
        card = folder.load_card()
        _check(folder, card, data)
        own = study.resolve() in folder.path.resolve().parents
        members.append(open_model(folder, trust=own))
    return members


def temperatures_of(folders: Sequence[RunFolder]) -> list[float]:
    """What the logits of each member are divided by: 1, but for an estimator, whose scores have a scale of
    their own, the temperature that its run fitted on validation images."""
    return [_temperature(folder) for folder in folders]


def _temperature(folder: RunFolder) -> float:
    if not isinstance(folder.load_card(), EstimatorCard) or not folder.record.is_file():
        return 1.0
    return read_record(folder).temperature


def _check(folder: RunFolder, card: ModelCard | EstimatorCard, data: Data) -> None:
    if why := other_data(card, data, "all members"):
        raise ConfigError(f"runs: {folder.path} {why}")
    if isinstance(card, ModelCard) and card.members:
        raise ConfigError(f"runs: {folder.path} is an ensemble itself; name its members")
    if isinstance(card, ModelCard) and str(card.model).startswith("own module"):
        raise ConfigError(
            f"runs: {folder.path} was trained on your {card.model}, which only Python has; train it as a "
            "plug-in of your own (path/to/file.py:function) to make it a member"
        )
    try:
        divided = not isinstance(read_run_data(folder.config).repeats, list)
    except UnreadableRun:  # an exported folder
        return
    if divided:
        raise ConfigError(
            f"runs: {folder.path} divided the data anew for its seed, so test images of one member are "
            "training images of another; train the members on one split (repeats: 5)"
        )


def other_data(card: ModelCard | EstimatorCard, data: Data, who: str) -> str:
    """How the classes, or the shape of images, of a run and of data differ, though `who` need the same, in
    words; empty where they are the same."""
    theirs, ours = (list(map(plain_form, names)) for names in (card.classes, data.classes))
    if theirs != ours:
        first = next((pair for pair in zip(card.classes, data.classes) if pair[0] != pair[1]), None)
        what = f"{first[0]!r}, there {first[1]!r}" if first else "one that the other lacks"
        return (
            f"has {counted(len(theirs), 'class', 'classes')}, and the data have {len(ours)}; the first that "
            f"differs is {what}; {who} need the same classes"
        )
    if card.shape != data.shape:
        taken, given = ("×".join(map(str, shape)) for shape in (card.shape, data.shape))
        return (
            f"takes images of {taken} (channels, height, width), and the data have {given}; {who} need "
            "images of one shape"
        )
    return ""


def member_digest(folder: RunFolder) -> str:
    """A digest of a member: its weights and its card."""
    weights = folder.estimator if folder.estimator.is_file() else folder.weights
    card = json.dumps(folder.load_card().as_json(), sort_keys=True).encode()
    with weights.open("rb") as file:
        found = hashlib.file_digest(file, "sha256")
    found.update(card)
    return found.hexdigest()[:16]


def keep_members(
    folders: Sequence[RunFolder], folder: RunFolder, average: str, temperatures: Sequence[float]
) -> EnsembleRecord:
    """Copies what a run needs of its members beside their weights (what estimators have learned, plug-ins
    of the user's own, files of models), and returns what its record says of them."""
    members = []
    for number, member in enumerate(folders):
        card, place = member.load_card(), folder.member(number)
        files = [*member.path.glob("plugins/*.py"), *member.path.glob(f"{FOLDER}/**/*")]
        copies = {folder.path / file.relative_to(member.path): file for file in files if file.is_file()}
        if isinstance(card, EstimatorCard):
            place.path.mkdir(parents=True, exist_ok=True)
            copies |= {place.estimator: member.estimator, place.estimator_card: member.estimator_card}
        for copy, file in copies.items():
            if not copy.exists():
                with file.open("rb") as content:
                    write_atomically(copy, partial(shutil.copyfileobj, content))
        members.append(_described(member, card, temperatures[number]))
    return EnsembleRecord(average=average, members=members)


def _described(member: RunFolder, card: ModelCard | EstimatorCard, temperature: float) -> MemberRecord:
    known = read_record(member) if member.record.is_file() else RunRecord(status="")
    kind, value = (
        ("estimators", card.estimator) if isinstance(card, EstimatorCard) else ("models", card.model)
    )
    return MemberRecord(
        folder=str(member.path),
        study=known.study,
        run=known.run or member.path.parent.name,
        seed=known.seed,
        model=registry.name_and_options(kind, value)[0],
        fingerprint=known.fingerprint,
        weights_digest=member_digest(member),
        temperature=temperature,
    )
