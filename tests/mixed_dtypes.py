"""Nets of several dtypes for tests: from images (N, 1, 8, 8) in [0, 1] to logits (N, 4)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

SHAPE, CLASSES = (1, 8, 8), 4
WIDTH = 4 * 8 * 8


def _front(dtype: torch.dtype = torch.float32) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten()).to(dtype)


def _head(dtype: torch.dtype = torch.float32) -> nn.Linear:
    return nn.Linear(WIDTH, CLASSES, dtype=dtype)


class DoubleHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.front, self.head = _front(), _head(torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.front(x).double())


class DoubleHeadFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head, self.front = _head(torch.float64), _front()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.front(x).double())


class DoubleFront(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head, self.front = _head(), _front(torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.front(x).float())


class CastsToDouble(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(_front(), _head()).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.double())


class CastsThereAndBack(CastsToDouble):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).float()


class DoubleNorm(nn.Module):
    """Batch norm in float64 between layers in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.front, self.norm, self.head = _front(), nn.BatchNorm1d(WIDTH).double(), _head()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.front(x).double()).float())


class HalfMean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((1,), 0.5, dtype=torch.float16))
        self.front, self.head = _front(), _head()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.front(x - self.mean))


class HalfBuffers(nn.Module):
    """Fixed scores, in half precision and in float32, and nothing to train."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("coarse", torch.randn(64, CLASSES).half())
        self.register_buffer("fine", torch.randn(64, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return flat @ self.fine + (flat.half() @ self.coarse).float()


class ComplexFilter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.randn(1, 8, 5, dtype=torch.complex64))
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.fft.irfft2(torch.fft.rfft2(x) * self.filter, s=(8, 8)).flatten(1))


class AllComplex(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(64, CLASSES, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1).to(torch.complex64) @ self.weight).abs()


class IntegersFirst(nn.Module):
    """The order of the pixels as an integer parameter before the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.order = nn.Parameter(torch.arange(64).flip(0), requires_grad=False)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1)[:, self.order])


class IntegersOnly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randint(-9, 9, (64, CLASSES)), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.to(x.dtype)


class Bfloat16Front(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.front, self.head = _front(torch.bfloat16), _head()

    def forward(self, x: Tensor) -> Tensor:
        front = self.front(x.to(self.front[0].weight.dtype))
        return self.head(front.to(self.head.weight.dtype))


class Unmatched(nn.Module):
    """Takes images in no dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.front, self.head = _front(), _head(torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.front(x))


TAKEN: dict[Callable[[], nn.Module], torch.dtype] = {
    DoubleHead: torch.float32,
    DoubleHeadFirst: torch.float32,
    DoubleFront: torch.float64,
    CastsToDouble: torch.float64,
    CastsThereAndBack: torch.float64,
    DoubleNorm: torch.float32,
    HalfMean: torch.float32,
    HalfBuffers: torch.float32,
    ComplexFilter: torch.float32,
    AllComplex: torch.float32,
    IntegersFirst: torch.float32,
    IntegersOnly: torch.float32,
    Bfloat16Front: torch.float32,
}
"""The dtype in which each net takes its images; either would do where it casts them itself."""
EITHER = {CastsToDouble, CastsThereAndBack, Bfloat16Front}
FIXED = {HalfBuffers, IntegersOnly}
"""Nets without anything to train."""
OWN = {DoubleHead, DoubleHeadFirst, CastsToDouble, CastsThereAndBack, DoubleNorm}
"""Nets that fail where all their weights are in float32."""


def made(net: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return net().eval()


def images(n: int = 12) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(0))
    return x, torch.arange(n) % CLASSES
