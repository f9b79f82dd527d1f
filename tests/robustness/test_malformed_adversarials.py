"""Any bytes as a file of adversarial images give a recount, or one message with the file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from malformed import FEW, MANY, answer, changed, trained_run, written

from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.finished_run import data_of

ODD = [
    *(
        np.zeros(0),
        np.zeros((0, 1, 8, 8)),
        np.zeros((2, 2)),
        np.float64(3),
        np.array("x"),
        np.array(["a", "b"]),
    ),
    *(np.array([1 + 2j]), np.array([np.nan, np.inf]), np.array([-1, 10**9]), np.array([True, False])),
    *(np.array([2**63], dtype=np.uint64), np.array(["\x1b[31m"]), np.array(["2024-01-01"], dtype="M8[D]")),
    *(
        np.zeros((1,) * 30),
        np.array([b"\xff"]),
        np.zeros(2, dtype=[("a", int)]),
        np.full((4, 1, 8, 8), np.nan),
    ),
    *(np.full((4, 1, 8, 8), 255, dtype=np.uint8), np.zeros((4, 8, 8, 1)), np.zeros((4, 3, 8, 8))),
]
NAMES = [
    "adversarials",
    "images",
    "labels",
    "index",
    "radius",
    "norm",
    "rows",
    "x_adv",
    "y",
    "eps",
    "\x1b[31m",
    "a/b",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def honest(run: Path) -> dict[str, Any]:
    test = data_of(RunFolder(run)).test
    assert test is not None
    images = test.floats(test.images[:4]).float().numpy()
    moved = np.clip(images + 0.05, 0, 1)
    return {
        "adversarials": moved,
        "images": images,
        "labels": test.labels[:4].numpy(),
        "index": np.arange(4),
        "radius": np.float64(0.05),
        "norm": np.array("linf"),
    }


def bytes_of(values: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    np.savez(out, **values)
    return out.getvalue()


def malformed(draw: Any, honest: dict[str, Any]) -> bytes:
    values = dict(honest)
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(NAMES))
        if draw(st.booleans()):
            values[name] = draw(st.sampled_from(ODD))
        elif name in values:
            array = np.asarray(values[name])
            how = draw(st.sampled_from(["remove", "text", "shorter", "complex", "more", "huge", "int8"]))
            if how == "remove":
                del values[name]
            elif how == "shorter":
                values[name] = array[:-1] if array.ndim else array
            elif array.dtype.kind in "fiu":
                with np.errstate(all="ignore"):
                    values[name] = {
                        "text": array.astype(str),
                        "complex": array.astype(complex),
                        "more": array[..., None],
                        "huge": array.astype(float) * 1e300,
                        "int8": array.astype(np.int8),
                    }[how]
    content = bytes_of(values)
    return changed(draw, content) if draw(st.booleans()) else content


def of_verify(run: Path, folder: Path, content: bytes, options: list[str]) -> None:
    file = written(folder, "adv.npz", content)
    answer("verify", str(run), str(file), *options, names=[file.name] if not options else [])


OPTIONS = st.sampled_from(
    [[], [], [], ["--eps", "8/255"], ["--norm", "l2"], ["--norm", "l7"], ["--claimed", "nan"], ["--eps", "x"]]
)


@FEW
@given(data=st.data(), options=OPTIONS)
def test_any_file_of_adversarials(
    run: Path, honest: dict[str, Any], tmp_path: Path, data: st.DataObject, options: list[str]
) -> None:
    of_verify(run, tmp_path, malformed(data.draw, honest), options)


@pytest.mark.slow
@MANY
@given(data=st.data(), options=OPTIONS)
def test_many_files_of_adversarials(
    run: Path, honest: dict[str, Any], tmp_path: Path, data: st.DataObject, options: list[str]
) -> None:
    of_verify(run, tmp_path, malformed(data.draw, honest), options)


def test_an_honest_file_is_recounted(run: Path, honest: dict[str, Any], tmp_path: Path) -> None:
    code, said = answer("verify", str(run), str(written(tmp_path, "adv.npz", bytes_of(honest))))
    assert code in (0, 5), said
