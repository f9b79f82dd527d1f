"""The stages of one run: settle what was left to choose, train, predict. Each leaves files, and is skipped when they are there."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import yaml
from torch import Tensor, nn

import stresslens
from stresslens import evaluation, find, study
from stresslens.core import devices, layers
from stresslens.core.data import Data, Split
from stresslens.core.devices import Arithmetic
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError, Stopped, TrainingDiverged
from stresslens.core.results import (
    FORMAT,
    RunFolder,
    UnreadableRun,
    as_float32,
    environment,
    read_json,
    write_atomically,
    write_json,
)
from stresslens.core.types import Step
from stresslens.training import Show, Training, fit, rules

Record = dict[str, Any]
EXAMPLES = 18
THUMBNAIL = 96
"""Pixels of the longer side beyond which a picture kept for the report is made smaller."""


@dataclass(frozen=True)
class Task:
    """One seed of one recipe and the folder it goes to. `data` and `module` are the caller's own, if not named by the recipe."""

    study: str
    run: str
    seed: int
    recipe: study.Recipe
    base: Path
    folder: Path
    data: Data | None = None
    module: nn.Module | None = None


def load_data(task: Task) -> Data:
    """The task's data set; the last one loaded is kept, since the runs of a study mostly share it."""
    if task.data is not None:
        return task.data
    return _loaded(json.dumps(task.recipe.data, sort_keys=True), task.base)


@lru_cache(maxsize=2)
def _loaded(value: str, base: Path) -> Data:
    data = find.resolve("datasets", json.loads(value), path=("data",), base=base)()
    if not isinstance(data, Data):
        raise ConfigError(f"the dataset {value} returned a {type(data).__name__}; expected a stresslens.Data")
    return data


def build_model(task: Task, data: Data) -> nn.Sequential:
    """The net, initialised from the task's seed, behind its input layers. Raises ConfigError when it cannot take the images."""
    size = _size(task.recipe.input.size)
    seen = (data.shape[0], *size) if size else data.shape
    torch.manual_seed(task.seed)
    if task.module is not None:
        net, name = task.module, type(task.module).__name__
    else:
        name = find.named("models", task.recipe.model)[0]
        net = _net(task.recipe.model, seen, data.classes, data.train, task.base)
    return _behind_input(net, _normalization(task.recipe.input, data.train), size, data, name)


def _behind_input(net: nn.Module, normalize: layers.Normalize, size: tuple[int, int] | None, data: Data, name: str) -> nn.Sequential:
    model = layers.build(net, normalize, size)
    layers.check_output(model, data.shape, len(data.classes), name)
    return model


def _net(value: Any, shape: Any, classes: Any, train: Split | None, base: Path, trust: bool = True) -> nn.Module:
    name = find.named("models", value)[0]
    bound = find.resolve("models", value, path=("model",), base=base, trust=trust)
    try:
        net = bound(shape, len(classes), tuple(classes), train)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"model {name} cannot be built for images of shape {shape} (channels, height, width): {error}") from error
    if not isinstance(net, nn.Module):
        raise ConfigError(f"model {name} returned a {type(net).__name__}; expected a torch.nn.Module")
    return net


def _size(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    return (size, size) if isinstance(size, int) else size


def _normalization(inputs: study.Input, train: Split) -> layers.Normalize:
    how = inputs.normalize
    if isinstance(how, str):
        return layers.Normalize.fitted(train, how)
    channels = train.shape[0]
    if not len(how.mean) == len(how.std) == channels:
        raise ConfigError(f"input.normalize: {len(how.mean)} means and {len(how.std)} deviations for images of {channels} channels")
    return layers.Normalize.by_moments(how.mean, how.std)


def open_model(folder: RunFolder, *, trust: bool = False, module: nn.Module | None = None) -> nn.Sequential:
    """A run's trained model: [0,1] images to logits, in float32, on the CPU.

    `module` is the architecture, for a run that was trained on the caller's own. Only built-in plug-ins are executed unless
    `trust`. Raises UnreadableRun when files are missing, damaged, or do not belong together.
    """
    card = folder.load_card()
    if isinstance(card.model, str) and card.model.startswith("own module") and module is None:
        raise UnreadableRun(f"{folder.path} was trained on your {card.model}; pass it as `module=`")
    shape = (card.shape[0], *card.size) if card.size else card.shape
    try:
        weights = safetensors.torch.load_file(folder.weights)
    except FileNotFoundError:
        raise UnreadableRun(f"there is no {folder.weights}; the run has not finished training") from None
    except Exception as error:
        raise UnreadableRun(f"{folder.weights} cannot be read: {error}") from error
    try:
        if module is None:  # compared without allocating: a card may ask for more memory than there is
            with torch.device("meta"):
                _matching(_net(card.model, shape, card.classes, None, folder.path, trust), weights)
        net = module if module is not None else _net(card.model, shape, card.classes, None, folder.path, trust)
        net.load_state_dict(weights)
        normalize = layers.Normalize(torch.tensor(card.gain, dtype=torch.float32), torch.tensor(card.shift, dtype=torch.float32))
        model = layers.build(net.float(), normalize, card.size)
        layers.check_output(model, card.shape, len(card.classes), str(card.model))
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise UnreadableRun(f"{folder.card} and {folder.weights.name} do not belong together: {error}") from error
    return model


def _matching(net: nn.Module, weights: dict[str, Tensor]) -> None:
    expected = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if expected != found:
        differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        name = differing[0]
        raise ValueError(f"{len(differing)} tensors differ, first {name}: {expected.get(name)} by the card, {found.get(name)} in the file")


# --- settling -------------------------------------------------------------------------------------------------------------------------


def settle(tasks: list[Task], *, most_threads: int) -> list[Task]:
    """The tasks with device, precision, threads and memory format decided: as a run's folder says, else by measuring.

    Runs of one study are compared with each other, so one precision serves them all: bfloat16 where it is the faster for every
    model that is left to choose, else float32. Raises ConfigError, naming every folder, where another configuration lies.
    """
    settled: dict[int, Task] = {}
    conflicts: list[str] = []
    for place, task in enumerate(tasks):
        folder = RunFolder(task.folder)
        if folder.config.exists():
            kept, differing = _adopt(task, folder)
            settled[place] = kept
            if differing:
                conflicts.append(f"{task.folder} holds another configuration ({differing})")
    if conflicts:
        ways = "keep both: --out ELSEWHERE, or another name for the study or the run; replace it: delete the folder"
        raise ConfigError("\n".join(conflicts) + f"\n{ways}")
    timings = {place: _timed(task, most_threads) for place, task in enumerate(tasks) if place not in settled}
    choosing = [seconds for seconds in timings.values() if any(way.precision == "bfloat16" for way in seconds)]
    free = [seconds for place, seconds in timings.items() if tasks[place].recipe.train.precision == "auto"]
    kept = {settled[p].recipe.train.precision for p in settled if tasks[p].recipe.train.precision == "auto"}
    common = kept.pop() if len(kept) == 1 else None
    if common is None and free:
        wins = len(choosing) == len(free) and all(devices.fastest(seconds).precision == "bfloat16" for seconds in choosing)
        common = "bfloat16" if wins else "float32"
    for place, seconds in timings.items():
        asked = tasks[place].recipe.train.precision
        settled[place] = _with_arithmetic(tasks[place], devices.fastest(seconds, common if asked == "auto" else None))
    return [settled[place] for place in range(len(tasks))]


def _with_arithmetic(task: Task, way: Arithmetic) -> Task:
    return replace(task, recipe=replace(task.recipe, train=replace(task.recipe.train, **asdict(way))))


def arithmetic_of(task: Task) -> Arithmetic:
    train = task.recipe.train
    return Arithmetic(train.device, train.precision, train.threads, train.memory_format)  # type: ignore[arg-type]


def _adopt(task: Task, folder: RunFolder) -> tuple[Task, str]:
    """The task as its folder settled it, and in what else the two differ."""
    try:
        kept = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
        settled = {key: kept["train"][key] for key in asdict(Arithmetic("", "float32", 1, "contiguous"))}
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UnreadableRun(f"{folder.config} cannot be read ({error}); delete the folder to start anew") from error
    asked = task.recipe.train
    task = replace(
        task,
        recipe=replace(task.recipe, train=replace(asked, **{k: v for k, v in settled.items() if getattr(asked, k) == "auto"})),
    )
    mine = configuration(task)
    differing = [
        f"{key}: {_at(kept, key)!r} there, {_at(mine, key)!r} now"
        for key in sorted(_leaves(kept) | _leaves(mine))
        if _at(kept, key) != _at(mine, key) and key.rpartition(".")[2] not in study.OPERATIONAL
    ]
    return task, "; ".join(differing)


def _leaves(values: Any, prefix: str = "") -> set[str]:
    if not isinstance(values, dict) or not values:
        return {prefix} if prefix else set()
    return set().union(*(_leaves(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in values.items()))


def _at(values: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        values = values.get(key) if isinstance(values, dict) else None
    return values


def configuration(task: Task) -> dict[str, Any]:
    """What config.yaml holds: a study of this one run, with the data's fingerprint and every setting resolved."""
    values = study.as_values(task.recipe)
    return {"study": task.study, **values, "runs": {task.run: {}}, "repeats": [task.seed]}


_timings: dict[str, dict[Arithmetic, float]] = {}


def _timed(task: Task, most_threads: int) -> dict[Arithmetic, float]:
    """Seconds of a training step of this recipe's model in each way worth trying; recipes with equal steps are timed once."""
    train = task.recipe.train
    device = devices.pick_device(train.device)
    data = load_data(task)
    of_step = ("batch_size", "loss", "objective", "device", "precision", "threads", "memory_format")
    settings = {key: study.as_values(task.recipe)["train"][key] for key in of_step}
    model_of = study.as_values(task.recipe)["model"]
    key = study.fingerprint([settings, model_of, study.as_values(task.recipe)["input"], data.shape, most_threads])
    if key in _timings and task.module is None:
        return _timings[key]
    rules(train, data)
    with torch.random.fork_rng(devices=[]):
        model = build_model(task, data)
    threads = None if train.threads == "auto" else train.threads
    ways = devices.candidates(model, device, train.precision, threads, most_threads)
    if train.memory_format != "auto":
        ways = [replace(way, memory_format=train.memory_format) for way in ways if way.memory_format == "contiguous"]
    if len(ways) == 1:
        return {ways[0]: 0.0}
    objective = find.resolve("objectives", study.objective_of(train), base=task.base)
    size = len(data.train) if train.batch_size == "full" else train.batch_size
    rows = data.train.select(torch.arange(min(size, len(data.train)))).to(device)

    def step(trial: nn.Module, way: Arithmetic) -> None:
        batch = next(rows.batches(size, dtype=way.dtype))
        with way.autocast():
            loss = objective(trial, batch.x, batch.y, Step(Draws(0, batch.index), 0, 0.0, {}))
        if loss.requires_grad:
            loss.backward()
        for parameter in trial.parameters():
            parameter.grad = None

    with torch.random.fork_rng(devices=[]):
        _timings[key] = devices.probe(model, step, ways)
    return _timings[key]


# --- training -------------------------------------------------------------------------------------------------------------------------


def carry_out(task: Task, show: Show = lambda position, epochs: None) -> Record:
    """Does what is left of a run and returns its record. Raises Stopped and TrainingDiverged after recording them."""
    folder = RunFolder(task.folder)
    with folder.locked():
        devices.keep_memory()
        data = load_data(task)
        record = _begin(task, folder, data)
        arithmetic = arithmetic_of(task)
        cuda = [torch.device(arithmetic.device)] if torch.device(arithmetic.device).type == "cuda" else []
        with torch.random.fork_rng(devices=cuda), arithmetic.active():
            for stage, do in (("training", _train), ("predictions", _predict)):
                if record["stages"].get(stage) == record["fingerprint"]:
                    continue
                try:
                    do(task, folder, data, record, show)
                except (Stopped, TrainingDiverged) as error:
                    record |= {"status": "stopped" if isinstance(error, Stopped) else "diverged", "message": str(error)}
                    write_json(folder.record, record)
                    raise
                record["stages"][stage] = record["fingerprint"]
                write_json(folder.record, record)
        if record["status"] != "finished":
            record |= {"status": "finished", "message": ""}
            write_json(folder.record, record)
        return record


def _begin(task: Task, folder: RunFolder, data: Data) -> Record:
    """The record of this folder, fresh or as an earlier attempt left it; refuses a folder made from other data or code."""
    comparable = configuration(task)
    comparable["train"] = {k: v for k, v in comparable["train"].items() if k not in study.OPERATIONAL}
    sources = _own_sources(task)
    hashes = {name: hashlib.sha256(file.read_bytes()).hexdigest()[:16] for name, file in sources.items()}
    fingerprint = study.fingerprint([comparable, data.fingerprint, hashes])
    if folder.record.exists():
        kept: Record = read_json(folder.record)
        if kept.get("format") != FORMAT or "stages" not in kept:
            raise UnreadableRun(f"{folder.record} is not a record of format {FORMAT}; delete the folder to start anew")
        if kept["fingerprint"] != fingerprint:
            what = "the data set" if kept["data"]["fingerprint"] != data.fingerprint else "the configuration or the code of a plug-in"
            raise ConfigError(f"{task.folder}: {what} has changed since; use --out ELSEWHERE, or delete the folder to start anew")
        kept["status"] = "finished" if kept["status"] == "finished" else "running"
        return kept
    for file in sources.values():
        target = folder.path / "plugins" / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    header = "# stresslens run on this file repeats the run\n"
    text = header + yaml.safe_dump(configuration(task), sort_keys=False, allow_unicode=True)
    write_atomically(folder.config, lambda file: file.write(text.encode()))
    write_json(folder.environment, environment(asdict(arithmetic_of(task))))
    record: Record = {
        "format": FORMAT,
        "version": stresslens.__version__,
        "status": "running",
        "message": "",
        "study": task.study,
        "run": task.run,
        "seed": task.seed,
        "fingerprint": fingerprint,
        "plugins": hashes,
        "classes": list(data.classes),
        "shape": list(data.shape),
        "data": {
            "name": data.name,
            "fingerprint": data.fingerprint,
            "sizes": {name: len(split) for name, split in data.splits.items()},
            "notes": list(data.notes),
        },
        "reads_of_test": 0,
        "watched_test": "test" in task.recipe.train.watch,
        "resumed_from": [],
        "findings": [],
        "stages": {},
    }
    write_json(folder.record, record)
    return record


def _own_sources(task: Task) -> dict[str, Path]:
    values = study.as_values(task.recipe)
    named = {}
    for path, folder, value in study.plugins_in(values):
        standing_in = task.data is not None if path == ("data",) else path == ("model",) and task.module is not None
        source = None if standing_in else find.own_source(folder, value, base=task.base)
        if source is not None:
            named[".".join(map(str, path))] = source
    return named


def _train(task: Task, folder: RunFolder, data: Data, record: Record, show: Show) -> None:
    arithmetic = arithmetic_of(task)
    model = build_model(task, data)
    size = _size(task.recipe.input.size)
    table = layers.layer_table(model.get_submodule("net"), (data.shape[0], *size) if size else data.shape)
    training = Training(
        model,
        data.to(arithmetic.device),
        task.recipe.train,
        arithmetic=arithmetic,
        seed=task.seed,
        folder=folder,
        base=task.base,
        show=show,
    )
    state, passed_over = folder.load_checkpoint()
    if state is not None:
        training.restore(state)
        record["resumed_from"].append({"epoch": training.position.epoch, "step": training.position.step})
    else:
        training.start_logs()
    if passed_over:
        record["findings"].append({"kind": "checkpoint", "message": passed_over})
    write_json(folder.record, record)
    with training.obeying_signals():
        fit(training)
    p = training.position
    images = p.epoch * len(data.train)
    record["training"] = {
        "epochs": p.epoch,
        "chosen_epoch": training.chosen_epoch,
        "steps": p.updates,
        "seconds": p.seconds,
        "images_per_second": images / p.seconds if p.seconds else None,
        "stopped": p.stopped or "all epochs done",
        "select": training.select,
    }
    record["layers"] = table.as_json()
    record["reads_of_test"] = p.reads_of_test
    normalize = model.get_submodule("normalize")
    card = {
        "format": FORMAT,
        "model": task.recipe.model,
        "shape": list(data.shape),
        "classes": list(data.classes),
        "size": list(size) if size else None,
        "gain": normalize.gain.tolist(),  # type: ignore[operator, union-attr]
        "shift": normalize.shift.tolist(),  # type: ignore[operator, union-attr]
        "seed": task.seed,
    }
    weights = as_float32(training.chosen())
    write_atomically(folder.weights, lambda file: file.write(safetensors.torch.save(weights)))
    write_json(folder.card, card)


# --- predictions ----------------------------------------------------------------------------------------------------------------------


def _predict(task: Task, folder: RunFolder, data: Data, record: Record, show: Show) -> None:
    model = open_model(folder, trust=True, module=task.module).to(arithmetic_of(task).device)
    for split in ("validation", "test"):
        if split in data.splits:
            predict_split(folder, model, data, split, record)


def predict_split(folder: RunFolder, model: nn.Module, data: Data, split: str, record: Record) -> evaluation.Predictions:
    """Predictions of one split, saved beside the model, and its scores in the record; a read of test is counted."""
    images = data.splits[split]
    predictions = evaluation.predictions_of(model, images)
    predictions.save(folder.predictions(split))
    for name, values in evaluation.summary(predictions, data.train.labels.cpu().numpy()).items():
        record.setdefault(name, {})[split] = values
    if split == "test":
        record["reads_of_test"] += 1
        _save_examples(folder, images, predictions)
    return predictions


def _save_examples(folder: RunFolder, images: Split, predictions: evaluation.Predictions) -> None:
    from PIL import Image

    entries = evaluation.examples_of(predictions, EXAMPLES)
    folder.examples.mkdir(exist_ok=True)
    for entry in entries:
        picture = Image.fromarray(as_picture(images, entry["index"]))
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        write_atomically(folder.examples / entry["file"], lambda file, picture=picture: picture.save(file, "PNG"))  # type: ignore[misc]
    write_json(folder.examples / "examples.json", entries)


def as_picture(split: Split, index: int) -> np.ndarray:
    """One image as uint8 (H, W) or (H, W, 3) for saving; of other channel counts the first."""
    x = split.floats(split.images[index : index + 1])[0].clamp(0, 1).mul(255).round().to(torch.uint8).cpu().numpy()
    return x.transpose(1, 2, 0) if len(x) == 3 else x[0]
