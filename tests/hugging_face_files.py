"""Small tables in the formats of Hugging Face, written with pyarrow: parquet, and what `save_to_disk`
writes."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def pictures(n: int, seed: int = 0) -> list[bytes]:
    numbers = np.random.default_rng(seed)
    return [png(numbers.integers(0, 256, (6, 5, 3), dtype=np.uint8)) for _ in range(n)]


def table_of(
    images: Sequence[Any],
    labels: Sequence[Any],
    names: Sequence[str] | None = None,
    label: str = "label",
    **others: Sequence[Any],
) -> pa.Table:
    """A table with the column image as {bytes, path}; with `names`, the metadata of Hugging Face."""
    rows = [each if isinstance(each, dict) else {"bytes": each, "path": None} for each in images]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(rows, kind), label: pa.array(labels), **others})
    if names is None:
        return table
    features = {"image": {"_type": "Image"}, label: {"names": list(names), "_type": "ClassLabel"}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write_parquet(
    path: Path, images: Sequence[Any], labels: Sequence[Any], *more: Any, **others: Any
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table_of(images, labels, *more, **others), path, row_group_size=7)


def save_to_disk(folder: Path, splits: dict[str, pa.Table]) -> None:
    """As datasets.DatasetDict.save_to_disk: a folder for each split, with Arrow files as streams."""
    for split, table in splits.items():
        (folder / split).mkdir(parents=True)
        middle = len(table) // 2
        for k, shard in enumerate((table.slice(0, middle), table.slice(middle))):
            file = folder / split / f"data-{k:05d}-of-00002.arrow"
            with file.open("wb") as opened, pa.ipc.new_stream(opened, table.schema) as stream:
                stream.write_table(shard, max_chunksize=5)
        (folder / split / "state.json").write_text("{}")
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
