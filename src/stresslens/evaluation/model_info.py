"""What a trained model's files say of it for inference: classes, shape of images, temperature."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from stresslens.core.bit_depth import WHITE
from stresslens.core.files import UnreadableRun
from stresslens.core.image_files import Fit
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.record import read_record


@dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class ModelInfo:
    """What is needed to run a trained model on image files, and which run it comes from.

    It is validated when it is read.
    """

    format: Literal[1]
    run: str
    fingerprint: str
    version: str
    shape: tuple[int, int, int]
    classes: list[str]
    fit: Fit
    """How images of another size are fitted to `shape`."""
    temperature: Annotated[float, Field(gt=0)]
    """Softmax(logits / temperature) gives the calibrated probabilities."""
    calibrated_on: str | None
    """The split that the temperature was fitted on; None if the probabilities are not calibrated."""
    not_calibrated: str = ""
    """Why the probabilities are not calibrated."""
    white: Annotated[int, Field(gt=0)] = WHITE
    """The value of white in image files of more than 8 bits."""

    def as_json(self) -> dict[str, Any]:
        """Plain values, without those that version 0.1.0 does not know where they are the usual ones."""
        usual = {"not_calibrated": "", "white": WHITE}
        return {key: v for key, v in asdict(self).items() if key not in usual or v != usual[key]}


_facts = TypeAdapter(ModelInfo)


def model_info(folder: RunFolder) -> ModelInfo:
    """Reads the ModelInfo of a run. Raises UnreadableRun if its files are missing or damaged."""
    card, record = folder.load_card(), read_record(folder)
    calibration = record.calibration
    why_not = calibration.why_not if calibration else "the run has no validation images"
    return checked_info(
        {
            "format": 1,
            "run": f"{record.study}/{record.run}/seed-{record.seed}",
            "fingerprint": record.fingerprint,
            "version": record.version,
            "shape": card.shape,
            "classes": card.classes,
            "fit": card.fit,
            "white": card.white,
            "temperature": record.temperature,
            "calibrated_on": calibration.fitted_on if calibration and not why_not else None,
            "not_calibrated": why_not,
        },
        folder.record,
    )


def checked_info(values: Any, name: Path) -> ModelInfo:
    """The ModelInfo of plain values. Raises UnreadableRun, with the `name`, for others."""
    try:
        return _facts.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise UnreadableRun(
            f"{name} does not describe a model: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from None
