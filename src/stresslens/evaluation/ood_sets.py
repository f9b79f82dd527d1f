"""Named sets of images that are out of distribution: data sets, folders, and synthetic images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stresslens.config.data_paths import images_at
from stresslens.config.data_sets import loaded_data_set
from stresslens.core.blur import blurred
from stresslens.core.data import Data, Split
from stresslens.core.errors import ConfigError, DataError
from stresslens.core.sampling import sampled_positions
from stresslens.core.types import Shape
from stresslens.evaluation.compared_sets import files_without_classes
from stresslens.evaluation.picture_set import PictureSet, names_left_out

MOST = 2_000
"""Most images of a set."""
Make = Callable[[Tensor, torch.Generator], Tensor]


def _uniform(x: Tensor, draws: torch.Generator) -> Tensor:
    return torch.rand(x.shape, generator=draws)


def _gaussian(x: Tensor, draws: torch.Generator) -> Tensor:
    return (0.5 + 0.25 * torch.randn(x.shape, generator=draws)).clamp(0, 1)


def _blurred(x: Tensor, draws: torch.Generator) -> Tensor:
    return blurred(x, max(1.0, min(x.shape[2:]) / 8)).clamp(0, 1)


SYNTHETIC: dict[str, Make] = {
    "uniform_noise": _uniform,
    "gaussian_noise": _gaussian,
    "blurred": _blurred,
}
"""Sets that need no files: noise uniform in [0, 1]; noise of mean 0.5 and standard deviation 0.25; images of
the split itself, blurred with a standard deviation of an eighth of the shorter side."""


@dataclass
class OODSet:
    """Images of a name: a set of pictures, or made from the images of the run's split."""

    name: str
    pictures: PictureSet | None = None
    make: Make | None = None
    unreadable: dict[str, str] = field(default_factory=dict)
    """The files that could not be read, with the reasons."""
    images: int = 0
    """The number of images that there are."""

    def __post_init__(self) -> None:
        if self.pictures is not None:
            self.images = self.pictures.images

    @property
    def fingerprints(self) -> frozenset[str]:
        return frozenset() if self.pictures is None else self.pictures.fingerprints

    @property
    def left_out(self) -> str:
        said = names_left_out(self.unreadable)
        return f"; {said}" if said else ""

    def pieces(self, shape: Shape, split: Split) -> Iterator[Tensor]:
        """The images (n, C, H, W) in [0, 1], in the shape of the run's."""
        if self.pictures is not None:
            yield from (piece.x for piece in self.pictures.pieces(shape, self.unreadable))
            return
        assert self.make is not None
        draws = torch.Generator().manual_seed(0)
        part = split.select(sampled_positions(len(split), MOST, 0))
        self.images = len(part)
        for images in part.pieces():
            yield self.make(part.floats(images.cpu()), draws)


def ood_set(value: Any, data: Data, *, trust: bool = False) -> OODSet:
    """The set of a name (`SYNTHETIC`, a data set, a folder of images) or of Data; files are fitted to the
    shape of the run's images as its own were. Of data sets it is the test split, or all without one.

    Raises ConfigError for an unknown name, and DataError where a folder or a data set has no images.
    """
    if isinstance(value, str) and value in SYNTHETIC:
        return OODSet(value, make=SYNTHETIC[value])
    name = value.name if isinstance(value, Data) else str(value)
    if isinstance(value, str) and Path(value).is_dir() and not any(Path(value).iterdir()):
        raise DataError(f"--ood {value}: the folder is empty")
    files = files_without_classes(Path(value)) if isinstance(value, str) else None
    if files is not None:
        whole = PictureSet.of_files(name, files, MOST, 0)
    else:
        other = value if isinstance(value, Data) else _data_set(value, trust)
        whole = PictureSet.of_data(other, "test" if other.test is not None else "all", MOST, 0)
        name = name if isinstance(value, str | Data) else other.name
    own = PictureSet.of_data(data, "train", 1, 0)
    return OODSet(name, whole.prepared_like(own))


def _data_set(value: Any, trust: bool) -> Data:
    found = images_at(value) if isinstance(value, str) else None
    try:
        return loaded_data_set(found or value, path=("ood",), base=Path.cwd(), trust=trust)
    except ConfigError as error:
        if isinstance(value, Mapping):
            raise
        kinds = ", ".join(SYNTHETIC)
        raise ConfigError(f"--ood {value}: {error}; synthetic sets are {kinds}") from None
