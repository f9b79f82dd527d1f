"""Why a model answers as it does: explainers called on chosen images, their maps checked and saved."""

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
from stresslens.config.schema import Explain, TargetClass
from stresslens.config.validation import read_settings
from stresslens.core.attack_base import attacked
from stresslens.core.colormaps import coloured, limit_of
from stresslens.core.data import Data, Split
from stresslens.core.draws import Draws
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.files import write_atomically, write_json
from stresslens.core.fingerprint import fingerprint_of
from stresslens.core.image_files import Unreadable, decode, read_image
from stresslens.core.json_file import Seconds
from stresslens.core.maps import Maps
from stresslens.core.panels import Grid, Picture
from stresslens.core.progress import advance
from stresslens.core.run_folder import RunFolder
from stresslens.core.text import printable
from stresslens.evaluation.example_images import thumbnails
from stresslens.evaluation.finished_run import finished
from stresslens.evaluation.record import RunRecord
from stresslens.evaluation.saved_model import frame_of
from stresslens.evaluation.scores import Predictions, predictions_of
from stresslens.explanation.image_selection import selected_images
from stresslens.explanation.map_file import ExplainedImage, ExplanationFile, Quality
from stresslens.explanation.quality import map_quality
from stresslens.explanation.svg import png, svg

Tell = Callable[[int, int], None]


def explain_config(values: Mapping[str, Any]) -> Explain:
    """An `explain:` section from plain values. Raises ConfigError naming every setting that is wrong."""
    return read_settings(Explain, values, "an explanation")


def maps_of(
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
) -> tuple[Maps, Quality | None]:
    """The maps of images x (N, C, H, W) in [0, 1] for the classes y (N,), and their quality.

    The model is in evaluation mode and float32 meanwhile, and as before afterwards. `index` (N,)
    names the images, whose draws are their own.
    """
    x = x.to(next(model.parameters(), x).dtype)
    draws = Draws(seed, torch.arange(len(x), device=x.device) if index is None else index)

    def explained(model: nn.Module, x: Tensor, draws: Draws) -> Maps:
        found: Any = explainer(model, x, y, draws, train)
        if not isinstance(found, Maps):
            raise ConfigError(f"explainer {name} returned a {type(found).__name__}; expected Maps")
        return found.checked(x, name)

    with attacked(model):
        maps = explained(model, x, Draws(draws.seed, draws.index))
        quality = map_quality(maps, explained, model, x, y, draws).rounded() if check else None
    return maps, quality


def explain(
    home: Path,
    model: nn.Module,
    split: Split,
    predictions: Predictions,
    asked: Explain,
    *,
    of: str,
    base: Path,
    classes: Sequence[str],
    train: Split | None = None,
    choosing: Predictions | None = None,
    labelled: bool = True,
    tell: Tell = lambda done, total: None,
) -> list[ExplanationFile]:
    """One result for each explainer, as `home/<name>-<8 hex>/result.json` holds it; found there
    finished, it is read.

    Beside it are maps.npz (index, labels, answers (n,), maps (n, H, W), and the images as uint8:
    shown), figure.svg and a PNG of every image and map. `of` names the model and the images (a
    fingerprint); `choosing` are another model's predictions, which choose the images; `labelled` is
    whether labels are the truth. Raises ConfigError, before anything is computed, for images that
    are not there.
    """
    bound = [(value, registry.resolve("explainers", value, base=base)) for value in asked.explainers]
    places = selected_images(split, asked.choose, asked.images, choosing or predictions, asked.seed)
    answers = _answers(asked.target_class, predictions, split, places, len(classes))
    some = split.select(torch.from_numpy(places))
    device = next(model.parameters(), torch.empty(0)).device
    x, y = some.floats(some.images[:]).to(device, torch.float32), torch.from_numpy(answers).to(device)
    shown = thumbnails(some, list(range(len(some))))
    images = _explained_images(some, predictions, places, answers, labelled)
    results = []
    for place, (value, explainer) in enumerate(bound):
        tell(place, len(bound))
        name, options = registry.name_and_options("explainers", value)
        what = [name, dict(options), *registry.source_digests(value, base=base)]
        fingerprint = fingerprint_of(
            [of, asked.split, what, asked.seed, asked.check, places.tolist(), answers.tolist()]
        )
        folder = home / f"{name.rpartition(':')[2]}-{fingerprint[:8]}"
        if (kept := ExplanationFile.read_finished(folder, fingerprint)) is not None:
            results.append(kept)
            continue
        began = time.perf_counter()
        index = torch.from_numpy(places).to(device)
        maps, quality = maps_of(
            model, explainer, x, y, name=name, index=index, train=train, seed=asked.seed, check=asked.check
        )
        values = maps.values.cpu().numpy().astype(np.float32)
        limit = limit_of(values)
        result = ExplanationFile(
            fingerprint=fingerprint,
            explainer=name.rpartition(":")[2],
            options=dict(options),
            split=asked.split if labelled else "pictures",
            choose=asked.choose if isinstance(asked.choose, str) else list(asked.choose),
            target_class=asked.target_class,
            unit=maps.unit,
            signed=maps.signed,
            limit=limit,
            notes=list(maps.notes),
            images=images,
            quality=quality,
            cost=Seconds(seconds=time.perf_counter() - began),
        )
        arrays = {
            "index": places,
            "labels": some.labels.cpu().numpy(),
            "answers": answers,
            "maps": values,
            "shown": shown,
        }
        write_atomically(folder / "maps.npz", lambda file, arrays=arrays: np.savez_compressed(file, **arrays))  # type: ignore[misc]
        _draw(folder, result, limit, shown, values, classes)
        write_json(folder / "result.json", result.as_json())
        results.append(result)
    tell(len(bound), len(bound))
    return results


def explain_run(
    folder: RunFolder,
    asked: Explain,
    pictures: Sequence[Path] = (),
    *,
    base: Path,
    by: RunFolder | None = None,
    trust: bool = False,
    device: str = "auto",
) -> list[ExplanationFile]:
    """Explains a finished run, on images of its data or on picture files, and keeps the results in
    the run's folder.

    The predictions of the run `by` choose the images, so that several models are shown the same; by
    default its own. Raises ConfigError, before any computing, for what cannot be explained, and
    DataError for a file that is no whole picture.
    """
    with finished(folder, asked.split, trust=trust, device=device) as (model, data, record):
        if pictures:
            return _explain_pictures(
                folder, model, data, _pictures(pictures, folder), asked, record, base=base
            )
        choosing = None if by is None else Predictions.of_arrays(by.load_predictions(asked.split))
        return why(folder, model, data, asked, record, base=base, choosing=choosing)


def why(
    folder: RunFolder,
    model: nn.Module,
    data: Data,
    asked: Explain,
    record: RunRecord,
    *,
    base: Path,
    choosing: Predictions | None = None,
) -> list[ExplanationFile]:
    """The stage of a run: calls the explainers, and names their results in the record.

    Raises ConfigError where the predictions that are `choosing` are of other images.
    """
    predictions = Predictions.of_arrays(folder.load_predictions(asked.split))
    if choosing is not None and not np.array_equal(choosing.labels, predictions.labels):
        raise ConfigError("the run that chooses was tested on other images; name a run on the same data")
    results = explain(
        folder.path / "explanations",
        model,
        data.splits[asked.split],
        predictions,
        asked,
        of=record.fingerprint,
        base=base,
        classes=data.classes,
        train=data.train,
        choosing=choosing,
        tell=lambda done, total: advance(
            f"explaining {folder.path.parent.name} {folder.path.name}", done, total
        ),
    )
    record.count_reads("explanations", [each.fingerprint for each in results], asked.split)
    return results


def _explain_pictures(
    folder: RunFolder,
    model: nn.Module,
    data: Data,
    split: Split,
    asked: Explain,
    record: RunRecord,
    *,
    base: Path,
) -> list[ExplanationFile]:
    found = predictions_of(model, split)
    results = explain(
        folder.path / "explanations",
        model,
        replace(split, labels=torch.from_numpy(found.scores.argmax(1))),
        found,
        replace(asked, choose=list(range(len(split)))),
        of=fingerprint_of([record.fingerprint, split.fingerprint]),
        base=base,
        classes=data.classes,
        train=data.train,
        labelled=False,
    )
    record.count_reads("explanations", [each.fingerprint for each in results], "pictures")
    return results


def _pictures(files: Sequence[Path], folder: RunFolder) -> Split:
    """Picture files as the run's model takes them, with labels that mean nothing."""
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


def _answers(
    asked: TargetClass, predictions: Predictions, split: Split, places: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """(n,) the class that is explained of each image."""
    if isinstance(asked, int):
        if asked >= classes:
            raise ConfigError(f"explain.target_class: {asked} is no class; they are 0 to {classes - 1}")
        return np.full(len(places), asked, np.int64)
    if asked == "label":
        return np.asarray(split.labels.cpu().numpy()[places])
    return np.asarray(predictions.scores[places].argmax(1))


def _explained_images(
    some: Split,
    predictions: Predictions,
    places: NDArray[np.int64],
    answers: NDArray[np.int64],
    labelled: bool,
) -> list[ExplainedImage]:
    probabilities, files = predictions.probabilities[places], some.columns.get("file")
    return [
        ExplainedImage(
            index=int(place),
            truth=int(some.labels[row]) if labelled else None,
            predicted=int(probabilities[row].argmax()),
            probability=float(probabilities[row].max()),
            answer=int(answers[row]),
            answer_probability=float(probabilities[row, answers[row]]),
            source=str(files[row]) if files is not None else None,
        )
        for row, place in enumerate(places)
    ]


def _draw(
    folder: Path,
    result: ExplanationFile,
    limit: float,
    shown: NDArray[np.uint8],
    values: NDArray[np.float32],
    classes: Sequence[str],
) -> None:
    """A PNG of each image and each map, and figure.svg with all of them and their scale."""
    maps = coloured(values, limit, signed=result.signed)
    rows: tuple[list[Picture], list[Picture]] = ([], [])
    for row, image in enumerate(result.images):
        said = f"{classes[image.answer]} {image.answer_probability:.2f}"
        wrong = image.truth not in (image.predicted, None)
        rows[0].append(Picture(shown[row], "" if image.truth is None else classes[image.truth]))
        rows[1].append(Picture(maps[row], said, wrong))
        for kind, pixels in (("image", shown[row]), ("map", maps[row])):
            content = png(pixels)
            name = folder / f"{image.index:05d}-{kind}.png"
            write_atomically(name, lambda file, content=content: file.write(content))  # type: ignore[misc]
    low = -limit if result.signed else 0.0
    text = svg(Grid(result.explainer, rows, scale=(low, limit)), result.unit)
    write_atomically(folder / "figure.svg", lambda file: file.write(text.encode()))
