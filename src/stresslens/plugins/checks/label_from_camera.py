from __future__ import annotations

from stresslens.core.data import Data
from stresslens.core.types import Finding
from stresslens.plugins.checks._shortcuts import shortcut


def label_from_camera(data: Data) -> Finding:
    """Whether the camera alone gives the label, as where one class was photographed by one person.

    Make and model are read from the files' EXIF; a file without them counts as a camera of its own.
    """
    return shortcut("camera", data.train.columns.get("camera"), data)
