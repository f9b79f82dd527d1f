"""Feature visualisation: runs views on a trained model, and saves their images, points and
lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.config.own_plugins import source_digests
from stresslens.config.schema import Views
from stresslens.core.attack_base import attacked
from stresslens.core.attempts import Attempts
from stresslens.core.data import Data, Split
from stresslens.core.dtypes import device_of
from stresslens.core.errors import ConfigError
from stresslens.core.files import write_bytes
from stresslens.core.fingerprint import fingerprint_of
from stresslens.core.json_file import Seconds
from stresslens.core.panels import Grid, Lines, Panel, Points
from stresslens.core.progress import advance
from stresslens.core.run_folder import RunFolder
from stresslens.core.run_paths import result_folder
from stresslens.evaluation.finished_run import finished
from stresslens.evaluation.record import RunRecord
from stresslens.evaluation.run_data import DataPlace
from stresslens.evaluation.scores import Predictions
from stresslens.explanation.image_selection import selected_images
from stresslens.explanation.svg import png, svg
from stresslens.explanation.view_file import GridPart, LinesPart, PointsPart, ViewFile
from stresslens.robustness.result import AttackResult

Adversarials = tuple[Tensor, Tensor, Tensor]
"""Images, adversarial images (n, C, H, W each) in [0, 1], and labels (n,)."""

OnProgress = Callable[[int, int], None]
"""Receives the number of finished views, and the number of all views."""


def compute_views(
    home: Path,
    model: nn.Module,
    split: Split,
    predictions: Predictions,
    config: Views,
    *,
    source: str,
    base: Path,
    classes: Sequence[str],
    train: Split | None = None,
    adversarials: Adversarials | None = None,
    on_progress: OnProgress = lambda done, total: None,
    on_result: Callable[[ViewFile], None] = lambda result: None,
) -> list[ViewFile]:
    """Runs each view, and writes `home/<name>-<8 hex>/result.json`. Returns the contents of these
    files. A finished file is only read. After a view fails the others go on, and its error is raised
    at the end; `on_result` gets each result.

    Beside it, each grid of images is an SVG file, and each of its images a PNG file. `source` is a
    fingerprint of the model and the images. The model is in evaluation mode during the call, and
    stays in float32. Raises ConfigError if a view does not apply to this model.
    """
    bound = [(value, registry.resolve("views", value, base=base)) for value in config.kinds]
    positions = selected_images(split, config.choose, config.images, predictions, config.seed)
    selected = split.select(torch.from_numpy(positions))
    model = model.float()
    device = device_of(model)
    x, y = selected.floats(selected.images[:]).to(device, torch.float32), selected.labels.to(device)
    on_device = None if adversarials is None else tuple(tensor.to(device) for tensor in adversarials)
    results, attempts = [], Attempts()
    for done, (value, view) in enumerate(bound):
        on_progress(done, len(bound))
        name, options = registry.name_and_options("views", value)
        plugin: list[Any] = [name, dict(options), *source_digests(value, base=base)]
        if adversarials is not None and view.asks_for("adversarials"):
            plugin.append(len(adversarials[0]))
        fingerprint = fingerprint_of([source, config.split, plugin, config.seed, positions.tolist()])
        folder = home / result_folder(name, fingerprint)
        with attempts.part(name.rpartition(":")[2]):
            result = ViewFile.read_finished(folder, fingerprint)
            if result is None:
                given = {"x": x, "y": y, "train": train, "split": split, "classes": classes}
                call = partial(view, model=model, adversarials=on_device, **given)
                result = _saved(folder, fingerprint, name, options, model, call)
            results.append(result)
            on_result(result)
    on_progress(len(bound), len(bound))
    attempts.raise_failed()
    return results


def _saved(
    folder: Path,
    fingerprint: str,
    name: str,
    options: Mapping[str, Any],
    model: nn.Module,
    call: Callable[[], Any],
) -> ViewFile:
    """Calls a view and saves its result."""
    began = time.perf_counter()
    with attacked(model):
        panel = call()
    if not isinstance(panel, Panel):
        raise ConfigError(f"view {name} returned a {type(panel).__name__}; expected a Panel")
    result = ViewFile(
        fingerprint=fingerprint,
        view=name.rpartition(":")[2],
        options=dict(options),
        said=list(panel.said),
        facts=dict(panel.facts),
        parts=[_save_part(folder, number, part) for number, part in enumerate(panel.parts, 1)],
        cost=Seconds(seconds=time.perf_counter() - began),
    )
    result.save(folder)
    return result


def view_run(
    folder: RunFolder,
    config: Views,
    *,
    base: Path,
    trust: bool = False,
    device: str = "auto",
    data: DataPlace = None,
) -> list[ViewFile]:
    """Runs the views of a finished run, and writes the results to its folder. `data` is as in `open_run`.
    Raises ConfigError if a view does not apply to the run."""
    opening: dict[str, Any] = {"trust": trust, "device": device, "data": data}
    with finished(folder, config.split, **opening) as (model, found, record):
        return view_stage(folder, model, found, config, record, base=base)


def view_stage(
    folder: RunFolder, model: nn.Module, data: Data, config: Views, record: RunRecord, *, base: Path
) -> list[ViewFile]:
    """The view stage of a run: runs the views, and counts the results in the record."""
    split = data.splits[config.split]
    return compute_views(
        folder.path / "views",
        model,
        split,
        Predictions.of_arrays(folder.load_predictions(config.split)),
        config,
        source=record.fingerprint,
        base=base,
        classes=data.classes,
        train=data.train,
        adversarials=adversarials_of(folder, config.split, split),
        on_progress=lambda done, total: advance(
            f"viewing {folder.path.parent.name} {folder.path.name}", done, total
        ),
        on_result=lambda result: record.count_reads("views", [result.fingerprint], config.split),
    )


def _save_part(folder: Path, number: int, part: Grid | Points | Lines) -> GridPart | PointsPart | LinesPart:
    """The part as in result.json. The images of a grid are saved to files."""
    if isinstance(part, Points):
        places = [(float(a), float(b)) for a, b in part.places]
        return PointsPart(
            title=part.title, places=places, groups=list(part.groups), wrong=part.wrong.tolist()
        )
    if isinstance(part, Lines):
        return LinesPart(title=part.title, x_label=part.x_label, y_label=part.y_label, lines=dict(part.lines))
    for row, cells in enumerate(part.rows):
        for column, cell in enumerate(cells):
            if cell is not None:
                name = f"{row:02d}-{column:02d}.png"
                write_bytes(folder / f"grid-{number}" / name, png(cell.pixels))
    text = svg(part)
    write_bytes(folder / f"grid-{number}.svg", text.encode())
    captions = [[cell.caption if cell else None for cell in cells] for cells in part.rows]
    return GridPart(title=part.title, file=f"grid-{number}.svg", captions=captions)


def adversarials_of(folder: RunFolder, split_name: str, split: Split) -> Adversarials | None:
    """The nearest adversarial image of each image of the split, from all attacks on the run; None
    if there are none."""
    nearest: dict[int, tuple[float, np.ndarray, int]] = {}
    for file in sorted((folder.path / "robustness").glob("*/result.json")):
        robust = AttackResult.load(file.parent)
        arrays = robust.arrays
        if robust.result.split != split_name:
            continue
        for position, row in enumerate(arrays["rows"]):
            index, size = int(arrays["index"][row]), float(arrays["size"][position])
            if arrays["smallest"][row] > 0 and (index not in nearest or size < nearest[index][0]):
                nearest[index] = size, arrays["adversarials"][position], int(arrays["labels"][row])
    if not nearest:
        return None
    images = split.floats(split.images[torch.tensor(list(nearest))].cpu()).float()
    _, pixels, labels = zip(*nearest.values())
    return images, torch.from_numpy(np.stack(pixels)).float(), torch.tensor(labels)
