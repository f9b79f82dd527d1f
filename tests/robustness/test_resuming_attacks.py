"""A search that was stopped or killed goes on to the same bits, and never on from another model's
or another attack's."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attacking_plainly import attacked, plainly
from several import PROCESSES
from torch import Tensor, nn

import stresslens as sl
from stresslens.config.schema import Robustness
from stresslens.core.errors import ConfigError
from stresslens.core.run_folder import RunFolder
from stresslens.robustness import attack_run, measure, radius_search


@pytest.mark.slow
def test_a_stopped_search_goes_on_to_the_same_bits(
    digits_run: sl.Run, images: tuple[Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "LARGEST_CHUNK", 32)
    monkeypatch.setattr(radius_search, "SAVE_SECONDS", 0.0)
    model, (x, y) = digits_run.model(), images
    asked: dict[str, Any] = {
        "radii": "0:0.2:0.05",
        "protocol": [{"pgd": {"steps": 5}}, {"apgd": {"steps": 10}}],
        "individual_attacks": ["fgsm"],
    }
    whole = attacked(model, x, y, **asked)
    stops = 0
    original = radius_search.RadiusSearch._run_attack
    for limit in range(1, 60):
        calls = 0

        def sometimes(self: Any, *given: Any, limit: int = limit, **exact: bool) -> Any:
            nonlocal calls
            calls += 1
            if calls > limit % 7 + 1:
                raise KeyboardInterrupt
            return original(self, *given, **exact)

        monkeypatch.setattr(radius_search.RadiusSearch, "_run_attack", sometimes)
        try:
            found = attacked(model, x, y, home=tmp_path, **asked)
            break
        except KeyboardInterrupt:
            stops += 1
    monkeypatch.setattr(radius_search.RadiusSearch, "_run_attack", original)
    assert stops > 3
    for name, values in whole.arrays.items():
        assert np.array_equal(values, found.arrays[name]), name
    again = attacked(model, x, y, home=tmp_path, **asked)
    assert again.facts == json.loads(json.dumps(found.facts))
    assert not list(tmp_path.glob("*/chunks"))


def attack_in_process(run: Path) -> None:
    torch.set_num_threads(1)
    measure.autotune_attack = plainly
    measure.LARGEST_CHUNK, radius_search.SAVE_SECONDS = 32, 0.0
    asked = Robustness(
        radii="0:0.2:0.05", protocol=[{"pgd": {"steps": 20}}, {"apgd": {"steps": 30}}], audit=False
    )
    attack_run.attack_run(RunFolder(run), asked, base=run)


def _saved(run: Path) -> float:
    """Changes whenever a chunk has been saved, whole or under way."""
    times = []
    for file in run.glob("robustness/*/chunks/*.npz"):
        with suppress(FileNotFoundError):
            times.append(file.stat().st_mtime)
    return max(times, default=0)


@pytest.mark.slow
def test_killed_again_and_again_it_finds_the_same(digits_run: sl.Run, tmp_path: Path) -> None:
    import shutil

    whole, killed = tmp_path / "whole" / "run" / "seed-0", tmp_path / "killed" / "run" / "seed-0"
    for place in (whole, killed):
        shutil.copytree(digits_run.folder, place)
    reference = PROCESSES.Process(target=attack_in_process, args=(whole,))
    reference.start()
    reference.join(240)
    assert reference.exitcode == 0
    kills, seen = 0, 0
    while True:  # killed as soon as something new has been saved
        process = PROCESSES.Process(target=attack_in_process, args=(killed,))
        process.start()
        while process.exitcode is None and _saved(killed) <= seen:
            time.sleep(0.005)
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        seen, kills = _saved(killed), kills + 1
    assert process.exitcode == 0
    assert kills > 5
    (first,), (second,) = (sorted((place / "robustness").glob("*/result.npz")) for place in (whole, killed))
    a, b = np.load(first), np.load(second)
    assert set(a) == set(b)
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_a_folder_of_another_model_is_not_taken_for_this_one(
    digits_run: sl.Run, images: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    attacked(digits_run.model(), *images, home=tmp_path, radii=0.1, protocol=["fgsm"])
    other = digits_run.model()
    with torch.no_grad():
        next(other.parameters()).mul_(1.5)
    with pytest.raises(ConfigError, match="another model"):
        attacked(other, *images, home=tmp_path, radii=0.1, protocol=["fgsm"])


def test_another_model_of_the_same_weights_is_another_model(
    tmp_path: Path, digits_run: sl.Run, images: tuple[Tensor, Tensor]
) -> None:
    class Quantised(nn.Module):
        def __init__(self, net: nn.Module, levels: int) -> None:
            super().__init__()
            self.net, self.levels = net, levels

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.net((x * self.levels).round() / self.levels)
            return out

    attacked(Quantised(digits_run.model(), 255), *images, home=tmp_path, radii=0.1, protocol=["fgsm"])
    with pytest.raises(ConfigError, match="another model"):
        attacked(Quantised(digits_run.model(), 2), *images, home=tmp_path, radii=0.1, protocol=["fgsm"])


def test_a_changed_attack_of_ones_own(
    tmp_path: Path, digits_run: sl.Run, images: tuple[Tensor, Tensor]
) -> None:
    file = tmp_path / "mine.py"
    asked: dict[str, Any] = {"radii": 0.1, "protocol": [f"{file}:mine"]}
    keys = set()
    for share in (0.5, 1.0):
        file.write_text(
            f"def mine(model, x, y, ball):\n    return (x + {share} * ball.radius(x)).clamp(0, 1)\n"
        )
        keys.add(attacked(digits_run.model(), *images, home=tmp_path / "out", **asked).facts["key"])
    assert len(keys) == 2
