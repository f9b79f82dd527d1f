from __future__ import annotations

from stresslens.core.data import Data
from stresslens.core.types import Finding
from stresslens.plugins.checks._shortcuts import shortcut


def label_from_file_size(data: Data) -> Finding:
    """Whether the size of the file alone gives the label, as where one class was saved in another quality."""
    size = data.train.columns.get("bytes")
    return shortcut("file size", None if size is None else size[:, None], data)
