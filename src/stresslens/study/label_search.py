"""The search for wrong labels: in a data set, by models that are trained for it, and in finished runs, by
their predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from stresslens.config import registry, study_file
from stresslens.config.run_config import read_run_data
from stresslens.config.run_names import label
from stresslens.config.yaml_source import typed_mistakes
from stresslens.core.answers import answered, predicted
from stresslens.core.data import Data, Split
from stresslens.core.errors import ConfigError
from stresslens.core.progress import advance
from stresslens.core.run_folder import RunFolder
from stresslens.core.run_paths import runs_in
from stresslens.core.sampling import sampled_positions
from stresslens.core.splits import image_names, pooled
from stresslens.evaluation.label_errors import (
    LabelErrors,
    PlantedFlips,
    flagged,
    found_flips,
    label_errors,
    mean_probabilities,
)
from stresslens.evaluation.record import read_record
from stresslens.evaluation.run_data import DataPlace, pooled_positions, undivided_data_of
from stresslens.evaluation.scores import Predictions
from stresslens.metrics.classification import Labels
from stresslens.metrics.intervals import Floats, wilson
from stresslens.metrics.planted_flips import FlipKind, planted_flips
from stresslens.study.out_of_fold import FoldModel, out_of_fold_probabilities

MODEL = "simple_net"
"""The model that is trained where none is named."""
TRAINING = {"epochs": 10, "lr": 0.003, "schedule": "one_cycle", "watch": []}
"""How it is trained."""
FOLDS, SEEDS, FLIPS = 5, 3, 0.02
"""How many folds and seeds there are, and which share of the labels is flipped to measure the search."""
ALREADY_TRAINED = (
    "How many wrong labels are found was not measured: it needs new trainings, with planted flips; "
    "search the data set itself, and not its runs"
)
ASKED_FOR_NONE = "How many wrong labels are found was not measured, because no flips were planted"


def fold_model(data: Any, model: Any, overrides: Sequence[str] = ()) -> FoldModel:
    """What is trained for a search: a model, as `TRAINING` says, or an estimator, as a study file names it,
    with overrides `key.path=value`. Raises ConfigError with every mistake."""
    kind = registry.model_or_estimator(model)
    values = {"data": data, kind: model, **({"train": TRAINING} if kind == "model" else {})}
    with typed_mistakes():
        study = study_file.expand_study(values, overrides, name="labels", base=Path.cwd())
    return FoldModel(study.variants[0].config, model)


def search_labels(
    data: Data,
    model: FoldModel,
    *,
    folds: int = FOLDS,
    seeds: int = SEEDS,
    flips: float = FLIPS,
    images: int | None = None,
) -> LabelErrors:
    """The probably wrong labels of all images of a data set, or of `images` random ones.

    Models are trained on `folds` - 1 of the parts and judge the last, with `seeds` divisions into parts.
    Then this is repeated with `flips` (a share) of the labels changed, once for each kind of flips, to
    measure how many of them are found. Raises DataError where a class is too small for the folds.
    """
    names, whole = np.array(image_names(data), dtype=object), pooled(data)
    rows = sampled_positions(len(whole), images or "all", 0)
    whole, names = whole.select(rows), names[rows.numpy()]
    kinds: Sequence[FlipKind] = get_args(FlipKind) if flips else ()
    done, total = 0, folds * seeds * (1 + len(kinds))

    def tell() -> None:
        nonlocal done
        done += 1
        advance(f"out-of-fold probabilities of {data.name}, trainings", done, total)

    def probabilities_by(labels: Labels | None) -> Floats:
        return out_of_fold_probabilities(
            whole, data.classes, model, folds=folds, seeds=seeds, labels=labels, tell=tell
        )

    advance(f"out-of-fold probabilities of {data.name}, trainings", 0, total)
    probabilities, labels = probabilities_by(None), whole.labels.cpu().numpy()
    mean = mean_probabilities(probabilities)
    before = flagged(labels, mean)
    planted = []
    for kind in kinds:
        flipped, chosen = planted_flips(labels, mean, flips, kind)
        if len(chosen):
            found = probabilities_by(flipped)
            planted.append(found_flips(kind, labels, flipped, chosen, found, before))
    several = "s" if seeds > 1 else ""
    models = f"{seeds} model{several} of {label(model.value)} ({folds} folds, {seeds} seed{several})"
    return _result(data, whole, list(names), probabilities, models, planted)


def search_runs(folder: Path, *, trust: bool = False, data: DataPlace = None) -> LabelErrors:
    """The probably wrong labels among the held-out images of a run, or of all runs of one variant, by
    their saved predictions.

    With `repeats: {folds: K}` these are all images of the data set, otherwise the validation and test
    images. `trust` and `data` are as in `data_of`. Raises ConfigError for a folder of several variants,
    for runs that are not finished, and where the data have changed.
    """
    runs = [RunFolder(path) for path in runs_in(folder)]
    variants = list(dict.fromkeys(run.path.parent for run in runs))
    if len(variants) != 1:
        several = ", ".join(variant.relative_to(folder).as_posix() for variant in variants)
        what = f"has the variants {several}; give the folder of one" if runs else "holds no run"
        raise ConfigError(f"{folder} {what}")
    records = {run: record for run in runs if (record := read_record(run)).usable}
    if not records:
        raise ConfigError(f"{folder} has no finished run; the command that made it resumes it")
    first = next(iter(records))
    found = undivided_data_of(first, trust=trust, data=data)
    whole, names = pooled(found), image_names(found)
    by_seed: dict[int, Floats] = {}
    for number, (run, record) in enumerate(records.items()):
        repeats = read_run_data(run.config).repeats
        divided = not isinstance(repeats, list)
        seed = number if isinstance(repeats, list) else repeats.seeds[0] // (repeats.folds or 1)
        of_seed = by_seed.setdefault(seed, np.full((len(whole), len(found.classes)), np.nan))
        for split in ("test",) if divided else ("validation", "test"):
            if run.predictions(split).exists():
                tested = run.load_predictions(split)
                positions = pooled_positions(run, split, found, whole, tested)
                predictions = Predictions.of_arrays(tested)
                if fitted := record.calibration:
                    predictions = predictions.calibrated(fitted.temperature)
                of_seed[positions] = predictions.probabilities
    probabilities = np.stack(list(by_seed.values()))
    rows = np.flatnonzero(answered(probabilities).any(0))
    models = f"the {len(records)} runs in {folder}" if len(records) > 1 else f"the run {first.path}"
    chosen = whole.select(torch.from_numpy(rows))
    named = [names[row] for row in rows]
    return _result(found, chosen, named, probabilities[:, rows], models, (), ALREADY_TRAINED)


def _result(
    data: Data,
    whole: Split,
    names: Sequence[str],
    probabilities: Floats,
    models: str,
    planted: Sequence[PlantedFlips],
    not_measured: str = ASKED_FOR_NONE,
) -> LabelErrors:
    labels = whole.labels.cpu().numpy()
    right = int((predicted(mean_probabilities(probabilities)) == labels).sum())
    return LabelErrors(
        name=data.name,
        classes=data.classes,
        images=len(labels),
        seeds=len(probabilities),
        models=models,
        accuracy=wilson(right, len(labels)),
        errors=label_errors(labels, probabilities, data.classes, names),
        planted=tuple(planted),
        not_measured="" if planted else not_measured,
        split=whole,
    )
