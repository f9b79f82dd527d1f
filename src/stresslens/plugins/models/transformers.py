from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from stresslens.core.class_names import plain_form
from stresslens.core.errors import ConfigError, DataError, first_line
from stresslens.core.extras import extra
from stresslens.core.image_processor import processor_preprocessing
from stresslens.core.pretrained import Preprocessing, PretrainedWeights, State, from_hub
from stresslens.core.types import ModelFile, Shape

EXTRA = "transformers"
CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def transformers(shape: Shape, classes: int, names: tuple[str, ...], *, name: ModelFile) -> nn.Module:
    """An image classifier of Hugging Face's transformers, with its gradient.

    `name` is a folder that save_pretrained wrote, which is copied into the run, or a model of the hub
    (google/vit-base-patch16-224). It starts from the weights there, with their own last layer where it has
    as many outputs as there are classes, unless `pretrained` is false. Images are resized and normalised
    as the model's image processor does. Raises ConfigError or DataError for a folder without a
    config.json, and for a model that is no image classifier.
    """
    config = _configuration(name)
    _check_order(config, names, name)
    library = _library()
    try:
        values = dict(config)
        values.pop("id2label", None), values.pop("label2id", None)
        made = library.AutoConfig.for_model(values.pop("model_type"), **values, num_labels=classes)
        net: nn.Module = library.AutoModelForImageClassification.from_config(made)
    except Exception as error:  # the library raises anything for a configuration that it does not know
        raise ConfigError(
            f"{name} cannot be built as an image classifier: {first_line(error)[:200]}"
        ) from error
    return net


def _check_order(config: Mapping[str, Any], names: tuple[str, ...], source: str) -> None:
    """Raises ConfigError where the model has the classes of the data in another order."""
    labels = config.get("id2label")
    if not isinstance(labels, Mapping):
        return
    if not all(str(key).isdecimal() for key in labels):
        return
    own = [plain_form(str(labels[key])) for key in sorted(labels, key=int)]
    wanted = [plain_form(each) for each in names]
    if own != wanted and sorted(own) == sorted(wanted):
        k = next(k for k, (one, other) in enumerate(zip(own, wanted)) if one != other)
        raise ConfigError(
            f"{source} has the classes of the data in another order: its class {k} is {own[k]!r}, and that "
            f"of the data {wanted[k]!r}; name the classes of the data in the model's order"
        )


def published(*, name: str, pretrained: bool = True) -> PretrainedWeights | None:
    """The weights of the model, unless `pretrained` is false."""
    if not pretrained:
        return None

    def load() -> State:
        if Path(name).is_dir() and not any((Path(name) / each).is_file() for each in WEIGHTS):
            raise DataError(f"{name} has no weights; expected {' or '.join(WEIGHTS)} beside {CONFIG}")
        library = _library()
        try:  # its own loader: the names of tensors in files are not those of its modules
            state: State = library.AutoModelForImageClassification.from_pretrained(name).state_dict()
        except Exception as error:  # the library and the hub raise many kinds
            raise DataError(f"{name}: its weights cannot be loaded: {first_line(error)[:200]}") from error
        return state

    return PretrainedWeights(f"transformers {name}", load, default_preprocessing(name=name))


def default_preprocessing(*, name: str) -> Preprocessing:
    """The preprocessing of the model's image processor."""
    return processor_preprocessing(_read(name, PROCESSOR) or {}, _configuration(name))


def files_beside(*, name: str) -> list[Path]:
    """The files of the folder that are copied."""
    wanted = (CONFIG, PROCESSOR, *WEIGHTS)
    return [Path(name) / each for each in wanted if (Path(name) / each).is_file()]


def _library() -> Any:
    with extra("transformers", "the model transformers"):
        import transformers as library

    return library


def _configuration(name: str) -> dict[str, Any]:
    found = _read(name, CONFIG)
    if not isinstance(found, dict) or "model_type" not in found:
        raise DataError(f"{name}: its {CONFIG} names no model_type; expected a folder of save_pretrained")
    return found


def _read(name: str, file: str) -> Any:
    """The content of a JSON file of the model; None where there is none (only of the processor's)."""
    folder = Path(name)
    looks_local = folder.exists() or name.startswith((".", "~", os.sep)) or name.count("/") > 1
    path = folder / file if looks_local else None
    if path is None:
        try:
            path = from_hub(f"transformers {name}", name, file)
        except DataError:
            if file == PROCESSOR:
                return None
            raise
    if not path.is_file():
        if file == PROCESSOR:
            return None
        raise DataError(f"there is no {path}; expected a folder that save_pretrained wrote")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} cannot be read as JSON: {first_line(error)}") from error
