"""Attribution maps of any module or run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from stresslens.api.arguments import is_word
from stresslens.api.arrays import Images, Labels
from stresslens.api.progress_bar import Progress, shown
from stresslens.api.runs import Run
from stresslens.api.subjects import (
    DataNow,
    ModelLike,
    card_of,
    images_for,
    model_of,
    run_behind,
)
from stresslens.api.words import public_call
from stresslens.config import registry
from stresslens.config.function_files import with_names
from stresslens.core.class_names import names_of
from stresslens.core.copies import eager_module, usable_module
from stresslens.core.data import Split
from stresslens.core.dtypes import device_of
from stresslens.core.errors import ConfigError
from stresslens.core.labels import label_numbers
from stresslens.core.run_folder import RunFolder
from stresslens.core.run_paths import result_folder
from stresslens.evaluation.inputs import arrays_as_split, check_inputs, returning_logits
from stresslens.evaluation.run_data import same_data_of
from stresslens.explanation.explanation import Explanation
from stresslens.explanation.image_selection import classes_to_explain
from stresslens.explanation.map_file import MAP_ARRAYS
from stresslens.explanation.maps import compute_maps, explain_config, explain_run
from stresslens.explanation.plan import passes_of_image, telling_passes
from stresslens.report.page import write_reports_of

DEFAULT = "integrated_gradients"


# long: what the caller gives is told apart, one kind after the other
@public_call()
def explain(
    model: ModelLike,
    images: Images | Split | None = None,
    explainer: str | Mapping[str, Any] | Callable[..., Any] = DEFAULT,
    *,
    answers: Labels | None = None,
    train: Split | None = None,
    check: bool = False,
    seed: int = 0,
    n_images: int | Literal["auto"] = "auto",
    choose: str | list[int] = "one_per_class",
    split: str = "test",
    data: DataNow = None,
    trust: bool = False,
    module: nn.Module | None = None,
    progress: Progress = True,
) -> Explanation:
    """Computes attribution maps for any nn.Module from images in [0, 1] to logits, or for a run. The model is
    unchanged afterwards.

    `images` (N, C, H, W) float in [0, 1] or uint8, or a Split; for a run also pictures of any size, as in
    `predict`. `explainer` is a plug-in by name, {name: {option: value}}, or a function; `answers` (N,) are
    the classes to explain, by default the predicted ones. Some explainers cover pixels with the mean of the
    training images: give these as `train`; those of a run are known. `check` computes the quality checks too.

    Without images, also as `explain(run, "gradcam")`, a run is explained on images of its own data, as
    `stresslens explain` does: `n_images` of its `split`, which `choose` selects. The result is kept in its
    folder and shown in its report. `data` says where the data lie now. `progress` is as in `train`, `trust`
    and `module` as in `load`. Raises ConfigError and DataError."""
    run = run_behind(model, trust=trust, module=module, data=data)
    images, explainer = _told_apart(images, explainer)
    explainer = with_names(explainer, run.folder if images is None and run is not None else None, "explainer")
    if images is None:
        if run is None:
            raise ConfigError("explain needs images; only a run has its own")
        if answers is not None or train is not None:
            raise ConfigError(
                "answers and train belong to images of your own; leave them out, or give images"
            )
        values = {"explainers": [explainer], "images": n_images, "choose": choose, "split": split}
        with shown(progress):
            return _explain_own(run, {**values, "check": check, "seed": seed})
    net = usable_module(model_of(model) if run is None else run.model())
    wanted = None if answers is None else label_numbers(answers, names_of(net))
    net, card = eager_module(net), None if run is None else card_of(run)
    images = images_for(card, images)
    if isinstance(images, Split):
        given, truths = images if wanted is None else replace(images, labels=wanted), images.labels
    else:
        given, truths = arrays_as_split(images, wanted), None
    given = check_inputs(net, given)
    name, _ = registry.name_and_options("explainers", explainer)
    bound = registry.resolve("explainers", explainer, base=Path.cwd())
    if run is not None and train is None and bound.asks_for("train"):
        train = same_data_of(RunFolder(run.folder), trust=run.trust, data=run.data_now).train
    with shown(progress):
        found = _explained(net, given.uncached(), bound, name, wanted is not None, train, check, seed)
    return found if truths is None else replace(found, truths=truths.cpu().numpy())


def _told_apart(images: Any, explainer: Any) -> tuple[Any, Any]:
    """The images and the explainer, also where the explainer alone is given: `explain(run, "gradcam")`."""
    is_explainer = is_word(images) or isinstance(images, Mapping) or callable(images)
    return (None, images) if explainer == DEFAULT and is_explainer else (images, explainer)


def _explained(
    model: nn.Module,
    split: Split,
    bound: registry.Bound,
    name: str,
    labelled: bool,
    train: Split | None,
    check: bool,
    seed: int,
) -> Explanation:
    """Explains given images."""
    device = device_of(model)
    x = split.floats(split.images[:]).to(device, torch.float32)
    y = (split.labels if labelled else torch.from_numpy(classes_to_explain(model, split))).to(device)
    passes = passes_of_image(bound, split.shape, checked=check)
    with returning_logits(model, split), telling_passes(model, f"explaining with {name}", len(x), passes):
        maps, checks = compute_maps(model, bound, x, y, name=name, train=train, seed=seed, check=check)
    quality = None if checks is None else checks.as_json()
    return Explanation(
        *(maps.values.cpu().numpy(), y.cpu().numpy(), maps.signed, maps.unit, maps.notes, quality),
        images=x.cpu().numpy(),
        classes=names_of(model),
        explainer=name,
    )


def _explain_own(run: Run, values: dict[str, Any]) -> Explanation:
    """Explains a run on images of its own data."""
    folder = RunFolder(run.folder)
    try:
        (found,) = explain_run(
            folder,
            explain_config(values),
            base=Path.cwd(),
            trust=run.trust,
            module=run.module,
            data=run.data_now,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("stopped; nothing of this explanation is kept") from None
    write_reports_of(run.folder)
    place = run.folder / "explanations" / result_folder(found.explainer, found.fingerprint)
    arrays = MAP_ARRAYS.read(place / "maps.npz")
    quality = None if found.quality is None else found.quality.as_json()
    truths = [image.truth for image in found.images]
    shown_images = arrays["shown"] if arrays["shown"].ndim == 4 else arrays["shown"][..., None]
    return Explanation(
        *(arrays["maps"], arrays["answers"], found.signed, found.unit, tuple(found.notes), quality),
        images=np.moveaxis(shown_images, -1, 1) / np.float32(255),
        classes=run.classes,
        explainer=found.explainer,
        truths=None if None in truths else np.array(truths),
    )
