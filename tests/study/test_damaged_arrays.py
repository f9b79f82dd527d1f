"""Every file of arrays in a run's folder, damaged in every way: the file is named, with what is wrong and
how it is made anew, and no verb ends in a traceback."""

from __future__ import annotations

import shutil
import signal
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stresslens.cli.main import main
from stresslens.config import study_file
from stresslens.study import pipeline

STUDY = """\
data: digits
model: first_cnn
train: {epochs: 1, threads: 1, precision: float32, memory_format: contiguous, subset: {images: 200}}
robustness: {radii: [0.05], protocol: [fgsm], individual_attacks: [fgsm], images: 20, audit: false,
  certificates: [{smoothing: {n0: 10, n: 100}}]}
explain: {explainers: [saliency], images: 2, check: false}
runs:
  a: {}
  b: {estimator: knn, robustness: null, explain: null}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "s.yaml").write_text(STUDY)
    Image.fromarray(np.zeros((8, 8), dtype=np.uint8)).save(folder / "photo.png")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipeline.run(study_file.read_study(folder / "s.yaml"), out=folder / "runs")
    return folder


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def zeros(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def garbage(file: Path) -> None:
    file.write_bytes(b"\x1b[31mPK\x03\x04" + bytes(range(256)))


def empty(file: Path) -> None:
    file.write_bytes(b"")


def changed(change: Callable[[np.ndarray], Any], name: str) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        with np.load(file) as arrays:
            values = {key: arrays[key] for key in arrays.files}
        first = max(values, key=lambda key: values[key].size * (values[key].dtype.kind == "f"))
        np.savez(file, **values | {first: change(values[first])})

    damage.__name__ = name
    return damage


def missing_key(file: Path) -> None:
    with np.load(file) as arrays:
        values = {key: arrays[key] for key in arrays.files}
    np.savez(file, **dict(list(values.items())[1:]))


def pickled_object(file: Path) -> None:
    with np.load(file) as arrays:
        values: dict[str, Any] = {key: arrays[key] for key in arrays.files}
    values[next(iter(values))] = np.array([{}], dtype=object)
    np.savez(file, **values)


def flipped_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        largest = max(archive.infolist(), key=lambda part: part.compress_size)
    content[largest.header_offset + 100 + largest.compress_size // 2] ^= 4
    file.write_bytes(content)


DAMAGES = [
    *(cut, zeros, garbage, empty, missing_key, pickled_object, flipped_bit),
    changed(lambda a: a.astype(str), "text"),
    changed(lambda a: a.astype(np.complex64), "complex"),
    changed(lambda a: a[..., None], "one more dimension"),
    changed(lambda a: a[:-1], "a shorter one"),
    changed(lambda a: np.full_like(a, np.nan), "nan"),
]
MEANT = {"predictions": ["nan"], "certificates": ["nan"]}
"""NaN that has a meaning: no answer, and no certificate."""

FILES = {
    "a/seed-0/likeness.npz": ["predict {run} {photo}"],
    "a/seed-0/predictions/test.npz": ["compare {run} {other}", "explain {run}"],
    "a/seed-0/robustness/*/result.npz": ["attack {run} --radii 0.05 --protocol fgsm --images 20 --no-audit"],
    "a/seed-0/explanations/*/maps.npz": [],
    "a/seed-0/certificates/*/result.npz": [],
    "b/seed-0/estimator.npz": ["predict {run} {photo}", "evaluate {run}"],
}


Answer = Callable[[str], tuple[Any, str]]


@pytest.fixture
def answer(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Runs a command line in this process: its exit code, and what it said on standard error."""
    return lambda command: _answer(command.split(), capsys, monkeypatch)


def _answer(
    argv: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[Any, str]:
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(sys, "argv", ["stresslens", *argv])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            main()
        except SystemExit as end:
            return end.code, capsys.readouterr().err
    return 0, capsys.readouterr().err


@pytest.mark.breadth(1)
@pytest.mark.parametrize(
    "damage",
    [pytest.param(each, marks=[pytest.mark.slow] if k % 3 else []) for k, each in enumerate(DAMAGES)],
    ids=lambda damage: damage.__name__,
)
@pytest.mark.parametrize("pattern", FILES)
def test_a_damaged_file_of_arrays(
    made: Path, pattern: str, damage: Callable[[Path], None], answer: Answer
) -> None:
    (file,) = (made / "runs" / "s").glob(pattern)
    whole = file.read_bytes()
    run = made / "runs" / "s" / "/".join(pattern.split("/")[:2])
    meant = damage.__name__ in MEANT.get(pattern.split("/")[2], [])
    try:
        damage(file)
        for verb in FILES[pattern]:
            other = run.parents[1] / "b" / "seed-0"
            command = verb.format(run=run, other=other, photo=made / "photo.png")
            code, said = answer(command)
            assert "unexpected" not in said
            if not meant and not command.startswith("attack"):
                assert code == 2, (command, said)
                assert file.name in said
                assert "anew" in said or "delete" in said, said
        code, said = answer(f"report {run.parents[1]}")
        assert code == 0, said
        if not meant and pattern.split("/")[2] in ("robustness", "explanations", "certificates"):
            page = (run.parents[1] / "report.html").read_text()
            assert "Not readable, left out" in page
            assert file.parent.name in page
    finally:
        file.write_bytes(whole)


def test_evaluate_makes_a_damaged_ood_detector_anew(made: Path, answer: Answer) -> None:
    run = made / "runs" / "s" / "a" / "seed-0"
    whole = (run / "likeness.npz").read_bytes()
    cut(run / "likeness.npz")
    assert answer(f"evaluate {run} --split validation")[0] == 0
    assert (run / "likeness.npz").read_bytes() == whole


def test_a_detector_of_another_model_is_named(made: Path, answer: Answer) -> None:
    run = made / "runs" / "s" / "a" / "seed-0"
    file = run / "likeness.npz"
    whole = file.read_bytes()
    with np.load(file) as arrays:
        values = dict(arrays)
    values["features.mean"] = np.append(values["features.mean"], np.float32(0))
    values["features.basis"] = np.eye(
        len(values["features.mean"]), values["features.basis"].shape[1], dtype=np.float32
    )
    np.savez(file, **values)
    try:
        code, said = answer(f"predict {run} {made / 'photo.png'}")
    finally:
        file.write_bytes(whole)
    assert code == 2
    assert "likeness.npz" in said


@pytest.mark.breadth(1)
@pytest.mark.parametrize("damage", [cut, zeros, garbage, empty], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "record.json", "config.yaml"])
def test_a_damaged_model(
    made: Path, name: str, damage: Callable[[Path], None], answer: Answer, tmp_path: Path
) -> None:
    run = tmp_path / "seed-0"
    shutil.copytree(made / "runs" / "s" / "a" / "seed-0", run)
    damage(run / name)
    for verb in (
        "predict {run} {photo}",
        "evaluate {run}",
        "export {run} --to safetensors",
        "verify {run} {run}/x.npz",
    ):
        command = verb.format(run=run, photo=made / "photo.png")
        code, said = answer(command)
        assert code in (0, 2, 3), (command, said)
        assert "unexpected" not in said
        if name != "config.yaml":
            assert code
            assert name.partition(".")[0] in said
