"""Every zoo model that the labs name, the whole way: begun with, trained a step, attacked,
explained, exported, opened again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import stresslens as sl
from stresslens.config import registry
from stresslens.core.data import Data
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.saved_model import open_model
from stresslens.study import stages
from stresslens.training.task import Task

CLASSES = ("plane", "car", "bird")
LABS = {
    "a small one": {"timm": {"name": "test_efficientnet"}},
    "resnet18": {"torchvision": {"name": "resnet18"}},
    "resnet18, small stem": {"torchvision": {"name": "resnet18", "stem": "small"}},
    "resnet50": {"torchvision": {"name": "resnet50"}},
    "efficientvit_m1": {"timm": {"name": "efficientvit_m1"}},
}


def photographs(n: int = 36) -> Data:
    draws = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 3
    images = 0.4 * torch.rand(n, 3, 32, 32, generator=draws)
    images[torch.arange(n), labels] += 0.5
    return Data.from_arrays(images, labels, classes=CLASSES, name="photographs", validation=9, test=9)


def test_a_small_stem_keeps_the_size_of_small_images() -> None:
    """A 3×3 convolution with stride 1 and no pooling: the first block sees every pixel."""
    net = registry.resolve("models", {"torchvision": {"name": "resnet18", "stem": "small"}})(
        shape=(2, 13, 12), classes=5, names=list("abcde")
    )
    sizes: list[tuple[int, ...]] = []
    net.layer1.register_forward_pre_hook(lambda module, given: sizes.append(tuple(given[0].shape)))
    assert net.eval()(torch.rand(1, 2, 13, 12)).shape == (1, 5)
    assert sizes == [(1, 64, 13, 12)]
    assert (net.conv1.kernel_size, net.conv1.stride) == ((3, 3), (1, 1))


def goes_on(folder: RunFolder, data: Data, explainers: list[str], place: Path) -> None:
    """A trained run is opened bit for bit, attacked, explained and exported."""
    model, again = open_model(folder).eval(), open_model(folder).eval()
    assert data.test is not None
    x = data.test.images[:]
    with torch.no_grad():
        logits = model(x)
        assert torch.equal(logits, again(x))
    assert np.allclose(np.load(folder.predictions("test"))["scores"], logits.numpy(), atol=1e-4)
    robust = sl.attack(model, data.test, radii=[0, 4 / 255], protocol=[{"pgd": {"steps": 2}}], audit=False)
    assert len(robust.facts["curve"]) == 2
    for explainer in explainers:
        maps = sl.explain(model, x[:2], explainer).maps
        assert maps.shape == (2, 32, 32)
        assert np.isfinite(maps).all()
    exported = sl.export(folder.path, "onnx", out=place / "model.onnx")
    assert exported.difference < 1e-4 * max(1.0, float(logits.abs().max()))


TOWERS = {
    "embed": 16,
    "image": {"width": 16, "layers": 2, "heads": 2},
    "text": {"width": 16, "layers": 1, "heads": 2},
}
CLIPS = {
    "a small one": {"layout": TOWERS},
    "ViT-B-32": {"name": "ViT-B-32-quickgelu"},
    "RN50": {"name": "RN50-quickgelu"},
}


@pytest.mark.parametrize(
    "options",
    [pytest.param(value, id=name, marks=pytest.mark.slow) for name, value in CLIPS.items()],
)
def test_clip_the_whole_way(options: dict[str, Any], task_of: Callable[..., Task], tmp_path: Path) -> None:
    """From class names, without training: what differs from the others is that no layer begins anew."""
    data = photographs()
    seen = {"size": 224} if "name" in options else {}
    torch.manual_seed(7)
    side = seen.get("size", 32)
    published = registry.resolve("models", {"openclip": options})(
        shape=(3, side, side), classes=3, names=CLASSES
    )
    safetensors.torch.save_file(
        {k: v.contiguous() for k, v in published.state_dict().items()}, tmp_path / "published.safetensors"
    )
    begun = {**options, "weights": {"file": str(tmp_path / "published.safetensors")}, "quick_gelu": True}

    def task_with(**options: Any) -> Task:
        task = task_of({"openclip": begun}, data=data, **options)
        return replace(task, config=replace(task.config, input=replace(task.config.input, **seen)))

    task = task_with(epochs=0)
    record = stages.carry_out(task)
    assert record.weights.fresh == record.weights.left == record.weights.adapted == []
    goes_on(RunFolder(task.folder), data, ["gradcam"], tmp_path)
    trained = stages.carry_out(task_with(epochs=1, batch_size=32, folder=tmp_path / "b" / "seed-0"))
    assert trained.training.steps == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "value",
    [
        pytest.param(value, id=name, marks=[] if name == "a small one" else pytest.mark.slow)
        for name, value in LABS.items()
    ],
)
def test_the_whole_way(value: dict[str, Any], task_of: Callable[..., Task], tmp_path: Path) -> None:
    data = photographs()
    ((kind, options),) = value.items()
    torch.manual_seed(7)
    published = registry.resolve("models", value)(
        shape=(3, 32, 32), classes=1000, names=[str(k) for k in range(1000)]
    )
    state = {name: tensor.contiguous() for name, tensor in published.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "published.safetensors")
    begun = {kind: {**options, "weights": {"file": str(tmp_path / "published.safetensors")}}}
    task = task_of(begun, data=data, epochs=1, batch_size=32)
    task = replace(task, config=replace(task.config, input=replace(task.config.input, size=32)))
    record = stages.carry_out(task)
    assert len(record.weights.fresh) == 2  # the last layer's weight and bias
    assert record.weights.left == record.weights.adapted == []
    assert record.training.steps == 1
    goes_on(RunFolder(task.folder), data, ["saliency", "gradcam"], tmp_path)
