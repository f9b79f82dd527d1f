"""The table of what each public function takes: every function with every kind of argument."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import torch
from finished_runs import Finished
from torch import nn

import stresslens as sl


class FitsAndPredicts:
    """An estimator as scikit-learn has it."""

    def fit(self) -> None: ...
    def predict(self) -> None: ...


IMAGES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = [0, 1, 2]

GIVEN: dict[str, Callable[[Finished, Path], Any]] = {
    "a run": lambda s, tmp: s.run,
    "a folder as text": lambda s, tmp: str(s.run.folder),
    "a folder as a Path": lambda s, tmp: s.run.folder,
    "a run of an own module": lambda s, tmp: s.own,
    "a run of an estimator": lambda s, tmp: s.estimator,
    "a folder of an estimator": lambda s, tmp: s.estimator.folder,
    "a study of one run": lambda s, tmp: s.single,
    "a study of two runs": lambda s, tmp: s.study,
    "a variant": lambda s, tmp: s.study.folder / "a",
    "a module": lambda s, tmp: s.net,
    "a class of modules": lambda s, tmp: nn.Linear,
    "an object with fit and predict": lambda s, tmp: FitsAndPredicts(),
    "a number": lambda s, tmp: 5,
    "nothing": lambda s, tmp: None,
    "a missing folder": lambda s, tmp: tmp / "missing",
    "another folder": lambda s, tmp: tmp,
}
RUNS = [kind for kind in GIVEN if kind.startswith(("a run", "a folder"))] + ["a variant"]

FUNCTIONS: dict[str, Callable[[Any, Path], Any]] = {
    "attack, own images": lambda given, tmp: sl.attack(
        given, radii="2/255", protocol=["fgsm"], n_images=5, audit=False
    ),
    "attack, images": lambda given, tmp: sl.attack(
        given, IMAGES, LABELS, radii=0.1, protocol=["fgsm"], audit=False
    ),
    "verify, own images": lambda given, tmp: sl.verify(given, IMAGES, eps="8/255"),
    "verify, images": lambda given, tmp: sl.verify(given, IMAGES, IMAGES, LABELS, eps=0.1),
    "explain, own images": lambda given, tmp: sl.explain(given, explainer="occlusion", n_images=2),
    "explain, images": lambda given, tmp: sl.explain(given, IMAGES, "occlusion"),
    "predict": lambda given, tmp: sl.predict(given, IMAGES),
    "evaluate, own images": lambda given, tmp: sl.evaluate(given),
    "evaluate, images": lambda given, tmp: sl.evaluate(given, IMAGES, LABELS),
    "layer_table": lambda given, tmp: sl.layer_table(given),
    "layer_table, shape": lambda given, tmp: sl.layer_table(given, (1, 8, 8)),
    "load": lambda given, tmp: sl.load(given),
    "export": lambda given, tmp: sl.export(given, "safetensors", out=tmp / "exported"),
    "open": lambda given, tmp: sl.open(given),
    "compare": lambda given, tmp: sl.compare(given),
    "compare with itself": lambda given, tmp: sl.compare(given, given),
    "ensemble": lambda given, tmp: sl.ensemble(given, out=tmp),
    "write_report": lambda given, tmp: sl.write_report(given),
    "check_data": lambda given, tmp: sl.check_data(given),
    "compare_data": lambda given, tmp: sl.compare_data(given, "digits", split_b="test"),
    "find_label_errors": lambda given, tmp: sl.find_label_errors(given),
    "train, model": lambda given, tmp: sl.train(given, {"digits": {"subset": 20}}, out=tmp, epochs=1),
    "train, data": lambda given, tmp: sl.train("linear", given, out=tmp, epochs=1),
    "find_lr, model": lambda given, tmp: sl.find_lr(given, {"digits": {"subset": 100}}, repeats=1),
    "find_lr, data": lambda given, tmp: sl.find_lr("linear", given, repeats=1),
    "run": lambda given, tmp: sl.run(given, out=tmp),
    "ablate": lambda given, tmp: sl.ablate(given, out=tmp),
    "as_model": lambda given, tmp: sl.as_model(given),
    "attack, surrogate": lambda given, tmp: sl.attack(
        nn.Sequential(nn.Flatten(), nn.Linear(64, 10)),
        IMAGES,
        LABELS,
        radii=0.1,
        protocol=[{"transfer": {}}],
        surrogate=given,
        audit=False,
    ),
}

OK = ""
SEVERAL = r"holds 2 runs: .*; give one of them"
NO_RUN = "there is no such folder|is not the folder of a run"
NOT_A_MODEL = {
    "a class of modules": r"is the class Linear; make a module of it: Linear\(…\)",
    "an object with fit and predict": "is not fitted",
    "a number": "is an int; expected a torch.nn.Module",
    "nothing": "is None; expected a torch.nn.Module",
}
NOT_A_RUN = dict.fromkeys(
    ("a module", "a class of modules", "an object with fit and predict", "a number", "nothing"),
    r"expected a run \(of sl\.train or sl\.open\) or its folder",
)
NOT_DATA = "expected a plug-in by name, the path of your images"


def row(*, estimators: str = OK, **changes: str) -> dict[str, str]:
    """A row of the table, with the message of each kind that is refused; the others work. `changes` have
    `_` for blanks."""
    cells = dict.fromkeys(GIVEN, OK) | {"a missing folder": NO_RUN, "another folder": NO_RUN}
    cells |= {"a study of two runs": SEVERAL, **NOT_A_MODEL}
    cells |= dict.fromkeys(("a run of an estimator", "a folder of an estimator"), estimators)
    return cells | {kind.replace("_", " "): message for kind, message in changes.items()}


def row_of_runs(*, estimators: str = OK, **changes: str) -> dict[str, str]:
    """A row of a function that takes no module."""
    cells = {**row(estimators=estimators), **NOT_A_RUN}
    return cells | {kind.replace("_", " "): message for kind, message in changes.items()}


WITHOUT_GRADIENTS = "has no gradient, and the attack fgsm follows it"
WITHOUT_LAYERS = "the run of an estimator, which has no layers"
A_FOLDER = "study is the folder .*; expected a study file or a dictionary"
NOT_TRAINED = "expected a plug-in by name or a torch.nn.Module"
OF_RUNS = "is a folder of runs that stresslens trained, not of images"
TWICE = "a folder is given twice"
NO_FOLDER = dict.fromkeys(("a missing folder", "another folder"), "is not the folder of a run")
AS_MODEL = {
    **dict.fromkeys(GIVEN, NOT_TRAINED),
    "a module": OK,
    "a class of modules": r"make a module of it: Linear\(…\)",
    "a run": r"for more epochs, repeat the call of the run with name= and epochs=; .* its model\(\)",
    "a folder as text": "no model is called",
}
AS_DATA = {
    **dict.fromkeys(GIVEN, OF_RUNS),
    **dict.fromkeys(NOT_A_RUN, NOT_DATA),
    "a missing folder": "there is no",
    "another folder": "holds 0 image files",
}
AS_STUDY = {
    **dict.fromkeys(GIVEN, A_FOLDER),
    **dict.fromkeys(NOT_A_RUN, "study is .*; expected a path"),
    "a missing folder": "No such file or directory",
}

TABLE: dict[str, Mapping[str, str]] = {
    "attack, own images": row(a_module="attack needs images", estimators=WITHOUT_GRADIENTS),
    "attack, images": row(estimators=WITHOUT_GRADIENTS),
    "attack, surrogate": row(
        nothing="the attack transfer needs a surrogate", estimators="has no gradient to lend"
    ),
    "as_model": {
        **dict.fromkeys(GIVEN, "expected a module, a function of images, a fitted classifier"),
        "a module": OK,
        "an object with fit and predict": "is not fitted",
    },
    "verify, own images": row(a_module="verify needs the images, their labels and eps"),
    "verify, images": row(),
    "explain, own images": row(a_module="explain needs images"),
    "explain, images": row(),
    "predict": row(),
    "evaluate, own images": row(a_module="evaluate needs images"),
    "evaluate, images": row(),
    "layer_table": row(a_module="layer_table needs the shape", estimators=WITHOUT_LAYERS),
    "layer_table, shape": row(estimators=WITHOUT_LAYERS),
    "load": row_of_runs(),
    "export": row_of_runs(a_module="run is a module; export takes a run", estimators="the estimator knn"),
    "open": row_of_runs(a_study_of_two_runs=OK),
    "compare": {
        **row_of_runs(a_module="a module, which has no predictions", a_study_of_two_runs=OK),
        **dict.fromkeys(RUNS, "give at least one more to compare it with"),
        **NO_FOLDER,
    },
    "compare with itself": {
        **row_of_runs(a_module="a module, which has no predictions"),
        **dict.fromkeys(RUNS, TWICE),
        **NO_FOLDER,
        **dict.fromkeys(("a study of one run", "a study of two runs"), "compare takes one study"),
    },
    "ensemble": {
        **row_of_runs(a_run_of_an_own_module="was trained on your own module"),
        **dict.fromkeys(NOT_A_RUN, "expected a path"),
        "a study of two runs": "name one of its variants",
        "another folder": "it has no config.yaml",
    },
    "write_report": row_of_runs(
        a_module="a module, which has no report",
        a_variant="is not a study's folder",
        a_study_of_two_runs=OK,
        a_missing_folder="there is no run in",
        another_folder="there is no run in",
    ),
    "check_data": {
        **row(a_missing_folder="there is no", another_folder="holds 0 image files"),
        **dict.fromkeys(NOT_A_RUN, NOT_DATA),
    },
    "compare_data": {
        **row(a_missing_folder="there is no", another_folder="holds 0 image files"),
        **dict.fromkeys(NOT_A_RUN, NOT_DATA),
    },
    "find_label_errors": {
        **row(a_missing_folder="there is no", another_folder="holds 0 image files"),
        **dict.fromkeys(NOT_A_RUN, NOT_DATA),
        "a study of two runs": "has the variants a, b; give the folder of one",
    },
    "train, model": AS_MODEL,
    "train, data": AS_DATA,
    "find_lr, model": AS_MODEL,
    "find_lr, data": AS_DATA,
    "run": AS_STUDY,
    "ablate": AS_STUDY,
}


def test_every_cell_is_filled() -> None:
    assert TABLE.keys() == FUNCTIONS.keys()
    functions = {name for name in sl.__all__ if isinstance(getattr(sl, name), FunctionType)}
    functions -= {"compare_across", "prediction_sets"}  # of several studies, and of arrays
    assert functions == {name.partition(",")[0].partition(" ")[0] for name in FUNCTIONS}
    assert all(cells.keys() == GIVEN.keys() for cells in TABLE.values())


@pytest.mark.breadth
@pytest.mark.parametrize("kind", GIVEN)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_table(function: str, kind: str, subjects: Finished, tmp_path: Path) -> None:
    given, message = GIVEN[kind](subjects, tmp_path), TABLE[function][kind]
    if message == OK:
        assert FUNCTIONS[function](given, tmp_path) is not None
        return
    with pytest.raises(sl.StresslensError, match=message) as caught:
        FUNCTIONS[function](given, tmp_path)
    assert "--" not in str(caught.value), "a message in the words of Python"
