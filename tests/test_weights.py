"""What a net begins with: which tensors are used, adapted or left, and what is said of weights that cannot be had."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from stresslens import pipeline, stages
from stresslens import study as studies
from stresslens.building import Task, build_model, open_model
from stresslens.core.data import Data
from stresslens.core.errors import ConfigError, DataError, Problems
from stresslens.core.pretrained import load_into, read_state
from stresslens.core.results import RunFolder, read_record


def net_of(seed: int, channels: int = 3, kernel: int = 7, classes: int = 10) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(channels, 4, kernel), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)
    )


HEAD = ("4.weight", "4.bias")


def test_every_tensor_is_used_and_a_head_for_other_classes_begins_anew() -> None:
    net, source = net_of(0, classes=5), net_of(1)
    before = net[4].weight.clone()
    account = load_into(net, source.state_dict(), "it", head=HEAD, keep_head=True)
    assert account.fresh == HEAD
    assert account.adapted == account.left == ()
    assert len(account.used) == 7
    assert torch.equal(net[0].weight, source[0].weight)
    assert torch.equal(net[4].weight, before)


@pytest.mark.parametrize("keep", [True, False])
def test_a_head_for_as_many_classes_is_kept_or_not(keep: bool) -> None:
    net, source = net_of(0), net_of(1)
    account = load_into(net, source.state_dict(), "it", head=HEAD, keep_head=keep)
    assert account.fresh == (() if keep else HEAD)
    assert torch.equal(net[4].weight, source[4].weight) == keep


def test_a_stem_for_grey_images_answers_as_the_coloured_one_to_grey() -> None:
    net, source = net_of(0, channels=1).eval(), net_of(1).eval()
    account = load_into(net, source.state_dict(), "it", head=HEAD, keep_head=True)
    assert account.adapted == (("0.weight", "summed over channels"),)
    x = torch.rand(2, 1, 9, 9)
    assert torch.allclose(net(x), source(x.expand(-1, 3, -1, -1)), atol=1e-5)


def test_a_stem_for_coloured_images_answers_as_the_grey_one_to_grey() -> None:
    net, source = net_of(0).eval(), net_of(1, channels=1).eval()
    load_into(net, source.state_dict(), "it", head=HEAD, keep_head=True)
    x = torch.rand(2, 1, 9, 9)
    assert torch.allclose(net(x.expand(-1, 3, -1, -1)), source(x), atol=1e-5)


def test_a_smaller_stem_takes_the_middle_of_the_larger() -> None:
    net, source = net_of(0, kernel=3), net_of(1)
    account = load_into(net, source.state_dict(), "it", head=HEAD, keep_head=True)
    assert account.adapted == (("0.weight", "the middle 3×3"),)
    assert torch.equal(net[0].weight, source[0].weight[:, :, 2:5, 2:5])


def test_position_embeddings_are_resampled_to_another_grid() -> None:
    class Tokens(nn.Module):
        def __init__(self, side: int) -> None:
            super().__init__()
            self.position = nn.Parameter(torch.zeros(1, side * side + 1, 2))

    net, source = Tokens(2), Tokens(4)
    with torch.no_grad():
        source.position[0, 0] = 7.0
        source.position[0, 1:] = torch.tensor([1.0, -2.0])
    account = load_into(net, source.state_dict(), "it", head=(), keep_head=True)
    assert account.adapted == (("position", "resampled from 4×4 to 2×2 tokens"),)
    assert torch.allclose(net.position[0, 0], torch.tensor([7.0, 7.0]))
    assert torch.allclose(net.position[0, 1:], torch.tensor([1.0, -2.0]).expand(4, 2), atol=1e-6)


def test_weights_of_another_architecture_are_refused_by_name_and_shape() -> None:
    other = nn.Sequential(nn.Conv2d(3, 8, 7), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    net = net_of(0)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(
        ConfigError, match=r"another architecture: 6 of the net's 9 tensors do not fit, first 0.weight: \(4, 3, 7, 7\)"
    ):
        load_into(net, other.state_dict(), "it", head=HEAD, keep_head=True)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}], ids=["bare", "epoch", "model"]
)
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_a_state_dict_is_found_however_it_was_saved(tmp_path: Path, wrap: Callable[[Any], Any], prefix: str) -> None:
    state = net_of(0).state_dict()
    torch.save(wrap({prefix + name: value for name, value in state.items()}), tmp_path / "it.pt")
    found = read_state(tmp_path / "it.pt")
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], value) for name, value in state.items())


class _Hostile:
    def __reduce__(self) -> Any:
        return exec, ("raise SystemExit('executed')",)


def _hostile(path: Path) -> None:
    path.write_bytes(pickle.dumps({"weight": _Hostile()}))


def _half(path: Path) -> None:
    torch.save(net_of(0).state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _half_safetensors(path: Path) -> None:
    safetensors.torch.save_file(net_of(0).state_dict(), path)
    path.write_bytes(path.read_bytes()[:-50])


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("hostile.pt", _hostile, "holds objects besides tensors"),
        ("half.pt", _half, "incomplete or damaged"),
        ("page.pth", lambda path: path.write_text("<html>"), "no file of torch's"),
        ("half.safetensors", _half_safetensors, "incomplete or damaged"),
        ("text.pt", lambda path: path.write_text("no weights"), "cannot be read as weights"),
        ("list.pt", lambda path: torch.save([torch.zeros(2)], path), "holds no state dict"),
        ("absent.pt", lambda path: None, "there is no file"),
    ],
)
def test_files_that_are_no_weights_are_told(tmp_path: Path, name: str, make: Callable[[Path], Any], message: str) -> None:
    make(tmp_path / name)
    with pytest.raises(DataError, match=message):
        read_state(tmp_path / name)


# --- in runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def source(task_of: Callable[..., Task], tmp_path: Path) -> RunFolder:
    """A trained run to begin with."""
    task = task_of({"mlp": {"widths": [12]}}, folder=tmp_path / "study" / "first" / "seed-0")
    stages.carry_out(task)
    return RunFolder(task.folder)


def test_a_run_begins_where_another_ended(source: RunFolder, task_of: Callable[..., Task], small: Data) -> None:
    value = {"mlp": {"widths": [12], "weights": {"run": str(source.path)}}}
    task = task_of(value, epochs=0)
    record = stages.carry_out(task)
    assert record["weights"] == {
        "source": f"the run {source.path}",
        "said": f"began with the run {source.path}: 4 tensors as they are",
        "used": 4,
        "adapted": [],
        "fresh": [],
        "left": [],
        "input": "",
    }
    assert record["training"]["epochs"] == 0
    first, second = (open_model(folder).eval() for folder in (source, RunFolder(task.folder)))
    assert small.test is not None
    x = small.test.floats(small.test.images)
    assert torch.equal(first(x), second(x))


def test_the_head_begins_anew_for_other_classes_or_when_asked(source: RunFolder, task_of: Callable[..., Task], small: Data) -> None:
    from dataclasses import replace

    value = {"mlp": {"widths": [12], "weights": {"run": str(source.path)}}}
    other = replace(small, classes=tuple("abcdefghij"))
    assert stages.carry_out(task_of(value, epochs=0, data=other))["weights"]["fresh"] == ["3.weight", "3.bias"]
    value["mlp"]["weights"]["head"] = "new"  # type: ignore[index]
    folder = source.path.parent / "anew" / "seed-0"
    assert stages.carry_out(task_of(value, epochs=0, folder=folder))["weights"]["fresh"] == ["3.weight", "3.bias"]


def test_images_are_prepared_as_the_weights_were_trained(source: RunFolder, task_of: Callable[..., Task]) -> None:
    value = {"mlp": {"widths": [12], "weights": {"run": str(source.path)}}}
    large = Data.from_arrays(torch.rand(100, 16, 16), torch.arange(100) % 10, name="large")
    model = build_model(task_of(value, data=large), large)
    assert model.resize.size == (8, 8)  # type: ignore[union-attr]
    kept = open_model(source)
    assert torch.equal(model.normalize.gain, kept.normalize.gain)  # type: ignore[arg-type, union-attr]


def test_weights_that_changed_make_another_run(source: RunFolder, task_of: Callable[..., Task]) -> None:
    task = task_of({"mlp": {"widths": [12], "weights": {"file": str(source.weights)}}}, epochs=1)
    stages.carry_out(task)
    state = read_state(source.weights)
    state["3.bias"] += 1
    safetensors.torch.save_file(state, source.weights)
    with pytest.raises(ConfigError, match="the weights begun with"):
        stages.carry_out(task)


STUDY = {
    "data": "digits",
    "model": {"mlp": {"widths": [8]}},
    "train": {"epochs": 1, "threads": 1, "precision": "float32", "memory_format": "contiguous"},
    "runs": {
        "tuned": {"model.weights": {"run": "first"}},
        "first": {},
        "scratch": {"train.lr": 0.01},
    },
    "repeats": 2,
}


def test_a_study_trains_a_run_before_those_that_begin_with_it(tmp_path: Path) -> None:
    study = studies.expand(STUDY, ["train.batch_size=128"], name="it", base=tmp_path)
    order: list[tuple[str, int]] = []
    folder = pipeline.run(study, out=tmp_path, tell=lambda task, record: order.append((task.run, task.seed)))
    names = [name.partition(",")[0] for name, _ in order]
    assert names.index("tuned") >= 4
    for seed in (0, 1):
        run = RunFolder(folder / "tuned,train.batch_size=128" / f"seed-{seed}")
        assert read_record(run)["weights"]["used"] == 4
        assert read_record(run)["weights"]["source"] == "the run first,train.batch_size=128"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tuned": {"model.weights": {"run": "fist"}}}, "no run of the study is called 'fist'; did you mean 'first'?"),
        ({"first": {"estimator": "knn"}}, "first is an estimator, without weights to begin with"),
    ],
    ids=["unknown", "estimator"],
)
def test_a_run_that_cannot_be_begun_with_is_told_before_any_training(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(Problems) as caught:
        studies.expand({**STUDY, "runs": STUDY["runs"] | changes}, name="it", base=tmp_path)  # type: ignore[operator]
    assert any(message in problem.message for problem in caught.value.problems)


def test_runs_that_wait_for_each_other_are_refused(tmp_path: Path) -> None:
    runs = {"a": {"model.weights": {"run": "b"}}, "b": {"model.weights": {"run": "a"}}}
    study = studies.expand({**STUDY, "runs": runs}, name="it", base=tmp_path)
    with pytest.raises(ConfigError, match="a → b → a wait for each other"):
        pipeline.run(study, out=tmp_path)


# --- the zoos, through their own caches ------------------------------------------------------------------------------------


def _random_like(net: nn.Module) -> dict[str, torch.Tensor]:
    """Weights in the layout of the published ones, with running statistics that are not those of a fresh net."""
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


def into_hub_cache(home: Path, repository: str, file: str, state: dict[str, torch.Tensor]) -> Path:
    """The file as the Hugging Face hub's client keeps it."""
    folder = home / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    place = folder / "snapshots" / ("0" * 40) / file
    place.parent.mkdir(parents=True)
    safetensors.torch.save_file(state, place)
    return place


ZOO = [
    ("torchvision", {"name": "resnet18", "weights": "IMAGENET1K_V1"}, "resnet18-f37072fd.pth"),
    ("torchvision", {"name": "resnet50", "weights": "IMAGENET1K_V2"}, "resnet50-11ad3fa6.pth"),
]


@pytest.mark.parametrize(
    ("kind", "options", "file"), ZOO, ids=lambda value: str(value.get("name")) if isinstance(value, dict) else ""
)
@pytest.mark.parametrize("channels", [1, 3])
def test_torchvisions_published_files_load_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task_of: Callable[..., Task], kind: str, options: Any, file: str, channels: int
) -> None:
    from stresslens.core.torchvision_cure import torchvision

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published = torchvision().models.get_model(options["name"], weights=None)
    path = _into_torch_cache(tmp_path, file, published)
    images = torch.rand(24, channels, 32, 32)
    data = Data.from_arrays(images, torch.arange(24) % 3, name="photographs")
    task = task_of({kind: options}, data=data, epochs=0)
    record = stages.carry_out(task)
    assert record["weights"]["fresh"] == ["fc.weight", "fc.bias"]
    assert record["weights"]["left"] == record["weights"]["adapted"] == []
    assert record["weights"]["used"] == len(published.state_dict()) - 2
    grey = "; grey images shown to it as 3 channels alike" if channels == 1 else ""
    assert record["weights"]["input"] == f"resized from 32×32 to 224×224, bilinear{grey}"
    assert record["weights"]["said"].endswith("begun anew: fc.weight, fc.bias")
    model = open_model(RunFolder(task.folder)).eval()
    published.load_state_dict(torch.load(path, weights_only=True))
    published.fc = nn.Identity()
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    resized = nn.functional.interpolate(images[:2], (224, 224), mode="bilinear", antialias=True)
    expected = published.eval()((resized.expand(-1, 3, -1, -1) - mean) / std)
    model.net.fc = nn.Identity()  # type: ignore[union-attr]
    assert torch.allclose(model(images[:2]), expected, rtol=1e-4, atol=1e-4)


def test_timms_published_files_load_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task_of: Callable[..., Task]) -> None:
    from huggingface_hub import constants

    from stresslens.core.torchvision_cure import cure

    cure()
    import timm

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    published = timm.create_model("efficientvit_m1", pretrained=False)
    state = _random_like(published)
    into_hub_cache(tmp_path, "timm/efficientvit_m1.r224_in1k", "model.safetensors", state)
    data = Data.from_arrays(torch.rand(24, 3, 32, 32), torch.arange(24) % 3, name="photographs")
    task = task_of({"timm": {"name": "efficientvit_m1.r224_in1k", "pretrained": True}}, data=data, epochs=0)
    record = stages.carry_out(task)
    assert record["weights"]["fresh"] == ["head.linear.weight", "head.linear.bias"]
    assert record["weights"]["left"] == record["weights"]["adapted"] == []
    model = open_model(RunFolder(task.folder))
    assert model.resize.size == (224, 224)  # type: ignore[union-attr]
    assert model.resize.interpolation == "bicubic"  # type: ignore[union-attr]
    assert torch.equal(model.net.state_dict()["patch_embed.conv1.conv.weight"], state["patch_embed.conv1.conv.weight"])  # type: ignore[union-attr]


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
    with pytest.raises(DataError, match=r"torchvision resnet18 IMAGENET1K_V1.*resnet18-f37072fd.pth.*no network.*weights: \{file"):
        stages.carry_out(task_of({"torchvision": {"name": "resnet18", "weights": "DEFAULT"}}, data=data, epochs=0))
    with pytest.raises(DataError, match=r"model.safetensors of timm/efficientvit_m1.r224_in1k.*HF_HUB_OFFLINE"):
        stages.carry_out(task_of({"timm": {"name": "efficientvit_m1", "pretrained": True}}, data=data, epochs=0))


def test_a_half_downloaded_file_in_the_cache_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, task_of: Callable[..., Task]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"PK\x03\x04 half")
    data = Data.from_arrays(torch.rand(24, 3, 32, 32), torch.arange(24) % 3, name="photographs")
    with pytest.raises(DataError, match=r"resnet18-f37072fd.pth cannot be read .* remove it"):
        stages.carry_out(task_of({"torchvision": {"name": "resnet18", "weights": "DEFAULT"}}, data=data, epochs=0))


def test_a_study_in_config_form_repeats_a_run_that_began_with_another(tmp_path: Path) -> None:
    study = studies.expand({**STUDY, "repeats": 1}, name="it", base=tmp_path)
    folder = pipeline.run(study, out=tmp_path / "runs")
    config = folder / "tuned" / "seed-0" / "config.yaml"
    again = pipeline.run(studies.read(config), out=tmp_path / "again")
    first, second = (read_state(place / "tuned" / "seed-0" / "model.safetensors") for place in (folder, again))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_large_net_is_timed_on_fewer_images() -> None:
    from stresslens.settling import images_to_time

    assert images_to_time(1_000_000) > 10_000
    assert images_to_time(4_100_000_000) == 8  # ResNet-50 at 224×224
    assert images_to_time(0) > 10_000


def test_test_images_that_the_source_was_trained_on_are_found(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        **STUDY,
        "runs": {"other division": {"data": {"digits": {"seed": 7}}}, "begun": {"model.weights": {"run": "other division"}}},
        "repeats": 1,
    }
    folder = pipeline.run(studies.expand(values, name="it", base=tmp_path), out=tmp_path)
    found = read_record(RunFolder(folder / "begun" / "seed-0"))["data"]["findings"]
    (leak,) = [each for each in found if each["audit"] == "trained on before"]
    assert leak["severity"] == "serious"
    assert 150 < int(leak["evidence"].split()[0]) < 280  # three fifths of 360 by chance
    values["runs"]["other division"] = {}
    folder = pipeline.run(studies.expand(values, name="again", base=tmp_path), out=tmp_path)
    found = read_record(RunFolder(folder / "begun" / "seed-0"))["data"]["findings"]
    assert not [each for each in found if each["audit"] == "trained on before"]


def test_patches_and_inner_layers_are_not_adapted() -> None:
    patches = [nn.Sequential(nn.Conv2d(3, 4, side, stride=side), nn.AdaptiveAvgPool2d(1), nn.Flatten()) for side in (2, 4)]
    inner = [nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=groups)) for groups in (1, 8)]
    for net, source in (patches, inner):
        with pytest.raises(ConfigError, match="another architecture"):
            load_into(net, source.state_dict(), "it", head=(), keep_head=True)


def test_a_folder_is_taken_as_it_is_written_and_its_seeds_are_named(source: RunFolder, task_of: Callable[..., Task]) -> None:
    run = source.path.parent
    task = task_of({"mlp": {"widths": [12], "weights": {"run": str(run)}}}, epochs=0)
    assert stages.carry_out(task)["weights"]["used"] == 4
    other = task_of({"mlp": {"widths": [12], "weights": {"run": str(run)}}}, epochs=0, seed=3, folder=run.parent / "b" / "seed-3")
    with pytest.raises(ConfigError, match="it has seed-0, and this is seed-3"):
        stages.carry_out(other)


def test_a_head_that_cannot_be_kept_is_said(source: RunFolder, task_of: Callable[..., Task], small: Data) -> None:
    five = Data.from_arrays(torch.rand(50, 8, 8), torch.arange(50) % 5, name="five")
    value = {"mlp": {"widths": [12], "weights": {"run": str(source.path), "head": "kept"}}}
    with pytest.raises(ConfigError, match=r"head: kept, but 3\.weight"):
        stages.carry_out(task_of(value, data=five, epochs=0))


def test_a_sweep_begins_with_files_alone(tmp_path: Path) -> None:
    sweep = {"space": {"train.lr": {"log": [0.001, 0.1]}}, "trials": 2}
    with pytest.raises(Problems) as caught:
        studies.expand({**STUDY, "sweep": sweep}, name="it", base=tmp_path)
    assert any("a sweep begins before other runs are trained" in problem.message for problem in caught.value.problems)


def test_a_bare_file_is_prepared_as_its_zoo_does(tmp_path: Path, task_of: Callable[..., Task]) -> None:
    from stresslens.core.torchvision_cure import torchvision

    torch.save(torchvision().models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    data = Data.from_arrays(torch.rand(24, 3, 32, 32), torch.arange(24) % 3, name="photographs")
    task = task_of({"torchvision": {"name": "resnet18", "weights": {"file": str(tmp_path / "resnet18.pth")}}}, data=data, epochs=0)
    assert build_model(task, data).resize.size == (224, 224)  # type: ignore[union-attr]
