"""Ensembles of trained runs from Python."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from stresslens.api.arguments import folder_name_of, path_of
from stresslens.api.progress_bar import Progress, shown
from stresslens.api.runs import Run
from stresslens.api.studies import Study, Variant
from stresslens.api.words import public_call
from stresslens.config import study_file
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.record import read_record
from stresslens.study import pipeline, stages
from stresslens.study.ensembles import default_name, ensemble_study, ensemble_values
from stresslens.study.failures import succeeded
from stresslens.study.run_tasks import python_task
from stresslens.training.autotune import autotune

Member: TypeAlias = Run | Variant | str | os.PathLike[str]
"""A run; or a variant of a study, which stands for all its seeds; or the folder of either."""


@public_call()
def ensemble(
    runs: Member | Sequence[Member],
    *,
    data: Data | None = None,
    average: str = "probabilities",
    out: str | os.PathLike[str] = "runs",
    name: str | None = None,
    progress: Progress = True,
) -> Run:
    """Makes an ensemble of trained runs, and returns it as a finished run, whose folder is
    `out/ensembles/name/seed-0`.

    `runs` are runs, variants of a study (`study["cnn"]`, all its seeds), or their folders; all have the same
    classes and shape of images. `average` is "probabilities", the mean of the members' softmax (deep
    ensembles), or "logits"; "weights" makes one net of the mean of the members' weights (a model soup), and
    "weights-greedy" keeps those members with which its accuracy on validation images does not fall. The data
    are those of the first run; `data` are needed where that was trained on Data of your own. The folder holds
    copies of the members' weights, or the one net. `Run.record["ensemble"]` compares the ensemble with its
    members on each split. Raises ConfigError for a folder without a trained run, and for members that do not
    fit together."""
    place, called = path_of(out, "out"), folder_name_of(name)
    listed = runs if isinstance(runs, Sequence) and not isinstance(runs, str) else [runs]
    folders = [_folder_of(each) for each in listed]
    if not folders:
        raise ConfigError("ensemble needs at least one run")
    with shown(progress):
        if data is None:
            study = ensemble_study(folders, average=average, name=called)
            pipeline.run(study, out=place)
            folder = place / study.name / study.variants[0].name / "seed-0"
            return Run(folder, read_record(RunFolder(folder)).as_json())
        if not isinstance(data, Data):
            raise ConfigError("data is for runs of your own Data; other runs know their data set")
        values = {**ensemble_values(folders, average), "data": "digits", "train": {}, "input": {}}
        config, own = study_file.variant_config_from(values, Path.cwd()), data.uncached()
        called = called or default_name(folders, average)
        task = python_task(config, values, place / "ensembles", called, 0, data=own, module=None)
        (task,) = autotune([task], most_threads=os.cpu_count() or 1)
        record = succeeded(stages.carry_out(task))
    return Run(task.folder, record.as_json(), data_now=own)


def _folder_of(member: Any) -> Path:
    if isinstance(member, Study):
        names = sorted({run.variant for run in member.runs})
        if len(names) != 1:
            listed = ", ".join(map(repr, names[:3]))
            raise ConfigError(f"{member.folder} is a study; name one of its variants, study[...]: {listed}")
        return member.folder / names[0]
    return Path(member.folder) if isinstance(member, Run | Variant) else path_of(member, "a run")
