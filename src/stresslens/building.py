"""From a recipe to a data set and a model, and from a run's folder back to them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import yaml
from torch import Tensor, nn

from stresslens import estimating, find, weights
from stresslens import study as studies
from stresslens.core import layers
from stresslens.core.data import Data, Split
from stresslens.core.division import Division, fewer
from stresslens.core.errors import ConfigError, StresslensError
from stresslens.core.pictures import Frame
from stresslens.core.pretrained import Account, Preprocessing, Published
from stresslens.core.results import EstimatorCard, RunFolder, UnreadableRun, read_record
from stresslens.core.types import Finding
from stresslens.recipe import HEEDED, Input, Recipe
from stresslens.recipe_check import others


@dataclass(frozen=True)
class Task:
    """One seed of one recipe and the folder it goes to. `repeats` says how each seed divides the data, if not all alike.

    `data` and `module` are the caller's own, if not named by the recipe.
    """

    study: str
    run: str
    seed: int
    recipe: Recipe
    base: Path
    folder: Path
    data: Data | None = None
    module: nn.Module | None = None
    repeats: studies.Repeats | None = None
    until: int | None = None
    """A trial of a sweep: it goes so many epochs, and has no test split. None: a run."""


def settings_of(task: Task) -> dict[str, Any]:
    """The recipe's plain values, without those that mean nothing to it: of a model's the estimator, and the other way round."""
    values = studies.as_values(task.recipe)
    if task.recipe.estimator is None:
        return {key: value for key, value in values.items() if key != "estimator"}
    heeded = {key: values["train"][key] for key in HEEDED}
    return {key: value for key, value in values.items() if key not in ("model", "input")} | {"train": heeded}


def configuration(task: Task) -> dict[str, Any]:
    """What config.yaml holds: a study of this one run, every setting resolved, own plug-ins named as their copies."""
    values = settings_of(task)
    copies = {name: f"plugins/{copy}:{name.rpartition(':')[2]}" for name, (_, copy) in own_sources(task).items() if ".py:" in name}
    repeats = task.repeats.alone(task.seed) if task.repeats else [task.seed]
    return {"study": task.study, **_renamed(values, copies), "runs": {task.run: {}}, "repeats": repeats}


def _renamed(values: Any, names: Mapping[str, str]) -> Any:
    """Plain values with some names replaced, wherever they stand."""
    if isinstance(values, Mapping):
        return {_renamed(key, names): _renamed(value, names) for key, value in values.items()}
    if isinstance(values, list):
        return [_renamed(item, names) for item in values]
    return names.get(values, values) if isinstance(values, str) else values


def own_sources(task: Task) -> dict[str, tuple[Path, str]]:
    """Each of the user's own plug-ins by name: its file, and what its copy is called, which tells its content."""
    sources: dict[str, tuple[Path, str]] = {}
    for name in find.own_plugins(settings_of(task)):
        file = find.source_of(name, base=task.base)
        if file is not None:
            digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
            sources[name] = file, file.name if file.stem.endswith(digest) else f"{file.stem}-{digest}.py"
    return sources


def load_data(task: Task) -> Data:
    """The task's data set; the last one loaded is kept, since the runs of a study mostly share it. Of a trial without test."""
    value = json.dumps(task.recipe.data, sort_keys=True)
    if task.data is not None:
        data = task.data
    elif task.repeats is not None:
        data = _divided(value, task.base, task.repeats.division, task.seed)
    else:
        data = _loaded(value, task.base) if task.until is None else _without_test(value, task.base)
    subset = task.recipe.train.subset
    return data if subset is None else fewer(data, subset.images, balanced=subset.balanced, seed=task.seed)


@lru_cache(maxsize=2)
def _without_test(value: str, base: Path) -> Data:
    return replace(_loaded(value, base), test=None)


@lru_cache(maxsize=2)
def _divided(value: str, base: Path, division: Division, seed: int) -> Data:
    return division.of(_loaded(value, base), seed)


@lru_cache(maxsize=2)
def _loaded(value: str, base: Path) -> Data:
    data = find.resolve("datasets", json.loads(value), path=("data",), base=base)()
    if not isinstance(data, Data):
        raise ConfigError(f"the dataset {value} returned a {type(data).__name__}; expected a stresslens.Data")
    return data


def data_of(folder: RunFolder, *, trust: bool = False) -> Data:
    """The data set a run was trained on (of a trial without test), loaded by its config.yaml; own plug-ins only with `trust`."""
    try:
        config = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
        value, repeats, subset = config["data"], config["repeats"], config["train"].get("subset")
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UnreadableRun(f"{folder.config} cannot be read ({error})") from error
    if isinstance(value, str) and value.startswith("own data"):
        raise UnreadableRun(f"{folder.path} was trained on your {value}; evaluate it from Python, with stresslens.evaluate")
    data: Data = find.resolve("datasets", value, path=("data",), base=folder.path, trust=trust)()
    seed = (repeats if isinstance(repeats, list) else repeats["only"])[0]
    if not isinstance(repeats, list):
        data = studies.Repeats(**repeats).division.of(data, seed)
    if "test" not in read_record(folder)["data"].get("splits", ["test"]):
        data = replace(data, test=None)
    return data if subset is None else fewer(data, subset["images"], balanced=subset["balanced"], seed=seed)


def build_model(task: Task, data: Data) -> nn.Sequential:
    """The net, initialised from the task's seed, behind its input layers. Raises ConfigError when it cannot take the images.

    The weights that the recipe begins with are not in it yet (`begin`), but its input layers are theirs.
    """
    origin = origin_of(task)
    size, normalize, interpolation = _input(task.recipe.input, data.train, origin.preprocessing if origin else None)
    torch.manual_seed(task.seed)
    if task.module is not None:
        net, name = task.module, type(task.module).__name__
    else:
        name = find.named("models", task.recipe.model)[0]
        height, width = size or data.shape[1:]
        net = _net(task.recipe.model, (len(normalize.gain), height, width), data.classes, data.train, task.base)
    model = layers.build(net, normalize, size, interpolation)
    layers.check_output(model, data.shape, len(data.classes), name)
    return model


def origin_of(task: Task) -> Published | None:
    """The weights that the task's net begins with, if not with random ones. Raises ConfigError where a run has none."""
    if task.module is not None or task.recipe.estimator is not None:
        return None
    named = dict(others(task.recipe)).get("weights")
    return weights.published(task.recipe.model, other_run(task, named, "weights") if named else None, base=task.base)


def begin(task: Task, data: Data, model: nn.Module) -> Account | None:
    """Gives a fresh model the weights it begins with, and tells what became of each."""
    origin = origin_of(task)
    if origin is None:
        return None
    if task.recipe.train.probed:
        origin = replace(origin, head="new")
    return weights.begin_with(model, origin, data.shape, data.classes)


def leak(task: Task, data: Data) -> Finding | None:
    """A finding where the run whose weights the task begins with was trained on images that are test images here, as in another
    division of the same data set."""
    name = dict(others(task.recipe)).get("weights")
    if name is None or data.test is None:
        return None
    run = other_run(task, name, "weights")
    if not run.record.is_file():  # an exported folder
        return None
    facts = read_record(run)["data"]
    if facts["name"] != data.name or facts["splits"].get("test") == data.test.fingerprint:
        return None
    try:
        known = weights.known_images(data.test, data_of(run, trust=True).train)
    except StresslensError:  # the caller's own data, or no longer there
        return None
    evidence = f"{known} of {len(data.test)} test images are training images of {name}, whose weights the run began with"
    remedy = "divide the data the same way in both, or take weights that were trained on other images"
    return Finding("trained on before", "sign", "serious", evidence, len(data.test), remedy) if known else None


def other_run(task: Task, name: str, key: str) -> RunFolder:
    """Another run of the same study and seed (of a run that is repeated by its config.yaml, the one beside that), or any by its
    folder, of that seed if it has several. Raises ConfigError, naming the `key` that asks for it, where it is not trained."""
    seed = f"seed-{task.seed}"
    if "/" in name:
        places = [Path(name), Path(name) / seed]
    else:
        repeated = [task.base.parent.parent] if (task.base / "config.yaml").is_file() else []
        places = [home / name / seed for home in (task.folder.parent.parent, *repeated)]
    for folder in map(RunFolder, places):
        if folder.weights.is_file() or folder.estimator.is_file():
            return folder
    seeds = sorted(path.name for path in Path(name).glob("seed-*")) if "/" in name else []
    there = f"it has {', '.join(seeds)}, and this is {seed}" if seeds else "give another run of the study, or the folder of a run"
    raise ConfigError(f"{key}: {name} has no trained model for this run; {there}")


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


def _input(
    inputs: Input, train: Split, known: Preprocessing | None
) -> tuple[tuple[int, int] | None, layers.Normalize, layers.Interpolation]:
    """The size that images are resized to (None: as they are), normalising and interpolation; `known` is the weights' own way."""
    size = (inputs.size, inputs.size) if isinstance(inputs.size, int) else inputs.size
    if size == "auto":
        size = known.shape[1:] if known is not None else None
    if size == train.shape[1:]:
        size = None
    interpolation = inputs.interpolation
    if interpolation == "auto":
        interpolation = known.interpolation if known is not None else "bilinear"
    return size, _normalization(inputs, train, known), interpolation


def _normalization(inputs: Input, train: Split, known: Preprocessing | None) -> layers.Normalize:
    how = inputs.normalize
    channels = train.shape[0]
    if how == "auto" and known is not None and channels in (1, len(known.normalize.gain)):
        return known.normalize  # grey images become as many channels alike as the weights saw
    if isinstance(how, str):
        return layers.Normalize.fitted(train, "standard" if how == "auto" else how)
    if not len(how.mean) == len(how.std) == channels:
        raise ConfigError(f"input.normalize: {len(how.mean)} means and {len(how.std)} deviations for images of {channels} channels")
    return layers.Normalize.by_moments(how.mean, how.std)


def frame_of(folder: RunFolder) -> Frame:
    """How picture files are brought to what the run's model takes. Raises DataError where none has the images' channels."""
    card = folder.load_card()
    return Frame.of(card.shape, card.fit, folder.path)


def open_model(folder: RunFolder, *, trust: bool = False, module: nn.Module | None = None) -> nn.Sequential:
    """A run's trained model, or its estimator in a model's place: [0,1] images to logits, in float32, on the CPU.

    `module` is the architecture, for a run that was trained on the caller's own. Only built-in plug-ins are executed unless
    `trust`. Raises UnreadableRun when files are missing, damaged, or do not belong together.
    """
    card = folder.load_card()
    if isinstance(card, EstimatorCard):
        return nn.Sequential(estimating.opened(folder, card, trust=trust))
    if isinstance(card.model, str) and card.model.startswith("own module") and module is None:
        raise UnreadableRun(f"{folder.path} was trained on your {card.model}; pass it as `module=`")
    shape = card.seen
    try:
        state = safetensors.torch.load_file(folder.weights)
    except FileNotFoundError:
        raise UnreadableRun(f"there is no {folder.weights}; the run has not finished training") from None
    except Exception as error:
        raise UnreadableRun(f"{folder.weights} cannot be read: {error}") from error
    try:
        if module is None:  # compared without allocating: a card may ask for more memory than there is
            with torch.device("meta"):
                _matching(_net(card.model, shape, card.classes, None, folder.path, trust), state)
        net = module if module is not None else _net(card.model, shape, card.classes, None, folder.path, trust)
        net.load_state_dict(state)
        normalize = layers.Normalize(torch.tensor(card.gain, dtype=torch.float32), torch.tensor(card.shift, dtype=torch.float32))
        model = layers.build(net.float(), normalize, card.size, card.interpolation)
        layers.check_output(model, card.shape, len(card.classes), str(card.model))
    except (RuntimeError, ValueError, TypeError, MemoryError) as error:
        raise UnreadableRun(f"{folder.card} and {folder.weights.name} do not belong together: {error}") from error
    return model


def _matching(net: nn.Module, state: dict[str, Tensor]) -> None:
    expected = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    if expected != found:
        differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        name = differing[0]
        raise ValueError(
            f"{len(differing)} tensors differ, first {name}: {expected.get(name)} by the card, {found.get(name)} in the file"
        )
