"""Schema of robustness/<key>/examples/examples.json: adversarial examples, and their positions in
an image file."""

from __future__ import annotations

from typing import Literal

from stresslens.core.json_file import JsonFile

Box = tuple[int, int, int, int]
"""Left, top, width and height in the image file, in pixels."""


class AttackedImage(JsonFile):
    """An attacked image with its predictions. `kind` says why it is shown: it is one of the first
    broken images, it is one of those spread over radii and classes, or it is the image that is
    shown at several radii (ladder). `size` is the norm of the perturbation."""

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
    """An entry of examples.json. The shown change is magnified by `scale`; with `reduced`, the
    shown images are smaller than the real ones."""

    file: str
    original: Box
    change: Box
    adversarial: Box
    scale: float = 1.0
    reduced: bool = False
