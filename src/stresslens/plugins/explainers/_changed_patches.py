"""Logits of images that differ from others in a window each: where a layer sees a few pixels, only the
patch of its output that sees the window is computed anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from stresslens.plugins.explainers._local_layers import LocalLayers, Stage, local_layers

SHARE = 0.5
"""A patch that fills more of a map is not worth its own computing."""
PATCHES = 1024
"""Most images of which patches are computed at once."""
CHECKED = 8
"""Images that are also computed whole."""
ROUNDING = 1e-4
"""The largest relative difference of the logits."""

Logits = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Windows:
    """The rows and columns of one size, from `tops` and `lefts` (P,) on, in maps of the same images."""

    tops: Tensor
    lefts: Tensor
    high: int
    wide: int

    def of(self, rows: Tensor) -> Windows:
        """Those at given places."""
        return Windows(self.tops[rows], self.lefts[rows], self.high, self.wide)

    def changed(self, stage: Stage, height: int, width: int) -> Windows:
        """The windows in a stage's output of this size that see these."""
        tops, high = stage.down.changed(self.tops, self.high, height)
        lefts, wide = stage.across.changed(self.lefts, self.wide, width)
        return Windows(tops, lefts, high, wide)

    def seen(self, stage: Stage) -> Windows:
        """The windows in a stage's input that these, in its output, see; they may go beyond the map."""
        tops, high = stage.down.seen(self.tops, self.high)
        lefts, wide = stage.across.seen(self.lefts, self.wide)
        return Windows(tops, lefts, high, wide)

    def inside(self, height: int, width: int) -> Windows:
        """The windows of the same size, moved into the map."""
        tops, lefts = self.tops.clamp(0, height - self.high), self.lefts.clamp(0, width - self.wide)
        return Windows(tops, lefts, self.high, self.wide)

    @property
    def rows(self) -> Tensor:
        """(P, high, 1)."""
        return (self.tops[:, None] + torch.arange(self.high))[:, :, None]

    @property
    def columns(self) -> Tensor:
        """(P, 1, wide)."""
        return (self.lefts[:, None] + torch.arange(self.wide))[:, None]

    def places(self, rows: Tensor, columns: Tensor, otherwise: int) -> Tensor:
        """(P, h, w) where the positions at rows (P, h, 1) and columns (P, 1, w) lie in these windows,
        counted row by row in one window after the other; `otherwise` outside."""
        down, across = rows - self.tops[:, None, None], columns - self.lefts[:, None, None]
        first = torch.arange(len(self.tops))[:, None, None] * self.high
        places = (first + down) * self.wide + across
        return torch.where(_within(down, self.high) & _within(across, self.wide), places, otherwise)


def _within(positions: Tensor, size: int) -> Tensor:
    return (positions >= 0) & (positions < size)


class _PlainMap:
    """What a layer gives for the images as they are, (N, C, H, W), as rows of channels."""

    def __init__(self, values: Tensor, outside: float) -> None:
        """`outside` is what lies beyond the map."""
        self.height, self.width = values.shape[2:]
        rows = _rows(values)
        self._rows = torch.cat([rows, rows.new_full((1, rows.shape[1]), outside)])

    def read(self, image: Tensor, where: Windows) -> Tensor:
        """(B · high · wide, C) the maps of images (B,) in windows, which may go beyond the map."""
        rows, columns = where.rows, where.columns
        places = (image[:, None, None] * self.height + rows) * self.width + columns
        within = _within(rows, self.height) & _within(columns, self.width)
        return self._rows.index_select(0, torch.where(within, places, len(self._rows) - 1).flatten())

    def patched(self, image: Tensor, where: Windows, patch: Tensor, at: Windows) -> Tensor:
        """(B, C, high, wide) the same with patches (B, C, h, w) put at other windows."""
        read = self.read(image, where)
        places = where.places(at.rows, at.columns, otherwise=-1).flatten()
        rows, known = _rows(patch), places >= 0
        if not known.all():
            places, rows = places[known], rows[known]
        read.index_copy_(0, places, rows)
        return read.view(len(image), where.high, where.wide, -1).permute(0, 3, 1, 2)


def _rows(values: Tensor) -> Tensor:
    """(N · H · W, C) from (N, C, H, W)."""
    return values.permute(0, 2, 3, 1).flatten(0, 2)


class _LinearOnPatches:
    """A linear layer on flattened maps (N, C, H, W) of which a patch changes: its output for the plain
    maps, and the product of the change."""

    def __init__(self, layer: nn.Linear, values: Tensor, plain: _PlainMap) -> None:
        self._output, self._plain = layer(values.flatten(1)), plain
        self._weight = layer.weight.unflatten(1, values.shape[1:]).permute(2, 3, 1, 0).contiguous()

    def __call__(self, image: Tensor, patch: Tensor, at: Windows) -> Tensor:
        """(B, K) for images (B,), with patches (B, C, h, w) at windows."""
        key, order = (at.tops * self._plain.width + at.lefts).sort(stable=True)
        image, at = image[order], at.of(order)
        change = _rows(patch).view(len(order), -1).index_select(0, order)
        change -= self._plain.read(image, at).view_as(change)
        change = change.view(len(order), at.high, -1)
        output = self._output[image]
        start = 0
        for count in key.unique_consecutive(return_counts=True)[1].tolist():
            top, left, rows = int(at.tops[start]), int(at.lefts[start]), slice(start, start + count)
            for row in range(at.high):
                weight = self._weight[top + row, left : left + at.wide].flatten(0, 1)
                output[rows].addmm_(change[rows, row], weight)
            start += count
        return torch.empty_like(output).index_copy_(0, order, output)


class ChangedPatches:
    """Logits of images x (N, C, H, W) with the pixels of `filler` in windows."""

    def __init__(self, parts: LocalLayers, x: Tensor, filler: Tensor, windows: Windows) -> None:
        self._x, self._filler = (parts.pixelwise(images.clone()) for images in (x, filler))
        self._windows = windows
        self._stages: list[tuple[Stage, _PlainMap, Windows]] = []
        at, values = windows.inside(*x.shape[2:]), self._x
        for stage in parts.stages:
            output = stage.layers(values)
            height, width = output.shape[2:]
            changed = at.changed(stage, height, width)
            if changed.high * changed.wide > SHARE * height * width:
                break
            self._stages.append((stage, _PlainMap(values, stage.outside), changed))
            at, values = changed, output
        self._last = _PlainMap(values, 0.0)
        left = parts.stages[len(self._stages) :]
        self._linear, self._rest = None, parts.rest
        if parts.linear is not None and not left:
            self._linear = _LinearOnPatches(parts.linear, values, self._last)
        elif parts.linear is not None:
            layers = [stage.layers for stage in left]
            self._rest = nn.Sequential(*layers, nn.Flatten(), parts.linear, parts.rest)
        else:
            self._rest = nn.Sequential(*(stage.layers for stage in left), parts.rest)

    @property
    def saves(self) -> bool:
        """Whether a convolution is computed on patches."""
        return any(isinstance(layer, nn.Conv2d) for stage, *_ in self._stages for layer in stage.layers)

    def __call__(self, positions: Tensor) -> Tensor:
        """(B, K) logits at positions (B,): the windows of the first image, then those of the next one."""
        count = len(self._windows.tops)
        image, window = positions // count, positions % count
        covered = self._windows.of(window)
        at = covered.inside(*self._x.shape[2:])
        within = covered.places(at.rows, at.columns, otherwise=-1) >= 0
        places = image[:, None, None], slice(None), at.rows, at.columns
        patch = torch.where(within[..., None], self._filler[places], self._x[places]).permute(0, 3, 1, 2)
        for stage, plain, changed in self._stages:
            following = changed.of(window)
            patch = stage.bare(plain.patched(image, following.seen(stage), patch, at))
            at = following
        if self._linear is not None:
            values = self._linear(image, patch, at)
        else:
            corner = torch.zeros(len(image), dtype=torch.long)
            whole = Windows(corner, corner, self._last.height, self._last.width)
            values = self._last.patched(image, whole, patch, at)
        logits: Tensor = self._rest(values)
        return logits


def changed_patches(
    model: nn.Module, x: Tensor, filler: Tensor, windows: Windows, whole: Logits
) -> ChangedPatches | None:
    """The logits of images x (N, C, H, W) covered by `filler` in windows, for a net on the CPU. None
    where patches save nothing, or differ from the logits of `whole` on some of the windows."""
    count = len(x) * len(windows.tops)
    some = torch.linspace(0, count - 1, min(CHECKED, count)).long()
    try:
        parts = local_layers(model)
        passes = None if parts is None else ChangedPatches(parts, x, filler, windows)
        if passes is None or not passes.saves:
            return None
        expected = whole(some)
        apart = (passes(some) - expected).norm()
    except Exception:  # a user's module may raise anything
        return None
    return passes if apart <= ROUNDING * expected.norm() else None
