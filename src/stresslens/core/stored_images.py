"""Images on disk, read batch by batch."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stresslens.core.errors import DataError
from stresslens.core.files import open_to_read, read_at, read_into
from stresslens.core.image_files import Frame, decode, quietly


class Stored:
    """uint8 images (N,C,H,W) on disk; indexing reads them: `stored[rows]` is a tensor on
    `device`."""

    dtype = torch.uint8
    ndim = 4

    def __init__(
        self, folder: Path, frame: Frame, places: NDArray[np.int64], device: torch.device | str = "cpu"
    ) -> None:
        """`places` (N,) are the images' positions among the files of the cache folder."""
        assert frame.size is not None
        self.folder, self.frame, self.places = folder, frame, places
        self.device = torch.device(device)
        self.shape = torch.Size((len(places), frame.channels, *frame.size))

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, rows: slice | Tensor | Sequence[int]) -> Tensor:
        places = self.places[rows if isinstance(rows, slice) else torch.as_tensor(rows).cpu().numpy()]
        images = np.empty((len(places), *self.shape[1:]), np.uint8)
        if self._pixels is None:
            self._decode(places, images)
        else:
            self._read(self._pixels, places, images)
        read = torch.from_numpy(images)
        if self.device.type == "cuda":
            read = read.pin_memory()  # so that the copy waits for nothing
        return read.to(self.device, non_blocking=True)

    def select(self, rows: Tensor) -> Stored:
        """A subset of the images; nothing is read."""
        return Stored(self.folder, self.frame, self.places[rows.cpu().numpy()], self.device)

    def joined(self, others: Sequence[Stored]) -> Stored:
        """These images followed by `others` of the same cache folder."""
        return Stored(
            self.folder, self.frame, np.concatenate([part.places for part in (self, *others)]), self.device
        )

    def to(self, device: torch.device | str) -> Stored | Tensor:
        """Moves the images to a device.

        A GPU with free memory for twice the images gets all of them at once. Otherwise each batch
        is moved when it is read.
        """
        kind = torch.device(device)
        moved = Stored(self.folder, self.frame, self.places, kind)
        return (
            moved[:] if kind.type == "cuda" and 2 * self.numel() < torch.cuda.mem_get_info(kind)[0] else moved
        )

    def numel(self) -> int:
        return self.shape.numel()

    def is_floating_point(self) -> bool:
        return False

    def content(self) -> bytes:
        """Digests of the pixels, 16 bytes for each image."""
        return bytes(self._facts["pixel_digest"][self.places].tobytes())

    @cached_property
    def _facts(self) -> NDArray[np.void]:
        return load_facts(self.folder)

    @cached_property
    def _pixels(self) -> int | None:
        """The descriptor of the file of pixels, or None."""
        return self._opened("pixels") if (self.folder / "pixels").exists() else None

    @cached_property
    def _encoded(self) -> int:
        return self._opened("encoded")

    def _opened(self, name: str) -> int:
        """A descriptor. The file is read, not mapped: pages of a map that were read count as memory of
        the process, so that it would grow to the size of all images."""
        descriptor = open_to_read(self.folder / name)
        weakref.finalize(self, os.close, descriptor)
        return descriptor

    def _read(self, file: int, places: NDArray[np.int64], images: NDArray[np.uint8]) -> None:
        """Reads the images at `places` into `images`; neighbours in the file are read at once."""
        size, ends = self.shape[1:].numel(), np.flatnonzero(np.diff(places) != 1) + 1
        flat = images.reshape(-1)
        for first, last in zip([0, *ends.tolist()], [*ends.tolist(), len(places)]):
            left, offset = flat[first * size : last * size], int(places[first]) * size if len(places) else 0
            while len(left):
                count = read_into(file, left.data, offset)
                if not count:
                    raise DataError(f"{self.folder} is damaged: its pixels end too early; delete the folder")
                left, offset = left[count:], offset + count

    def _decode(self, places: NDArray[np.int64], images: NDArray[np.uint8]) -> None:
        starts, lengths = self._facts["start"], self._facts["bytes"]

        def pixels(place: int) -> NDArray[np.uint8]:
            content = read_at(self._encoded, int(lengths[place]), int(starts[place]))
            return decode(content, self.frame).pixels

        with quietly(), ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for row, image in enumerate(pool.map(pixels, places)):
                images[row] = image

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if not k.startswith("_")}


def load_facts(folder: Path) -> NDArray[np.void]:
    """(N,) facts of the files of a cache folder, of dtype `image_files.FACTS`."""
    return np.load(folder / "facts.npy", allow_pickle=False)  # type: ignore[no-any-return]
