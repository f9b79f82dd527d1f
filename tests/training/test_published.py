"""Weights that the zoos publish, through their own caches, with files made here in the published layouts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hub import hub_cache
from torch import nn

from stresslens.core.data import Data
from stresslens.core.errors import DataError
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.saved_model import open_model
from stresslens.study import stages
from stresslens.training.setup import build_model
from stresslens.training.task import Task


def _random_like(net: nn.Module) -> dict[str, torch.Tensor]:
    """Weights in the layout of the published ones, with running statistics that are not those of a
    fresh net."""
    state = {name: value.clone() for name, value in net.state_dict().items()}
    for name in state:
        if name.endswith("running_var"):
            state[name].uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            state[name].uniform_(-0.1, 0.1)
    return state


def _into_torch_cache(home: Path, file: str, net: nn.Module) -> Path:
    (home / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(_random_like(net), home / "hub" / "checkpoints" / file)
    return home / "hub" / "checkpoints" / file


ZOO = [
    ("torchvision", {"name": "resnet18", "weights": "IMAGENET1K_V1"}, "resnet18-f37072fd.pth"),
    ("torchvision", {"name": "resnet50", "weights": "IMAGENET1K_V2"}, "resnet50-11ad3fa6.pth"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "options", "file", "channels"),
    [
        (*ZOO[0], 1),
        (*ZOO[0], 3),
        pytest.param(*ZOO[1], 3, marks=pytest.mark.slow),
        pytest.param(*ZOO[1], 1, marks=pytest.mark.slow),
    ],
    ids=lambda value: str(value.get("name")) if isinstance(value, dict) else "",
)
def test_torchvisions_published_files_load_whole(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    task_of: Callable[..., Task],
    kind: str,
    options: Any,
    file: str,
    channels: int,
) -> None:
    from stresslens.core.torchvision_compat import torchvision

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published = torchvision().models.get_model(options["name"], weights=None)
    path = _into_torch_cache(tmp_path, file, published)
    images = torch.rand(24, channels, 32, 32)
    data = Data.from_arrays(images, torch.arange(24) % 3, name="photographs")
    task = task_of({kind: options}, data=data, epochs=0)
    record = stages.carry_out(task)
    assert record.weights.fresh == ["fc.weight", "fc.bias"]
    assert record.weights.left == record.weights.adapted == []
    assert record.weights.used == len(published.state_dict()) - 2
    grey = "; grey images repeated in 3 channels" if channels == 1 else ""
    assert record.weights.input == f"resized from 32×32 to 224×224, bilinear{grey}"
    assert record.weights.said.endswith("begun anew: fc.weight, fc.bias")
    model = open_model(RunFolder(task.folder)).eval()
    published.load_state_dict(torch.load(path, weights_only=True))
    published.fc = nn.Identity()
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    resized = nn.functional.interpolate(images[:2], (224, 224), mode="bilinear", antialias=True)
    expected = published.eval()((resized.expand(-1, 3, -1, -1) - mean) / std)
    model.net.fc = nn.Identity()  # type: ignore[union-attr]
    assert torch.allclose(model(images[:2]), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_timms_published_files_load_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task_of: Callable[..., Task]
) -> None:
    import timm

    published = timm.create_model("efficientvit_m1", pretrained=False)
    state = _random_like(published)
    snapshot = hub_cache(tmp_path / "hub", monkeypatch, "timm/efficientvit_m1.r224_in1k")
    safetensors.torch.save_file(state, snapshot / "model.safetensors")
    data = Data.from_arrays(torch.rand(24, 3, 32, 32), torch.arange(24) % 3, name="photographs")
    task = task_of({"timm": {"name": "efficientvit_m1.r224_in1k", "pretrained": True}}, data=data, epochs=0)
    record = stages.carry_out(task)
    assert record.weights.fresh == ["head.linear.weight", "head.linear.bias"]
    assert record.weights.left == record.weights.adapted == []
    model = open_model(RunFolder(task.folder))
    assert model.resize.size == (224, 224)  # type: ignore[union-attr]
    assert model.resize.interpolation == "bicubic"  # type: ignore[union-attr]
    assert torch.equal(
        model.net.state_dict()["patch_embed.conv1.conv.weight"], state["patch_embed.conv1.conv.weight"]
    )  # type: ignore[union-attr]


def test_without_a_network_it_says_which_file_goes_where(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task_of: Callable[..., Task]
) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def refused(*_: Any, **__: Any) -> Any:
        raise OSError("no network in tests")

    monkeypatch.setattr("torch.hub.urlopen", refused)
    data = Data.from_arrays(torch.rand(24, 3, 32, 32), torch.arange(24) % 3, name="photographs")
    with pytest.raises(
        DataError,
        match=r"torchvision resnet18 IMAGENET1K_V1.*resnet18-f37072fd.pth.*no network.*weights: \{file",
    ):
        stages.carry_out(
            task_of({"torchvision": {"name": "resnet18", "weights": "DEFAULT"}}, data=data, epochs=0)
        )
    with pytest.raises(
        DataError, match=r"model.safetensors of timm/efficientvit_m1.r224_in1k.*HF_HUB_OFFLINE"
    ):
        stages.carry_out(
            task_of({"timm": {"name": "efficientvit_m1", "pretrained": True}}, data=data, epochs=0)
        )


def test_a_half_downloaded_file_in_the_cache_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task_of: Callable[..., Task]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"PK\x03\x04 half")
    data = Data.from_arrays(torch.rand(24, 3, 32, 32), torch.arange(24) % 3, name="photographs")
    with pytest.raises(DataError, match=r"resnet18-f37072fd.pth cannot be read .* remove it"):
        stages.carry_out(
            task_of({"torchvision": {"name": "resnet18", "weights": "DEFAULT"}}, data=data, epochs=0)
        )


def test_a_bare_file_is_prepared_as_its_zoo_does(tmp_path: Path, task_of: Callable[..., Task]) -> None:
    from stresslens.core.torchvision_compat import torchvision

    torch.save(torchvision().models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    data = Data.from_arrays(torch.rand(24, 3, 32, 32), torch.arange(24) % 3, name="photographs")
    task = task_of(
        {"torchvision": {"name": "resnet18", "weights": {"file": str(tmp_path / "resnet18.pth")}}},
        data=data,
        epochs=0,
    )
    assert build_model(task, data).resize.size == (224, 224)  # type: ignore[union-attr]
