"""Runs and pictures that the tests of the page share, and what its script asks."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from servers import Server

import stresslens as sl
from stresslens.plugins.datasets.digits import digits


def trained(out: Path) -> tuple[sl.Run, sl.Run]:
    """A net, and an estimator, which has no gradient."""
    options: dict[str, Any] = {"precision": "float32", "out": out, "progress": False}
    return (
        sl.train("mlp", "digits", epochs=3, name="net", **options),
        sl.train("knn", "digits", name="nearest", out=out, progress=False),
    )


def digit(number: int = 3) -> bytes:
    """The PNG file of a test image of a class."""
    split = digits().test
    assert split is not None
    k = int((split.labels == number).nonzero()[0])
    content = io.BytesIO()
    Image.fromarray(np.uint8(split.images[k, 0].numpy() * 15.9375)).save(content, "png")
    return content.getvalue()


def lines(server: Server, path: str, body: bytes = b"", **headers: str) -> tuple[int, list[dict[str, Any]]]:
    """The status and the documents of an answer, one a line."""
    status, content = server.ask("POST", path, body, headers)
    return status, [json.loads(line) for line in content.splitlines()]
