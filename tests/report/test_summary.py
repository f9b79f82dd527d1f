"""Recipes whose seeds differ by more than their images explain are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from folders import write_run

from stresslens.report.load import load_study
from stresslens.report.summary import seed_dependence


def test_a_recipe_that_depends_on_its_seed_is_named(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.65, 0.72, 0.82)):
        write_run(tmp_path, "sgd", seed, accuracy=accuracy)
        write_run(tmp_path, "adam", seed, accuracy=0.95 + 0.005 * seed)
    write_run(tmp_path, "alone", 0, accuracy=0.5)
    (sentence,) = seed_dependence(load_study(tmp_path))
    assert sentence.startswith("sgd depends on its seed: 65.0 to 82.0 % over 3 seeds")


@pytest.mark.slow
def test_seeds_of_equal_recipes_are_seldom_called_restless(tmp_path: Path) -> None:
    generator, named, rounds = np.random.default_rng(0), 0, 60
    for k in range(rounds):
        for seed in range(3):
            write_run(tmp_path / str(k), "cnn", seed, pictures=0, accuracy=generator.binomial(360, 0.9) / 360)
        named += bool(seed_dependence(load_study(tmp_path / str(k))))
    assert named <= 8  # 5 % of 60 is 3; more than 8 would come with p < 0.01
