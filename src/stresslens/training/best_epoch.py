"""Selection of the best epoch: the rule and the splits it needs, the best weights so far, early
stopping by patience, and the robust accuracy on validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.config.schema import Train
from stresslens.config.selection_rules import RULES, SelectionRule
from stresslens.config.validation import objective_of
from stresslens.core.answers import predicted
from stresslens.core.attack_base import attacked
from stresslens.core.ball import Ball
from stresslens.core.data import Data, Split
from stresslens.core.distributed import ALONE, ProcessGroup
from stresslens.core.draws import Draws
from stresslens.core.dtypes import image_dtype
from stresslens.core.errors import ConfigError
from stresslens.core.pass_memory import images_at_once
from stresslens.core.sampling import balanced_subset
from stresslens.training.epoch_log import EpochMetrics
from stresslens.training.optimization import needs_validation
from stresslens.training.state import TrainingState

ATTACK = {"pgd": {"steps": 10}}
"""The attack of `select: robust`: PGD from a random start, ten steps of a quarter of the radius."""
IMAGES = 512
BATCH = 128


class BestEpoch:
    """The best epoch so far by a selection rule: its weights, and its rank in `state`.

    `robust_accuracy` measures a model where the rule reads robust accuracy. After `patience`
    evaluations without a better epoch the training is stopped. Without a rule no epoch is kept: the
    last one is taken.
    """

    def __init__(
        self,
        rule: SelectionRule | None,
        state: TrainingState,
        *,
        patience: int | None = None,
        robust_accuracy: Callable[[nn.Module], float] | None = None,
    ) -> None:
        self.rule, self.state, self.patience = rule, state, patience
        self.robust_accuracy = robust_accuracy
        self.weights: dict[str, Tensor] = {}
        """The net's weights of that epoch, on the CPU; empty before the first evaluation."""

    def update(self, model: nn.Module, validation: Mapping[str, float]) -> None:
        """Compares the epoch that has just ended, by its figures on validation, with the best so far."""
        if self.rule is None:
            return
        state, rank = self.state, self.rule.rank(validation)
        state.evaluations_since_best += 1
        if rank > state.best:
            state.best, state.best_epoch, state.evaluations_since_best = rank, state.epoch, 0
            self.weights = copied_weights(model)
        if self.patience is not None and state.evaluations_since_best >= self.patience:
            state.stopped = f"no better {self.rule.title} on validation in {self.patience} evaluations"


def copied_weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a model's net, copied to the CPU."""
    weights = model.get_submodule("net").state_dict()
    return {name: value.detach().cpu().clone() for name, value in weights.items()}


def selection_rules(train: Train, data: Data, *, base: Path) -> tuple[str, Sequence[str]]:
    """The rule for the best epoch (or `last`) and the splits that are watched, for this data set.

    `auto` is the robust accuracy for adversarial training, since the clean accuracy picks an epoch
    whose robustness is lost (Rice et al. 2020); otherwise the accuracy, and without a validation
    split the last epoch. Raises ConfigError when a rule needs a split that the data set does not
    have, or a radius that the objective does not name.
    """
    if train.balance == "sampling" and train.batch_size != "full" and train.batch_size >= len(data.train):
        raise ConfigError(
            f"balance: sampling needs batches smaller than the {len(data.train)} training images; "
            f"lower train.batch_size (now {train.batch_size})"
        )
    absent = [name for name in train.watch if name not in data.splits]
    explicit = (
        train.select in RULES
        or (train.stop is not None and train.stop.patience is not None)
        or needs_validation(train, base)
    )
    if explicit and "validation" not in train.watch:
        raise ConfigError(
            "train.watch needs validation among its splits for this choice of train.select, train.stop or "
            "train.schedule"
        )
    if absent and (absent != ["validation"] or explicit):
        wanted = (
            f"train.select: {train.select}"
            if train.select != "auto"
            else "train.watch, train.stop or train.schedule"
        )
        raise ConfigError(
            f"{wanted} needs the {absent[0]} split, which {data.name} does not have here; "
            f"set its `{absent[0]}:` option"
        )
    watch = [name for name in train.watch if name in data.splits]
    adversarial = threat(registry.resolve("objectives", objective_of(train, base), base=base)) is not None
    if train.select in RULES and RULES[train.select].needs_robust_accuracy and not adversarial:
        name = registry.name_and_options("objectives", train.objective)[0]
        raise ConfigError(
            f"train.select: {train.select} needs an objective with a norm and a radius to be robust in, "
            f"which {name} does not have; set train.objective to an adversarial one "
            "({adversarial: {norm: linf, eps: 8/255}}), or select: accuracy"
        )
    if train.select != "auto":
        return train.select, watch
    if "validation" not in watch:
        return "last", watch
    return ("robust" if adversarial else "accuracy"), watch


def threat(objective: registry.Bound) -> Ball | None:
    """The ball that an adversarial-training objective attacks in, by its options `norm` and `eps`;
    None for an objective without them. Raises ConfigError for an impossible radius."""
    declared = registry.options_of(objective.function)
    if not {"norm", "eps"} <= declared.keys():
        return None
    norm, eps = (objective.options.get(option, declared[option].default) for option in ("norm", "eps"))
    return Ball(norm, eps)


def robust_accuracy(
    objective: registry.Bound, validation: Split | None, *, group: ProcessGroup = ALONE
) -> Callable[[nn.Module], float]:
    """A function of a model that returns its robust accuracy on validation, from 0 to 1.

    It is the share of `IMAGES` images, balanced over the classes, that the model classifies
    correctly unattacked and at every iterate of `ATTACK`, in the precision of its parameters. The
    images and their random draws are the same in every epoch; several processes divide the images.
    """
    ball = threat(objective)
    assert ball is not None
    assert validation is not None
    rows = balanced_subset(validation.labels.cpu(), min(IMAGES, len(validation)), seed=0)
    sample = validation.select(rows.to(validation.labels.device))
    attack = registry.resolve("attacks", ATTACK)

    def measure(model: nn.Module) -> float:
        dtype = image_dtype(model, sample.shape)
        with attacked(model):
            size = images_at_once(model, sample.shape, BATCH, gradient=True)
            batches = sample.batches(size, dtype=dtype, part=group.part)
            counts = [robust_images(model, *batch) for batch in batches if len(batch.y)]
        return group.total(sum(counts)) / len(sample)

    def robust_images(model: nn.Module, x: Tensor, y: Tensor, places: Tensor) -> int:
        with torch.no_grad():
            correct = (predicted(model(x)) == y).nonzero().flatten()
        robust = torch.ones(len(correct), dtype=torch.bool, device=x.device)
        x, y, draws = x[correct], y[correct], Draws(0, places[correct])

        def watch(
            rows: Tensor,
            x_adv: Tensor,
            logits: Tensor,
            loss: Tensor | None = None,
            grad: Tensor | None = None,
        ) -> Tensor:
            robust[rows[predicted(logits) != y[rows]]] = False
            return robust[rows]

        if len(correct):
            attack(model=model, x=x, y=y, ball=ball, draws=draws, watch=watch)
        return int(robust.sum())

    return measure


def best_epoch_metrics(
    rule: SelectionRule | None, lines: Sequence[EpochMetrics]
) -> Mapping[str, float] | None:
    """The chosen epoch's figures on validation, from the lines of metrics.jsonl: the best by the
    rule, or without one the last. None where no epoch was evaluated."""
    epochs = [line.validation for line in lines if line.validation]
    if rule is None or not epochs:
        return epochs[-1] if epochs else None
    return max(epochs, key=rule.rank)
