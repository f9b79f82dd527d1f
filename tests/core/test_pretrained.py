"""Which tensors of given weights are used, adapted or left, and files that hold none."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from stresslens.core.errors import ConfigError, DataError
from stresslens.core.pretrained import load_into
from stresslens.core.weights_file import read_state


def net_of(seed: int, channels: int = 3, kernel: int = 7, classes: int = 10) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(channels, 4, kernel),
        nn.BatchNorm2d(4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, classes),
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
    other = nn.Sequential(
        nn.Conv2d(3, 8, 7), nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    )
    net = net_of(0)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(
        ConfigError,
        match=r"another architecture: 6 of the net's 9 tensors do not fit, first 0.weight: \(4, 3, 7, 7\)",
    ):
        load_into(net, other.state_dict(), "it", head=HEAD, keep_head=True)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(
    "wrap",
    [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}],
    ids=["bare", "epoch", "model"],
)
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_a_state_dict_is_found_however_it_was_saved(
    tmp_path: Path, wrap: Callable[[Any], Any], prefix: str
) -> None:
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
        ("page.pth", lambda path: path.write_text("<html>"), "not a file of torch"),
        ("half.safetensors", _half_safetensors, "incomplete or damaged"),
        ("text.pt", lambda path: path.write_text("no weights"), "cannot be read as weights"),
        ("list.pt", lambda path: torch.save([torch.zeros(2)], path), "holds no state dict"),
        ("absent.pt", lambda path: None, "there is no file"),
    ],
)
def test_files_that_are_no_weights_are_told(
    tmp_path: Path, name: str, make: Callable[[Path], Any], message: str
) -> None:
    make(tmp_path / name)
    with pytest.raises(DataError, match=message):
        read_state(tmp_path / name)


def test_patches_and_inner_layers_are_not_adapted() -> None:
    patches = [
        nn.Sequential(nn.Conv2d(3, 4, side, stride=side), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        for side in (2, 4)
    ]
    inner = [nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=groups)) for groups in (1, 8)]
    for net, source in (patches, inner):
        with pytest.raises(ConfigError, match="another architecture"):
            load_into(net, source.state_dict(), "it", head=(), keep_head=True)
