"""The task of one run: a variant with one seed, its configuration as written to config.yaml, and
its data set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from torch import nn

from stresslens.config import registry, study_file
from stresslens.config.data_sets import corrections_digest, loaded_data_set
from stresslens.config.kept_files import KeptFile, kept_files
from stresslens.config.old_words import in_words_of_0_1
from stresslens.config.own_plugins import imported_digests, own_plugins, source_of
from stresslens.config.repeats import Repeats
from stresslens.config.schema import (
    ESTIMATOR_KEYS,
    EVALUATION_KEYS,
    LATER_COMPUTE_KEYS,
    RESUME_SAFE_KEYS,
    VariantConfig,
)
from stresslens.config.teachers import teacher_run
from stresslens.config.threat_model import ThreatModel, resolved_threat_model
from stresslens.config.validation import depends_on, objective_of
from stresslens.core.data import Data
from stresslens.core.devices import ComputeConfig
from stresslens.core.errors import ConfigError
from stresslens.core.fingerprint import fingerprint_of
from stresslens.core.pretrained import PretrainedWeights
from stresslens.core.run_folder import RunFolder
from stresslens.core.splits import Division, fewer, set_aside
from stresslens.training import initial_weights
from stresslens.training.corrections import corrections
from stresslens.training.members import member_digest, member_folders


@dataclass(frozen=True)
class Task:
    """One run: a variant with one seed, and the run folder. `repeats` says how each seed splits the
    data, where each has its own split.

    `data` and `module` are set where the caller passes a data set or a net of its own.
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
    trackers: tuple[Any, ...] = ()
    """Trackers of the caller's own, beside those of the configuration. They are no setting of the run."""
    until: int | None = None
    """For a trial of a sweep, the epoch after which it pauses; a trial has no test split. None: a
    run."""
    compute: ComputeConfig | None = None
    """The compute settings that `autotune` chose. None: not autotuned yet, `config.train`
    applies."""

    @cached_property
    def plan(self) -> Plan:
        return Plan(self)

    def __getstate__(self) -> dict[str, Any]:
        """The state without the plan, which holds functions of the user's files; a worker makes
        its own plan."""
        return {key: value for key, value in vars(self).items() if key != "plan"}


class Plan:
    """The resolved configuration of a task: settings, objective, threat model and initial weights.

    Each part is computed once, when it is first needed, and is not changed afterwards.
    """

    def __init__(self, task: Task) -> None:
        self._task = task

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The variant's plain values without those that do not apply: a model has no estimator, and
        an estimator has no model, no input and only the `ESTIMATOR_KEYS` of `train`."""
        task, values = self._task, study_file.as_values(self._task.config)
        train = values["train"]
        if task.compute is not None:
            asked = {key: value for key, value in train.items() if key not in LATER_COMPUTE_KEYS}
            train = asked | task.compute.settings()
        if task.config.estimator is None:
            return {key: value for key, value in values.items() if key != "estimator"} | {"train": train}
        train = {key: train[key] for key in ESTIMATOR_KEYS if key in train}
        return {key: value for key, value in values.items() if key not in ("model", "input")} | {
            "train": train
        }

    @cached_property
    def training_settings(self) -> dict[str, Any]:
        """The settings that have an effect on the training."""
        return {key: value for key, value in self.settings.items() if key not in EVALUATION_KEYS}

    @cached_property
    def own_sources(self) -> dict[str, tuple[Path, str]]:
        """Each custom plug-in by its name: its file, and the file name of its copy, which
        contains a digest of the content."""
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
    def kept_files(self) -> list[KeptFile]:
        """The files from which the model is made, which the run keeps copies of."""
        task = self._task
        if task.module is not None or task.config.estimator is not None:
            return []
        return kept_files(task.config.model, base=task.base)

    @cached_property
    def configuration(self) -> dict[str, Any]:
        """The content of config.yaml: a study of this one run with every setting resolved; custom
        plug-ins have the names of their copies."""
        task = self._task
        copies = {
            name: f"plugins/{copy}:{name.rpartition(':')[2]}"
            for name, (_, copy) in self.own_sources.items()
            if ".py:" in name
        } | {kept.given: kept.copy for kept in self.kept_files}
        repeats = task.repeats.alone(task.seed) if task.repeats else [task.seed]
        settings = _renamed(self.settings, copies)
        return {"study": task.study, **settings, "runs": {task.run: {}}, "repeats": repeats}

    @cached_property
    def objective(self) -> registry.Bound:
        """The training's objective, with its loss."""
        return registry.resolve(
            "objectives", objective_of(self._task.config.train, self._task.base), base=self._task.base
        )

    @cached_property
    def threat(self) -> ThreatModel | None:
        """The threat model of the section `robustness`; None without one. Raises ConfigError."""
        config = self._task.config.robustness
        return None if config is None else resolved_threat_model(config, self._task.base)

    @cached_property
    def initial_weights(self) -> PretrainedWeights | None:
        """The pretrained weights of the task's net; None where it starts from random weights.
        Raises ConfigError where the run that they come from has none."""
        task = self._task
        if task.module is not None or task.config.estimator is not None:
            return None
        source = dict(depends_on(task.config)).get("weights")
        run = other_run(task, source, "weights") if source else None
        return initial_weights.published(task.config.model, run, base=task.base)

    @cached_property
    def teacher(self) -> RunFolder | None:
        """The run that the task's objective learns from; None for another objective. Raises ConfigError
        where it has no trained model."""
        name = teacher_run(self._task.config)
        return other_run(self._task, name, "teacher") if name is not None else None

    @cached_property
    def members(self) -> list[RunFolder]:
        """The runs that the task's ensemble is made of; none for another model. Raises ConfigError where
        one has no trained model."""
        task = self._task
        return member_folders(task.config, task.base, task.folder.parent.parent)

    def corrections(self, data: Data) -> list[str]:
        """What this training computes in another way than version 0.1.0, in words."""
        config = self._task.config
        return [] if config.estimator is not None else corrections(config.train, len(data.train))

    def fingerprint(self, data: Data, *, corrected: bool = True) -> str:
        """A digest of everything that the trained model depends on; with `corrected` false, that of
        version 0.1.0 for the same configuration."""
        comparable = {key: value for key, value in self.configuration.items() if key not in EVALUATION_KEYS}
        train = comparable["train"].items()
        comparable["train"] = {key: value for key, value in train if key not in RESUME_SAFE_KEYS}
        training_plugins = own_plugins(self.training_settings)
        hashes = {
            name: copy
            for name, (_, copy) in self.own_sources.items()
            if name in training_plugins and ".py:" not in name
        }
        weights = self.initial_weights
        parts = [in_words_of_0_1(comparable), data.fingerprint, hashes, weights.digest if weights else ""]
        files = [file for name, (file, _) in self.own_sources.items() if name in training_plugins]
        imported = sorted({digest for file in files for digest in imported_digests(file)})
        others = map(member_digest, [*self.members, *([self.teacher] if self.teacher else [])])
        return fingerprint_of([*parts, *(self.corrections(data) if corrected else []), *imported, *others])


def _renamed(values: Any, names: Mapping[str, str]) -> Any:
    """Plain values with some names replaced, at any depth."""
    if isinstance(values, Mapping):
        return {_renamed(key, names): _renamed(value, names) for key, value in values.items()}
    if isinstance(values, list):
        return [_renamed(item, names) for item in values]
    return names.get(values, values) if isinstance(values, str) else values


def load_data(task: Task) -> Data:
    """The task's data set; for a trial of a sweep without the test split. The last data sets are
    kept in memory, because most runs of a study share one. Raises ConfigError."""
    value, corrected = json.dumps(task.config.data, sort_keys=True), corrections_digest(task.config.data)
    if task.data is not None:
        data = task.data
    elif task.repeats is not None:
        data = _divided(value, task.base, corrected, task.repeats.division, task.seed)
    else:
        load = _loaded if task.until is None else _without_test
        data = load(value, task.base, corrected)
    subset = task.config.train.subset
    if subset is not None:
        data = fewer(data, subset.images, balanced=subset.balanced, seed=task.seed)
    return set_aside(data, task.config.train.calibration)


@lru_cache(maxsize=2)
def _without_test(value: str, base: Path, corrected: str) -> Data:
    return replace(_loaded(value, base, corrected), test=None)


@lru_cache(maxsize=2)
def _divided(value: str, base: Path, corrected: str, division: Division, seed: int) -> Data:
    return division.of(_loaded(value, base, corrected), seed)


@lru_cache(maxsize=2)
def _loaded(value: str, base: Path, corrected: str) -> Data:
    """The data set; `corrected`, the digest of its corrections, tells a changed file from before."""
    return loaded_data_set(json.loads(value), path=("data",), base=base)


def other_run(task: Task, name: str, key: str) -> RunFolder:
    """The folder of another run that this one needs.

    `name` is a variant of the same study, whose run with the same seed is used. Or it is a path: of
    a run folder, or of a variant's folder, whose run with the same seed is used. For a run that is
    repeated from its config.yaml, the variants of the original study count too. Raises ConfigError
    with the `key` that refers to the run, where the run has no trained model.
    """
    seed = f"seed-{task.seed}"
    if "/" in name:
        candidates = [Path(name), Path(name) / seed]
    else:
        original_study = [task.base.parent.parent] if (task.base / "config.yaml").is_file() else []
        candidates = [study / name / seed for study in (task.folder.parent.parent, *original_study)]
    for folder in map(RunFolder, candidates):
        if folder.weights.is_file() or folder.estimator.is_file():
            return folder
    seeds = sorted(path.name for path in Path(name).glob("seed-*")) if "/" in name else []
    hint = (
        f"it has {', '.join(seeds)}, and this run is {seed}"
        if seeds
        else "give another run of the study, or the folder of a run"
    )
    raise ConfigError(f"{key}: {name} has no trained model for this run; {hint}")
