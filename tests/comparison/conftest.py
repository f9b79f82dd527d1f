from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stresslens.core.files import write_atomically, write_json
from stresslens.core.layer_table import LayerTable
from stresslens.core.run_folder import RunFolder

Make = Callable[..., RunFolder]


@pytest.fixture
def made(tmp_path: Path) -> Make:
    """A run's folder as far as a comparison reads it: `made("a", 0, right)`, right (images,) of two
    classes."""

    def make(
        run: str, seed: int, right: np.ndarray, *, labels: np.ndarray | None = None, **facts: Any
    ) -> RunFolder:
        folder = RunFolder(tmp_path / "runs" / "study" / run / f"seed-{seed}")
        truth = np.arange(len(right)) % 2 if labels is None else labels
        scores = np.eye(2)[np.where(right > 0, truth, 1 - truth)]
        write_atomically(
            folder.predictions("test"),
            lambda file: np.savez(
                file, scores=scores, labels=truth, index=np.arange(len(truth)), kind="logits"
            ),
        )
        data = {"name": "made", "splits": {"test": "0"}, **facts}
        record = {
            "format": 1,
            "status": "finished",
            "stages": {},
            "data": data,
            "study": "study",
            "run": run,
            "seed": seed,
        }
        record |= {
            "training": {"seconds": 1.0 + 0.1 * seed, "epochs": 2},
            "layers": LayerTable((), 10, 10, 0, 0, 0).as_json(),
        }
        write_json(folder.record, record)
        return folder

    return make
