"""The mean of the weights of several runs: whether they fit, which of them are kept, and the statistics of
batch norm."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import safetensors.torch
import torch
from torch import nn

from stresslens.config.ensembles import is_greedy
from stresslens.config.schema import VariantConfig
from stresslens.core.copies import CHECKED, copied
from stresslens.core.data import Data, Split
from stresslens.core.devices import ComputeConfig
from stresslens.core.errors import ConfigError
from stresslens.core.pass_memory import images_at_once
from stresslens.core.run_folder import EstimatorCard, ModelCard, RunFolder
from stresslens.core.soups import averaged, first_difference
from stresslens.core.weights_file import load_state
from stresslens.evaluation import scores
from stresslens.evaluation.ensemble_record import EnsembleRecord, SoupStep
from stresslens.evaluation.saved_model import net_from
from stresslens.training.batch_norm import BATCH_NORM, renew_statistics
from stresslens.training.members import member_digest, open_members
from stresslens.training.task import Task

BATCH = 256
"""Most images of a batch over which the statistics of batch norm are computed."""


@dataclass(frozen=True)
class Soup:
    """The mean of the weights of as many members as were `kept`; the `steps` in which a greedy one was
    chosen, and how many layers of batch norm had their statistics computed anew."""

    model: nn.Module
    kept: int
    steps: list[SoupStep]
    renewed_layers: int


def check_greedy(config: VariantConfig, data: Data) -> None:
    """Raises ConfigError for a greedy soup without validation images."""
    if is_greedy(config) and data.validation is None:
        raise ConfigError(
            "a greedy soup chooses its members on validation images, and the data have none; set some aside, "
            "or average all members (choose: all, --average weights)"
        )


def all_members_averaged(task: Task, data: Data) -> nn.Sequential:
    """The mean of the weights of all members of the task's soup, behind their input layers. Raises
    ConfigError where they do not fit together."""
    check_greedy(task.config, data)
    folders = task.plan.members
    cards = [_card(folder) for folder in folders]
    members = open_members(folders, data, task.folder.parent.parent)
    images = data.train.select(torch.arange(min(CHECKED, len(data.train))))
    for folder, card, member in zip(folders, cards, members):
        if what := _prepared_otherwise(cards[0], card) or _other_net(members[0], member, images):
            raise ConfigError(f"runs: {folders[0].path} and {folder.path} {what}, or average probabilities")
    net = net_from(task.config.model, data.shape, data.classes, data.train, task.base, members=[*members])
    return cast(nn.Sequential, net)


PREPARATION = {
    "size": "the size that images are resized to",
    "interpolation": "the interpolation",
    "crop": "the centre crop",
    "gain": "the factor of the normalisation",
    "shift": "the shift of the normalisation",
}
"""What of a card says how images are prepared, in words."""


def _prepared_otherwise(first: ModelCard, other: ModelCard) -> str:
    """What differs in how two members prepare images, in words; empty if nothing does."""
    for key, title in PREPARATION.items():
        one, two = getattr(first, key), getattr(other, key)
        if one != two:
            return (
                f"prepare images in different ways: {title} is {_in_words(one)} in the first and "
                f"{_in_words(two)} in the other; train them with one `input`"
            )
    return ""


def _other_net(first: nn.Module, other: nn.Module, images: Split) -> str:
    """Why two members are not of one architecture, in words; empty if they are: tensors of the same names
    and shapes, and with the same weights the same logits for some images."""
    state = first.get_submodule("net").state_dict()
    if what := first_difference(state, other.get_submodule("net").state_dict()):
        return f"are different nets, whose weights have no mean: {what}; name runs of one net"
    changed = copied(other)
    load_state(changed.get_submodule("net"), state)
    expected, found = (scores.logits_of(each, images) for each in (first, changed))
    if torch.allclose(found, expected, rtol=1e-3, atol=1e-4, equal_nan=True):
        return ""
    return (
        "are different nets: with the same weights they give other logits (another activation, or another "
        "option without weights); name runs of one net"
    )


def _in_words(value: object) -> str:
    numbers = torch.tensor(value).flatten() if isinstance(value, list | tuple) else None
    if numbers is None:
        return str(value or "none")
    shown = ", ".join(f"{float(number):.4g}" for number in numbers[:4])
    return f"{shown}, …" if len(numbers) > 4 else shown


def _card(folder: RunFolder) -> ModelCard:
    card = folder.load_card()
    if isinstance(card, EstimatorCard):
        raise ConfigError(
            f"runs: {folder.path} holds an estimator, which has no weights to average; average probabilities"
        )
    return card


def chosen_soup(task: Task, data: Data, model: nn.Module, compute: ComputeConfig) -> Soup:
    """The soup of a task, from the members' weights; `model` is their net behind its input layers. A greedy
    soup (Wortsman et al. 2022, algorithm 1) takes the members in the order of their own accuracy on
    validation images, and keeps each with which the accuracy does not fall."""
    members = [with_weights_of(model, folder) for folder in task.plan.members]
    if not is_greedy(task.config):
        soup, renewed = _average(members, data.train, compute)
        return Soup(soup, len(members), [], renewed)
    validation = data.splits["validation"]

    def accuracy(average: nn.Module) -> float:
        return scores.predictions_of(average, validation).accuracy.value

    alone = [accuracy(compute.place(copied(member))) for member in members]
    first, *others = sorted(range(len(members)), key=lambda number: -alone[number])
    kept, steps = [first], [SoupStep(member=first, accuracy=alone[first], kept=True)]
    soup, renewed = _average([members[first]], data.train, compute)
    for number in others:
        tried, layers = _average([members[each] for each in sorted([*kept, number])], data.train, compute)
        reached = accuracy(tried)
        better = reached >= next(step.accuracy for step in reversed(steps) if step.kept)
        steps.append(SoupStep(member=number, accuracy=reached, kept=better))
        if better:
            soup, renewed = tried, layers
            kept.append(number)
    return Soup(soup, len(kept), steps, renewed)


def _average(members: Sequence[nn.Module], images: Split, compute: ComputeConfig) -> tuple[nn.Module, int]:
    """The mean of the members, with new statistics of batch norm where those of the members differ, and the
    number of such layers."""
    soup = compute.place(averaged(members))
    norms = [
        layer for layer, *theirs in zip(*(each.modules() for each in (soup, *members))) if _moved(theirs)
    ]
    if norms:
        n = len(images)
        most = images_at_once(soup, images.shape, min(BATCH, n))
        even = math.ceil(n / math.ceil(n / most))  # a last batch of one image would have no variance
        renew_statistics(soup, norms, images, batch_size=even)
    return soup, len(norms)


def _moved(layers: Sequence[nn.Module]) -> bool:
    """Whether the same layer of several members is batch norm whose statistics are not the same in all."""
    first, *others = layers
    if not isinstance(first, BATCH_NORM) or first.running_mean is None:
        return False
    return not all(
        torch.equal(getattr(first, name), getattr(other, name))
        for other in others
        for name in ("running_mean", "running_var")
    )


def with_weights_of(model: nn.Module, folder: RunFolder) -> nn.Module:
    """A copy of the model with the weights of a run of the same architecture."""
    folder.check_weights()
    changed = copied(model)
    load_state(changed.get_submodule("net"), safetensors.torch.load_file(folder.weights))
    return changed


def soup_members(model: nn.Module, record: EnsembleRecord) -> Iterator[nn.Module]:
    """The members of a soup, one after the other, where they all are as they were when it was made; none
    otherwise."""
    folders = [RunFolder(Path(member.folder)) for member in record.members]
    for folder, member in zip(folders, record.members):
        if not folder.weights.is_file() or member_digest(folder) != member.weights_digest:
            return
    for folder in folders:
        yield with_weights_of(model, folder)
