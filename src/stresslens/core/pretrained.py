"""Pretrained weights: loading, downloading, their preprocessing, and fitting of tensor shapes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked
from torch import Tensor, nn

from stresslens.core.errors import ConfigError, DataError, first_line
from stresslens.core.layers import Interpolation, Normalize
from stresslens.core.text import counted
from stresslens.core.types import Shape
from stresslens.core.weights_file import load_state, unwrapped

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Preprocessing:
    """The preprocessing of the images that weights were trained on.

    They were resized to `shape` (channels, height, width) and normalised. Published models are
    evaluated on the middle of an image, `crop` of its shorter side (0.875 is 224 of 256); None: on
    the whole image.
    """

    shape: Shape
    normalize: Normalize
    interpolation: Interpolation = "bilinear"
    crop: float | None = None
    crops_by_default: bool = False
    """Whether `input: {crop: auto}` takes that crop, as for the weights of a run that did so."""


@dataclass(frozen=True)
class PretrainedWeights:
    """Pretrained weights from a `source`, for a net that a model plug-in builds.

    `load` returns the tensors by name; it may download them, and raises DataError if it cannot.
    `classes` are the classes of the head, if they are known. `digest` identifies the content of
    weights that may change.
    """

    source: str
    load: Callable[[], State]
    preprocessing: Preprocessing | None = None
    classes: tuple[str, ...] | None = None
    digest: str = ""
    head: Literal["auto", "new", "kept"] = "auto"


@checked(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class WeightsRef:
    """`weights: {run: NAME}` or `weights: {file: PATH}` of a configuration.

    `run` is another run of the study or a run's folder; `file` is a safetensors file or a state
    dict. `head` says whether the last layer is initialised anew, kept, or kept if it is for the
    same classes (auto).
    """

    run: Annotated[str, Field(min_length=1)] | None = None
    file: Annotated[str, Field(min_length=1)] | None = None
    head: Literal["auto", "new", "kept"] = "auto"

    def wrong(self) -> str | None:
        return None if (self.run is None) != (self.file is None) else "give either a run or a file"


Published = PretrainedWeights
"""The name in version 0.1.0, which plug-ins may import."""


@dataclass(frozen=True)
class LoadReport:
    """Which tensors were loaded into a net."""

    source: str
    used: tuple[str, ...]
    """Loaded unchanged."""
    adapted: tuple[tuple[str, str], ...]
    """Loaded after a change, with what was changed."""
    fresh: tuple[str, ...]
    """Tensors of the net that keep their initial values."""
    left: tuple[str, ...]
    """Tensors of the weights that were not used."""

    @property
    def said(self) -> str:
        used = counted(len(self.used), "tensor as it is", "tensors as they are")
        parts = [f"started from the weights of {self.source}: {used}"]
        parts += (
            [f"adapted: {', '.join(f'{name} ({how})' for name, how in self.adapted)}"] if self.adapted else []
        )
        parts += [f"begun anew: {', '.join(self.fresh)}"] if self.fresh else []
        parts += (
            [f"left: {', '.join(self.left[:6])}{', …' if len(self.left) > 6 else ''} ({len(self.left)})"]
            if self.left
            else []
        )
        return "; ".join(parts)

    def as_json(self) -> dict[str, Any]:
        return {
            "source": self.source,
            "said": self.said,
            "used": len(self.used),
            "adapted": [f"{name}: {how}" for name, how in self.adapted],
            "fresh": list(self.fresh),
            "left": list(self.left),
        }


def unavailable(source: str, place: Path, error: Exception) -> DataError:
    """The error for published weights that could not be loaded; `place` is their cache file."""
    reason = first_line(error)[:160]
    if place.is_file():
        what = (
            f"{place} cannot be read ({reason}); it is incomplete or damaged: "
            "remove it, and it is downloaded again"
        )
    else:
        what = f"not on this machine ({place}), and could not be downloaded ({reason}). Put the file there"
    return DataError(f"weights of {source}: {what}, or give it as weights: {{file: PATH}}")


def from_hub(source: str, repository: str, *names: str) -> Path:
    """The first of these files that a repository of the Hugging Face hub has.

    It comes from the hub's cache on this machine, or else is downloaded. One quick request comes
    first, because without a network the hub's library retries for a long time. Raises DataError
    that says where to put the file.
    """
    import huggingface_hub as hub
    from huggingface_hub import constants, errors

    for name in names:
        cached = hub.try_to_load_from_cache(repository, name)
        if isinstance(cached, str):
            return Path(cached)
    place = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    try:
        if constants.HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set")
        with (
            suppress(HTTPError),
            urlopen(Request(hub.hf_hub_url(repository, names[0]), method="HEAD"), timeout=10),
        ):
            pass
        for name in names[:-1]:
            with suppress(errors.EntryNotFoundError):
                return Path(hub.hf_hub_download(repository, name))
        return Path(hub.hf_hub_download(repository, names[-1]))
    except Exception as error:
        reason = first_line(error)[:160]
        raise DataError(
            f"weights of {source}: {names[0]} of {repository} is not on this machine ({place}), "
            f"and could not be downloaded ({reason}). Download it on a machine with a network, "
            "and give it as weights: {file: PATH}"
        ) from error


def load_into(
    net: nn.Module,
    weights: State,
    source: str,
    *,
    head: tuple[str, ...],
    keep_head: bool,
    must_keep: bool = False,
    shape: Shape | None = None,
    made_for: Shape | None = None,
) -> LoadReport:
    """Loads `weights` into the net.

    The first convolution is adapted to other channels or a smaller kernel, and position embeddings
    are resampled to another grid. `head` are the names of the tensors of the classifier layers; only
    these, and layers for the same classes that are used in training alone, may be initialised anew.
    `shape` is that of the images that the net gets, `made_for` that of the weights. Raises
    ConfigError, with the tensors' names, if the weights are of another architecture.
    """
    state = net.state_dict()
    weights = unwrapped(weights, state, source)
    classes = {_rows(weights[name], state[name]) for name in head if name in weights}
    fitting = _Fitting.of(net, shape, made_for)
    used: list[str] = []
    adapted: list[tuple[str, str]] = []
    fresh: list[str] = []
    misfits: list[str] = []
    loaded: dict[str, Tensor] = {}
    for name, target in state.items():
        given = weights.get(name)
        if name in head and must_keep and (given is None or given.shape != target.shape):
            raise ConfigError(
                f"{source}: head: kept, but {name} is {tuple(target.shape)} here and not there; "
                "leave `head` out"
            )
        if name in head and (not keep_head or given is None or given.shape != target.shape):
            fresh.append(name)
        elif given is None:
            (fresh if name.endswith("num_batches_tracked") else misfits).append(name)
        elif (fitted := fitting(name, given, target)) is not None:
            loaded[name] = fitted[0]
            adapted.append((name, fitted[1]))
        elif given.shape == target.shape:
            loaded[name] = given
            used.append(name)
        elif _rows(given, target) in classes and given.shape[1:] == target.shape[1:]:
            fresh.append(name)
        else:
            misfits.append(name)
    if misfits:
        raise ConfigError(f"{source}: {_misfit_in_words(misfits, state, weights, shape, made_for)}")
    _check_finite(loaded, source)
    load_state(net, {**state, **{name: value.to(state[name].dtype) for name, value in loaded.items()}})
    left = tuple(sorted(set(weights) - set(state)))
    return LoadReport(source, tuple(used), tuple(adapted), tuple(fresh), left)


def _check_finite(weights: State, source: str) -> None:
    bad = [name for name, value in weights.items() if not bool(value.isfinite().all())]
    if bad:
        raise ConfigError(
            f"{source}: {counted(len(bad), 'tensor of the weights holds', 'tensors of the weights hold')} "
            f"NaN or infinity, first {bad[0]}, "
            "so the net would have no answer"
        )


def _misfit_in_words(
    misfits: list[str], state: State, weights: State, shape: Shape | None, made_for: Shape | None
) -> str:
    first = misfits[0]
    given = weights.get(first)
    there = "no such tensor" if given is None else f"shape {tuple(given.shape)}"
    of_positions = all(name in weights and "pos" in name for name in misfits)
    hint = ""
    if of_positions and made_for is not None and shape is not None and made_for[1:] != shape[1:]:
        hint = (
            f"; the weights are for images of {made_for[1]}×{made_for[2]}, and these have "
            f"{shape[1]}×{shape[2]}: set input.size to [{made_for[1]}, {made_for[2]}]"
        )
    return (
        f"weights of another architecture: {len(misfits)} of the net's {len(state)} tensors "
        f"do not fit, first {first}: {tuple(state[first].shape)} in the net, {there} in the weights{hint}"
    )


def _rows(given: Tensor, target: Tensor) -> tuple[int, int] | None:
    """The lengths of two tensors; None for single numbers."""
    return (len(given), len(target)) if given.ndim and target.ndim else None


@dataclass(frozen=True)
class _Fitting:
    """Changes tensors of pretrained weights to the shapes that a net has.

    `stem` is the first convolution, with the name of its weights; `grid` and `old_grid` are the rows
    and columns of its patches, for the images of the net and of the weights, if they are known.
    """

    stem: tuple[str, nn.Conv2d] | None
    grid: tuple[int, int] | None
    old_grid: tuple[int, int] | None

    @staticmethod
    def of(net: nn.Module, shape: Shape | None, made_for: Shape | None) -> _Fitting:
        convolutions = (each for each in net.named_modules() if isinstance(each[1], nn.Conv2d))
        name, stem = next(convolutions, ("", None))
        if not isinstance(stem, nn.Conv2d):
            return _Fitting(None, None, None)
        new, old = (
            None if each is None else (each[1] // stem.stride[0], each[2] // stem.stride[1])
            for each in (shape, made_for)
        )
        return _Fitting((f"{name}.weight", stem), new, old)

    def __call__(self, name: str, given: Tensor, target: Tensor) -> tuple[Tensor, str] | None:
        """A tensor changed to the target's shape, and what was changed, in words; None if nothing was,
        or if it cannot be."""
        same = given.shape == target.shape
        if self.stem is not None and name == self.stem[0] and given.ndim == 4 and len(given) == len(target):
            overlapping = self.stem[1].stride < self.stem[1].kernel_size
            return None if same else _convolution(given.float(), target, overlapping=overlapping)
        # open_clip calls the position embedding of the text "positional_embedding"; it is a sequence.
        of_image = "pos" in name and name != "positional_embedding"
        if of_image and given.ndim == target.ndim in (2, 3) and given.shape[-1] == target.shape[-1]:
            return self._positions(given.float(), target)
        return None

    def _positions(self, given: Tensor, target: Tensor) -> tuple[Tensor, str] | None:
        """Position embeddings (…, T, D) resampled from one grid of tokens to another.

        Class tokens in front of the grid are kept.
        """
        tokens, wanted = given.shape[-2], target.shape[-2]
        for extra in range(3):
            old, new = _sides(tokens - extra, self.old_grid), _sides(wanted - extra, self.grid)
            if old is None or new is None:
                continue
            if old == new:
                return None
            flat = given.reshape(tokens, -1)
            grid = flat[extra:].T.reshape(1, -1, *old)
            resampled = F.interpolate(grid, new, mode="bicubic", antialias=True, align_corners=False)
            whole = torch.cat([flat[:extra], resampled.flatten(2)[0].T])
            how = f"resampled from {old[0]}×{old[1]} to {new[0]}×{new[1]} tokens"
            return whole.reshape(target.shape), how
        return None


def _sides(tokens: int, grid: tuple[int, int] | None) -> tuple[int, int] | None:
    """The rows and columns of so many tokens: those of the grid, or else of a square; None if they
    are neither."""
    if grid is not None and tokens == grid[0] * grid[1]:
        return grid
    side = math.isqrt(max(0, tokens))
    return (side, side) if side > 1 and side**2 == tokens else None


def _convolution(given: Tensor, target: Tensor, *, overlapping: bool) -> tuple[Tensor, str] | None:
    """Weights (out, in, h, w) of a convolution for other channels or a smaller kernel.

    For more channels the old ones are repeated in turn, and for fewer the first are taken; in both
    cases they are scaled, so that the sum stays about the same (as in timm). For one channel they are
    summed. The kernel is made smaller only if its windows overlap; patches side by side cannot be
    cropped.
    """
    changes = []
    channels, wanted = given.shape[1], target.shape[1]
    if channels != wanted and wanted == 1:
        given = given.sum(1, keepdim=True)
        changes.append("summed over channels")
    elif channels != wanted:
        given = given[:, torch.arange(wanted) % channels] / (wanted / channels)
        how = "shared among" if channels == 1 else "repeated in" if wanted > channels else "cut to"
        changes.append(f"{how} {wanted} channels")
    rows, columns = (a - b for a, b in zip(given.shape[2:], target.shape[2:]))
    if rows < 0 or columns < 0 or rows % 2 or columns % 2 or ((rows or columns) and not overlapping):
        return None
    if rows or columns:
        height, width = target.shape[2:]
        given = given[:, :, rows // 2 : rows // 2 + height, columns // 2 : columns // 2 + width]
        changes.append(f"the middle {height}×{width}")
    return given, ", ".join(changes)
