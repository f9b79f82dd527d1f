"""Attribution maps of a run: selects images, runs explainers on them, checks the maps and saves
them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.config.own_plugins import source_digests
from stresslens.config.schema import Explain
from stresslens.config.validation import read_settings
from stresslens.core.answers import predicted
from stresslens.core.attack_base import attacked
from stresslens.core.attempts import Attempts
from stresslens.core.colormaps import coloured, limit_of
from stresslens.core.data import Data, Split
from stresslens.core.draws import Draws
from stresslens.core.dtypes import as_input, device_of
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.files import write_arrays, write_bytes
from stresslens.core.fingerprint import fingerprint_of
from stresslens.core.image_files import Unreadable, decode, read_image
from stresslens.core.json_file import Seconds
from stresslens.core.maps import Maps
from stresslens.core.panels import Grid, Picture
from stresslens.core.progress import advance
from stresslens.core.run_folder import RunFolder
from stresslens.core.run_paths import result_folder
from stresslens.core.text import printable
from stresslens.evaluation.finished_run import finished
from stresslens.evaluation.record import RunRecord
from stresslens.evaluation.run_data import DataPlace
from stresslens.evaluation.saved_model import frame_of
from stresslens.evaluation.scores import Predictions, predictions_of
from stresslens.explanation.covered_squares import CoveredSquares
from stresslens.explanation.image_selection import SelectedImages, images_to_explain
from stresslens.explanation.map_file import ExplanationFile, Quality
from stresslens.explanation.plan import NOT_CHECKED, planned
from stresslens.explanation.quality import map_quality
from stresslens.explanation.svg import png, svg

OnProgress = Callable[[int, int], None]
"""Receives the number of finished explainers, and the number of all explainers."""


def explain_config(values: Mapping[str, Any]) -> Explain:
    """The `explain:` section that plain values describe. Raises ConfigError, which names every
    wrong setting."""
    return read_settings(Explain, values, "an explanation")


def explain_run(
    folder: RunFolder,
    config: Explain,
    image_files: Sequence[Path] = (),
    *,
    base: Path,
    images_from: RunFolder | None = None,
    trust: bool = False,
    device: str = "auto",
    module: nn.Module | None = None,
    data: DataPlace = None,
    attempts: Attempts | None = None,
) -> list[ExplanationFile]:
    """Explains a finished run, on images of its data or on image files, and writes the results to
    the run's folder.

    The images are selected by the predictions of the run `images_from`, by default the explained
    run itself. With the same `images_from`, several models are shown on the same images. `module`
    and `data` are as in `open_run`, `attempts` as in `explain_images`. Raises ConfigError, before
    any computing, if the run cannot be explained in this way, and DataError for a file that is not
    a whole image.
    """
    opening: dict[str, Any] = {"trust": trust, "device": device, "module": module, "data": data}
    with finished(folder, config.split, **opening) as (model, found, record):
        if image_files:
            split = _read_image_files(image_files, folder)
            given: dict[str, Any] = {"base": base, "attempts": attempts}
            return _explain_image_files(folder, model, found, split, config, record, **given)
        selecting = None
        if images_from is not None:
            selecting = Predictions.of_arrays(images_from.load_predictions(config.split))
        given = {"base": base, "selecting": selecting, "attempts": attempts}
        return explain_stage(folder, model, found, config, record, **given)


def explain_stage(
    folder: RunFolder,
    model: nn.Module,
    data: Data,
    config: Explain,
    record: RunRecord,
    *,
    base: Path,
    selecting: Predictions | None = None,
    attempts: Attempts | None = None,
) -> list[ExplanationFile]:
    """The explain stage of a run: explains the selected images, and counts the results in the
    record.

    `selecting` are the predictions that select the images, by default the run's own. Raises
    ConfigError if they are predictions of other images.
    """
    predictions = Predictions.of_arrays(folder.load_predictions(config.split))
    if selecting is not None and not np.array_equal(selecting.labels, predictions.labels):
        raise ConfigError("the run that chooses was tested on other images; name a run on the same data")
    return explain_images(
        folder.path / "explanations",
        model,
        data.splits[config.split],
        predictions,
        config,
        source=record.fingerprint,
        base=base,
        classes=data.classes,
        train=data.train,
        selecting=selecting,
        attempts=attempts,
        on_progress=lambda done, total: advance(
            f"explaining {folder.path.parent.name} {folder.path.name}", done, total
        ),
        on_result=lambda result: record.count_reads("explanations", [result.fingerprint], config.split),
    )


# long: arguments are spelled out, one a line, and the loop over explainers reads in one piece
def explain_images(
    home: Path,
    model: nn.Module,
    split: Split,
    predictions: Predictions,
    config: Explain,
    *,
    source: str,
    base: Path,
    classes: Sequence[str],
    train: Split | None = None,
    selecting: Predictions | None = None,
    labelled: bool = True,
    attempts: Attempts | None = None,
    on_progress: OnProgress = lambda done, total: None,
    on_result: Callable[[ExplanationFile], None] = lambda result: None,
) -> list[ExplanationFile]:
    """Selects images of a split, runs each explainer on them, the cheapest first, and writes
    `home/<name>-<8 hex>/result.json`. Returns the contents of these files, in the order of the
    configuration. A finished file is only read. After an explainer fails the others go on, and its
    error is raised at the end, or kept in `attempts` where these are given; `on_result` gets each
    result.

    Beside it are maps.npz (index, labels, answers (n,), maps (n, H, W), and the images as uint8:
    shown), figure.svg and a PNG file of every image and map. `source` is a fingerprint of the model
    and the images. `selecting` are another model's predictions, which select the images. `labelled`
    says whether the labels are true labels. Raises ConfigError, before any computing, if the images
    do not exist.
    """
    bound = [(value, registry.resolve("explainers", value, base=base)) for value in config.explainers]
    plan = planned(model, split.shape, [explainer for _, explainer in bound], config)
    images = images_to_explain(
        split, predictions, selecting or predictions, config, classes, labelled, plan.images
    )
    device = device_of(model)
    x = as_input(images.split.floats(images.split.images[:]), model)
    y, index = (torch.from_numpy(values).to(device) for values in (images.targets, images.positions))
    squares = CoveredSquares(model, x, y, Draws(config.seed, index))
    results: dict[int, ExplanationFile] = {}
    foretold, tried = False, attempts or Attempts()
    for done, k in enumerate(plan.order):
        on_progress(done, len(bound))
        (value, explainer), check = bound[k], plan.checked[k]
        name, options = registry.name_and_options("explainers", value)
        plugin = [name, dict(options), *source_digests(value, base=base)]
        chosen = [images.positions.tolist(), images.targets.tolist()]
        fingerprint = fingerprint_of([source, config.split, plugin, config.seed, check, *chosen])
        folder = home / result_folder(name, fingerprint)
        result = ExplanationFile.read_finished(folder, fingerprint)
        with tried.part(name.rpartition(":")[2]):
            if result is None:
                if not foretold:
                    plan.foretell(model, x, config)
                    foretold = True
                began = time.perf_counter()
                given: dict[str, Any] = {"index": index, "train": train, "squares": squares}
                asked: dict[str, Any] = {"name": name, "seed": config.seed, "check": check}
                maps, quality = compute_maps(model, explainer, x, y, **given, **asked)
                seconds = Seconds(seconds=time.perf_counter() - began)
                result = _result(name, options, fingerprint, images, maps, quality, config, labelled, seconds)
                _save(folder, result, images, maps.values.cpu().numpy().astype(np.float32), classes)
            results[k] = result
            on_result(result)
    on_progress(len(bound), len(bound))
    if attempts is None:
        tried.raise_failed()
    return [results[k] for k in sorted(results)]


def compute_maps(
    model: nn.Module,
    explainer: registry.Bound,
    x: Tensor,
    y: Tensor,
    *,
    name: str,
    index: Tensor | None = None,
    train: Split | None = None,
    seed: int = 0,
    check: bool = True,
    squares: CoveredSquares | None = None,
) -> tuple[Maps, Quality | None]:
    """Computes the attribution maps of images x (N, C, H, W) in [0, 1] for the classes y (N,), and,
    with `check`, their quality checks, on `squares` of the same images if they are given.

    The model is in evaluation mode and float32 during the call, and as before afterwards. `index`
    (N,) identifies the images: random draws depend on it. Raises ConfigError if the explainer does
    not return `Maps`.
    """
    x = as_input(x, model)
    draws = Draws(seed, torch.arange(len(x), device=x.device) if index is None else index)

    def call_explainer(model: nn.Module, x: Tensor, y: Tensor, draws: Draws) -> Maps:
        maps: Any = explainer(model=model, x=x, y=y, draws=draws, train=train)
        if not isinstance(maps, Maps):
            raise ConfigError(f"explainer {name} returned a {type(maps).__name__}; expected Maps")
        return maps.checked(x, name)

    with attacked(model):
        maps = call_explainer(model, x, y, Draws(draws.seed, draws.index))
        quality = map_quality(maps, call_explainer, model, x, y, draws, squares).rounded() if check else None
    return maps, quality


def _explain_image_files(
    folder: RunFolder,
    model: nn.Module,
    data: Data,
    split: Split,
    config: Explain,
    record: RunRecord,
    *,
    base: Path,
    attempts: Attempts | None,
) -> list[ExplanationFile]:
    """Explains all images of a split without labels; the predicted classes take the place of
    labels."""
    predictions = predictions_of(model, split)
    return explain_images(
        folder.path / "explanations",
        model,
        replace(split, labels=torch.from_numpy(predicted(predictions.scores))),
        predictions,
        replace(config, choose=list(range(len(split)))),
        source=fingerprint_of([record.fingerprint, split.fingerprint]),
        base=base,
        classes=data.classes,
        train=data.train,
        labelled=False,
        attempts=attempts,
        on_result=lambda result: record.count_reads("explanations", [result.fingerprint], "pictures"),
    )


def _read_image_files(files: Sequence[Path], folder: RunFolder) -> Split:
    """Image files as the run's model expects them, with meaningless labels. Raises DataError."""
    frame, pixels = frame_of(folder), []
    for file in files:
        try:
            pixels.append(decode(read_image(str(file)), frame).pixels)
        except (Unreadable, OSError) as error:
            raise DataError(f"{file}: {getattr(error, 'strerror', None) or error}") from None
    names = np.array([printable(str(file)) for file in files])
    return Split(
        torch.from_numpy(np.stack(pixels)),
        torch.zeros(len(pixels), dtype=torch.int64),
        255.0,
        {"file": names},
    )


def _result(
    name: str,
    options: Mapping[str, Any],
    fingerprint: str,
    images: SelectedImages,
    maps: Maps,
    quality: Quality | None,
    config: Explain,
    labelled: bool,
    cost: Seconds,
) -> ExplanationFile:
    return ExplanationFile(
        fingerprint=fingerprint,
        explainer=name.rpartition(":")[2],
        options=dict(options),
        split=config.split if labelled else "pictures",
        choose=config.choose if isinstance(config.choose, str) else list(config.choose),
        target_class=config.target_class,
        unit=maps.unit,
        signed=maps.signed,
        limit=limit_of(maps.values.cpu().numpy().astype(np.float32)),
        notes=[*maps.notes, *([NOT_CHECKED] if config.check == "auto" and quality is None else [])],
        images=images.entries,
        quality=quality,
        cost=cost,
    )


def _save(
    folder: Path,
    result: ExplanationFile,
    images: SelectedImages,
    values: NDArray[np.float32],
    classes: Sequence[str],
) -> None:
    """Writes maps.npz, the PNG files, figure.svg, and at last result.json, which marks a finished
    result."""
    arrays: dict[str, Any] = {
        "index": images.positions,
        "labels": images.split.labels.cpu().numpy(),
        "answers": images.targets,
        "maps": values,
        "shown": images.thumbnails,
    }
    write_arrays(folder / "maps.npz", arrays, compressed=True)
    _draw(folder, result, images.thumbnails, values, classes)
    result.save(folder)


def _draw(
    folder: Path,
    result: ExplanationFile,
    shown: NDArray[np.uint8],
    values: NDArray[np.float32],
    classes: Sequence[str],
) -> None:
    """Writes a PNG file of each image and each map, and figure.svg with all of them and their
    scale."""
    limit = limit_of(values)
    maps = coloured(values, limit, signed=result.signed)
    rows: tuple[list[Picture], list[Picture]] = ([], [])
    for row, image in enumerate(result.images):
        caption = f"{classes[image.answer]} {image.answer_probability:.2f}"
        wrong = image.truth not in (image.predicted, None)
        rows[0].append(Picture(shown[row], "" if image.truth is None else classes[image.truth]))
        rows[1].append(Picture(maps[row], caption, wrong))
        for kind, pixels in (("image", shown[row]), ("map", maps[row])):
            content = png(pixels)
            name = folder / f"{image.index:05d}-{kind}.png"
            write_bytes(name, content)
    low = -limit if result.signed else 0.0
    text = svg(Grid(result.explainer, rows, scale=(low, limit)), result.unit)
    write_bytes(folder / "figure.svg", text.encode())
