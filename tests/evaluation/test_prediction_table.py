"""Files of predictions that other programs wrote: which column is which, and what is refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from stresslens.core.errors import ConfigError, DataError
from stresslens.evaluation.paired_predictions import shared_images
from stresslens.evaluation.prediction_rows import ROWS
from stresslens.evaluation.prediction_table import read_predictions
from stresslens.evaluation.true_labels import read_labels

PROBABILITIES = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3]], np.float32)


def written(path: Path, rows: list[list[Any]], delimiter: str = ",") -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def rows_of_probabilities(*columns: str) -> list[list[Any]]:
    return [
        ["file", "label", *columns],
        *[[f"{k}.png", k % 3, *map(float, row)] for k, row in enumerate(PROBABILITIES)],
    ]


@pytest.mark.parametrize("prefix", ["prob_", "p_", "score_", "probabilities.", "Prob ", "logits_"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_of_scores_are_known_by_their_names(tmp_path: Path, prefix: str, delimiter: str) -> None:
    rows = rows_of_probabilities(*(f"{prefix}{k}" for k in range(3)))
    table = read_predictions(written(tmp_path / "a.csv", rows, delimiter))
    assert (table.kind, table.classes, table.names) == (
        "logits",
        ("0", "1", "2"),
        ("0.png", "1.png", "2.png"),
    )
    np.testing.assert_allclose(softmax(table.scores, 1), PROBABILITIES, atol=1e-6)
    assert table.labels.tolist() == [0, 1, 2]


def test_numbers_of_classes_are_put_in_order_and_words_name_them(tmp_path: Path) -> None:
    rows = [["y", "prob_10", "prob_2", "prob_1"], [2, 0.1, 0.7, 0.2]]
    table = read_predictions(written(tmp_path / "a.csv", rows), classes=["1", "2", "10"])
    np.testing.assert_allclose(np.exp(table.scores), [[0.2, 0.7, 0.1]], atol=1e-6)
    assert table.labels.tolist() == [1]
    rows = [["truth", "prob_cat", "prob_dog"], ["dog", 0.25, 0.75], [0, 0.5, 0.5]]
    with pytest.raises(DataError, match=r"the label '0' is no class; valid: cat, dog"):
        read_predictions(written(tmp_path / "b.csv", rows))
    rows = [["truth", "prob_cat", "prob_dog"], [1, 0.25, 0.75], [0, 0.5, 0.5]]
    assert read_predictions(written(tmp_path / "c.csv", rows)).labels.tolist() == [1, 0]


def test_answers_alone(tmp_path: Path) -> None:
    rows = [["image", "target", "pred", "place"], ["a", "cat", "dog", "x"], ["b", "dog", "dog", "y"]]
    table = read_predictions(written(tmp_path / "a.csv", rows))
    assert (table.kind, table.classes) == ("answers", ("cat", "dog"))
    assert table.scores.tolist() == [[0, 1], [0, 1]]
    assert table.columns["place"].tolist() == ["x", "y"]
    assert "no scores" in table.notes[0]


@pytest.mark.parametrize("form", ["rows", "lists", "table", "lines", "nested", "list column", "npz"])
def test_forms_of_files(tmp_path: Path, form: str) -> None:
    labels = [0, 2, 1]
    objects = [
        {"id": f"{k}", "label": label, **{f"prob_{j}": float(p) for j, p in enumerate(row)}}
        for k, (label, row) in enumerate(zip(labels, PROBABILITIES))
    ]
    path = tmp_path / "a.json"
    if form == "rows":
        path.write_text(json.dumps(objects))
    elif form == "lists":
        path.write_text(json.dumps({name: [row[name] for row in objects] for name in objects[0]}))
    elif form == "table":
        path.write_text(
            json.dumps({"columns": list(objects[0]), "data": [list(r.values()) for r in objects]})
        )
    elif form == "lines":
        path = tmp_path / "a.jsonl"
        path.write_text("\n".join(map(json.dumps, objects)) + "\n\n")
    elif form == "nested":
        nested = [
            {"label": y, "scores": {str(k): float(v) for k, v in enumerate(p)}}
            for y, p in zip(labels, PROBABILITIES)
        ]
        path.write_text(json.dumps(nested))
    elif form == "list column":
        path = written(
            tmp_path / "a.csv",
            [
                ["label", "logits"],
                *[[y, json.dumps(np.log(p).tolist())] for y, p in zip(labels, PROBABILITIES)],
            ],
        )
    else:
        path = tmp_path / "a.npz"
        np.savez(path, predictions=np.log(PROBABILITIES), label_ids=np.array(labels))
    table = read_predictions(path)
    assert table.labels.tolist() == labels
    np.testing.assert_allclose(softmax(table.scores, 1), PROBABILITIES, atol=1e-5)


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"label": [0, 1], "probabilities": [[0.5, 0.5], [0.25, 0.75]]})
    parquet.write_table(table, tmp_path / "a.parquet")
    found = read_predictions(tmp_path / "a.parquet")
    np.testing.assert_allclose(np.exp(found.scores), [[0.5, 0.5], [0.25, 0.75]])
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:60])
    with pytest.raises(DataError, match=r"b\.parquet cannot be read as parquet"):
        read_predictions(tmp_path / "b.parquet")


def test_what_pipelines_return_needs_labels_of_another_file(tmp_path: Path) -> None:
    pipeline = [[{"label": "dog", "score": 0.9}, {"label": "cat", "score": 0.1}]]
    (tmp_path / "a.json").write_text(json.dumps(pipeline))
    with pytest.raises(DataError, match=r"has no column of true labels .* \(--labels FILE\)"):
        read_predictions(tmp_path / "a.json")
    labels = read_labels(
        written(tmp_path / "truth.csv", [["file", "label"], ["x.png", "cat"], ["y.png", "dog"]])
    )
    assert labels.by_name == {"x.png": "cat", "y.png": "dog"}
    answers = written(tmp_path / "timm.csv", [["filename", "label"], ["y.png", "cat"], ["x.png", "cat"]])
    table = read_predictions(answers, labels=labels)
    assert [table.classes[k] for k in table.labels] == ["dog", "cat"]
    assert table.scores.argmax(1).tolist() == [0, 0]
    with pytest.raises(DataError, match=r"1 of the images of .*more\.csv have no label: z\.png"):
        read_predictions(written(tmp_path / "more.csv", [["file", "pred"], ["z.png", "cat"]]), labels=labels)


def test_columns_can_be_named(tmp_path: Path) -> None:
    rows = [["pic", "klass", "cls_a", "cls_b"], ["1", "a", 0.9, 0.1]]
    path = written(tmp_path / "a.csv", rows)
    table = read_predictions(path, columns={"name": "pic", "label": "klass", "scores": "cls_"})
    assert (table.names, table.classes) == (("1",), ("a", "b"))
    with pytest.raises(ConfigError, match=r"has no column 'clas'; did you mean 'klass'\?"):
        read_predictions(path, columns={"label": "clas"})
    with pytest.raises(ConfigError, match=r"columns: unknown key; did you mean 'label'\?"):
        read_predictions(path, columns={"lable": "klass"})
    with pytest.raises(ConfigError, match=r"no columns that begin with 'zzz'"):
        read_predictions(path, columns={"label": "klass", "scores": "zzz"})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["file", "label", "prob_0", "prob_1"]], "has no rows"),
        ([], "has no line of column names"),
        ([["label", "label", "pred"], [0, 1, 1]], "has the column 'label' more than once"),
        ([["label", "pred"], [0, 1, 1]], r":2: more values than columns"),
        ([["label", "pred"], ["cat", "dog"], ["", "dog"]], r":3: the column 'label' is empty"),
        ([["label", "prob_0", "prob_1"], [0, 0.5, 0.5], [1, "?", 0.5]], r":3: '\?' in the column 'prob_0'"),
        ([["label", "prob_0", "prob_1"], [0, 0.5, 0.5], [1, 0.2, 0.5]], r"1 of 2 rows .*\(row 2: 0\.7\)"),
        ([["label", "prob_0", "prob_1"], [5, 0.5, 0.5]], r"the label 5 is no class; 2 classes count from 0"),
        ([["label", "prob_0", "prob_1"], [0, "nan", "nan"]], "no row has scores that are all numbers"),
        ([["label", "pred"], ["a", "a"]], "all rows have one class"),
        ([["file", "colour"], ["a", "b"]], "has no column of true labels"),
        ([["label", "colour"], ["a", "b"]], "has neither predictions"),
        ([["label", "prob_0", "prob_1", "prob_2"], ["cat", 0.2, 0.3, 0.5]], r"give the classes .*--classes"),
        (
            [["file", "label", "pred"], ["a", "x", "y"], ["a", "y", "y"]],
            r"a is in two rows \(1 and 2\) with different values",
        ),
    ],
)
def test_what_is_refused(tmp_path: Path, rows: list[list[Any]], message: str) -> None:
    with pytest.raises((DataError, ConfigError), match=message):
        read_predictions(written(tmp_path / "a.csv", rows))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"{", r"a\.json:1: this is no JSON"),
        ("a.json", b"3", "holds no list of predictions"),
        ("a.json", b"[3]", "entry 1 is int"),
        ("a.json", b'[[{"x": 1}]]', "entry 1 is a list"),
        ("a.json", b'{"label": [1], "pred": [1, 2]}', r"different lengths \(label 1, pred 2\)"),
        ("a.jsonl", b'{"label": 1}\n{', r"a\.jsonl:2: this is no JSON"),
        ("a.npz", b"PK", "is no npz file"),
        ("a.csv", b"label,pred\n\xff\xff,1\n", "cannot be read as UTF-8"),
        ("a.bin", b"", "a file of predictions ends in"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_predictions(tmp_path / name)


def test_repeated_rows_count_once_and_zero_and_nan_are_told(tmp_path: Path) -> None:
    rows = [["file", "label", "prob_0", "prob_1"], ["a", 0, 1, 0], ["b", 1, "nan", 0.5], ["a", 0, 1, 0]]
    table = read_predictions(written(tmp_path / "a.csv", rows))
    assert table.names == ("a", "b")
    assert table.notes == (
        "the scores are probabilities; 2 rows have a probability of 0, which counts as 1e-30",
        "1 row repeats another; each image counts once",
    )
    assert np.isnan(table.scores[1, 0])


@pytest.mark.slow
def test_a_table_longer_than_a_piece(tmp_path: Path) -> None:
    n = ROWS + 10
    rows = [["index", "label", "pred", "id_of_row"], *[[k, k % 2, (k // 2) % 2, f"r{k}"] for k in range(n)]]
    table = read_predictions(written(tmp_path / "a.csv", rows))
    assert len(table) == n
    assert table.labels[-3:].tolist() == [(n - 3) % 2, (n - 2) % 2, (n - 1) % 2]
    assert "id_of_row" not in table.columns
    rows[ROWS + 5][1] = ""
    with pytest.raises(DataError, match=rf"a\.csv:{ROWS + 6}: the column 'label' is empty"):
        read_predictions(written(tmp_path / "a.csv", rows))


@pytest.mark.slow
@given(st.permutations(range(6)), st.sets(st.integers(0, 5), min_size=1))
def test_rows_are_paired_by_name(order: list[int], kept: set[int]) -> None:
    import tempfile

    rows = [["file", "label", "pred"], *[[f"{k}", k % 2, (k // 2) % 2] for k in range(6)]]
    with tempfile.TemporaryDirectory() as folder:
        one = read_predictions(written(Path(folder) / "a.csv", rows))
        other_rows = [rows[0], *[rows[1 + k] for k in order if k in kept]]
        classes = ["0", "1"]
        other = read_predictions(written(Path(folder) / "b.csv", other_rows), classes=classes)
    first, second = shared_images([one, other])
    assert first.names == second.names == tuple(sorted(map(str, kept)))
    np.testing.assert_array_equal(first.labels, second.labels)
    np.testing.assert_array_equal(first.scores, second.scores)
    assert any("left out" in note for note in first.notes) == (len(kept) < 6)


def test_files_that_cannot_be_paired(tmp_path: Path) -> None:
    def table(name: str, *rows: list[Any], head: tuple[str, ...] = ("file", "label", "pred")) -> Any:
        return read_predictions(written(tmp_path / name, [list(head), *rows]))

    one = table("a.csv", ["x", "0", "1"], ["y", "1", "1"])
    with pytest.raises(DataError, match=r"1 images have another label in .*b\.csv than in .*a\.csv: y is 1"):
        shared_images([one, table("b.csv", ["x", "0", "1"], ["y", "0", "1"])])
    with pytest.raises(DataError, match=r"no image is in all 2 files"):
        shared_images([one, table("c.csv", ["z", "0", "1"])])
    with pytest.raises(DataError, match=r"has the classes 0 and 1, and .*d\.csv has a and b"):
        shared_images([one, table("d.csv", ["x", "a", "b"])])
    bare = table("e.csv", ["0", "1"], ["1", "0"], ["1", "1"], head=("label", "pred"))
    with pytest.raises(DataError, match=r"different numbers of rows"):
        shared_images([one, bare])
    ordered = shared_images([one, table("f.csv", ["0", "1"], ["1", "0"], head=("label", "pred"))])
    assert all("paired by their order" in each.notes[-1] for each in ordered)


def test_columns_of_scores_that_count_from_one_are_the_classes_that_they_name(tmp_path: Path) -> None:
    rows = [["label", "prob_1", "prob_2", "prob_3"], [1, 0.8, 0.1, 0.1], [2, 0.1, 0.8, 0.1]]
    table = read_predictions(written(tmp_path / "a.csv", rows))
    assert table.classes == ("1", "2", "3")
    assert table.scores.argmax(1).tolist() == table.labels.tolist() == [0, 1]
    rows += [[0, 0.8, 0.1, 0.1]]
    with pytest.raises(DataError, match=r"the scores are numbered 1 to 3, and labels are 0"):
        read_predictions(written(tmp_path / "b.csv", rows))


def test_words_beside_numbered_scores_are_taken_in_order_and_told(tmp_path: Path) -> None:
    rows = [["label", "prob_0", "prob_1"], ["dog", 0.2, 0.8], ["cat", 0.9, 0.1]]
    table = read_predictions(written(tmp_path / "a.csv", rows))
    assert table.classes == ("cat", "dog")
    assert "the scores are taken to be in the order cat and dog (--classes)" in table.notes


def test_names_may_not_be_empty_and_bytes_are_words(tmp_path: Path) -> None:
    rows = [["file", "label", "pred"], ["a", "x", "y"], ["", "y", "y"]]
    with pytest.raises(DataError, match=r"a\.csv:3: the column 'file' is empty; it holds the name"):
        read_predictions(written(tmp_path / "a.csv", rows))
    np.savez(tmp_path / "b.npz", labels=np.array([b"cat", b"dog"]), preds=np.array(["dog", "dog"]))
    assert read_predictions(tmp_path / "b.npz").classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.json",
            '[{"label": 0, "scores": [0.1, 0.9]}, {"label": 1, "scores": [0.5]}]',
            "different numbers of",
        ),
        ("a.json", '{"columns": 3, "data": [1]}', "expected lists in `columns` and `data`"),
        ("a.json", '{"columns": ["label", "pred"], "data": [[1, 2], 3]}', "row 2 of `data` does not have"),
        ("a.json", '{"columns": ["label", "pred"], "data": [[1, 2, 3]]}', "row 1 of `data` does not have"),
        ("a.json", "[" * 100_000, "cannot be read"),
        ("a.csv", "label,pred\n" + "9" * 5000 + ",1\n\n\n1\n", r"a\.csv:5: fewer values than columns"),
        ("a.csv", 'file,label,pred\n"a\nb",1,0\n\nc,,1\n', r"a\.csv:5: the column 'label' is empty"),
        (
            "a.jsonl",
            '{"label": 1, "pred": 0}\n\n{"label": "", "pred": 0}\n',
            r"a\.jsonl:3: the column 'label'",
        ),
        ("a.npz", "no zip", "is no npz file"),
    ],
)
def test_odd_files_are_refused_with_their_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_predictions(tmp_path / name)


def test_labels_of_many_digits_and_scores_that_begin_with_null(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", [["label", "pred"], ["9" * 5000, "1"], ["1", "1"]])
    assert len(read_predictions(path).classes) == 2
    (tmp_path / "b.json").write_text('[{"label": 0, "scores": null}, {"label": 1, "scores": [0.5, 0.5]}]')
    with pytest.raises(DataError, match=r"b\.json:1: the column 'scores' has no score"):
        read_predictions(tmp_path / "b.json")


def test_lines_of_json_that_lack_a_column_later(tmp_path: Path) -> None:
    lines = ['{"label": 1, "pred": 0}'] * ROWS + ['{"label": 1}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=rf"a\.jsonl:{ROWS + 1}: from here on there is no 'pred'"):
        read_predictions(tmp_path / "a.jsonl")


def test_a_line_of_excel_and_blank_lines_at_the_beginning(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sep=;\nlabel;pred\n1;0\n0;0\n")
    assert read_predictions(tmp_path / "a.csv").labels.tolist() == [1, 0]
    (tmp_path / "b.csv").write_text("\nlabel,pred\n1,0\n0,0\n")
    assert read_predictions(tmp_path / "b.csv").labels.tolist() == [1, 0]


def test_probabilities_that_are_rounded_below_zero_are_probabilities(tmp_path: Path) -> None:
    rows = [["label", "prob_a", "prob_b"], ["a", 1.0000001, -0.0000001], ["b", 0.25, 0.75]]
    table = read_predictions(written(tmp_path / "a.csv", rows))
    np.testing.assert_allclose(np.exp(table.scores[1]), [0.25, 0.75], rtol=1e-6)
    rows = [["label", "prob_a", "prob_b"], ["a", 90, 10], ["b", 25, 75]]
    with pytest.raises(DataError, match="add up to 100; divide percentages by 100"):
        read_predictions(written(tmp_path / "b.csv", rows))


def test_one_hot_labels(tmp_path: Path) -> None:
    labels = np.array([0, 2, 1, 2])
    np.savez(tmp_path / "a.npz", y_true=np.eye(3)[labels], y_pred=np.full((4, 3), 1 / 3))
    assert read_predictions(tmp_path / "a.npz").labels.tolist() == labels.tolist()
    np.savez(tmp_path / "b.npz", y_true=np.full((4, 3), 0.5), y_pred=np.full((4, 3), 1 / 3))
    with pytest.raises(DataError, match="lists that are not one-hot"):
        read_predictions(tmp_path / "b.npz")


def test_predictions_beside_scores_must_agree_with_them(tmp_path: Path) -> None:
    words = ["zebra", "ape"]
    lines = ([words[k], words[k], 0.9 - 0.8 * k, 0.1 + 0.8 * k] for k in (0, 1) * 10)
    rows = [["label", "pred", "prob_0", "prob_1"], *lines]
    path = written(tmp_path / "a.csv", rows)
    with pytest.raises(DataError, match=r"the highest score is not that of the predicted class .*--classes"):
        read_predictions(path)
    table = read_predictions(path, classes=words)
    assert (table.scores.argmax(1) == table.labels).all()


def test_pipelines_that_list_the_best_classes_give_answers(tmp_path: Path) -> None:
    best = [
        [{"label": "dog", "score": 0.6}, {"label": "cat", "score": 0.3}],
        [{"label": "eel", "score": 0.5}],
    ]
    (tmp_path / "a.json").write_text(json.dumps(best))
    np.save(tmp_path / "truth.npy", ["dog", "cat"])
    table = read_predictions(tmp_path / "a.json", labels=read_labels(tmp_path / "truth.npy"))
    assert table.kind == "answers"
    assert [table.classes[k] for k in table.scores.argmax(1)] == ["dog", "eel"]


def test_classes_in_another_order_are_paired(tmp_path: Path) -> None:
    one = written(tmp_path / "a.csv", [["file", "label", "prob_a", "prob_b"], ["x", "b", 0.2, 0.8]])
    other = written(tmp_path / "b.csv", [["file", "label", "prob_b", "prob_a"], ["x", "b", 0.7, 0.3]])
    first, second = shared_images([read_predictions(one), read_predictions(other)])
    assert first.classes == second.classes == ("a", "b")
    assert first.labels.tolist() == second.labels.tolist() == [1]
    np.testing.assert_allclose(np.exp(second.scores), [[0.3, 0.7]], rtol=1e-6)
