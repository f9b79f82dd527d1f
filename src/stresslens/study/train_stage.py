"""The training stage of a run: trains a net, fits a linear probe or fits an estimator."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from stresslens.config.ensembles import is_soup
from stresslens.config.schema import FineTune
from stresslens.config.validation import objective_of
from stresslens.core import devices, layer_table, layers
from stresslens.core.center_crop import CenterCrop
from stresslens.core.cropped_kernels import whole_kernels
from stresslens.core.data import Data
from stresslens.core.ensembles import ensemble_in
from stresslens.core.errors import Stopped
from stresslens.core.files import write_bytes, write_json
from stresslens.core.run_folder import FORMAT, EstimatorCard, ModelCard, RunFolder, on_cpu
from stresslens.core.text import counted
from stresslens.core.types import Finding
from stresslens.evaluation.ensemble_record import WEIGHTS
from stresslens.evaluation.estimator import build_estimator, fit_estimator, save_estimator
from stresslens.evaluation.record import (
    ALL_EPOCHS,
    Note,
    Penalty,
    Position,
    RunRecord,
    TrainingRecord,
    WeightsRecord,
    write_record,
)
from stresslens.study.record import record_end
from stresslens.training import (
    catastrophic_overfitting,
    distributed,
    linear_probe,
    moving_average,
    probabilities,
)
from stresslens.training.autotune import compute_config
from stresslens.training.best_epoch import copied_weights
from stresslens.training.epoch_log import EpochMetrics
from stresslens.training.loop import Show, Training
from stresslens.training.members import keep_members
from stresslens.training.setup import (
    build_model,
    images_to_check,
    load_initial_weights,
    member_leaks,
    origin_leaks,
)
from stresslens.training.signals import noted
from stresslens.training.soups import chosen_soup
from stresslens.training.task import Task
from stresslens.training.tracking import Tracking


@dataclass(frozen=True)
class BegunTraining:
    """A training that has begun, and what its record is told at the end."""

    training: Training
    model: nn.Sequential
    leaks: list[Finding]
    not_logits: list[Note]
    stacked_runs: int | None = None
    """How many runs trained in one program with it."""


DoneTraining = BegunTraining | Exception
"""A training that has ended, or its error."""


def train_stage(
    task: Task,
    folder: RunFolder,
    data: Data,
    record: RunRecord,
    show: Show,
    tracking: Tracking,
    *,
    done: DoneTraining | None = None,
) -> None:
    """Trains the net or fits the estimator, and saves it in the run folder. `done` is a training that
    has ended, together with those of other runs, or its error, which is raised."""
    if isinstance(done, Exception):
        raise done
    if task.config.estimator is not None:
        _fit_estimator(task, folder, data, record)
        return
    if done is not None:
        model, leaks, weights = done.model, done.leaks, _told_weights(done, task, folder, data, record)
    else:
        model, leaks, state = _prepared(task, folder, data, record)
        fine_tune = task.config.train.fine_tune
        if fine_tune is not None and task.config.train.probed:
            weights = _probed(fine_tune, compute_config(task).place(model), data, record)
        elif task.config.train.epochs:
            with noted() as signals:
                prepared = (model, leaks, state)
                begun = begun_training(task, folder, data, record, show, signals, tracking, prepared)
                try:
                    distributed.train_on_all_ranks(begun.training)
                except Stopped as error:  # recorded here, where a second signal is still handled
                    record_end(folder, error)
                    raise
            weights = _told_weights(begun, task, folder, data, record)
        elif is_soup(task.config):
            weights = _averaged(task, folder, data, record, model)
        else:
            weights = _as_built(model, record)
    whole_kernels(model)
    write_bytes(folder.weights, safetensors.torch.save(on_cpu(weights)))
    record.weights_digest = folder.weights_digest()
    write_json(folder.card, model_card(task, data, model).as_json())
    if (ensemble := ensemble_in(model)) is not None and task.plan.members:
        temperatures = ensemble.temperatures.tolist()
        record.ensemble = keep_members(task.plan.members, folder, ensemble.average, temperatures)
    if leaks:
        record.data.findings = [*record.data.findings, *leaks]


Prepared = tuple[nn.Sequential, list[Finding], dict[str, Any] | None]
"""A model, its members' leaks, and the content of the checkpoint that its training resumes from."""


def _prepared(task: Task, folder: RunFolder, data: Data, record: RunRecord) -> Prepared:
    """The model with its initial weights, which the record describes."""
    model = build_model(task, data)
    leaks = member_leaks(task.plan.members, data, "soup" if is_soup(task.config) else "ensemble")
    record.layers = layer_table.layer_table(model.get_submodule("net"), layers.shape_seen(model, data.shape))
    prepared = layers.preparation(model, data.shape)
    state, unreadable = folder.load_checkpoint()
    if unreadable:
        record.findings = [*record.findings, Note(kind="checkpoint", message=unreadable)]
    if state is None and (report := load_initial_weights(task, data, model)) is not None:
        record.weights = WeightsRecord(**report.as_json(), input=prepared)
    if state is None and (found := origin_leaks(task, data)):
        record.data.findings = [*record.data.findings, *found]
    if record.weights is None and prepared:
        record.input = prepared
    return model, leaks, state


def begun_training(
    task: Task,
    folder: RunFolder,
    data: Data,
    record: RunRecord,
    show: Show,
    signals: list[int],
    tracking: Tracking,
    prepared: Prepared | None = None,
) -> BegunTraining:
    """A training from the start, or from its checkpoint, and its record on disk. It obeys `signals`."""
    compute = compute_config(task)
    model, leaks, state = prepared or _prepared(task, folder, data, record)
    training = distributed.begin_training(task, data, model, state, folder, show)
    training.signals, training.tracking = signals, tracking
    if state is not None:
        if (lost := training.checkpointer.cut_logs()) is not None:
            record.findings = [*record.findings, Note(kind="logs", message=lost)]
        facts = training.group.facts(compute.device)
        position = Position(epoch=training.state.epoch, step=training.state.step, **facts)
        record.resumed_from = [*record.resumed_from, position]
    else:
        training.checkpointer.start_logs()
    write_record(folder, record)
    epochs = task.config.train.epochs
    steps = epochs * training.steps_per_epoch
    tracking.begin(epoch=training.state.epoch, step=training.iteration, epochs=epochs, steps=steps)
    devices.start_watching_memory(compute.device)
    images, objective = images_to_check(training.model, data), objective_of(task.config.train, task.base)
    not_logits = probabilities.told_findings(training.model, images, objective, task.base)
    return BegunTraining(training, model, leaks, not_logits)


def _told_weights(
    begun: BegunTraining, task: Task, folder: RunFolder, data: Data, record: RunRecord
) -> dict[str, Tensor]:
    """The weights of the chosen epoch of a training that has ended, of which the record is told."""
    training, train = begun.training, task.config.train
    told = [
        *begun.not_logits,
        *catastrophic_overfitting.findings(EpochMetrics.read_lines(folder.metrics)),
        *moving_average.average_findings(train, updates=training.chosen_updates, epoch=training.chosen_epoch),
    ]
    kinds = (probabilities.KIND, catastrophic_overfitting.KIND, moving_average.KIND)
    record.findings = [f for f in record.findings if f.kind not in kinds] + told
    record.training = _training_record(training, data)
    record.training.stacked_runs = begun.stacked_runs
    record.reads_of_test = training.state.reads_of_test
    return training.chosen()


def _training_record(training: Training, data: Data) -> TrainingRecord:
    state, device = training.state, training.compute.device
    passed = state.epoch * len(data.train) * training.train.replay
    return TrainingRecord(
        epochs=state.epoch,
        chosen_epoch=training.chosen_epoch,
        steps=state.updates,
        seconds=state.seconds,
        images_per_second=passed / state.seconds if state.seconds else None,
        stopped=state.stopped
        or (ALL_EPOCHS if training.over else f"at epoch {state.epoch}, as a trial of a sweep"),
        select=training.select,
        first_loss=state.first_loss if math.isfinite(state.first_loss) else None,
        peak_memory=devices.peak_memory(device),
        memory_of="tensors" if torch.device(device).type == "cuda" else "process",
        skipped_updates=state.skipped if training.compute.precision == "float16" else None,
    )


def _as_built(model: nn.Sequential, record: RunRecord) -> dict[str, Tensor]:
    """The weights of a net that is not trained (`epochs: 0`)."""
    record.training = TrainingRecord(
        epochs=0, chosen_epoch=0, steps=0, seconds=0.0, stopped="not trained", select="last"
    )
    return copied_weights(model)


def _averaged(
    task: Task, folder: RunFolder, data: Data, record: RunRecord, model: nn.Sequential
) -> dict[str, Tensor]:
    """The mean of the weights of the members; `model` is their net."""
    began, members = time.perf_counter(), task.plan.members
    soup = chosen_soup(task, data, model, compute_config(task))
    record.ensemble = keep_members(members, folder, WEIGHTS, [1.0] * len(members))
    record.ensemble.steps, record.ensemble.renewed_layers = soup.steps, soup.renewed_layers
    record.training = TrainingRecord(
        epochs=0,
        chosen_epoch=0,
        steps=0,
        seconds=time.perf_counter() - began,
        stopped=f"the mean of the weights of {counted(soup.kept, 'run')}",
        select="last",
    )
    return copied_weights(soup.model)


def _probed(fine_tune: FineTune, model: nn.Module, data: Data, record: RunRecord) -> dict[str, Tensor]:
    """Fits the head of the net as a linear probe, and returns the weights of the whole net."""
    began = time.perf_counter()
    fits = linear_probe.fit_linear_probe(model, data, fine_tune.penalties)
    best = max(fits, key=lambda fit: fit.rank)
    record.training = TrainingRecord(
        epochs=0,
        chosen_epoch=0,
        steps=0,
        seconds=time.perf_counter() - began,
        stopped=f"a linear probe with the penalty {best.penalty:g}",
        select="accuracy" if len(fits) > 1 else "last",
        penalties=[Penalty(**asdict(fit)) for fit in fits],
    )
    return copied_weights(model)


def model_card(task: Task, data: Data, model: nn.Sequential) -> ModelCard:
    """The content of model.json, from which the model is built again. A soup is a net of its members."""
    cards = [member.load_card() for member in task.plan.members]
    soup_of = cards[0] if cards and is_soup(task.config) else None
    parts = dict(model.named_children())
    resize, crop, normalize = parts.get("resize"), parts.get("crop"), parts["normalize"]
    return ModelCard(
        format=FORMAT,
        model=soup_of.model if isinstance(soup_of, ModelCard) else task.plan.configuration["model"],
        shape=data.shape,
        classes=list(data.classes),
        size=resize.size if isinstance(resize, layers.Resize) else None,
        interpolation=resize.interpolation if isinstance(resize, layers.Resize) else "bilinear",
        gain=normalize.gain.tolist(),  # type: ignore[operator]
        shift=normalize.shift.tolist(),  # type: ignore[operator]
        seed=task.seed,
        fit=data.fit,
        white=data.white,
        crop=crop.size if isinstance(crop, CenterCrop) else None,
        members=cards if soup_of is None else [],
    )


def _fit_estimator(task: Task, folder: RunFolder, data: Data, record: RunRecord) -> None:
    """Fits the estimator and saves it in the run folder."""
    assert task.config.estimator is not None
    estimator = build_estimator(task.config.estimator, task.seed, base=task.base)
    began = time.perf_counter()
    messages = fit_estimator(estimator, data)
    seconds = time.perf_counter() - began
    record.findings = [*record.findings, *(Note(kind="fitting", message=message) for message in messages)]
    record.training = TrainingRecord(seconds=seconds, images=len(data.train), stopped="fitted")
    card = EstimatorCard(
        format=FORMAT,
        estimator=task.plan.configuration["estimator"],
        shape=data.shape,
        classes=list(data.classes),
        seed=task.seed,
        fit=data.fit,
        white=data.white,
    )
    save_estimator(folder, estimator, card)
