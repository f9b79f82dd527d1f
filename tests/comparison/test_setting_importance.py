"""Which settings matter between the runs of a study."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from stresslens.comparison import setting_importance
from stresslens.core.types import Estimate

RATES = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2]


def study(home: Path, rates: list[float], *, widths: tuple[int, ...] = (8, 16)) -> dict[str, Any] | None:
    """Runs of every rate and width, two seeds each, whose accuracy the rate alone decides."""
    names = []
    for place, rate in enumerate(rates):
        for width in widths:
            name = f"{rate:g} {width}"
            names.append(name)
            config = {
                "model": {"mlp": {"widths": width}},
                "train": {"lr": rate, "optimizer": "adam", "threads": len(names) % 2 + 1},
                "runs": {name: {}},
            }
            for seed in (0, 1):
                folder = home / name / f"seed-{seed}"
                folder.mkdir(parents=True)
                (folder / "model.safetensors").touch()
                (folder / "config.yaml").write_text(yaml.safe_dump(config))
                accuracy = 0.5 + 0.05 * place + 0.001 * seed
                record = {
                    "format": 1,
                    "status": "finished",
                    "stages": {},
                    "data": {},
                    "scores": {
                        "validation": {"accuracy": Estimate(accuracy, 0.0, 1.0, 100, "made").as_json()}
                    },
                }
                (folder / "record.json").write_text(json.dumps(record))
    (home / "study.json").write_text(json.dumps({"runs": names}))
    return setting_importance.study_setting_importance(home)


@pytest.mark.slow
def test_the_setting_that_decides_is_named(tmp_path: Path) -> None:
    found = study(tmp_path, RATES)
    assert found is not None
    assert found.n == 12
    assert {row.setting for row in found.rows} == {"train.lr", "model.widths"}
    assert found.rows[0].setting == "train.lr"
    assert found.said[0].startswith("train.lr explains most of the differences")
    assert "model.widths is not distinguishable from settings of no influence" in found.said[1]


@pytest.mark.parametrize(("rates", "widths"), [(RATES[:3], (8, 16)), ([*RATES, 0.1, 0.3], (8,))])
def test_few_runs_or_one_setting_say_nothing(
    tmp_path: Path, rates: list[float], widths: tuple[int, ...]
) -> None:
    assert study(tmp_path, rates, widths=widths) is None


def test_the_same_settings_again_are_no_evidence() -> None:
    settings = [{"train.shuffle": k % 2 == 0, "train.clip": k % 4 // 2} for k in range(24)]
    found = setting_importance.importance_verdicts(settings, [(float(k % 2),) for k in range(24)])
    assert found.n == 4
    assert "4 different trials are too few" in found.said[0]
