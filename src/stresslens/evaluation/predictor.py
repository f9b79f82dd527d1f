"""Inference backends: a run folder, an ONNX or torch.export file; zero-shot prompts (captions)."""

from __future__ import annotations

import base64
import copy
import dataclasses
import io
import json
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.core.data import Split
from stresslens.core.errors import ConfigError, first_line
from stresslens.core.extras import extra
from stresslens.core.files import arrays_in, read_json
from stresslens.core.inspection import feature_layer
from stresslens.core.pieces import FLOAT, at_most, in_pieces
from stresslens.core.run_folder import EstimatorCard, RunFolder
from stresslens.evaluation import scores
from stresslens.evaluation.averaged_views import AveragedViews
from stresslens.evaluation.guarantees import CalibrationImages, calibration_images
from stresslens.evaluation.model_info import ModelInfo, checked_info, model_info
from stresslens.evaluation.ood import Features, OODDetector, coarse_of, observed
from stresslens.evaluation.page_file import refused_page
from stresslens.evaluation.record import read_record
from stresslens.evaluation.saved_model import as_computed, open_model
from stresslens.metrics.intervals import Floats

FACTS, OOD_ARRAYS, CALIBRATION_ARRAYS = "stresslens", "stresslens.likeness", "stresslens.calibration"
"""Metadata keys of an exported file: the `ModelInfo` as JSON, and likeness.npz and calibration.npz in
base 64."""
EXPORT, CALIBRATION = "export.json", "calibration.npz"
"""The files with the `ModelInfo` and the calibration images in an exported folder."""
GRAPH = 64
"""A pass through a graph, whose memory cannot be measured here, is taken to need so many times the
memory of its images."""


Answer = Callable[[Tensor], tuple[Floats, Features]]
"""Images (N,C,H,W) in [0,1] → logits (N,K), and the features for out-of-distribution detection."""


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A trained model that is ready for inference."""

    facts: ModelInfo
    answer: Answer
    ood: OODDetector | None
    """None if the run or the export has no OOD detector."""
    calibration: Callable[[], CalibrationImages]
    """The images that calibrate sets and thresholds. Raises ConfigError where there are none."""
    model: nn.Module | None = None
    """None for a graph (ONNX, torch.export)."""


def open_predictor(
    path: Path,
    *,
    trust: bool = False,
    module: nn.Module | None = None,
    captions: Sequence[str] | None = None,
    templates: Sequence[str] = ("{}",),
    views: Sequence[str] = (),
) -> Predictor:
    """Opens a run's folder, or a file or folder that `stresslens export` wrote.

    Without `trust` only built-in plug-ins are executed, and no .pt2 file is opened; `module` is as
    in `open_model`. With `captions` the classes are these captions (`with_prompts`), and the
    probabilities are not calibrated. With `views` the probabilities are averaged over views of each
    image (`averaged_predictor`). Raises ConfigError for any other path, and for damaged files.
    """
    opened = _opened(path, trust, module, captions, templates)
    return averaged_predictor(opened, views) if views else opened


def _opened(
    path: Path,
    trust: bool,
    module: nn.Module | None,
    captions: Sequence[str] | None,
    templates: Sequence[str],
) -> Predictor:
    folder = RunFolder(path.parent if path.name == "model.safetensors" else path)
    if folder.record.is_file() or (folder.path / EXPORT).is_file():
        exported = folder.path / EXPORT
        facts = model_info(folder) if folder.record.is_file() else checked_info(read_json(exported), exported)
        model = as_computed(open_model(folder, trust=trust, module=module), folder)
        return (
            _of_model(model, facts, folder)
            if not captions
            else _of_captions(model, facts, folder, captions, templates)
        )
    if captions and path.suffix in (".onnx", ".pt2"):
        raise ConfigError(
            f"{path} is a graph from images to logits, without a text side; "
            "give the run, or its safetensors export"
        )
    if path.suffix == ".onnx":
        return _of_onnx(path)
    if path.suffix == ".pt2":
        return _of_torch(path, trust)
    if path.suffix == ".html":
        raise refused_page(path)
    raise ConfigError(
        f"{path} is not the folder of a run (…/seed-0; `stresslens list runs` shows all runs), "
        "and not what `stresslens export` writes: a file that ends in .onnx or .pt2, "
        f"or a folder with {EXPORT}"
    )


def _of_model(model: nn.Module, facts: ModelInfo, folder: RunFolder) -> Predictor:
    layer = cache(lambda: feature_layer(model, facts.shape))

    def answer(x: Tensor) -> tuple[Floats, Features]:
        split = Split(x, torch.zeros(len(x), dtype=torch.int64), 1.0)
        return observed(model, split, lambda: scores.logits_of(model, split).double().numpy(), at=layer())

    detector = OODDetector.load(folder.likeness) if folder.likeness.is_file() else None
    return Predictor(facts, answer, detector, partial(_calibration_of, folder), model)


def _calibration_of(folder: RunFolder) -> CalibrationImages:
    if folder.record.is_file():
        return calibration_images(folder, read_record(folder))
    path = folder.path / CALIBRATION
    if not path.is_file():
        raise _not_calibrated(folder.path)
    return CalibrationImages.of_content(_content(path), path)


def _not_calibrated(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} holds no calibration images, which sets and thresholds need: it was exported before "
        "version 0.4, or from a run without validation images; export the run again"
    )


def _refused(why: str) -> Callable[[], CalibrationImages]:
    def refuse() -> CalibrationImages:
        raise ConfigError(f"nothing calibrates sets and thresholds here: {why}")

    return refuse


class _Graph(nn.Module):
    """The logits of a predictor that has no module."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.answer(x)[0])


def averaged_predictor(predictor: Predictor, views: Sequence[str]) -> Predictor:
    """The predictor with its probabilities averaged over views of each image (`AveragedViews`). They are
    not calibrated, since its temperature is that of a single view; out-of-distribution images are
    found by the image itself. Raises ConfigError for views that the model does not allow."""
    facts = predictor.facts
    averaging = AveragedViews(predictor.model or _Graph(predictor.answer), views, facts.shape)

    def answer(x: Tensor) -> tuple[Floats, Features]:
        split = Split(x, torch.zeros(len(x), dtype=torch.int64), 1.0)
        return scores.logits_of(averaging, split).double().numpy(), predictor.answer(x)[1]

    why_not = f"averaged over {averaging.passes} views of each image"
    info = dataclasses.replace(facts, temperature=1.0, calibrated_on=None, not_calibrated=why_not)
    refuse = _refused("the calibration images were not averaged over views; leave out --tta")
    return Predictor(info, answer, predictor.ood, refuse, averaging)


def _of_captions(
    model: nn.Module, facts: ModelInfo, folder: RunFolder, captions: Sequence[str], templates: Sequence[str]
) -> Predictor:
    card = folder.load_card()
    plain, kind = (
        (card.estimator, "estimators") if isinstance(card, EstimatorCard) else (card.model, "models")
    )
    info = dataclasses.replace(
        facts,
        classes=list(captions),
        temperature=1.0,
        calibrated_on=None,
        not_calibrated="the captions are your own",
    )
    prompted = with_prompts(model, captions, templates, called=registry.name_and_options(kind, plain)[0])
    refuse = _refused("the calibration images have other classes than your captions; leave out --prompts")
    predictor = dataclasses.replace(_of_model(prompted, info, folder), calibration=refuse)
    # Where the features are the logits, the detector was fitted on those of other classes.
    logits_are_features = feature_layer(prompted, facts.shape)[0] is prompted
    return dataclasses.replace(predictor, ood=None) if logits_are_features else predictor


def reads_captions(model: nn.Module) -> bool:
    """Whether a model reads captions (`with_prompts`)."""
    return hasattr(getattr(model, "net", model), "tell_apart")


def prompted_predictor(
    predictor: Predictor, path: Path, captions: Sequence[str], templates: Sequence[str] = ("{}",)
) -> Predictor:
    """The predictor of the run or export in `path` with captions as its classes, as `open_predictor` gives
    it, without reading the weights again. Raises ConfigError as `with_prompts`."""
    if predictor.model is None:
        raise ConfigError(f"{path} is a graph from images to logits, without a text side")
    return _of_captions(predictor.model, predictor.facts, RunFolder(path), captions, templates)


def with_prompts(
    model: nn.Module,
    captions: Sequence[str],
    templates: Sequence[str] = ("{}",),
    *,
    called: str = "the model",
) -> nn.Sequential:
    """A copy of a model with a text side that classifies among these captions (zero-shot).

    Each caption is inserted into each of the `templates`. The given model is not changed; the copy
    shares its weights. Raises ConfigError for fewer than two captions, for empty, repeated or too
    similar ones, and for a model without a text side.
    """
    net = getattr(model, "net", model)
    if not reads_captions(model):
        raise ConfigError(
            f"{called} has no text side to read captions; prompts are for openclip with `head: text`"
        )
    if len(captions) < 2:
        raise ConfigError(f"{len(captions)} caption to choose from; give at least two")
    if empty := [number for number, caption in enumerate(captions, 1) if not caption.strip()]:
        raise ConfigError(f"caption {empty[0]} is empty")
    if repeated := [caption for k, caption in enumerate(captions) if caption in captions[:k]]:
        raise ConfigError(f"the caption {repeated[0]!r} is given twice")
    prompted: Any = copy.copy(net)
    prompted.tell_apart(captions, templates)
    prompted.text_features()
    front = [(name, part) for name, part in model.named_children() if net is not model and name != "net"]
    return nn.Sequential(OrderedDict([*front, ("net", prompted)]))


def _of_onnx(path: Path) -> Predictor:
    with extra("onnx", "ONNX"):
        import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # errors are raised as well
    try:
        session = onnxruntime.InferenceSession(_content(path), options, providers=["CPUExecutionProvider"])
    except ConfigError:
        raise
    except Exception as error:  # onnxruntime has one class for each status code
        raise ConfigError(f"{path} cannot be read as an ONNX model: {first_line(error)}") from error
    metadata = session.get_modelmeta().custom_metadata_map
    return _of_graph(
        path,
        _facts_in(metadata, path),
        metadata,
        lambda x: session.run(["logits", "features"], {"images": x.numpy()}),
    )


def _of_torch(path: Path, trust: bool) -> Predictor:
    try:
        with zipfile.ZipFile(io.BytesIO(_content(path))) as archive:
            damaged = archive.testzip()
            if not any(name.endswith("archive_format") for name in archive.namelist()):
                raise ValueError("it is cut off, or not a file of torch")
            extra = {
                name.rpartition("/extra/")[2]: archive.read(name).decode()
                for name in archive.namelist()
                if "/extra/" in name
            }
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ConfigError(
            f"{path} cannot be read as a program of torch.export: {first_line(error)}"
        ) from error
    if damaged is not None:
        raise ConfigError(f"{path} cannot be read as a program of torch.export: {damaged} is damaged")
    facts = _facts_in(extra, path)
    if not trust:
        raise ConfigError(
            f"{path}: torch unpickles parts of such a file, so opening it can run any code that its author "
            "put into it; open your own files with --trust. An ONNX file holds no code"
        )
    try:
        program = torch.export.load(path).module()
    except Exception as error:  # an archive of another program may fail anywhere
        raise ConfigError(
            f"{path} cannot be read as a program of torch.export: {first_line(error)}"
        ) from error

    def run(x: Tensor) -> list[np.ndarray]:
        with torch.no_grad():
            return [output.numpy() for output in program(x)]

    return _of_graph(path, facts, extra, run)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"there is no {path}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None


def _facts_in(metadata: Mapping[str, str], path: Path) -> ModelInfo:
    if FACTS not in metadata:
        raise ConfigError(
            f"{path} was not written by `stresslens export`: its metadata has no {FACTS!r}, which would hold "
            "the classes, the shape of images, how images are fitted to it, and the temperature"
        )
    try:
        return checked_info(json.loads(metadata[FACTS]), path)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: its metadata {FACTS!r} cannot be read as JSON: {error}") from error


def _of_graph(
    path: Path, facts: ModelInfo, metadata: Mapping[str, str], run: Callable[[Tensor], list[np.ndarray]]
) -> Predictor:
    """A predictor from a graph that returns logits and features; it is tried on two black
    images."""

    def answer(x: Tensor) -> tuple[Floats, Features]:
        size = at_most(len(x), GRAPH * FLOAT * x[0].numel())
        parts = in_pieces(lambda rows: run(x[rows].contiguous()), len(x), size)
        logits, features = (np.concatenate(part) for part in zip(*parts))
        return logits.astype(np.float64), Features(features, coarse_of(x).numpy(), np.zeros(len(x), np.int64))

    try:
        detector = None if OOD_ARRAYS not in metadata else _detector_in(metadata[OOD_ARRAYS], path)
        logits, sample = answer(torch.zeros(2, *facts.shape))
        if detector is not None:
            detector.p_values(sample)
        if logits.shape != (2, len(facts.classes)):
            raise ValueError(f"logits of shape {logits.shape} for 2 images and {len(facts.classes)} classes")
    except Exception as error:  # a graph with the metadata of another may fail anywhere
        raise ConfigError(
            f"{path}: its graph and its metadata do not belong together: {first_line(error)}"
        ) from error
    return Predictor(facts, answer, detector, partial(_calibration_in, metadata, path))


def _detector_in(text: str, path: Path) -> OODDetector:
    return OODDetector.of_arrays(arrays_in(io.BytesIO(_decoded(text, OOD_ARRAYS)), path), path)


def _calibration_in(metadata: Mapping[str, str], path: Path) -> CalibrationImages:
    if CALIBRATION_ARRAYS not in metadata:
        raise _not_calibrated(path)
    return CalibrationImages.of_content(_decoded(metadata[CALIBRATION_ARRAYS], CALIBRATION_ARRAYS), path)


def _decoded(text: str, key: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise ConfigError(f"its metadata {key!r} is damaged: {error}") from error
