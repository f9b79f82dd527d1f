"""Overrides on the command line: of every run, of a key of the study, of one variant."""

from __future__ import annotations

from pathlib import Path

import pytest
from study_texts import problems, read


def test_overrides_apply_to_every_run_and_show_in_the_folder_name(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "runs: {a: {train.lr: 0.1}, b: {}}\ncontrasts: {c: {pairs: [[a, b]]}}",
        "train.epochs=1",
        "model={mlp: {widths: [3]}}",
    )
    assert [run.name for run in found.variants] == [
        f"{name},train.epochs=1,model=mlp_widths_3-3683b9" for name in "ab"
    ]
    assert all(
        run.config.train.epochs == 1 and run.config.model == {"mlp": {"widths": [3]}}
        for run in found.variants
    )
    assert found.contrasts == [("c", found.variants[0].name, found.variants[1].name)]
    assert problems(tmp_path, "runs: {a: {}}", "train.epochs") == [
        "command line: train.epochs: an override is written key.path=value, for example train.epochs=1"
    ]
    assert "command line: train.epochs=x" in problems(tmp_path, "runs: {a: {}}", "train.epochs=x")[0]


STUDY = "runs: {a: {}, b.c: {train.lr: 0.1}}\ncontrasts: {c: {pairs: [[a, b.c]]}}"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("repeats=2", {"seeds": [0, 1]}),
        ("repeats={folds: 3}", {"seeds": [0, 1, 2]}),
        ("repeats.folds=3", {"seeds": [0, 1, 2]}),
        ("study=other", {"name": "other"}),
        ("executor=ray", {"executor": "ray"}),
        ("contrasts={}", {"contrasts": [("against the first run", "a", "b.c")]}),
        ("contrasts.c.pairs=[[b.c, a]]", {"contrasts": [("c", "b.c", "a")]}),
        (
            "grid={train.epochs: [1, 2]}",
            {"names": ["a,epochs=1", "a,epochs=2", "b.c,epochs=1", "b.c,epochs=2"]},
        ),
        ("grid.train.epochs=[1]", {"names": ["a,epochs=1", "b.c,epochs=1"]}),
        ("grid.train.tune.every=[1]", {"names": ["a,every=1", "b.c,every=1"]}),
        ("data_sizes.sizes=[10, 20]", {"names": ["a,size=10", "a,size=20", "b.c,size=10", "b.c,size=20"]}),
        ("runs.d={model: mlp}", {"names": ["a", "b.c", "d"]}),
        ("track=[tensorboard]", {"names": ["a", "b.c"]}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore::stresslens.core.errors.Notice")
def test_a_key_of_the_study_is_overridden_as_if_the_file_had_it(
    tmp_path: Path, override: str, expected: dict[str, object]
) -> None:
    text = STUDY.partition("\n")[0] if override.startswith(("grid", "data_sizes")) else STUDY
    found = read(tmp_path, text, override)
    names = [variant.name for variant in found.variants]
    assert {**vars(found), "names": names} | expected == {**vars(found), "names": names}
    assert found.overrides == {}, "it is no part of the folders' names"


def test_an_override_of_one_variant(tmp_path: Path) -> None:
    first, second = read(tmp_path, STUDY, "runs.b.c.train.lr=0.5", "runs.a.train.epochs=3").variants
    assert (first.config.train.epochs, second.config.train.lr) == (3, 0.5)


def test_an_override_of_a_sweep(tmp_path: Path) -> None:
    text = "sweep: {trials: 9, space: {train.lr: [0.1, 0.2]}}"
    found = read(tmp_path, text, "sweep.trials=4", "sweep.space.model.hidden=[16, 32]", "sweep.seed=1").sweep
    assert found is not None
    assert (found.trials, found.seed) == (4, 1)
    assert found.space == {"train.lr": [0.1, 0.2], "model.hidden": [16, 32]}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("repeats=0", "greater than or equal to 1"),
        ("executor=slurm", "'local' or 'ray'"),
        ("study=a/b", "not a valid folder name"),
        ("grid=3", "got 3"),
        ("grid.train.epohcs=[1]", "did you mean train.epochs?"),
        ("runs.a.train.epohcs=1", "did you mean train.epochs?"),
        ("runs.a.train.epochs=x", "got 'x'"),
        ("sweep.trails=3", "did you mean 'trials'?"),
        ("contrasts.c.pair=[]", "did you mean 'pairs'?"),
        ("repeats.fold=3", "did you mean 'folds'?"),
        ("data_sizes=5", "got 5"),
    ],
    ids=lambda value: value if "=" in value else "",
)
def test_a_wrong_override_of_a_key_of_the_study(tmp_path: Path, override: str, message: str) -> None:
    found = problems(tmp_path, STUDY, override)
    assert any(line.startswith(f"command line: {override}") and message in line for line in found), found
