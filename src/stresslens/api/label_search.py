"""Wrong labels from Python: of a data set, or of the held-out images of finished runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from stresslens.api.arguments import check_whole_number, model_key, plain_data
from stresslens.api.progress_bar import Progress, shown
from stresslens.api.runs import Run
from stresslens.api.studies import Study, Variant
from stresslens.api.words import public_call
from stresslens.config import study_file
from stresslens.config.data_sets import loaded_data_set
from stresslens.core.copies import eager_module, usable_module
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError
from stresslens.core.run_paths import runs_in
from stresslens.evaluation.label_errors import LabelErrors
from stresslens.study import label_search
from stresslens.study.out_of_fold import FoldModel


@public_call()
def find_label_errors(
    data: str | os.PathLike[str] | Mapping[str, Any] | Data | Run | Study | Variant,
    model: str | Mapping[str, Any] | nn.Module | None = None,
    *,
    folds: int | None = None,
    seeds: int | None = None,
    flips: float | None = None,
    n_images: int | None = None,
    progress: Progress = True,
    **options: Any,
) -> LabelErrors:
    """Finds labels that are probably wrong (confident learning), the surest first, and measures how many
    it finds.

    `data` is as in `train`. Each image is judged by models that were not trained on it: in `seeds` (3)
    divisions of all images, or of `n_images` random ones, into `folds` (5) parts. `model` is as in `train`,
    by default simple_net, and `options` are those of its training. Then `flips` (0.02, a share) of the
    labels are changed, and the result says how many of these are found; 0 does not measure. Trainings that
    were made before come from the cache folder.

    `data` may also be finished runs: a run, or the folder of a variant or a study of one. Their saved
    predictions are read, with `repeats: {folds: K}` of all images, and nothing is trained. `progress` is as
    in `train`. Raises ConfigError and DataError."""
    folder = Path(data) if isinstance(data, str | os.PathLike) else None
    if folder is not None and (isinstance(data, Run | Study | Variant) or runs_in(folder)):
        given = {"model": model, "folds": folds, "seeds": seeds, "flips": flips, "n_images": n_images}
        idle = [name for name, value in {**given, **options}.items() if value is not None]
        if idle:
            raise ConfigError(
                f"{idle[0]}: {folder} is trained already, and its predictions are read; leave it "
                "out, or give the data set instead of the run"
            )
        trust = isinstance(data, Run | Study | Variant) and data.trust
        place = data.data_now if isinstance(data, Run) else None
        return label_search.search_runs(folder, trust=trust, data=place)
    _check_counts(folds, seeds, flips, n_images)
    trained = _fold_model(label_search.MODEL if model is None else model, options)
    with shown(progress):
        found = data.uncached() if isinstance(data, Data) else None
        return label_search.search_labels(
            found or loaded_data_set(plain_data(data), base=Path.cwd()),
            trained,
            folds=label_search.FOLDS if folds is None else folds,
            seeds=label_search.SEEDS if seeds is None else seeds,
            flips=label_search.FLIPS if flips is None else flips,
            images=n_images,
        )


def _check_counts(folds: Any, seeds: Any, flips: Any, n_images: Any) -> None:
    for name, value, least in (("folds", folds, 2), ("seeds", seeds, 1), ("n_images", n_images, 2)):
        check_whole_number(name, value, least)
    if flips is not None and (
        isinstance(flips, bool) or not isinstance(flips, int | float) or not 0 <= flips <= 0.25
    ):
        raise ConfigError(f"flips is {flips!r}; expected a share from 0 to 0.25")


def _fold_model(model: Any, options: Mapping[str, Any]) -> FoldModel:
    """What is trained on each part. Raises ConfigError for anything that is no model, and for its options."""
    key = model_key(model, [f"train.{name}" for name in options])
    module = eager_module(usable_module(model)) if isinstance(model, nn.Module) else None
    values = {
        "data": "digits",
        key: "linear" if module is not None else model,
        "train": {**(label_search.TRAINING if key == "model" else {}), **options},
    }
    config = study_file.variant_config_from(values, Path.cwd())
    return FoldModel(config, type(model).__name__ if module is not None else model, module)
