"""robustness/<key>/examples/examples.json: a list of attacked images, and where their pictures are."""

from __future__ import annotations

from typing import Literal

from stresslens.core.json_file import JsonFile

Box = tuple[int, int, int, int]
"""Left, top, width and height in a sheet of pictures."""


class AttackedImage(JsonFile):
    """What is known of an attacked image. `kind` says why it is shown: among the first images that
    were broken, spread over radii and classes, or one image at several radii (ladder)."""

    kind: Literal["first", "spread", "ladder"] = "spread"
    index: int | None = None
    truth: int
    clean_prediction: int
    clean_confidence: float
    prediction: int
    confidence: float
    eps: float
    size: float | None = None
    steps: int | None = None
    attack: str = ""


class AdversarialExample(AttackedImage):
    """An entry of examples.json; the change is magnified by `scale`, and `reduced` pictures are
    smaller than the image."""

    file: str
    original: Box
    change: Box
    adversarial: Box
    scale: float = 1.0
    reduced: bool = False
