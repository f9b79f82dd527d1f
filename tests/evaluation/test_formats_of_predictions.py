"""Files as other programs write them: timm's top classes, ultralytics' texts, tensors and arrays."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stresslens.core.errors import DataError
from stresslens.evaluation.paired_predictions import shared_images
from stresslens.evaluation.prediction_rows import is_prediction_file
from stresslens.evaluation.prediction_table import PredictionTable, read_predictions
from stresslens.evaluation.true_labels import read_labels

CLASSES = ("ant", "bee", "cat")
SCORES = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.25, 0.5, 0.25], [0.05, 0.15, 0.8]])
TRUTH = ["ant", "cat", "ant", "cat"]
NAMES = [f"{k}.jpg" for k in range(4)]


def write(path: Path, columns: dict[str, Any]) -> Path:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(columns)
        table.writerows(zip(*columns.values()))
    return path


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return write(tmp_path / "truth.csv", {"file": [f"val/{name}" for name in NAMES], "label": TRUTH})


def check(table: PredictionTable, *, scored: bool) -> None:
    assert [table.classes[k] for k in table.labels] == TRUTH
    if scored:
        assert (table.classes, table.kind) == (CLASSES, "logits")
        np.testing.assert_allclose(np.exp(table.scores), SCORES, rtol=1e-5)
    else:
        assert table.kind == "answers"
        assert [table.classes[k] for k in table.scores.argmax(1)] == ["ant", "cat", "bee", "cat"]


def ranked(k: int) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(-SCORES, 1, kind="stable")[:, :k]
    return np.array(CLASSES, object)[order], np.take_along_axis(SCORES, order, 1)


@pytest.mark.parametrize("k", [2, 3])
def test_ranked_columns_of_timm(tmp_path: Path, truth: Path, k: int) -> None:
    labels, scores = ranked(k)
    columns = {"filename": NAMES} | {f"label_{r}": labels[:, r] for r in range(k)}
    file = write(tmp_path / "timm.csv", columns | {f"prob_{r}": scores[:, r] for r in range(k)})
    check(read_predictions(file, labels=read_labels(truth)), scored=k == 3)


@pytest.mark.parametrize("k", [2, 3])
def test_ranked_lists_of_timm_as_numpy_prints_them(tmp_path: Path, truth: Path, k: int) -> None:
    labels, scores = ranked(k)
    columns = {"filename": NAMES, "label": map(str, labels), "prob": map(str, scores)}
    file = write(tmp_path / "timm.csv", columns)
    check(read_predictions(file, labels=read_labels(truth)), scored=k == 3)


def test_all_scores_of_timm_as_numpy_prints_them(tmp_path: Path, truth: Path) -> None:
    file = write(tmp_path / "timm.csv", {"filename": NAMES, "prob": map(str, SCORES)})
    check(read_predictions(file, labels=read_labels(truth), classes=CLASSES), scored=True)
    cut = write(tmp_path / "cut.csv", {"filename": NAMES, "prob": ["[0.1 ... 0.9]"] * 4})
    with pytest.raises(DataError, match=r"cut\.csv:2: '\[0\.1 \.\.\. 0\.9\]' in the column"):
        read_predictions(cut, labels=read_labels(truth), classes=CLASSES)


def test_scores_in_the_order_of_their_size_are_refused(tmp_path: Path) -> None:
    rows = -np.sort(-np.random.default_rng(0).dirichlet([1, 1, 1], 20), 1)
    columns = {"file": range(20), "label": ["0", "1"] * 10} | {f"prob_{k}": rows[:, k] for k in range(3)}
    with pytest.raises(DataError, match="in the order of their size"):
        read_predictions(write(tmp_path / "a.csv", columns))
    constant = columns | {f"prob_{k}": [share] * 20 for k, share in enumerate([0.5, 0.3, 0.2])}
    assert read_predictions(write(tmp_path / "b.csv", constant)).kind == "logits"


@pytest.mark.parametrize("k", [2, 3])
def test_text_files_of_ultralytics(tmp_path: Path, truth: Path, k: int) -> None:
    folder = tmp_path / "predict" / "labels"
    folder.mkdir(parents=True)
    for name, row, values in zip(NAMES, *ranked(k)):
        lines = [f"{value:.2f} {label}\n" for label, value in zip(row, values)]
        (folder / f"{Path(name).stem}.txt").write_text("".join(lines))
    assert is_prediction_file(folder)
    assert not is_prediction_file(tmp_path)
    check(read_predictions(folder, labels=read_labels(truth)), scored=k == 3)
    (folder / "2.txt").write_text("0.5 bee\nbee 0.5\n")
    with pytest.raises(DataError, match=r"2\.txt: expected a probability and a class in each line"):
        read_predictions(folder, labels=read_labels(truth))


def test_tensors_by_name_in_batches_and_as_pairs(tmp_path: Path) -> None:
    scores, labels = torch.tensor(SCORES).float(), torch.tensor([0, 2, 0, 2])
    whole = {"preds": scores, "target": labels, "half": ["a", "a", "b", "b"]}
    batches = [{name: values[rows] for name, values in whole.items()} for rows in (slice(3), slice(3, 4))]
    for saved in (whole, batches, (scores, labels), [(scores[:1], labels[:1]), (scores[1:], labels[1:])]):
        torch.save(saved, tmp_path / "a.pt")
        check(read_predictions(tmp_path / "a.pt", classes=CLASSES), scored=True)
    torch.save(whole, tmp_path / "a.pt")
    assert list(read_predictions(tmp_path / "a.pt").columns) == ["half"]


def test_arrays_with_labels_in_order(tmp_path: Path) -> None:
    np.save(tmp_path / "scores.npy", SCORES)
    np.save(tmp_path / "labels.npy", [0, 2, 0, 2])
    labels = read_labels(tmp_path / "labels.npy")
    check(read_predictions(tmp_path / "scores.npy", labels=labels, classes=CLASSES), scored=True)
    np.save(tmp_path / "more.npy", np.repeat(SCORES, 2, 0))
    with pytest.raises(DataError, match=r"more\.npy has more rows than .*labels\.npy has labels \(4\)"):
        read_predictions(tmp_path / "more.npy", labels=labels)
    np.save(tmp_path / "fewer.npy", SCORES[:2])
    with pytest.raises(DataError, match=r"fewer\.npy has 2 rows, and .*labels\.npy has 4 labels"):
        read_predictions(tmp_path / "fewer.npy", labels=labels)


class _Own:
    pass


def test_files_of_torch_that_are_no_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    for saved, said in (
        (_Own(), "holds more than tensors"),
        ({}, "holds no tensors"),
        ([], "its batches hold different things"),
        ([{"preds": torch.zeros(2)}, {"target": torch.zeros(2)}], "its batches hold different things"),
        (torch.zeros(2, 2, 2), "holds no tensors"),
    ):
        torch.save(saved, path)
        with pytest.raises(DataError, match=said):
            read_predictions(path)
    path.write_bytes(b"no tensors")
    with pytest.raises(DataError, match=r"a\.pt"):
        read_predictions(path)


def test_files_with_and_without_folders_are_paired(tmp_path: Path) -> None:
    columns = {f"prob_{name}": SCORES[:, k] for k, name in enumerate(CLASSES)}
    paths = write(tmp_path / "a.csv", {"file": [f"val\\{n}" for n in NAMES], "label": TRUTH, **columns})
    order = [2, 0, 3, 1]
    bare = {name: [list(values)[k] for k in order] for name, values in columns.items()}
    names, truth = [NAMES[k].removesuffix(".jpg") for k in order], [TRUTH[k] for k in order]
    stems = write(tmp_path / "b.csv", {"file": names, "label": truth, **bare})
    one, other = shared_images([read_predictions(paths), read_predictions(stems)])
    assert one.names == other.names == ("0", "1", "2", "3")
    np.testing.assert_array_equal(one.scores, other.scores)
    assert "without folders" in one.notes[-1]
    strange = write(tmp_path / "c.csv", {"file": ["x", "y", "z", "w"], "label": TRUTH, **columns})
    with pytest.raises(
        DataError, match=r"no image is in all 2 files: .*a\.csv has val.0\.jpg, .*c\.csv has x"
    ):
        shared_images([read_predictions(paths), read_predictions(strange)])
