"""Modules that a step which rewrites, copies or reads a model by its types may take for another.

Each builder makes one with random weights: images (N, 1, 8, 8) to logits (N, 3).
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

import forward_passes as passes
import torch
import torch.fx
import torch.nn.functional as F
from derived_layers import OwnPool, OwnReLU, OwnSequential, ScaledLinear, StandardisedConv
from forward_passes import CLASSES, SHAPE, Net, layers
from several_outputs import PRECISIONS, SEVERAL_OUTPUTS
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize


def hooked(part: int, register: str, hook: Callable[..., Any]) -> nn.Sequential:
    net = layers()
    getattr(net[part], register)(hook)
    return net


def keeping(hook_of: Callable[[Any], Callable[..., Any]], part: int = 1) -> Net:
    net = Net(passes.with_seen)
    net.features[part].register_forward_hook(hook_of(net))
    return net


class Keeper(Net):
    def keep(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.seen = output


def kept_by_a_method(part: int = 1) -> Keeper:
    net = Keeper(passes.with_seen)
    net.features[part].register_forward_hook(net.keep)
    return net


def kept_before_in_place() -> Keeper:
    """The hook keeps what the convolution gave, and ReLU then writes into it."""
    net = Keeper(passes.with_seen)
    net.features[1] = nn.ReLU(inplace=True)
    net.features[0].register_forward_hook(net.keep)
    return net


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def parametrised(norm: Callable[[nn.Module], Any] | None = None) -> nn.Sequential:
    net = layers()
    for layer in (net[0], net[4]):
        if norm is None:
            parametrize.register_parametrization(layer, "weight", Doubled())
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)
                norm(layer)
    return net


def batch_norm(**options: Any) -> nn.Sequential:
    norm = nn.BatchNorm2d(4, **options)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), norm, *layers()[1:])


def frozen_norm() -> nn.Sequential:
    net = batch_norm()
    net.train()
    net[1].eval()
    return net


class Flow(nn.Module):
    """Layers in a list, a dictionary, and a plain list that hides them."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        made = list(layers())
        named = {f"part{k}": layer for k, layer in enumerate(made)}
        self.parts: Any = {"list": nn.ModuleList(made), "dict": nn.ModuleDict(named), "hidden": made}[kind]

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts.values() if isinstance(self.parts, nn.ModuleDict) else self.parts:
            x = part(x)
        return x


class Buffered(Net):
    """A buffer that every pass changes, and one that it reads."""

    passes: Tensor
    gain: Tensor

    def __init__(self, *, plain: bool = False) -> None:
        super().__init__(passes.whole)
        if plain:
            self.passes, self.gain = torch.zeros(()), torch.full((3,), 1.5)
        else:
            self.register_buffer("passes", torch.zeros(()))
            self.register_buffer("gain", torch.full((3,), 1.5))

    def forward(self, x: Tensor) -> Tensor:
        self.passes = self.passes + 1
        return passes.whole(self, x) * self.gain


class Text(Net):
    """Features of captions, kept with their graph."""

    def __init__(self) -> None:
        super().__init__(passes.whole)
        self.proj = nn.Linear(5, CLASSES)
        self.text = self.proj(torch.ones(1, 5))

    def forward(self, x: Tensor) -> Tensor:
        return passes.whole(self, x) * self.text


class Locked(Net):
    def __init__(self) -> None:
        super().__init__(passes.whole)
        self.lock = threading.Lock()

    def forward(self, x: Tensor) -> Tensor:
        with self.lock:
            return passes.whole(self, x)


class NoCopy(Net):
    def __deepcopy__(self, memo: Any) -> Any:
        return self


class Stubborn(Net):
    """Parts stay in training mode after eval()."""

    def train(self, mode: bool = True) -> Any:
        return super().train(True)


class Proxy(nn.Module):
    """Hands every unknown attribute on to what it wraps."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = layers()

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self._modules["inner"], name)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x)
        return out


class _Negative(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        return -grad


def own_gradient(net: Any, x: Tensor) -> Tensor:
    return passes.whole(net, _Negative.apply(x))  # type: ignore[no-untyped-call]


def replaced_method() -> Net:
    net = Net(passes.whole)
    net.forward = passes.by_slice.__get__(net)  # type: ignore[method-assign]
    return net


def replaced_closure() -> Net:
    net = Net(passes.whole)
    net.forward = lambda x: passes.by_slice(net, x)  # type: ignore[method-assign]
    return net


def replaced_in(part: int) -> nn.Sequential:
    net = layers()
    net[part].forward = lambda x: F.relu(x) - 0.5 * x if part == 1 else F.avg_pool2d(x, 2)  # type: ignore[method-assign]
    return net


def replaced_in_sequential() -> Net:
    net = Net(passes.whole)
    net.features.forward = lambda x: nn.Sequential.forward(net.features, x) * 2  # type: ignore[method-assign]
    return net


class Unpools(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, return_indices=True)
        )
        self.head = nn.Linear(256, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        values, places = self.body(x)
        out: Tensor = self.head(F.max_unpool2d(values, places, 2).flatten(1))
        return out


class NoParameters(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :CLASSES] * 4


def shared(relu: bool = False, pool: bool = False) -> nn.Sequential:
    act, down = nn.ReLU(), nn.MaxPool2d(2)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        act,
        down,
        nn.Conv2d(4, 4, 3, padding=1),
        act if relu else nn.ReLU(),
        down if pool else nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16, CLASSES),
    )


def shared_convolution() -> nn.Sequential:
    net = nn.Sequential(*layers(), nn.Unflatten(1, (1, 1, 3)), nn.Flatten())
    net.same = net[0]  # a second name
    return nn.Sequential(net[:5])


def compiled_part() -> Net:
    net = Net(passes.whole)
    net.features = torch.compile(net.features, backend="eager")  # type: ignore[assignment]
    return net


def compiled_forward() -> Net:
    net = Net(passes.whole)
    net.forward = torch.compile(net.forward, backend="eager")  # type: ignore[method-assign]
    return net


def compiled_in_place() -> Net:
    net = Net(passes.whole)
    net.compile(backend="eager")
    return net


def partly_frozen() -> nn.Sequential:
    net = layers()
    net[0].requires_grad_(False)
    return net


def lazy() -> nn.Sequential:
    net = layers(linear=nn.LazyLinear(CLASSES))
    net(torch.zeros(1, *SHAPE))
    return net


def scripted(trace: bool) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        net = layers().eval()
        made: nn.Module = torch.jit.trace(net, torch.rand(2, *SHAPE)) if trace else torch.jit.script(net)
        return made


def exported() -> nn.Module:
    batch = torch.export.Dim("batch")
    net, example = layers().eval(), torch.rand(2, *SHAPE)
    return torch.export.export(net, (example,), dynamic_shapes=({0: batch},), strict=False).module()


AWKWARD: dict[str, Callable[[], nn.Module]] = {
    "plain": layers,
    "relu subclass": lambda: layers(relu=OwnReLU()),
    "pool subclass": lambda: layers(pool=OwnPool(2)),
    "conv subclass": lambda: layers(conv=StandardisedConv(1, 4, 3, padding=1)),
    "linear subclass": lambda: layers(linear=ScaledLinear(64, CLASSES)),
    "Sequential subclass": lambda: OwnSequential(*layers()),
    "tapped by place": lambda: Net(passes.by_place),
    "tapped by slice": lambda: Net(passes.by_slice),
    "tapped by slice and whole": lambda: Net(passes.by_slice_and_whole),
    "tapped by the last index": lambda: Net(passes.by_last),
    "tapped by children": lambda: Net(passes.by_children),
    "called twice": lambda: Net(passes.twice),
    "reads a layer's weights": lambda: Net(passes.reads_weights),
    "asks for types": lambda: Net(passes.asks_for_types),
    "asks for Sequential": lambda: Net(passes.exact_sequential),
    "shared relu": lambda: shared(relu=True),
    "shared pool": lambda: shared(pool=True),
    "shared relu and pool": lambda: shared(relu=True, pool=True),
    "shared convolution": shared_convolution,
    "hook changes the relu": lambda: hooked(1, "register_forward_hook", lambda m, i, o: o - 0.5),
    "hook changes the linear layer": lambda: hooked(4, "register_forward_hook", lambda m, i, o: 4 * o),
    "pre-hook of the pool": lambda: hooked(2, "register_forward_pre_hook", lambda m, i: (1 - i[0],)),
    "backward hook": lambda: hooked(1, "register_full_backward_hook", lambda m, i, o: (3 * i[0],)),
    "backward pre-hook": lambda: hooked(2, "register_full_backward_pre_hook", lambda m, o: (2 * o[0],)),
    "gradient hook": lambda: Net(passes.scales_gradient),
    "kept by a method": kept_by_a_method,
    "kept of the convolution by a method": lambda: kept_by_a_method(0),
    "kept before an in-place relu": kept_before_in_place,
    "kept by a closure": lambda: keeping(lambda net: lambda m, i, o: setattr(net, "seen", o)),
    "kept of the convolution by a closure": lambda: keeping(
        lambda net: lambda m, i, o: setattr(net, "seen", o), part=0
    ),
    "parametrised": parametrised,
    "weight norm": lambda: parametrised(parametrizations.weight_norm),
    "old weight norm": lambda: parametrised(nn.utils.weight_norm),
    "spectral norm": lambda: parametrised(parametrizations.spectral_norm),
    "old spectral norm": lambda: parametrised(nn.utils.spectral_norm),
    "orthogonal": lambda: nn.Sequential(*layers()[:4], parametrizations.orthogonal(nn.Linear(64, CLASSES))),
    "in-place relu": lambda: layers(relu=nn.ReLU(inplace=True)),
    "in-place relu of the input": lambda: nn.Sequential(
        nn.Identity(), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, CLASSES)
    ),
    "in-place relu of what is stored": lambda: Net(passes.in_place_after_stored),
    "input scaled in place": lambda: Net(passes.under_no_grad),
    "input scaled through data": lambda: Net(passes.through_data),
    "input scaled through numpy": lambda: Net(passes.through_numpy),
    "input written in a corner": lambda: Net(passes.writes_corner),
    "input clamped": lambda: Net(passes.clamps),
    "functional": lambda: Net(passes.functional),
    "scripted": lambda: scripted(False),
    "traced": lambda: scripted(True),
    "compiled": lambda: torch.compile(layers(), backend="eager"),  # type: ignore[dict-item]
    "compiled part": compiled_part,
    "compiled forward": compiled_forward,
    "compiled in place": compiled_in_place,
    "torch.fx": lambda: torch.fx.symbolic_trace(layers()),
    "exported": exported,
    "view": lambda: Net(passes.viewed),
    "as_strided": lambda: Net(passes.strided),
    "asks for the memory layout": lambda: Net(passes.by_layout),
    "buffers": Buffered,
    "plain tensors": lambda: Buffered(plain=True),
    "module list": lambda: Flow("list"),
    "module dictionary": lambda: Flow("dict"),
    "hidden list": lambda: Flow("hidden"),
    "forward replaced by a method": replaced_method,
    "forward replaced by a closure": replaced_closure,
    "forward of the relu replaced": lambda: replaced_in(1),
    "forward of the pool replaced": lambda: replaced_in(2),
    "forward of the Sequential replaced": replaced_in_sequential,
    "nested Sequential": lambda: nn.Sequential(layers()[:2], *layers()[2:]),
    "dropout": lambda: nn.Sequential(*layers()[:4], nn.Dropout(0.5), nn.Linear(64, CLASSES)),
    "functional dropout": lambda: Net(passes.drops_in_training),
    "python's random numbers": lambda: Net(passes.draws_in_training),
    "batch norm": batch_norm,
    "batch norm without statistics": lambda: batch_norm(track_running_stats=False),
    "frozen batch norm": frozen_norm,
    "indices of the pool": Unpools,
    "overlapping pool": lambda: layers(pool=nn.MaxPool2d(3, 2, padding=1, ceil_mode=False)),
    "pool with ceil": lambda: nn.Sequential(
        *layers()[:2], nn.MaxPool2d(3, ceil_mode=True), nn.Flatten(), nn.Linear(36, CLASSES)
    ),
    "keeps its activations": lambda: Net(passes.keeps),
    "keeps text features": Text,
    "lock": Locked,
    "copy is itself": lambda: NoCopy(passes.whole),
    "counts its calls": lambda: Net(passes.counts),
    "stays in training mode": lambda: Stubborn(passes.whole, nn.Dropout(0.0)),
    "proxy": Proxy,
    "own gradient": lambda: Net(own_gradient),
    "no parameters": NoParameters,
    "partly frozen": partly_frozen,
    "lazy": lazy,
    "channels last": lambda: layers().to(memory_format=torch.channels_last),  # type: ignore[call-overload]
    "float64": lambda: layers().double(),
    "scatter": lambda: Net(passes.scatters),
}
EVERY = AWKWARD | SEVERAL_OUTPUTS | PRECISIONS


def build(name: str) -> nn.Module:
    """An awkward module with weights from a fixed seed, as the user gives it, in its own mode."""
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of lazy layers
        torch.manual_seed(3)
        return EVERY[name]()
