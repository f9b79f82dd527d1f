from __future__ import annotations

from stresslens.core.data import Data
from stresslens.core.types import Finding
from stresslens.plugins.checks._shortcuts import shortcut


def label_from_file_type(data: Data) -> Finding:
    """Whether the format of the file alone gives the label, as where one class is PNG."""
    return shortcut("file type", data.train.columns.get("format"), data)
