"""What a public function is about: a module, a run, or the folder of a run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from stresslens.api.arguments import kind_of
from stresslens.api.own_models import is_own_model, module_of
from stresslens.api.runs import Run
from stresslens.api.studies import Study, Variant, run_in
from stresslens.core.arrays import image_tensor
from stresslens.core.data import Data, Split
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.fitted_classifier import classes_of, is_classifier
from stresslens.core.image_files import Frame, picture, quietly
from stresslens.core.run_folder import EstimatorCard, ModelCard, RunFolder
from stresslens.core.run_paths import runs_in
from stresslens.core.text import enumeration
from stresslens.core.types import Shape
from stresslens.evaluation.inputs import arrays_as_split
from stresslens.evaluation.model_info import ModelInfo
from stresslens.evaluation.predictor import EXPORT

RunLike: TypeAlias = Run | Study | str | os.PathLike[str]
"""A run, the folder of a run, or a study or a variant that has a single run."""
ModelLike: TypeAlias = nn.Module | RunLike | Any
"""A module, what becomes one (`OwnModel`), or a run that has one."""
DataNow: TypeAlias = Data | str | os.PathLike[str] | None
"""The data of a run, or the path where they lie now; None: where they were."""
Card: TypeAlias = ModelCard | EstimatorCard | ModelInfo
"""What says which images a run takes, and how they are prepared."""


def is_path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike)


def folder_of(value: Any, what: str) -> Path:
    """The folder that a Run, a Study or a path stands for. Raises ConfigError for anything else."""
    if not is_path(value):
        raise ConfigError(
            f"{what} is {kind_of(value)}; expected a run (of sl.train or sl.open) or its folder"
        )
    return Path(value)


def run_of(
    value: Any,
    *,
    what: str = "run",
    trust: bool = False,
    module: nn.Module | None = None,
    data: Any = None,
) -> Run:
    """The run that a Run, a Study with a single run or a folder stands for. A folder is opened with
    `trust`, `module` and `data`; those that are given count for a Run too. A run whose record cannot be
    read is one as well.

    Raises ConfigError where it is no run, or several."""
    place = data_now(data)
    if isinstance(value, Run):
        return replace(
            value, module=module or value.module, trust=value.trust or trust, data_now=place or value.data_now
        )
    folder = folder_of(value, what)
    trust = trust or (isinstance(value, Study | Variant) and value.trust)
    return run_in(RunFolder(_only_run(folder, what)), trust=trust, module=module, data=place)


def data_now(data: Any) -> Data | Path | None:
    """The data of a run, or where they lie now. Raises ConfigError for anything else."""
    if data is None or isinstance(data, Data):
        return data
    if isinstance(data, str | os.PathLike):
        return Path(data).expanduser()
    raise ConfigError(
        f"data is {kind_of(data)}; expected the data that the run was trained on (stresslens.Data), or the "
        "path where they lie now"
    )


def model_of(
    value: Any, *, what: str = "model", trust: bool = False, module: nn.Module | None = None
) -> nn.Module:
    """The module itself, a module of the caller's own function or classifier (`as_model`), or the trained
    model of the run that the value stands for. Raises ConfigError for anything else."""
    run = run_behind(value, what=what, trust=trust, module=module)
    if run is not None:
        return run.model()
    found = module_of(value)
    assert found is not None  # run_behind refuses anything else
    return found


def run_behind(
    value: Any,
    *,
    what: str = "model",
    trust: bool = False,
    module: nn.Module | None = None,
    data: Any = None,
) -> Run | None:
    """The run that the value stands for (`run_of`), or None for a module and for what becomes one
    (`as_model`). Raises ConfigError for anything else."""
    if isinstance(value, nn.Module):
        return None
    if is_own_model(value):
        if is_classifier(value):
            classes_of(value)
        return None
    if not is_path(value):
        raise ConfigError(f"{what} is {kind_of(value)}; {_expected(value)}")
    return run_of(value, what=what, trust=trust, module=module, data=data)


def card_of(run: Run) -> ModelCard | EstimatorCard:
    """The card of a run's model: which images it takes, and how they are prepared."""
    return RunFolder(run.folder).load_card()


def is_run_of_estimator(run: Run) -> bool:
    return isinstance(card_of(run), EstimatorCard)


def images_for(card: Card | None, images: Any) -> Any:
    """The caller's images as the run of this card takes them: pictures and their files as its own were
    prepared, arrays and a Split as they are. Without a card they are returned unchanged.

    A uint8 array (H, W), (H, W, 3) or (H, W, 4) of another size than the run's images is a picture. Raises
    DataError for what cannot be an image of this run, and for another shape than its images have."""
    if card is None:
        return images
    listed = images if isinstance(images, list | tuple) else [images]
    if not isinstance(images, Split) and any(_is_picture(each, card.shape) for each in listed):
        return _prepared(card, listed)
    shape = (images if isinstance(images, Split) else arrays_as_split(images, None)).shape
    if shape != tuple(card.shape):
        raise DataError(
            f"images have shape {shape} (channels, height, width), those of the run "
            f"{tuple(card.shape)}; pictures (PIL images, files, uint8 arrays one by one in a list) are "
            "resized as its own were"
        )
    return images


def _prepared(card: Card, listed: Sequence[Any]) -> Tensor:
    """Pictures, and arrays among them, as one batch."""
    frame = Frame.of(card.shape, card.fit, "the run", card.white)
    with quietly():
        pixels = [_pixels(each, frame, card.shape, k) for k, each in enumerate(listed)]
    if any(x.is_floating_point() for x in pixels):
        pixels = [x.float() if x.is_floating_point() else x.float() / 255 for x in pixels]
    return torch.stack(pixels)


def _is_picture(image: Any, shape: Shape) -> bool:
    if isinstance(image, Image.Image | str | os.PathLike):
        return True
    return _is_array_of_picture(image) and tuple(image.shape) not in _own_shapes(shape)


def _is_array_of_picture(image: Any) -> bool:
    is_bytes = isinstance(image, np.ndarray) and image.dtype == np.uint8
    return is_bytes and (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4)))


def _own_shapes(shape: Shape) -> tuple[tuple[int, ...], ...]:
    """The shapes that a single image of a run may have: with channels first or last, or without them."""
    channels, height, width = shape
    return (shape, (height, width, channels), *([(height, width)] if channels == 1 else []))


def _pixels(image: Any, frame: Frame, shape: Shape, k: int) -> Tensor:
    """(C, H, W) the pixels of one image of the caller's."""
    name = f"image {k}" if not isinstance(image, str | os.PathLike) else str(image)
    if _is_picture(image, shape):
        shown = Image.fromarray(image) if isinstance(image, np.ndarray) else image
        return torch.from_numpy(picture(shown, frame, name).pixels.copy())
    x = image_tensor([image])
    if tuple(x.shape[1:]) != tuple(shape):
        raise DataError(
            f"{name} has shape {tuple(x.shape[1:])}; the run takes images of shape {tuple(shape)}"
        )
    return arrays_as_split(x, None).images[:][0].cpu()


def _only_run(folder: Path, what: str) -> Path:
    if (folder / "record.json").is_file():
        return folder
    runs = runs_in(folder)
    if len(runs) == 1:
        return runs[0]
    if runs:
        raise ConfigError(
            f"{what} is {folder}, which holds {len(runs)} runs: {enumeration(runs)}; give one of them"
        )
    if (folder / EXPORT).is_file():
        raise ConfigError(f"{what} is {str(folder)!r}, an export without a record; sl.load opens its model")
    if not folder.exists():
        raise ConfigError(f"{what} is {str(folder)!r}, and there is no such folder; expected a run's folder")
    raise ConfigError(f"{what} is {str(folder)!r}, which is not the folder of a run (…/seed-0)")


def _expected(value: Any) -> str:
    if isinstance(value, type) and issubclass(value, nn.Module):
        return f"make a module of it: {value.__name__}(…)"
    return (
        "expected a torch.nn.Module from images (N, C, H, W) in [0, 1] to logits (N, classes), "
        "a run (of sl.train or sl.open) or its folder"
    )
