"""Published sets of corrupted images: which cells are read, whose classes are meant, and the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from stresslens.core.errors import DataError
from stresslens.core.image_files import Frame
from stresslens.metrics.corruption_error import ALEXNET
from stresslens.robustness import corruption_set_score
from stresslens.robustness.corruption_set import corruption_set, wrong_answers

Type = Callable[..., tuple[int, str, str]]
CLASSES = ["ant", "bee", "cat"]
N = 12


class Reads(nn.Module):
    """Says the class that stands in the first pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.one_hot((x[:, 0, 0, 0] * 255).round().long() % 3, 3).float()


def labels() -> np.ndarray:
    return np.arange(N) % 3


def cells(shift: int) -> np.ndarray:
    """(5N,4,4,3) images; at severity s the first s + shift images say another class."""
    images = np.full((5 * N, 4, 4, 3), 90, np.uint8)
    for s in range(5):
        said = labels() + (np.arange(N) < s + shift)
        images[s * N : (s + 1) * N, 0, 0, 0] = said
    return images


def cifar_c(folder: Path, **others: np.ndarray) -> Path:
    folder.mkdir(parents=True)
    np.save(folder / "labels.npy", np.tile(labels(), 5).astype(np.uint8))
    for name, images in {"fog": cells(0), "snow": cells(3), "saturate": cells(6), **others}.items():
        np.save(folder / f"{name}.npy", images)
    return folder


def imagenet_c(folder: Path, names: list[str], group: str = "") -> Path:
    for shift, corruption in ((0, "fog"), (3, "snow")):
        images = cells(shift)
        for s in range(5):
            for k in range(N):
                file = folder / group / corruption / str(s + 1) / names[k % 3] / f"{k:03d}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(images[s * N + k]).save(file)
    return folder


def expected(shift: int) -> np.ndarray:
    return np.arange(N)[None] < np.arange(5)[:, None] + shift


def test_cifar_c_has_five_severities_in_each_file(tmp_path: Path) -> None:
    found = corruption_set(cifar_c(tmp_path / "CIFAR-10-C"), CLASSES, (3, 4, 4), None)
    assert found.name == "CIFAR-10-C"
    assert found.corruptions == ["fog", "saturate", "snow"]
    assert found.labels.tolist() == labels().tolist()
    (wrong,) = wrong_answers([Reads()], found)
    for name, shift in (("fog", 0), ("snow", 3), ("saturate", 6)):
        assert np.array_equal(wrong[found.corruptions.index(name)], expected(shift))
    (some,) = wrong_answers([Reads()], found, asked=5)
    assert some.shape == (3, 5, 5)


@pytest.mark.breadth(1)
@pytest.mark.parametrize("group", ["", "weather"])
def test_imagenet_c_has_folders_of_severities_and_classes(tmp_path: Path, group: str) -> None:
    frame = Frame(3, (4, 4))
    for names, notes in ((CLASSES, 0), (["n01", "n02", "n03"], 1)):
        folder = imagenet_c(tmp_path / f"set{notes}", names, group)
        found = corruption_set(folder, CLASSES, (3, 4, 4), frame)
        assert list(found.corruptions) == ["fog", "snow"]
        assert len(found.notes) == notes
        (wrong,) = wrong_answers([Reads()], found)
        order = np.argsort([f"{names[k % 3]}/{k:03d}" for k in range(N)], kind="stable")
        assert np.array_equal(wrong[1], expected(3)[:, order])


@pytest.mark.parametrize("group", ["", "weather"])
def test_class_folders_of_numbers_are_no_severities(tmp_path: Path, group: str) -> None:
    """The class 1 lies in a folder of the name that the first severity has."""
    folder = imagenet_c(tmp_path / "set", ["0", "1", "2"], group)
    found = corruption_set(folder, ["0", "1", "2"], (3, 4, 4), Frame(3, (4, 4)))
    assert list(found.corruptions) == ["fog", "snow"]
    assert wrong_answers([Reads()], found).sum() == expected(0).sum() + expected(3).sum()


def test_files_that_a_system_leaves_behind_are_passed_over(tmp_path: Path) -> None:
    folder = imagenet_c(tmp_path / "folders", CLASSES)
    (folder / "snow" / "3" / "ant" / "._000.png").write_bytes(b"of macOS")
    (folder / ".thumbs" / "1").mkdir(parents=True)
    assert list(corruption_set(folder, CLASSES, (3, 4, 4), Frame(3, (4, 4))).corruptions) == ["fog", "snow"]
    folder = cifar_c(tmp_path / "arrays")
    (folder / "._fog.npy").write_bytes(b"of macOS")
    assert len(corruption_set(folder, CLASSES, (3, 4, 4), None).corruptions) == 3


def test_grey_arrays_and_channels_first(tmp_path: Path) -> None:
    folder = tmp_path / "grey"
    folder.mkdir()
    np.save(folder / "labels.npy", np.tile(labels(), 5))
    np.save(folder / "fog.npy", cells(2)[..., 0])
    found = corruption_set(folder, CLASSES, (1, 4, 4), None)
    assert np.array_equal(wrong_answers([Reads()], found)[0, 0], expected(2))
    np.save(folder / "fog.npy", cells(2)[..., :1].transpose(0, 3, 1, 2))
    found = corruption_set(folder, CLASSES, (1, 4, 4), None)
    assert np.array_equal(wrong_answers([Reads()], found)[0, 0], expected(2))


def test_what_is_no_set_is_refused_in_words(tmp_path: Path) -> None:
    frame = Frame(3, (4, 4))

    def refused(folder: Path, says: str, shape: tuple[int, int, int] = (3, 4, 4)) -> None:
        with pytest.raises(DataError, match=says):
            corruption_set(folder, CLASSES, shape, frame)

    refused(tmp_path / "none", "there is no folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "is no set of corrupted images: it needs labels.npy")
    folder = cifar_c(tmp_path / "set")
    refused(
        folder, r"fog\.npy has images of the shape \(4, 4, 3\), and the model takes \(3, 8, 8\)", (3, 8, 8)
    )
    np.save(folder / "fog.npy", cells(0)[:-1])
    refused(folder, r"fog\.npy has the shape \(59, 4, 4, 3\)")
    np.save(folder / "fog.npy", np.array([{"a": 1}], dtype=object))
    refused(folder, r"fog\.npy cannot be read")
    for wrong, says in (
        (np.arange(60) % 4, "labels from 0 to 3, and the model has 3 classes"),
        (np.arange(59) % 3, "the same for each of five severities"),
        (np.zeros(60), "expected whole numbers"),
        (np.arange(60) // 12 % 3, "the labels differ between the five severities"),
    ):
        np.save(folder / "labels.npy", wrong)
        refused(folder, says)
    folder = imagenet_c(tmp_path / "folders", CLASSES)
    (folder / "snow" / "3" / "ant" / "000.png").unlink()
    refused(folder, r"snow.3 has other images than fog/1: 1 differ, first ant/000\.png")
    folder = imagenet_c(tmp_path / "two", ["ant", "bee", "dog"])
    for file in folder.rglob("bee/*"):
        file.unlink()
    refused(folder, "2 class folders, and dog is no class of the model, which has 3")
    folder = imagenet_c(tmp_path / "damaged", CLASSES)
    (folder / "snow" / "3" / "ant" / "000.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"000\.png cannot be read as an image"):
        wrong_answers([Reads()], corruption_set(folder, CLASSES, (3, 4, 4), frame))


@pytest.fixture
def runs(type_: Type) -> list[str]:
    """A run on images of three classes, trained for an epoch."""
    y = np.arange(90) % 3
    x = np.zeros((90, 4, 4, 3), np.uint8)
    x[..., 0] = (80 * y)[:, None, None]
    np.savez("set.npz", x_train=x, y_train=y, x_test=x[:30], y_test=y[:30])
    code, _, err = type_("train", "{npz: {path: set.npz, channels: last}}", "linear", "train.epochs=1")
    assert code == 0, err
    return sorted(str(path.parent) for path in Path("runs").rglob("record.json"))


def test_the_command_prints_and_keeps_the_mean_corruption_error(
    runs: list[str], type_: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    cifar_c(Path("CIFAR-10-C"))
    code, out, _ = type_("corruptions", runs[0], "CIFAR-10-C", "--json")
    assert code == 0
    found: dict[str, Any] = json.loads(out)
    assert found["n"] == N
    assert set(found["errors"]) == {"fog", "snow", "saturate"}
    assert set(found["corruption_errors"]) == {"fog", "snow"}
    assert found["mean_corruption_error"]["value"] == pytest.approx(
        np.mean(list(found["corruption_errors"].values()))
    )
    assert "not in the mean, as in papers: saturate" in found["notes"]
    kept = json.loads((Path(runs[0]) / "corruption-sets" / "CIFAR-10-C.json").read_text())
    assert kept["mean_corruption_error"] == found["mean_corruption_error"]
    reads = json.loads((Path(runs[0]) / "record.json").read_text())["reads_of_test"]
    opened = []
    monkeypatch.setattr(
        corruption_set_score,
        "wrong_answers",
        lambda models, *a, **k: opened.append(len(models)) or wrong_answers(models, *a, **k),
    )
    code, out, _ = type_("corruptions", runs[0], "CIFAR-10-C", "--baseline", runs[0])
    assert opened == [2], "the images are read once for both runs"
    assert "mean corruption error (relative to " in out
    assert "): 100.0 % (" in out
    assert json.loads((Path(runs[0]) / "record.json").read_text())["reads_of_test"] == reads + 1
    assert type_("report", str(Path(runs[0]).parents[1]))[0] == 0


def test_alexnet_is_a_baseline_for_imagenet(
    runs: list[str], type_: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    cifar_c(Path("set"))
    code, _, err = type_("corruptions", runs[0], "set", "--baseline", "alexnet")
    assert code == 2
    assert "the errors of alexnet are those on ImageNet-C" in err
    monkeypatch.setattr(corruption_set_score, "CLASSES_OF_IMAGENET", 3)
    for name in ("fog", "snow"):
        Path("set", f"{name}.npy").rename(Path("set", f"{name}.kept"))
    with monkeypatch.context() as patched:  # nothing is measured before
        patched.setattr(corruption_set_score, "wrong_answers", None)
        code, _, err = type_("corruptions", runs[0], "set", "--baseline", "alexnet")
    assert code == 2
    assert "has none of the fifteen corruptions" in err
    for name in ("fog", "snow"):
        Path("set", f"{name}.kept").rename(Path("set", f"{name}.npy"))
    code, out, _ = type_("corruptions", runs[0], "set", "--baseline", "alexnet", "--json")
    assert code == 0
    found = json.loads(out)
    mean = {name: np.mean([each["value"] for each in cells]) for name, cells in found["errors"].items()}
    for name in ("fog", "snow"):
        assert found["corruption_errors"][name] == pytest.approx(mean[name] / ALEXNET[name])


def test_wrong_arguments_of_the_command_are_told(runs: list[str], type_: Type) -> None:
    cifar_c(Path("set"))
    code, _, err = type_("corruptions", runs[0], "set", "--baseline", "alxnet")
    assert code == 2
    assert "expected a run's folder (…/seed-0), or alexnet for ImageNet-C" in err
    code, _, err = type_("corruptions", runs[0], "nothing")
    assert code == 3
    assert "there is no folder nothing" in err
    assert torch.is_grad_enabled()
