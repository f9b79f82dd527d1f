"""Labels as people have them: what is taken, as what, and what is refused in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import stresslens as sl
from stresslens.core.class_names import name_classes
from stresslens.core.errors import DataError, Notice
from stresslens.core.labels import label_numbers, named_labels

Y = [0, 2, 1, 2, 0]
WORDS = [("ant", "bee", "fly")[k] for k in Y]


class Series:
    """What pandas has: a sequence that numpy can convert."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return np.asarray(self.values, dtype)

    def __len__(self) -> int:
        return len(self.values)


@pytest.mark.parametrize(
    "labels",
    [
        WORDS,
        tuple(WORDS),
        np.array(WORDS),
        np.array(WORDS, object),
        np.array(WORDS, "S3"),
        [word.encode() for word in WORDS],
        np.array(WORDS)[:, None],
        Series(np.array(WORDS, object)),
        [np.str_(word) for word in WORDS],
    ],
    ids=["list", "tuple", "str", "object", "bytes", "list of bytes", "(N,1)", "series", "numpy str"],
)
def test_words(labels: Any) -> None:
    y, names = named_labels(labels, None)
    assert (y.tolist(), names) == (Y, ("ant", "bee", "fly"))
    y, names = named_labels(labels, ["fly", "bee", "ant"])
    assert (y.tolist(), names) == ([2, 0, 1, 0, 2], ("fly", "bee", "ant"))
    assert label_numbers(labels, ["fly", "ant", "bee"]).tolist() == [1, 0, 2, 0, 1]


@pytest.mark.parametrize(
    "labels",
    [
        Y,
        *(torch.tensor(Y, dtype=each) for each in (torch.uint8, torch.int8, torch.int16, torch.uint16)),
        *(torch.tensor(Y, dtype=each) for each in (torch.float16, torch.bfloat16, torch.float64)),
        torch.tensor(Y)[:, None],
        np.array(Y, object),
        np.array(Y, np.uint64),
        np.array(Y, float),
        [float(k) for k in Y],
        list(torch.tensor(Y)),
        list(np.array(Y, np.int16)),
        torch.nn.functional.one_hot(torch.tensor(Y)),
        np.eye(3)[Y],
        np.eye(3)[Y].tolist(),
        np.eye(3, dtype=bool)[Y],
        Series(np.array(Y)),
        range(3),
    ],
    ids=lambda labels: f"{type(labels).__name__} {getattr(labels, 'dtype', '')}",
)
def test_numbers(labels: Any) -> None:
    expected = [0, 1, 2] if isinstance(labels, range) else Y
    y, names = named_labels(labels, None)
    assert (y.dtype, y.tolist(), names) == (torch.int64, expected, ("0", "1", "2"))
    assert named_labels(labels, ["ant", "bee", "fly"])[0].tolist() == expected
    assert label_numbers(labels, None).tolist() == expected


@pytest.mark.parametrize(
    ("labels", "numbers", "names"),
    [
        ([1, 3, 2], [0, 2, 1], ("1", "2", "3")),
        ([7, 0, 10], [1, 0, 2], ("0", "7", "10")),
        ([-1, 1, -1], [0, 1, 0], ("-1", "1")),
        ([True, False], [1, 0], ("False", "True")),
        (np.eye(3)[[0, 2, 0]], [0, 2, 0], ("0", "1", "2")),  # a class without images
    ],
)
def test_numbers_are_names_where_no_names_are_given(labels: Any, numbers: list[int], names: Any) -> None:
    y, found = named_labels(labels, None)
    assert (y.tolist(), found) == (numbers, names)


def test_names_that_are_numbers() -> None:
    y, names = named_labels([1, 2, 3, 1], ["1", "2", "3"])
    assert (y.tolist(), names) == ([0, 1, 2, 0], ("1", "2", "3"))
    assert named_labels([0, 1, 2], ["1", "2", "3"])[0].tolist() == [0, 1, 2]
    with pytest.raises(DataError, match=r"may be class numbers, where 0 is '1', or names of classes"):
        named_labels([1, 2, 1], ["1", "2", "3"])
    with pytest.warns(Notice, match="0 is the class called 1"):
        assert label_numbers([1, 2], ["1", "2", "3"]).tolist() == [1, 2]
    assert label_numbers(["1", "2"], ["1", "2", "3"]).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, 1, 0.5], "label 2 is 0.5; expected words, or whole numbers"),
        ([0, float("nan")], "label 1 is nan"),
        ([0, float("inf")], "label 1 is inf"),
        (["cat", None, "dog"], "label 1 is missing"),
        (np.array(["cat", np.nan], object), "label 1 is missing"),
        (["cat", 3], "labels hold 'cat' and others of another kind"),
        (["cat", ""], "label 1 is empty"),
        ([-1, 0, 1], r"label -1 \(image 0\) is below 0"),
        (np.full((4, 3), 1 / 3), r"shape \(4, 3\); rows are taken if each is one-hot"),
        (np.ones((4, 3)), "one-hot"),
        (np.zeros((4, 3, 2)), r"labels have shape \(4, 3, 2\)"),
        (np.array([WORDS, WORDS]), r"labels have shape \(2, 5\)"),
        ([[0, 1], [1]], "labels are not one value for each image"),
        (np.array(["2024-01-01"], "datetime64[D]"), "labels are datetime64"),
        ([object(), object()], "labels hold a object"),
        (np.array([b"\xff"]), "bytes that are not UTF-8"),
        (np.ones(3, complex), "labels are complex128"),
    ],
)
def test_what_is_no_label(labels: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        named_labels(labels, None)


def test_words_that_are_no_class() -> None:
    with pytest.raises(
        DataError, match=r"label 'flly' \(image 1\) is the name of no class; did you mean 'fly'"
    ):
        named_labels(["ant", "flly"], ["ant", "fly"])
    with pytest.raises(DataError, match="the class names of this model are not known; give class numbers"):
        label_numbers(["ant", "fly"], None)


def test_a_model_of_a_run_knows_its_classes(tmp_path: Any) -> None:
    images = np.random.default_rng(0).integers(0, 100, (60, 8, 8, 3), dtype=np.uint8)
    words = np.array(["dark", "bright"])[np.arange(60) % 2]
    images[words == "bright"] += 100
    data = sl.Data.from_arrays(images, words)
    assert data.classes == ("bright", "dark")
    model = sl.train("linear", data, epochs=1, out=tmp_path).model()
    numbers = (words == "dark").astype(int)
    assert sl.evaluate(model, images, words) == sl.evaluate(model, images, numbers)
    options = {"radii": [0.1], "protocol": ["fgsm"], "audit": False}
    found = [sl.attack(model, images, labels, **options) for labels in (words, numbers)]
    assert np.array_equal(found[0].minimal_radius, found[1].minimal_radius)
    why = sl.explain(model, images[:2], "saliency", answers=words[:2])
    assert why.answers.tolist() == numbers[:2].tolist()
    assert sl.verify(model, images, images, words, eps=0.1).broken.shape == (60,)
    with pytest.raises(DataError, match=r"'light' .* is the name of no class"):
        sl.evaluate(model, images[:1], ["light"])


def test_names_belong_to_one_model() -> None:
    named, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    name_classes(named, ["ant", "bee"])
    images = torch.rand(2, 1, 1, 2)
    net = torch.nn.Sequential(torch.nn.Flatten(), other)
    name_classes(net, ["ant", "bee"])
    assert sl.evaluate(net, images, ["ant", "bee"])["accuracy"].n == 2
    with pytest.raises(DataError, match="not known"):
        sl.evaluate(torch.nn.Sequential(torch.nn.Flatten(), other), images, ["ant", "bee"])


def test_two_classes_of_one_name_are_refused() -> None:
    images = np.zeros((60, 8, 8), np.uint8)
    with pytest.raises(DataError, match="two classes are called 'ant'; each needs its own name"):
        sl.Data.from_arrays(images, np.arange(60) % 3, classes=["ant", "ant", "fly"])


@pytest.mark.parametrize(
    "classes",
    [
        [1, 2, 3],
        np.array([1, 2, 3]),
        torch.tensor([1, 2, 3]),
        [1.0, 2.0, 3.0],
        np.array(["1", "2", "3"]),
        [b"1", b"2", b"3"],
        {"2": 1, "1": 0, "3": 2},
        {1: "2", 0: "1", np.int64(2): "3"},
        {"1": 0, "2": 1, "3": 2}.keys(),
    ],
    ids=["ints", "numpy", "tensor", "floats", "numpy str", "bytes", "name: number", "number: name", "keys"],
)
def test_names_become_words(classes: Any) -> None:
    y, names = named_labels(np.array([1, 2, 3, 1]), classes)
    assert (y.tolist(), names) == ([0, 1, 2, 0], ("1", "2", "3"))
    assert [type(name) for name in names] == [str] * 3


@pytest.mark.parametrize(
    "classes",
    [
        3,
        "ant",
        b"ant",
        {"ant", "bee", "fly"},
        frozenset(["ant", "bee", "fly"]),
        ["ant", None, "fly"],
        ["ant", float("nan"), "fly"],
        [["ant"], ["bee"], ["fly"]],
        [b"\xff", "bee", "fly"],
        np.array(3),
        {"ant": 0, "bee": 2, "fly": 3},
        {1: "ant", 2: "bee", 3: "fly"},
        {"ant": "a", "bee": "b", "fly": "c"},
        {0: 1, 1: 0, 2: 2},
    ],
    ids=lambda names: type(names).__name__,
)
def test_names_without_an_order_are_refused(classes: Any) -> None:
    with pytest.raises(DataError, match="expected a list of names in the order of the class numbers"):
        named_labels(Y, classes)
    if isinstance(classes, dict):
        return
    split = sl.Split(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 1, 2]))
    with pytest.raises(DataError, match="expected a list of names in the order of the class numbers"):
        sl.Data(split, None, None, classes)


class Table(Series):
    """What a table of pandas has beside its values: the names of its columns."""

    def __init__(self, values: Any, columns: list[Any]) -> None:
        super().__init__(values)
        self.columns = columns


def test_columns_name_the_classes_of_one_hot_rows() -> None:
    table = Table(np.eye(3, dtype=bool)[Y], ["ant", "bee", "fly"])
    y, names = named_labels(table, None)
    assert (y.tolist(), names) == (Y, ("ant", "bee", "fly"))
    y, names = named_labels(table, ["fly", "bee", "ant"])
    assert (y.tolist(), names) == ([2, 0, 1, 0, 2], ("fly", "bee", "ant"))
    assert label_numbers(table, ["fly", "ant", "bee"]).tolist() == [1, 0, 2, 0, 1]
    assert label_numbers(table, ["a", "b", "c"]).tolist() == label_numbers(table, None).tolist() == Y
    assert label_numbers(np.eye(3)[Y], ["1", "0", "2"]).tolist() == Y
    for classes in (["ant", "bee"], ["ant", "bee", "fly", "owl"]):
        for function in (named_labels, label_numbers):
            with pytest.raises(DataError, match=f"rows of 3 columns, but there are {len(classes)} classes"):
                function(np.eye(3)[Y], classes)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_kinds_of_arrays() -> None:
    for labels in (
        np.array(Y, ">f4"),
        np.array(Y, ">i2"),
        np.array(Y, np.longdouble),
        np.ma.MaskedArray(Y),
        torch.tensor(Y).to_sparse(),
        torch.quantize_per_tensor(torch.tensor(Y).float(), 1, 0, torch.quint8),
    ):
        assert named_labels(labels, None)[0].tolist() == label_numbers(labels, None).tolist() == Y
    if hasattr(np.dtypes, "StringDType"):
        assert named_labels(np.array(WORDS, np.dtypes.StringDType()), None)[0].tolist() == Y


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, 1, 1e300], r"label 2 is 1e\+300; expected words"),
        (np.array([0, 1, -1e30], np.float32), r"label 2 is -1e\+30; expected words"),
        (np.array([0, 1, 2**63], np.uint64), r"label 2 is 9.22337e\+18; expected words"),
        (np.ma.MaskedArray([0, 1, 2], [False, True, False]), r"labels are a masked array.*labels.filled"),
        (torch.empty(3, device="meta"), "labels are a tensor that is on the device meta"),
    ],
)
def test_arrays_that_are_no_labels(labels: Any, said: str) -> None:
    for function in (named_labels, label_numbers):
        with pytest.raises(DataError, match=said):
            function(labels, None)
