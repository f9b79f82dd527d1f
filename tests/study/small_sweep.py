"""A sweep of five short trials."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stresslens.config import study_file
from stresslens.config.yaml_source import parse_value

STUDY = """
data: {digits: {subset: 200}}
model: linear
train: {epochs: 4, precision: float32, threads: 1, memory_format: contiguous}
sweep:
  trials: 5
  space:
    train.lr: {from: 1e-4, to: 1.0, log: true}
    train.batch_size: {from: 16, to: 64, step: 16}
    train.optimizer: [adam, {momentum: {weight_decay: 1e-4}}]
  where: [train.batch_size <= 48]
"""


def written(tmp_path: Path, **changes: Any) -> study_file.Study:
    values = parse_value(STUDY)
    sweep = values["sweep"] | changes.pop("sweep", {})
    changes["sweep"] = {key: value for key, value in sweep.items() if value is not None}
    changes["train"] = values["train"] | changes.pop("train", {})
    file = tmp_path / "s.yaml"
    file.write_text(json.dumps(values | changes))
    return study_file.read_study(file)


def swept(folder: Path) -> dict[str, Any]:
    table: dict[str, Any] = json.loads((folder / "run" / "sweep.json").read_text())
    return table
