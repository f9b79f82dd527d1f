"""Pieces are bounded in bytes, follow from shapes alone, and are halved when memory runs out."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from stresslens.core import pieces
from stresslens.core.attack_base import BatchedModel, batched_mean_logits, gradient
from stresslens.core.data import Split
from stresslens.core.errors import ConfigError, Notice, StresslensError
from stresslens.core.layers import Normalize
from stresslens.core.pass_memory import bytes_of_pass, images_at_once, logits_in_pieces
from stresslens.evaluation.ood import observed
from stresslens.evaluation.scores import logits_of

CPU = (
    "[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: you tried to "
    "allocate 9 bytes. Error code 12 (Cannot allocate memory)"
)
ERRORS = [MemoryError(), RuntimeError(CPU), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")]


class Wide(nn.Module):
    """A net whose pass holds two tensors of 16 numbers for each pixel; it fails for more images than
    `most`, as if there were no memory."""

    def __init__(self, most: int = 10**9, error: BaseException = ERRORS[1]) -> None:
        super().__init__()
        self.conv, self.most, self.error, self.seen = nn.Conv2d(1, 16, 1), most, error, list[int]()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        if len(x) > self.most:
            raise self.error
        return self.conv(x).sigmoid().mean((2, 3))


def images(n: int, side: int = 8) -> Tensor:
    return torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("text", "size"), [("", 2**29), ("1000", 1000), ("256MB", 256_000_000), ("1 GiB", 2**30), ("0.5kb", 500)]
)
def test_the_budget_is_set_in_bytes(monkeypatch: pytest.MonkeyPatch, text: str, size: int) -> None:
    monkeypatch.setenv(pieces.VARIABLE, text)
    assert pieces.budget() == size


@pytest.mark.parametrize("text", ["much", "-1", "0", "1 TB of it", "1e3"])
def test_a_budget_that_is_no_size(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(pieces.VARIABLE, text)
    with pytest.raises(ConfigError, match="expected a size such as 256MB"):
        pieces.budget()


def test_small_images_keep_the_usual_size_and_large_ones_a_power_of_two() -> None:
    assert pieces.at_most(512, 2**29 / 512) == 512
    assert pieces.at_most(512, 2**29 / 511) == 256
    assert pieces.at_most(100, 0) == 100
    assert pieces.at_most(512, 2**40) == 1


@pytest.mark.parametrize("side", [4, 32, 64])
def test_the_memory_of_a_pass_is_that_of_its_largest_moment(side: int) -> None:
    """Forward: the images, as given and copied, and two activations; back: at least the same."""
    image, activation = 4 * side**2, 4 * 16 * side**2
    forward = bytes_of_pass(Wide(), (1, side, side))
    assert 2 * activation <= forward <= 2 * activation + 3 * image + 200
    assert (
        forward <= bytes_of_pass(Wide(), (1, side, side), gradient=True) <= 4 * activation + 4 * image + 400
    )


def test_measuring_leaves_the_model_as_it_was() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(144, 2))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    bytes_of_pass(net, (1, 8, 8), gradient=True)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_a_model_that_fails_is_not_limited() -> None:
    assert images_at_once(nn.Linear(3, 2), (1, 8, 8), 64) == 64


def test_the_size_follows_from_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    net, small = Wide(), images(40)
    monkeypatch.setenv(pieces.VARIABLE, str(int(12 * bytes_of_pass(net, (1, 8, 8)))))
    net.seen.clear()
    logits = logits_of(net, Split(small, torch.zeros(40, dtype=torch.int64), 1.0))
    assert net.seen == [8] * 5
    assert torch.allclose(logits, logits_in_pieces(net, small), atol=1e-6)
    monkeypatch.setenv(pieces.VARIABLE, str(int(7 * bytes_of_pass(net, (1, 8, 8), gradient=True))))
    net.seen.clear()
    gradient(BatchedModel(net, batch=32), small, lambda logits: logits.sum(1))
    assert net.seen == [4] * 10


@pytest.mark.parametrize("error", ERRORS, ids=["MemoryError", "CPU", "CUDA"])
def test_when_memory_runs_out_pieces_are_halved(error: BaseException) -> None:
    x, net, told = images(20), Wide(error=error), list[str]()
    whole = logits_in_pieces(net, x)
    net.most = 6
    with pytest.warns(Notice), pieces.hearing_of_shortages(told.append):
        halves = batched_mean_logits(BatchedModel(net, batch=20), x)
    assert torch.allclose(whole, halves, atol=1e-6)
    assert net.seen[-4:] == [5] * 4
    assert [sentence.partition("(")[0] for sentence in told] == [
        "memory ran out for 20 images at a time ",
        "memory ran out for 10 images at a time ",
    ]


def test_each_verb_that_passes_images_gets_the_same_answers_in_halves() -> None:
    split = Split(images(20), torch.zeros(20, dtype=torch.int64), 1.0)
    net = Wide()
    whole, known = observed(net, split, lambda: logits_of(net, split))
    net.most = 3
    with pytest.warns(Notice):
        halves, again = observed(net, split, lambda: logits_of(net, split))
    assert torch.allclose(whole, halves, atol=1e-6)
    assert torch.allclose(torch.from_numpy(known.features), torch.from_numpy(again.features), atol=1e-6)
    assert (known.coarse == again.coarse).all()


def test_where_not_even_one_image_fits_an_error_says_so() -> None:
    with pytest.warns(Notice), pytest.raises(StresslensError, match="not enough memory for a single image"):
        logits_in_pieces(Wide(most=0), images(4))
    with pytest.raises(ZeroDivisionError):
        pieces.in_pieces(lambda rows: 1 // 0, 4, 2)


def test_a_split_is_looked_at_in_pieces_of_bounded_bytes() -> None:
    """CIFAR's images stay 4,096 at a time, so that sums over them keep their bits."""
    labels = torch.zeros(5000, dtype=torch.int64)
    assert Split(torch.zeros(5000, 3, 32, 32, dtype=torch.uint8), labels).piece() == 4096
    assert Split(torch.zeros(1, 3, 224, 224, dtype=torch.uint8), labels[:1]).piece() == 83
    assert Split(torch.zeros(1, 3, 9000, 9000, dtype=torch.uint8), labels[:1]).piece() == 1


@pytest.mark.breadth(1)
@pytest.mark.parametrize("side", [8, 600])
def test_statistics_in_pieces_are_those_of_all_images(side: int) -> None:
    x = torch.randint(
        0, 256, (40, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    fitted = Normalize.fitted(Split(x, torch.zeros(40, dtype=torch.int64)), "standard")
    values = x.double() / 255
    deviation = values.transpose(0, 1).flatten(1).std(1, correction=0)
    assert torch.allclose(1 / fitted.gain.flatten().double(), deviation, rtol=1e-6)
    assert torch.allclose((-fitted.shift / fitted.gain).flatten().double(), values.mean((0, 2, 3)), rtol=1e-6)


SHORT_OF_MEMORY = """
import resource, warnings, torch
from torch import nn
from stresslens.core.errors import Notice
from stresslens.core.pass_memory import logits_in_pieces
torch.set_num_threads(1)
net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten())
x = torch.rand(256, 3, 64, 64)
with torch.no_grad():
    expected = torch.cat([net(part) for part in x.split(1)])
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**27, resource.RLIM_INFINITY))
    warnings.simplefilter("ignore", Notice)
    found = logits_in_pieces(net, x)
    print(torch.allclose(found, expected, atol=1e-5))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of memory")
def test_a_process_that_may_not_have_more_memory_goes_on() -> None:
    """128 MiB are left, and a pass over all images needs 240."""
    environment = {**os.environ, pieces.VARIABLE: "10GB"}
    command = [sys.executable, "-c", SHORT_OF_MEMORY]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stdout == "True\n", done.stderr[-1000:]
