"""Where CLIP's weights come from: the hub's cache, a file, another run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hub import hub_cache

from stresslens.config import registry
from stresslens.config.published_weights import initial_weights
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.files import read_json
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.saved_model import open_model
from stresslens.plugins.models._zero_shot import open_clip
from stresslens.study import stages
from stresslens.training.setup import build_model, load_initial_weights
from stresslens.training.task import Task

TINY = {"embed": 12, "image": {"width": 16, "layers": 2}, "text": {"width": 16, "layers": 2}}


def asked(options: dict[str, Any]) -> Any:
    bound = initial_weights({"openclip": options})
    assert isinstance(bound, registry.Bound)
    return bound()


def test_how_images_are_prepared_is_known_without_a_download() -> None:
    found = asked({"name": "ViT-B-16-SigLIP-256", "weights": "webli"}).preprocessing
    assert (found.shape, found.interpolation) == ((3, 256, 256), "bicubic")
    assert torch.allclose(found.normalize(torch.ones(3, 1, 1)), torch.ones(3, 1, 1))
    openai = asked({"name": "RN50", "weights": "openai"}).preprocessing
    mean, std = (
        torch.tensor(v)[:, None, None]
        for v in (open_clip().OPENAI_DATASET_MEAN, open_clip().OPENAI_DATASET_STD)
    )
    x = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    assert openai.shape == (3, 224, 224)
    assert torch.allclose(openai.normalize(x), (x - mean) / std, atol=1e-5)
    assert asked({"layout": TINY}) is None


def test_weights_without_a_name_and_with_a_wrong_tag() -> None:
    with pytest.raises(ConfigError, match="belong to a named architecture"):
        asked({"weights": "openai"})
    with pytest.raises(ConfigError, match="publishes no weights 'openay' for RN50; did you mean 'openai'"):
        asked({"name": "RN50", "weights": "openay"})


def test_weights_that_cannot_be_had_say_where_to_put_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub_cache(tmp_path, monkeypatch, "nobody/nothing")
    with pytest.raises(DataError) as caught:
        asked({"name": "ViT-B-32", "weights": "openai"}).load()
    says = str(caught.value)
    for part in (
        "ViT-B-32 openai",
        "open_clip_model.safetensors of timm/vit_base_patch32_clip_224.openai",
        "{file: PATH}",
    ):
        assert part in says


@pytest.mark.slow
@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"PK\x03\x04" + b"x" * 5000], ids=["empty", "a page", "half"]
)
@pytest.mark.parametrize("file", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_a_file_that_is_not_whole_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, file: str
) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(content)
    (hub_cache(tmp_path / "hub", monkeypatch, "timm/vit_base_patch32_clip_224.openai") / file).symlink_to(
        blob
    )
    with pytest.raises(DataError, match="remove it, and it is downloaded again") as caught:
        asked({"name": "ViT-B-32", "weights": "openai"}).load()
    assert str(blob) in str(caught.value)


@pytest.mark.slow
def test_a_file_of_weights_is_taken_whole(task_of: Callable[..., Task], tmp_path: Path) -> None:
    """A run is saved under open_clip's names, and another begins with it, with another template and
    other classes."""
    task = task_of({"openclip": {"layout": TINY}}, epochs=1)
    record = stages.carry_out(task)
    assert record.training.steps > 0
    file = tmp_path / "clip.safetensors"
    state = safetensors.torch.load_file(RunFolder(task.folder).weights)
    safetensors.torch.save_file(state, file)
    options = {"layout": TINY, "weights": {"file": str(file)}, "templates": ["{}", "the digit {}"]}
    again = task_of({"openclip": options}, epochs=0, folder=tmp_path / "again" / "seed-0")
    record = stages.carry_out(again)
    assert record.weights.used == len(state)
    assert not record.weights.fresh
    assert not record.weights.left
    opened = open_model(RunFolder(again.folder)).state_dict()
    assert all(torch.equal(opened[f"net.{name}"], value) for name, value in state.items())
    assert read_json(again.folder / "model.json")["model"]["openclip"]["templates"] == ["{}", "the digit {}"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "repository"),
    [("ViT-B-32", "timm/vit_base_patch32_clip_224.openai"), ("RN50", "timm/resnet50_clip.openai")],
)
@pytest.mark.parametrize("file", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
@pytest.mark.parametrize("head", ["text", "linear"])
def test_published_weights_are_read_through_the_hubs_cache(
    name: str,
    repository: str,
    file: str,
    head: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    task_of: Callable[..., Task],
) -> None:
    """Random weights in the layout of the published file, where huggingface_hub would have left it."""
    snapshot = hub_cache(tmp_path / "hub", monkeypatch, repository)
    torch.manual_seed(1)
    state = open_clip().create_model(f"{name}-quickgelu").state_dict()
    if file.endswith(".bin"):
        torch.save(state, snapshot / file)
    else:
        safetensors.torch.save_file(state, snapshot / file)
    task = task_of({"openclip": {"name": name, "weights": "openai", "head": head}}, epochs=0)
    assert task.data is not None
    model = build_model(task, task.data)
    account = load_initial_weights(task, task.data, model)
    assert account is not None
    assert not account.adapted
    net = model.get_submodule("net")
    if head == "text":
        assert len(account.used) == len(state)
        assert not account.fresh
        assert not account.left
        assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    else:
        assert set(account.fresh) == {"head.weight", "head.bias"}
        assert all(not key.startswith("visual.") for key in account.left)
    assert task.plan.initial_weights.preprocessing.shape == (3, 224, 224)  # type: ignore[union-attr]
