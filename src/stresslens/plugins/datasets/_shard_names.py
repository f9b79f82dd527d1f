"""Shards of a data set: the split that the name of a file stands for."""

from __future__ import annotations

import re
from pathlib import Path

from stresslens.plugins.datasets._class_folders import PARTS

SUFFIX = r"\.(?:parquet|arrow|tar(?:\.\w+)?|tgz)$"


def split_of_shard(file: Path, root: Path) -> str:
    """The split of a file by its name (train-00000-of-00002.parquet) or its folder; "" if neither says it."""
    inside = file.relative_to(root).as_posix() if root.is_dir() else file.name
    *folders, name = inside.split("/")
    stem = re.sub(rf"(?:[-_.]?\d+(?:-of-\d+)?)?{SUFFIX}", "", name)
    known = [word for word in re.split(r"[-_.]", stem.lower()) if word in PARTS]
    if known:
        return known[0]
    if stem not in ("data", "") and not root.is_file() and re.search(rf"-\d+-of-\d+{SUFFIX}", name):
        return stem
    above = [folder for folder in folders if folder.lower() in PARTS]
    return above[-1].lower() if above else ""
