"""Corrections of labels: labels change, images are dropped, and what does not fit is said with its line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stresslens.core.data import Data
from stresslens.core.errors import DataError
from stresslens.core.label_corrections import LabelCorrections, corrected_data


def corrected(data: Data, tmp_path: Path, *lines: str, head: str = "file,given,label") -> Data:
    file = tmp_path / "corrections.csv"
    file.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return corrected_data(data, LabelCorrections.read(file))


def test_labels_change_and_images_are_dropped(small: Data, tmp_path: Path) -> None:
    assert small.test is not None
    given = [str(int(split.labels[k])) for split, k in ((small.train, 3), (small.test, 7), (small.test, 8))]
    other = str((int(given[0]) + 1) % 10)
    data = corrected(
        small, tmp_path, f"train[3],{given[0]},{other}", f"test[7],{given[1]},drop", f"test[8],,{given[2]}"
    )
    assert data.test is not None
    changed = small.train.labels.clone()
    changed[3] = int(other)
    assert data.train.labels.tolist() == changed.tolist()
    kept = torch.arange(60) != 7
    assert data.test.labels.tolist() == small.test.labels[kept].tolist()
    assert (data.test.images == small.test.images[kept]).all()
    assert data.notes[-1] == "corrections.csv: labels corrected: 1, images dropped: 1"
    assert data.fingerprint != small.fingerprint
    assert small.train.labels[3] == int(given[0]), "the data set itself stays as it is"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["train[3],,12"], "corrections.csv:2: no class is called '12'; "),
        (["train[300],,1"], "corrections.csv:2: there is no image train[300]; did you mean"),
        (["train[3],,1", "test[2],,2", "train[3],,1"], "corrections.csv:4: train[3] is listed again"),
        (["train[3],,"], "corrections.csv:2: no label"),
        ([",,1"], "corrections.csv:2: no file"),
        (["train[3],1"], "corrections.csv:2: fewer values than columns"),
        (["train[3],,1,2"], "corrections.csv:2: more values than columns"),
        (["validation[0],nobody,1"], "and not 'nobody'; the corrections belong to other data"),
        (
            [f"validation[{k}],,drop" for k in range(60)],
            "all 60 validation images of small digits are dropped",
        ),
    ],
    ids=["class", "image", "twice", "no label", "no file", "fewer", "more", "other data", "everything"],
)
def test_what_does_not_fit_is_said_with_its_line(
    small: Data, tmp_path: Path, lines: list[str], said: str
) -> None:
    with pytest.raises(DataError) as error:
        corrected(small, tmp_path, *lines)
    assert said in str(error.value)


def test_files_that_are_no_table_are_refused(small: Data, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="label is missing: did you mean 'labels'"):
        corrected(small, tmp_path, head="file,labels")
    with pytest.raises(DataError, match="file is there more than once"):
        corrected(small, tmp_path, head="file,file,label")
    with pytest.raises(DataError, match="cannot be read: No such file"):
        LabelCorrections.read(tmp_path / "none.csv")
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        LabelCorrections.read(tmp_path)
    with pytest.raises(DataError, match="cannot be read: embedded null byte"):
        LabelCorrections.read(tmp_path / "a\0b.csv")
    (tmp_path / "photo.csv").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(DataError, match=r"photo\.csv cannot be read as a table .* in UTF-8: .*; save it as"):
        LabelCorrections.read(tmp_path / "photo.csv")


@pytest.mark.parametrize(
    ("head", "encoding"),
    [
        ("\ufefflabel;file;remark", "utf-8"),
        ("label;file;remark", "utf-16"),
        ("sep=;\nlabel;file;remark", "utf-8"),
    ],
    ids=["UTF-8 with its mark", "UTF-16", "the delimiter named"],
)
def test_a_table_of_a_spreadsheet_is_read(small: Data, tmp_path: Path, head: str, encoding: str) -> None:
    file = tmp_path / "sheet.csv"
    file.write_text(f"{head}\n4;train[0];why, then\n", encoding=encoding)
    assert LabelCorrections.read(file).rows[0].line == 2 + head.count("\n")
    assert corrected_data(small, LabelCorrections.read(file)).train.labels[0] == 4
