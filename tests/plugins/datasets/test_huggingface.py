"""Data sets of Hugging Face: parquet, saved Arrow files, the hub with its package in place of which a
small one stands, and what is refused in words."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hugging_face_files import pictures, png, save_to_disk, table_of, write_parquet

from stresslens.config import registry
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.image_files import Frame, decode

CATS = ["cat", "dog"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(path: str, **options: Any) -> Data:
    data: Data = registry.resolve("datasets", {"huggingface": {"path": path, **options}})()
    return data


def labels(n: int) -> list[int]:
    return [k % 2 for k in range(n)]


def sizes(data: Data) -> dict[str, int]:
    return {name: len(split) for name, split in data.splits.items()}


def clone(folder: str = "set", **splits: int) -> Path:
    """A folder as a clone of a data set of the hub has it."""
    for seed, (split, n) in enumerate(splits.items()):
        write_parquet(
            Path(folder) / "data" / f"{split}-00000-of-00001.parquet", pictures(n, seed), labels(n), CATS
        )
    return Path(folder)


def test_a_clone_of_the_hub_is_read_by_its_splits() -> None:
    clone(train=20, validation=6, test=8)
    data = load("set")
    assert sizes(data) == {"train": 20, "validation": 6, "test": 8}
    assert data.classes == ("cat", "dog")
    assert data.name == "set"
    assert data.parts == "train, validation, test as given"
    for seed, split in enumerate(data.splits.values()):
        expected = [decode(each, Frame(3, None)).pixels for each in pictures(len(split), seed)]
        assert np.array_equal(split.images[:].numpy(), np.stack(expected))
        assert split.labels.tolist() == labels(len(split))


def test_shards_of_a_split_follow_each_other() -> None:
    for k in range(3):
        write_parquet(Path("set") / f"train-{k:05d}-of-00003.parquet", pictures(10, k), labels(10), CATS)
    data = load("set", test=0, validation=0)
    expected = [decode(each, Frame(3, None)).pixels for k in range(3) for each in pictures(10, k)]
    assert np.array_equal(data.train.images[:].numpy(), np.stack(expected))


def test_folders_of_splits_and_a_single_file_are_read() -> None:
    write_parquet(Path("set") / "train" / "0000.parquet", pictures(20), labels(20), CATS)
    write_parquet(Path("set") / "test" / "0000.parquet", pictures(6, 1), labels(6), CATS)
    assert sizes(load("set", validation=0)) == {"train": 20, "test": 6}
    write_parquet(Path("mine.parquet"), pictures(20), ["cat", "dog"] * 10)
    data = load("mine.parquet", test=4, validation=4)
    assert (data.classes, sizes(data)) == (("cat", "dog"), {"train": 12, "validation": 4, "test": 4})


def test_what_save_to_disk_wrote_is_read() -> None:
    tables = {"train": table_of(pictures(20), labels(20), CATS), "test": table_of(pictures(6, 1), labels(6))}
    save_to_disk(Path("saved"), tables)
    data = load("saved", validation=0)
    assert sizes(data) == {"train": 20, "test": 6}
    assert data.test is not None
    expected = [decode(each, Frame(3, None)).pixels for each in pictures(6, 1)]
    assert np.array_equal(data.test.images[:].numpy(), np.stack(expected))
    assert len(load("saved/train/data-00001-of-00002.arrow", test=0, validation=0).train) == 10


def test_a_split_is_chosen_or_made_a_part() -> None:
    clone(train=20, validation=6, extra=8)
    data = load("set")
    assert sizes(data) == {"train": 20, "validation": 6}
    assert data.notes == ("splits that were left out: extra",)
    data = load("set", split={"train": "train", "test": "validation"}, validation=0)
    assert sizes(data) == {"train": 20, "test": 6}
    assert sizes(load("set", split="train", test=4, validation=4)) == {
        "train": 12,
        "validation": 4,
        "test": 4,
    }


def test_a_split_without_labels_is_left_out() -> None:
    clone(train=20)
    write_parquet(Path("set/data/test-00000-of-00001.parquet"), pictures(6), [-1] * 6, CATS)
    data = load("set", validation=0)
    assert sizes(data) == {"train": 20}
    assert data.notes == ("the split test has no labels (-1) and was left out",)


def test_numbers_without_names_are_sorted_as_numbers() -> None:
    write_parquet(Path("set.parquet"), pictures(24), [2, 10, 9] * 8)
    data = load("set.parquet", test=0, validation=0)
    assert data.classes == ("2", "9", "10")
    assert data.train.labels.tolist() == [0, 2, 1] * 8
    write_parquet(Path("both/train.parquet"), pictures(24), [2, 10, 9] * 8)
    write_parquet(Path("both/test.parquet"), pictures(6), ["2", "10", "9"] * 2)
    assert load("both", validation=0).classes == ("2", "9", "10")


def test_some_rows_without_a_label_are_no_class() -> None:
    write_parquet(Path("set.parquet"), pictures(24), [0, 1, -1] * 8)
    with pytest.raises(DataError, match=r"set\.parquet: the label is -1 in some rows.*leave rows without a"):
        load("set.parquet")
    write_parquet(Path("two.parquet"), pictures(24), [1, -1] * 12)
    assert load("two.parquet").classes == ("-1", "1")


def test_columns_are_named_where_several_are_meant() -> None:
    table = table_of(pictures(20), labels(20), CATS, label="fine_label")
    table = table.append_column("coarse_label", pa.array(["animal", "thing"] * 10))
    pq.write_table(table, "set.parquet")
    assert load("set.parquet").classes == ("cat", "dog")  # the only one that Hugging Face calls a label
    assert load("set.parquet", label="coarse_label").classes == ("animal", "thing")
    bare = table.replace_schema_metadata({})
    pq.write_table(
        bare.append_column("target", pa.array(labels(20))).append_column("y", pa.array(labels(20))),
        "b.parquet",
    )
    with pytest.raises(
        DataError, match=r"b\.parquet: several columns may hold labels .*target, y; say which"
    ):
        load("b.parquet")


def test_pictures_are_plain_bytes_or_files_below_the_folder() -> None:
    table = pa.table({"img": pictures(20), "label": labels(20)})
    pq.write_table(table, "bytes.parquet")
    assert len(load("bytes.parquet", test=0, validation=0).train) == 20
    Path("set/images").mkdir(parents=True)
    rows = []
    for k, content in enumerate(pictures(20)):
        Path(f"set/images/{k}.png").write_bytes(content)
        rows.append({"bytes": None, "path": f"images/{k}.png"})
    write_parquet(Path("set/train.parquet"), rows, labels(20), CATS)
    assert len(load("set", test=None, validation=0).train) == 20


def test_pictures_of_several_sizes_and_groups() -> None:
    images = [*pictures(19), png(np.zeros((30, 20, 3), np.uint8))]
    write_parquet(Path("set.parquet"), images, labels(20), CATS, patient=[str(k // 2) for k in range(20)])
    with pytest.raises(DataError, match=r"set\.parquet: the images differ in size.*set `size`"):
        load("set.parquet")
    data = load("set.parquet", size=8, group="patient")
    assert data.shape == (3, 8, 8)
    patients = [set(split.columns["group"]) for split in data.splits.values()]
    assert not patients[0] & patients[1]
    assert not patients[0] & patients[2]


BAD_ROWS: list[tuple[list[Any], list[Any], str]] = [
    ([b"no picture"] * 20, labels(20), r"none of the 20 files can be read as an image"),
    ([None, *pictures(19)], labels(20), r"row/00000000: the row has no picture"),
    (
        [{"bytes": None, "path": "../../etc/passwd"}, *pictures(19)],
        labels(20),
        r"\.\./\.\./etc/passwd lies outside of the folder",
    ),
    (
        [{"bytes": None, "path": "/etc/passwd"}, *pictures(19)],
        labels(20),
        r"/etc/passwd lies outside of the folder",
    ),
    (pictures(20), [k / 2 for k in range(20)], r"no column holds labels .*label \(double\)"),
    (pictures(20), [None, *labels(19)], r"has no label in row 0"),
    (pictures(20), [*labels(19), 7], r"the label 7 in row 19, and there are 2 classes"),
    (pictures(20), [*labels(19), -1], r"has no label in row 19 \(-1\); leave the row out"),
    (pictures(20), [0] * 20, r"every training image has the same label"),
    ([], [], r"holds no row with a picture and a label|no column"),
]


@pytest.mark.parametrize(("images", "of_rows", "says"), BAD_ROWS, ids=[says for *_, says in BAD_ROWS])
def test_rows_that_are_no_pictures_with_classes_are_refused(
    images: list[Any], of_rows: list[Any], says: str
) -> None:
    table = table_of(images, of_rows or pa.array([], pa.int64()), CATS)
    pq.write_table(table, "set.parquet")
    with pytest.raises(DataError, match=says) as caught:
        load("set.parquet")
    assert "set.parquet" in str(caught.value)


def test_files_and_options_that_do_not_fit_are_refused() -> None:
    clone(train=20, test=6)
    for options, says in (
        ({"image": "img"}, "set has no column 'img'; did you mean 'image'"),
        ({"label": "lable"}, "set has no column 'lable'; did you mean 'label'"),
        ({"label": "image"}, "the column 'image' holds no labels"),
        ({"image": "label"}, "the column 'label' holds no pictures"),
        ({"split": "tran"}, "set has no split 'tran'; did you mean 'train'"),
        ({"split": {"trian": "train"}}, "'trian' is no part"),
        ({"split": {"test": "test"}}, "no train part to learn from"),
        ({"split": {"train": "train", "test": "train"}}, "split: 'train' is named for two parts"),
        ({"split": {}}, "split: no part is named; write"),
        ({"split": {"val": "train", "validation": "test"}}, "split: validation is named twice"),
        ({"group": "patient"}, "set has no column 'patient'"),
    ):
        with pytest.raises((ConfigError, DataError), match=says):
            load("set", **options)
    clone("other", a=8, b=8)
    with pytest.raises(ConfigError, match="other has the splits a, b; say which are the parts"):
        load("other")
    Path("empty").mkdir()
    with pytest.raises(DataError, match="empty holds no parquet file"):
        load("empty")
    Path("script.py").write_text("")
    with pytest.raises(DataError, match=r"script\.py is a script, which would run code of others"):
        load("script.py")
    content = Path("set/data/train-00000-of-00001.parquet").read_bytes()
    for length in (3, 100, len(content) - 20):
        Path("set/data/train-00000-of-00001.parquet").write_bytes(content[:length])
        with pytest.raises(DataError, match="set"):
            load("set")
    for place in range(4, len(content), len(content) // 40):
        Path("set/data/train-00000-of-00001.parquet").write_bytes(
            content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]
        )
        try:
            load("set", unreadable="skip")
        except (DataError, ConfigError):
            continue


def test_splits_and_shards_that_are_unlike_are_refused() -> None:
    other = pa.table({"img": pictures(6), "y": labels(6)})
    for folder, file in (("splits", "test-00000-of-00001"), ("shards", "train-00001-of-00002")):
        write_parquet(Path(folder) / "train-00000-of-00002.parquet", pictures(20), labels(20), CATS)
        pq.write_table(other, Path(folder) / f"{file}.parquet")
    with pytest.raises(DataError, match=r"splits: the split test has no column 'image', which other files"):
        load("splits")
    with pytest.raises(DataError, match=r"train-00001-of-00002\.parquet has no column 'label'"):
        load("shards")
    double = pa.table([pictures(6), pictures(6), labels(6)], ["image", "image", "label"])
    pq.write_table(double, "double.parquet")
    with pytest.raises(DataError, match=r"double\.parquet has the column 'image' more than once"):
        load("double.parquet")
    with pytest.raises(DataError, match=r"there is no none\.parquet \(working folder"):
        load("none.parquet")
    write_parquet(Path("whole.parquet"), pictures(20), labels(20))
    with pytest.raises(ConfigError, match=r"split: whole\.parquet does not say that it has splits"):
        load("whole.parquet", split="train")


def test_names_of_classes_in_the_metadata_may_be_anything() -> None:
    def write(names: Any) -> None:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        meta = {"huggingface": json.dumps({"info": {"features": features}})}
        pq.write_table(table_of(pictures(20), labels(20)).replace_schema_metadata(meta), "set.parquet")

    write(["cat", "cat"])
    with pytest.raises(DataError, match=r"set\.parquet: the metadata call several classes of label 'cat'"):
        load("set.parquet")
    write({"1": "dog", "0": "cat"})
    assert load("set.parquet").classes == ("cat", "dog")
    write({"x": "cat", "y": "dog"})
    assert load("set.parquet").classes == ("0", "1")


# --- the hub ------------------------------------------------------------------------------------------------


def test_a_name_of_the_hub_without_its_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError) as caught:
        load("ylecun/mnist")
    says = str(caught.value)
    assert "pip install 'stresslens[huggingface]'" in says
    assert "ylecun/mnist, which is no path here but may be a data set of the hub" in says
    assert "hf download ylecun/mnist --repo-type dataset --local-dir FOLDER" in says


class HubTable:
    """What of a datasets.Dataset is used."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self.features = types.SimpleNamespace(arrow_schema=table.schema)
        self._fingerprint = "0"

    def __len__(self) -> int:
        return len(self.table)

    def select_columns(self, names: list[str]) -> HubTable:
        return HubTable(self.table.select(names))

    def with_format(self, kind: str) -> HubTable:
        assert kind == "arrow"
        return self

    def iter(self, batch_size: int) -> Any:
        return (pa.Table.from_batches([batch]) for batch in self.table.to_batches(batch_size))


def test_a_name_of_the_hub_is_read_through_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str, config: str | None) -> dict[str, HubTable]:
        asked.append((name, config))
        return {
            "train": HubTable(table_of(pictures(20), labels(20), CATS)),
            "test": HubTable(table_of(pictures(6, 1), labels(6), CATS)),
        }

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    data = load("owner/cats", config="small", validation=0)
    assert asked == [("owner/cats", "small")]
    assert (data.name, data.classes, sizes(data)) == ("owner/cats", ("cat", "dog"), {"train": 20, "test": 6})


def test_the_hub_without_a_network_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(name: str, config: str | None) -> None:
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(DataError, match=r"could not be downloaded \(Couldn't reach the Hub\); or download"):
        load("owner/cats")
