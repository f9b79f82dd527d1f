"""Data sets that are named by the path of their images."""

from __future__ import annotations

from contextlib import suppress
from os.path import normpath
from pathlib import Path
from typing import Any

from stresslens.config import registry
from stresslens.config.unknown_names import dataset_of_file


def images_at(text: str) -> dict[str, Any] | None:
    """The dataset for the path of images, `folder` or `npz`; None for the name of a dataset, and for a
    path at which there is nothing."""
    if text in registry.all_names("datasets"):
        return None
    with suppress(OSError, RuntimeError, ValueError):  # no path at all
        if Path(text).expanduser().exists():
            return {dataset_of_file(text): {"path": normpath(text)}}
    return None
