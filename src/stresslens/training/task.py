"""A task: one seed of one recipe, what its configuration comes to, and its data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from torch import nn

from stresslens.config import registry, study_file
from stresslens.config.old_words import in_words_of_0_1
from stresslens.config.own_plugins import own_plugins, source_of
from stresslens.config.repeats import Repeats
from stresslens.config.schema import ESTIMATOR_KEYS, EVALUATION_KEYS, RESUME_SAFE_KEYS, VariantConfig
from stresslens.config.threat_model import ThreatModel, resolved_threat_model
from stresslens.config.validation import depends_on, objective_of
from stresslens.core.data import Data
from stresslens.core.devices import ComputeConfig
from stresslens.core.errors import ConfigError
from stresslens.core.fingerprint import fingerprint_of
from stresslens.core.pretrained import PretrainedWeights
from stresslens.core.run_folder import RunFolder
from stresslens.core.splits import Division, fewer
from stresslens.training import initial_weights


@dataclass(frozen=True)
class Task:
    """One seed of one recipe and the folder it goes to. `repeats` says how each seed divides the
    data, if not all alike.

    `data` and `module` are the caller's own, if not named by the recipe.
    """

    study: str
    run: str
    seed: int
    config: VariantConfig
    base: Path
    folder: Path
    data: Data | None = None
    module: nn.Module | None = None
    repeats: Repeats | None = None
    until: int | None = None
    """A trial of a sweep: it goes so many epochs, and has no test split. None: a run."""
    compute: ComputeConfig | None = None
    """How it is computed, once that is decided (`autotune`); None: as `config.train` says."""

    @cached_property
    def plan(self) -> Plan:
        return Plan(self)

    def __getstate__(self) -> dict[str, Any]:
        """Without the plan, which holds functions of the user's own files; a worker makes its own."""
        return {key: value for key, value in vars(self).items() if key != "plan"}


class Plan:
    """What the configuration of a task comes to. Each part is worked out when it is first needed,
    once for the task; nobody changes it afterwards."""

    def __init__(self, task: Task) -> None:
        self._task = task

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The recipe's plain values, without those that mean nothing to it: of a model's the
        estimator, and the other way round."""
        task, values = self._task, study_file.as_values(self._task.config)
        train = values["train"] | (asdict(task.compute) if task.compute is not None else {})
        if task.config.estimator is None:
            return {key: value for key, value in values.items() if key != "estimator"} | {"train": train}
        heeded = {key: train[key] for key in ESTIMATOR_KEYS}
        return {key: value for key, value in values.items() if key not in ("model", "input")} | {
            "train": heeded
        }

    @cached_property
    def training_settings(self) -> dict[str, Any]:
        """Those that change something about the training."""
        return {key: value for key, value in self.settings.items() if key not in EVALUATION_KEYS}

    @cached_property
    def own_sources(self) -> dict[str, tuple[Path, str]]:
        """Each of the user's own plug-ins by name: its file, and what its copy is called, which
        tells its content."""
        sources: dict[str, tuple[Path, str]] = {}
        for name in own_plugins(self.settings):
            file = source_of(name, base=self._task.base)
            if file is not None:
                digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
                sources[name] = (
                    file,
                    file.name if file.stem.endswith(digest) else f"{file.stem}-{digest}.py",
                )
        return sources

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """What config.yaml holds: a study of this one run, every setting resolved, own plug-ins
        named as their copies."""
        task = self._task
        copies = {
            name: f"plugins/{copy}:{name.rpartition(':')[2]}"
            for name, (_, copy) in self.own_sources.items()
            if ".py:" in name
        }
        repeats = task.repeats.alone(task.seed) if task.repeats else [task.seed]
        own = _renamed(self.settings, copies)
        return {"study": task.study, **own, "runs": {task.run: {}}, "repeats": repeats}

    @cached_property
    def objective(self) -> registry.Bound:
        """The training's objective, with its loss."""
        return registry.resolve("objectives", objective_of(self._task.config.train), base=self._task.base)

    @cached_property
    def threat(self) -> ThreatModel | None:
        """What the trained model is attacked with, if it is. Raises ConfigError."""
        config = self._task.config.robustness
        return None if config is None else resolved_threat_model(config, self._task.base)

    @cached_property
    def initial_weights(self) -> PretrainedWeights | None:
        """The weights that the task's net begins with, if not with random ones. Raises ConfigError
        where a run has none."""
        task = self._task
        if task.module is not None or task.config.estimator is not None:
            return None
        named = dict(depends_on(task.config)).get("weights")
        run = other_run(task, named, "weights") if named else None
        return initial_weights.published(task.config.model, run, base=task.base)

    def fingerprint(self, data: Data) -> str:
        """Changes with everything that the trained model depends on."""
        comparable = {key: value for key, value in self.configuration.items() if key not in EVALUATION_KEYS}
        train = comparable["train"].items()
        comparable["train"] = {key: value for key, value in train if key not in RESUME_SAFE_KEYS}
        used = own_plugins(self.training_settings)
        hashes = {
            name: copy for name, (_, copy) in self.own_sources.items() if name in used and ".py:" not in name
        }
        weights = self.initial_weights
        return fingerprint_of(
            [in_words_of_0_1(comparable), data.fingerprint, hashes, weights.digest if weights else ""]
        )


def _renamed(values: Any, names: Mapping[str, str]) -> Any:
    """Plain values with some names replaced, wherever they stand."""
    if isinstance(values, Mapping):
        return {_renamed(key, names): _renamed(value, names) for key, value in values.items()}
    if isinstance(values, list):
        return [_renamed(item, names) for item in values]
    return names.get(values, values) if isinstance(values, str) else values


def load_data(task: Task) -> Data:
    """The task's data set; the last one loaded is kept, since the runs of a study mostly share it.
    Of a trial without test."""
    value = json.dumps(task.config.data, sort_keys=True)
    if task.data is not None:
        data = task.data
    elif task.repeats is not None:
        data = _divided(value, task.base, task.repeats.division, task.seed)
    else:
        data = _loaded(value, task.base) if task.until is None else _without_test(value, task.base)
    subset = task.config.train.subset
    return data if subset is None else fewer(data, subset.images, balanced=subset.balanced, seed=task.seed)


@lru_cache(maxsize=2)
def _without_test(value: str, base: Path) -> Data:
    return replace(_loaded(value, base), test=None)


@lru_cache(maxsize=2)
def _divided(value: str, base: Path, division: Division, seed: int) -> Data:
    return division.of(_loaded(value, base), seed)


@lru_cache(maxsize=2)
def _loaded(value: str, base: Path) -> Data:
    data = registry.resolve("datasets", json.loads(value), path=("data",), base=base)()
    if not isinstance(data, Data):
        raise ConfigError(f"the dataset {value} returned a {type(data).__name__}; expected a stresslens.Data")
    return data


def other_run(task: Task, name: str, key: str) -> RunFolder:
    """Another run of the same study and seed (of a run that is repeated by its config.yaml, the one
    beside that), or any by its folder, of that seed if it has several. Raises ConfigError, naming
    the `key` that asks for it, where it is not trained."""
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
    there = (
        f"it has {', '.join(seeds)}, and this is {seed}"
        if seeds
        else "give another run of the study, or the folder of a run"
    )
    raise ConfigError(f"{key}: {name} has no trained model for this run; {there}")
