"""The stages of one run: train, then predict. Each leaves files, and is skipped when they are there."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import yaml
from torch import Tensor, nn

import stresslens
from stresslens import estimating, evaluation, examining, find, likeness, outcome, overfitting, probing, processes, study
from stresslens.building import (
    Task,
    begin,
    build_model,
    configuration,
    leak,
    load_data,
    open_model,
    origin_of,
    own_sources,
    settings_of,
)
from stresslens.core import devices, distributed, layers
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError, Stopped, TrainingDiverged
from stresslens.core.results import (
    FORMAT,
    RunFolder,
    environment,
    on_cpu,
    read_record,
    write_atomically,
    write_json,
)
from stresslens.core.signals import noted
from stresslens.data_check import findings_of
from stresslens.examples import save_examples
from stresslens.recipe import EVALUATION_KEYS, OPERATIONAL, Tune
from stresslens.settling import arithmetic_of
from stresslens.tracking import Tracking
from stresslens.training import Show

Record = dict[str, Any]
Stage = Callable[[Task, RunFolder, Data, Record, Show, Tracking], None]


def carry_out(task: Task, show: Show = lambda position, epochs, done: None) -> Record:
    """Does what is left of a run and returns its record. Raises Stopped and TrainingDiverged after recording them."""
    folder = RunFolder(task.folder)
    distributed.group()  # refuses what torchrun started and nobody joined
    with folder.locked():
        devices.keep_memory()
        data = load_data(task)
        record = _begin(task, folder, data)
        due = _due(task, record)
        if not due:
            return record
        arithmetic = arithmetic_of(task)
        devices.pick_device(arithmetic.device)
        cuda = [torch.device(arithmetic.device)] if torch.device(arithmetic.device).type == "cuda" else []
        tracking = _tracking(task, folder)
        with torch.random.fork_rng(devices=cuda), arithmetic.active(), closing(tracking):
            for stage, fingerprint in due.items():
                try:
                    STAGES[stage](task, folder, data, record, show, tracking)
                except (Stopped, TrainingDiverged) as error:
                    _record_end(folder, record, error)
                    raise
                record["stages"][stage] = fingerprint
                write_json(folder.record, record)
        if tracking.failed:  # so that the same command tries again
            record["stages"].pop("track", None)
        if record["status"] != "finished" or tracking.failed:
            record |= {"status": "finished", "message": ""}
            write_json(folder.record, record)
        return record


def _due(task: Task, record: Record) -> dict[str, str]:
    """The stages that are left to do, with what they will have been done for."""
    rung = "" if task.until is None else f" to epoch {task.until}"
    due = dict.fromkeys(("training", "predictions"), f"{record['fingerprint']}{rung}")
    for key in EVALUATION_KEYS:
        asked = configuration(task).get(key)
        if asked:
            own = find.digests(study.as_values(task.recipe)[key], base=task.base)
            due[key] = study.fingerprint([record["fingerprint"], asked, *own])
    return {stage: fingerprint for stage, fingerprint in due.items() if record["stages"].get(stage) != fingerprint}


def _record_end(folder: RunFolder, record: Record, error: Stopped | TrainingDiverged) -> None:
    record |= {"status": "stopped" if isinstance(error, Stopped) else "diverged", "message": str(error)}
    write_json(folder.record, record)


def _begin(task: Task, folder: RunFolder, data: Data) -> Record:
    """The record of this folder, fresh or as an earlier attempt left it; refuses a folder made from other data or code, and an
    evaluation that this data does not allow."""
    examining.check(task, data)
    comparable = configuration(task)
    comparable["train"] = {k: v for k, v in comparable["train"].items() if k not in OPERATIONAL}
    for key in EVALUATION_KEYS:
        comparable.pop(key, None)
    sources = own_sources(task)
    trained_with = find.own_plugins({k: v for k, v in settings_of(task).items() if k not in EVALUATION_KEYS})
    hashes = {name: copy for name, (_, copy) in sources.items() if name in trained_with and ".py:" not in name}
    origin = origin_of(task)
    fingerprint = study.fingerprint([comparable, data.fingerprint, hashes, origin.digest if origin else ""])
    if folder.record.exists() and folder.begun:
        kept: Record = read_record(folder)
        if kept["fingerprint"] != fingerprint:
            same_data = kept["data"]["fingerprint"] == data.fingerprint
            what = "the configuration, the weights begun with or the code of a plug-in" if same_data else "the data set"
            raise ConfigError(f"{task.folder}: {what} has changed since; use --out ELSEWHERE, or delete the folder to start anew")
        kept["status"] = "finished" if kept["status"] == "finished" else "running"
        _describe(task, folder, sources)
        return kept
    _describe(task, folder, sources)
    arithmetic = arithmetic_of(task)
    write_json(folder.environment, environment(asdict(arithmetic) | distributed.group().facts(arithmetic.device)))
    record: Record = {
        "format": FORMAT,
        "version": stresslens.__version__,
        "status": "running",
        "message": "",
        "study": task.study,
        "run": task.run,
        "seed": task.seed,
        "fingerprint": fingerprint,
        "plugins": sorted(copy for _, copy in sources.values()),
        "classes": list(data.classes),
        "shape": list(data.shape),
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "splits": {name: split.fingerprint for name, split in data.splits.items()},
            "sizes": {name: len(split) for name, split in data.splits.items()},
            "notes": list(data.notes),
            "findings": [finding.as_json() for finding in findings_of(data)],
            "division": dict(data.division) if data.division else None,
        },
        "reads_of_test": 0,
        "watched_test": task.recipe.estimator is None and "test" in task.recipe.train.watch,
        "resumed_from": [],
        "findings": [],
        "stages": {},
    }
    write_json(folder.record, record)
    return record


def _describe(task: Task, folder: RunFolder, sources: Mapping[str, tuple[Path, str]]) -> None:
    """Writes config.yaml and copies of the user's own plug-ins, where they are not there yet."""
    for file, copy in sources.values():
        if not (folder.path / "plugins" / copy).exists():
            (folder.path / "plugins").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder.path / "plugins" / copy)
    header = "# stresslens run on this file repeats the run\n"
    text = header + yaml.safe_dump(configuration(task), sort_keys=False, allow_unicode=True)
    if not folder.config.exists() or folder.config.read_text(encoding="utf-8") != text:
        write_atomically(folder.config, lambda file: file.write(text.encode()))


def _train(task: Task, folder: RunFolder, data: Data, record: Record, show: Show, tracking: Tracking) -> None:
    if task.recipe.estimator is not None:
        _fit_estimator(task, folder, data, record)
        return
    model = build_model(task, data)
    record["layers"] = layers.layer_table(model.get_submodule("net"), layers.shape_seen(model, data.shape)).as_json()
    state, passed_over = folder.load_checkpoint()
    if passed_over:
        record["findings"].append({"kind": "checkpoint", "message": passed_over})
    if state is None and (account := begin(task, data, model)) is not None:
        record["weights"] = account.as_json() | {"input": layers.preparation(model, data.shape)}
        if (found := leak(task, data)) is not None:
            record["data"]["findings"].append(found.as_json())
    tune = task.recipe.train.tune
    if tune is not None and task.recipe.train.probed:
        weights = _probed(tune, arithmetic_of(task).place(model), data, record)
    elif task.recipe.train.epochs:
        weights = _fitted(task, folder, data, record, model, state, show, tracking)
    else:
        weights = _as_built(model, record)
    write_atomically(folder.weights, lambda file: file.write(safetensors.torch.save(on_cpu(weights))))
    write_json(folder.card, _card(task, data, model))


def _fitted(
    task: Task,
    folder: RunFolder,
    data: Data,
    record: Record,
    model: nn.Sequential,
    state: dict[str, Any] | None,
    show: Show,
    tracking: Tracking,
) -> dict[str, Tensor]:
    """The net's weights of the chosen epoch; `state` is the checkpoint that training goes on from."""
    arithmetic = arithmetic_of(task)
    with noted() as signals:
        training = processes.begin(task, data, model, state, folder, show)
        training.signals, training.tracking = signals, tracking
        if state is not None:
            training.cut_logs()
            place = {"epoch": training.position.epoch, "step": training.position.step}
            record["resumed_from"].append(place | training.group.facts(arithmetic.device))
        else:
            training.start_logs()
        write_json(folder.record, record)
        epochs = task.recipe.train.epochs
        steps = epochs * training.steps_per_epoch
        tracking.begin(epoch=training.position.epoch, step=training.iteration, epochs=epochs, steps=steps)
        devices.start_watching_memory(arithmetic.device)
        try:
            processes.train(training)
        except Stopped as error:  # recorded while a second signal still does no harm
            _record_end(folder, record, error)
            raise
    found = overfitting.findings(folder.read_lines(folder.metrics))
    record["findings"] = [f for f in record["findings"] if f["kind"] != overfitting.KIND] + found
    p = training.position
    images = p.epoch * len(data.train) * task.recipe.train.replay
    record["training"] = {
        "epochs": p.epoch,
        "chosen_epoch": training.chosen_epoch,
        "steps": p.updates,
        "seconds": p.seconds,
        "images_per_second": images / p.seconds if p.seconds else None,
        "stopped": p.stopped or ("all epochs done" if training.over else f"at epoch {p.epoch}, as a trial of a sweep"),
        "select": training.select,
        "peak_memory": devices.peak_memory(arithmetic.device),
    }
    record["reads_of_test"] = p.reads_of_test
    return training.chosen()


def _as_built(model: nn.Sequential, record: Record) -> dict[str, Tensor]:
    """The weights of a net that is not trained: `epochs: 0`."""
    record["training"] = {"epochs": 0, "chosen_epoch": 0, "steps": 0, "seconds": 0.0, "stopped": "not trained", "select": "last"}
    return model.get_submodule("net").state_dict()


def _probed(tune: Tune, model: nn.Module, data: Data, record: Record) -> dict[str, Tensor]:
    """The weights of a net whose head alone was fitted."""
    began = time.perf_counter()
    tried = probing.probe(model, data, tune.penalties)
    best = max(tried, key=lambda each: each.rank)
    record["training"] = {
        "epochs": 0,
        "chosen_epoch": 0,
        "steps": 0,
        "seconds": time.perf_counter() - began,
        "stopped": f"a linear probe with the penalty {best.penalty:g}",
        "select": "accuracy" if len(tried) > 1 else "last",
        "penalties": [asdict(each) for each in tried],
    }
    return model.get_submodule("net").state_dict()


def _card(task: Task, data: Data, model: nn.Sequential) -> dict[str, Any]:
    """How to build the model again."""
    resize, normalize = dict(model.named_children()).get("resize"), model.get_submodule("normalize")
    return {
        "format": FORMAT,
        "model": configuration(task)["model"],
        "shape": list(data.shape),
        "classes": list(data.classes),
        "size": list(resize.size) if isinstance(resize, layers.Resize) else None,
        "interpolation": resize.interpolation if isinstance(resize, layers.Resize) else "bilinear",
        "gain": normalize.gain.tolist(),  # type: ignore[operator]
        "shift": normalize.shift.tolist(),  # type: ignore[operator]
        "seed": task.seed,
        "fit": data.fit,
    }


def _fit_estimator(task: Task, folder: RunFolder, data: Data, record: Record) -> None:
    assert task.recipe.estimator is not None
    estimator = estimating.build(task.recipe.estimator, task.seed, base=task.base)
    began = time.perf_counter()
    told = estimating.fit(estimator, data)
    seconds = time.perf_counter() - began
    record["findings"] += [{"kind": "fitting", "message": message} for message in told]
    record["training"] = {"seconds": seconds, "images": len(data.train), "stopped": "fitted"}
    card = {
        "format": FORMAT,
        "estimator": configuration(task)["estimator"],
        "shape": list(data.shape),
        "classes": list(data.classes),
        "seed": task.seed,
        "fit": data.fit,
    }
    estimating.save(folder, estimator, card)


def _predict(task: Task, folder: RunFolder, data: Data, record: Record, show: Show, tracking: Tracking) -> None:
    model = arithmetic_of(task).place(open_model(folder, trust=True, module=task.module))
    if task.until is not None:
        predict_split(folder, model, data, "validation", record)
        return
    seen, known = likeness.observed(model, data.train, lambda: evaluation.predictions_of(model, data.train))
    if data.validation is not None:
        _, held_out = likeness.observed(model, data.validation, lambda: predict_split(folder, model, data, "validation", record))
        fitted = likeness.fit(known, held_out)
        fitted.save(folder.likeness)
        record["likeness"] = {"rate": fitted.rate, "n": len(held_out.labels), "fitted_on": len(known.labels)}
    else:
        record["likeness"] = {"rate": None, "why": "without a validation split no distance says how unlike is too unlike"}
    if data.test is not None:
        predict_split(folder, model, data, "test", record)
    record.setdefault("scores", {})["train"] = evaluation.as_json(evaluation.scores_of(seen, seen.labels))


def predict_split(folder: RunFolder, model: nn.Module, data: Data, split: str, record: Record) -> evaluation.Predictions:
    """Predictions of one split, saved beside the model, and its scores in the record; a read of test is counted.

    Validation also gives the temperature that the probabilities of test are calibrated by.
    """
    images = data.splits[split]
    began = time.perf_counter()
    predictions = evaluation.predictions_of(model, images)
    record.setdefault("scoring", {})[split] = {"seconds": time.perf_counter() - began, "images": len(images)}
    predictions.save(folder.predictions(split))
    if split == "validation":
        record["calibration"] = evaluation.calibration_of(predictions)
    temperature = record["calibration"]["temperature"] if split == "test" and "calibration" in record else None
    train_labels = data.train.labels.cpu().numpy()
    for name, values in evaluation.summary(predictions, images, train_labels, temperature=temperature, slices=data.slices).items():
        record.setdefault(name, {})[split] = values
    if split == "test":
        record["reads_of_test"] += 1
        save_examples(folder.examples, images, predictions)
    return predictions


def _tracking(task: Task, folder: RunFolder) -> Tracking:
    """The run's trackers, not begun."""
    trained = {key: value for key, value in settings_of(task).items() if key not in EVALUATION_KEYS}
    config = {"study": task.study, "run": task.run, "seed": task.seed, **trained}
    return Tracking(task.recipe.track or (), folder, task.base, config)


def _track(task: Task, folder: RunFolder, data: Data, record: Record, show: Show, tracking: Tracking) -> None:
    """Tells the trackers what the run came to, and those that were asked for later all that went before."""
    tracking.begin()
    model = open_model(folder, trust=True, module=task.module)
    for entry in outcome.entries_of(folder, model, data, record, tracking.config):
        tracking.tell(entry)


def _examine(by: Callable[[Task, RunFolder, nn.Module, Data, Record], None]) -> Stage:
    def stage(task: Task, folder: RunFolder, data: Data, record: Record, show: Show, tracking: Tracking) -> None:
        by(task, folder, arithmetic_of(task).place(open_model(folder, trust=True, module=task.module)), data, record)

    return stage


STAGES: dict[str, Stage] = {
    "training": _train,
    "predictions": _predict,
    **{key: _examine(by) for key, by in examining.STAGES.items()},
    "track": _track,
}
"""What is done with a run, in this order."""
