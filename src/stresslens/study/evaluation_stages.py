"""The evaluation stages of a run: attacks, corruptions, attribution maps and feature
visualisations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from stresslens.config.schema import Corruptions, Explain, Views
from stresslens.core.class_names import class_number
from stresslens.core.data import Data
from stresslens.core.progress import advance
from stresslens.core.run_folder import RunFolder
from stresslens.core.splits import split_named
from stresslens.evaluation.averaged_views import check_views, score_averaged
from stresslens.evaluation.record import RunRecord
from stresslens.explanation import maps, views
from stresslens.robustness import corrupt
from stresslens.robustness.attack_run import attack_stage, open_surrogate, threat_on
from stresslens.training.task import Task, other_run

T = TypeVar("T", Corruptions, Explain, Views)


def check_sections(task: Task, data: Data) -> None:
    """Raises ConfigError, before any training, for an evaluation that is not possible with this
    data."""
    if (threat := task.plan.threat) is not None:
        threat_on(data, threat)
    config = task.config
    if config.evaluation is not None:
        whole = None if config.estimator is None else nn.Identity()
        check_views(config.evaluation.tta, data.shape, whole)
    sections = {
        "corruptions": _whole(Corruptions, config.corruptions),
        "explain": _whole(Explain, config.explain),
        "views": _whole(Views, config.views),
    }
    for key, section in sections.items():
        if isinstance(section, Explain) and section.target_class not in ("predicted", "label"):
            class_number(section.target_class, data.classes, "explain.target_class")
        if section is not None:
            split_named(data, section.split, f"{key}.split")


def check_surrogate_run(task: Task) -> None:
    """Raises ConfigError where the surrogate of the attacks has no model."""
    threat = task.plan.threat
    if threat is not None and threat.config.surrogate is not None:
        other_run(task, threat.config.surrogate, "robustness.surrogate")


def _whole(kind: type[T], section: list[Any] | T | None) -> T | None:
    """A section as its dataclass; a study may give only the list of its plug-ins."""
    return kind(section) if isinstance(section, list) else section


def _average(task: Task, folder: RunFolder, model: nn.Module, data: Data, record: RunRecord) -> None:
    config = task.config.evaluation
    assert config is not None
    score_averaged(folder, model, data, record, config.tta, [s for s in SCORED if s in data.splits])


def _attack(task: Task, folder: RunFolder, model: nn.Module, data: Data, record: RunRecord) -> None:
    threat = task.plan.threat
    assert threat is not None
    name = threat.config.surrogate
    run = other_run(task, name, "robustness.surrogate") if name else None
    surrogate = None if run is None else open_surrogate(run, data, trust=True)
    attack_stage(folder, model, data, threat, record, surrogate=surrogate)


def _corrupt(task: Task, folder: RunFolder, model: nn.Module, data: Data, record: RunRecord) -> None:
    config = _whole(Corruptions, task.config.corruptions)
    assert config is not None
    result = corrupt.corrupt(
        folder.path / "corruptions",
        model,
        data.splits[config.split],
        config,
        source=record.fingerprint,
        base=task.base,
        on_progress=lambda done, total: advance(f"corrupting {task.run} {folder.path.name}", done, total),
    )
    if record.corruptions != result.fingerprint:
        record.corruptions = result.fingerprint
        record.reads_of_test += config.split == "test"


def _explain(task: Task, folder: RunFolder, model: nn.Module, data: Data, record: RunRecord) -> None:
    config = _whole(Explain, task.config.explain)
    assert config is not None
    maps.explain_stage(folder, model, data, config, record, base=task.base)


def _view(task: Task, folder: RunFolder, model: nn.Module, data: Data, record: RunRecord) -> None:
    config = _whole(Views, task.config.views)
    assert config is not None
    views.view_stage(folder, model, data, config, record, base=task.base)


SCORED = ("validation", "test")
STAGES: dict[str, Callable[[Task, RunFolder, nn.Module, Data, RunRecord], None]] = {
    "evaluation": _average,
    "robustness": _attack,
    "corruptions": _corrupt,
    "explain": _explain,
    "views": _view,
}
"""Each evaluation by the configuration section that requests it. They run in this order."""
