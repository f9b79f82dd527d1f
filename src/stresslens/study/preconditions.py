"""What can be found before anything is trained: mistakes that refuse a study, and initial weights that
are not available, without which only their own run is left out."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

import torch

from stresslens.config.schema import FineTune
from stresslens.config.study_record import StatedAblation
from stresslens.config.validation import depends_on
from stresslens.core.devices import pick_device
from stresslens.core.errors import ConfigError
from stresslens.core.gradient_free import why_no_gradient
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.averaged_views import check_views
from stresslens.evaluation.record import Failure
from stresslens.study import evaluation_stages
from stresslens.study.failures import error_of, failure_of
from stresslens.training.best_epoch import selection_rules
from stresslens.training.fine_tuning import FineTuning
from stresslens.training.first_batch import check_first_batch
from stresslens.training.optimization import build_optimizer, build_schedule
from stresslens.training.pass_choice import check_passes
from stresslens.training.recomputation import Recomputation
from stresslens.training.setup import build_model
from stresslens.training.soups import check_greedy
from stresslens.training.stack_choice import check_stack
from stresslens.training.task import Task, load_data


def check_tasks(tasks: Sequence[Task], places: Mapping[str, str], folder: Path) -> dict[Path, Failure]:
    """Checks the first seed of each variant that is not trained yet. Returns the runs whose initial
    weights are not available, with the reason.

    Raises every mistake at once, each with its variant's place in the study file (`places`), and the
    missing weights too where no other run is left. Tracebacks of unexpected errors go to `folder`.
    """
    first = {task.run: task for task in reversed(tasks)}
    refused: dict[str, Failure] = {}
    missing: dict[str, Failure] = {}
    for run, task in reversed(first.items()):
        place = places.get(run) or (f"the run {run}" if len(first) > 1 else "")
        try:
            check_weights(task, siblings=first.keys())
        except Exception as error:
            missing[run] = failure_of(error, folder, run)
            continue
        try:
            check_task(task, siblings=first.keys())
        except Exception as error:
            refused[place] = failure_of(error, folder, run)
    if not refused and len(missing) == len(first):
        refused = _by_reason(
            {places.get(run) or run if len(first) > 1 else "": missing[run] for run in missing}
        )
    if refused:
        raise error_of(refused)
    return {task.folder: missing[task.run] for task in tasks if task.run in missing}


def check_ablation(ablation: StatedAblation | None, tasks: Sequence[Task]) -> None:
    """Raises ConfigError, before anything is trained, for each ingredient of an ablation whose two runs
    have different images to be judged by."""
    first = {task.run: task for task in reversed(tasks)}
    refused = []
    for each in ablation.ingredients if ablation else ():
        a, b = (first.get(name) for name in each.added or each.left_out or ("", ""))
        if a is None or b is None or a.config.data == b.config.data:
            continue
        without, with_it = (data.test or data.validation for data in map(load_data, (a, b)))
        if without and with_it and without.fingerprint != with_it.fingerprint:
            counts = f"{len(without):,} without it, {len(with_it):,} with it"
            refused.append(
                f"ablate.{each.name}: changes the images by which it would be judged ({counts}), so no gain "
                "can be measured; take it out, or give it other settings"
            )
    if refused:
        raise ConfigError("\n".join(refused))


def _by_reason(failures: Mapping[str, Failure]) -> dict[str, Failure]:
    """The failures with one entry for the places that have the same reason."""
    places: dict[str, list[str]] = {}
    for place, failure in failures.items():
        places.setdefault(failure.message, []).append(place)
    return {", ".join(alike): failures[alike[0]] for alike in places.values()}


def check_weights(task: Task, *, siblings: Container[str] = ()) -> None:
    """Raises the error of initial weights that are not available; those of `siblings`, which are trained
    first, are not looked at."""
    if _trained(task) or _awaits(task, siblings):
        return
    origin = task.plan.initial_weights
    if origin is not None and not origin.digest:
        origin.load()


def refusal_of(task: Task, folder: Path) -> Failure | None:
    """Why a task cannot be trained; None where it can. The traceback of an unexpected error goes to
    `folder`."""
    try:
        check_weights(task)
        check_task(task)
    except Exception as error:
        return failure_of(error, folder, task.run)
    return None


def check_task(task: Task, *, siblings: Container[str] = ()) -> None:
    """Raises the error of a task that its data, model, training or evaluations do not allow. A model
    that starts from one of the `siblings`, or is made of some, which are trained first, is not looked at."""
    data = load_data(task)
    evaluation_stages.check_sections(task, data)
    if task.config.estimator is not None or _trained(task):
        return
    train, n = task.config.train, len(data.train)
    selection_rules(train, data, base=task.base)
    check_greedy(task.config, data)
    if _awaits(task, siblings):
        return
    with torch.random.fork_rng(devices=[]):
        model = build_model(task, data)
    if task.config.evaluation is not None:
        check_views(task.config.evaluation.tta, data.shape, model)
    if (what := why_no_gradient(model)) and (train.epochs or train.probed):
        raise ConfigError(f"{what} has no gradient and cannot be trained; set train.epochs: 0")
    if not train.epochs or train.probed:
        return
    size = n if train.batch_size == "full" else min(train.batch_size, n)
    check_passes(train, str(pick_device(train.device)))
    if train.recompute is True:
        Recomputation(model.get_submodule("net"))
    check_stack(task)
    check_first_batch(model, train, data)
    layers = FineTuning(model, train.fine_tune or FineTune(), data.shape)
    optimizer = build_optimizer(train, layers.parameters(train.lr), model, task.base)
    build_schedule(train, optimizer, math.ceil(n / size) * train.replay, task.base)


def _awaits(task: Task, siblings: Container[str]) -> bool:
    """Whether the model is made of the weights of `siblings`."""
    return any(what != "surrogate" and name in siblings for what, name in depends_on(task.config))


def _trained(task: Task) -> bool:
    return RunFolder(task.folder).begun
