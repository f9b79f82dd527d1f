"""examples/examples.json of a run: a list of classified images, and where their pictures are."""

from __future__ import annotations

from stresslens.core.json_file import OrderedJsonFile


class ClassifiedImage(OrderedJsonFile):
    """What is known of an image: its true and its predicted class, with the probability of the latter.

    `kind` says why it is shown (`sample`, `mistake` or `cell`); `probabilities` are those of the
    likeliest classes, each with its class. `index` is the image's place in its split, -1 where a file
    does not say.
    """

    index: int = -1
    truth: int
    predicted: int
    probability: float
    probabilities: list[tuple[int, float]] = []
    kind: str = "sample"


class Example(ClassifiedImage):
    """An entry of examples.json. `box` is left, top, width and height in the sheet of pictures, None
    for the whole; `source` names the image's own file."""

    file: str
    box: tuple[int, int, int, int] | None = None
    source: str | None = None
