"""MNIST's four files: search, download, checksums, and reading."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np
import torch

from stresslens.core.cache_folder import readable_caches, writable_cache
from stresslens.core.data import Split, data_root
from stresslens.core.errors import DataError
from stresslens.core.files import replace_atomically
from stresslens.core.torchvision_compat import reason_of, torchvision

# md5 of the decompressed bytes: a recompressed archive has another checksum, but the same images.
FILES = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def mnist_splits() -> tuple[Split, Split]:
    """The 60,000 training and 10,000 test images, (N,1,28,28) uint8, in file order.

    They are read from `MNIST/raw` under the data root, gzipped or not. Missing files are downloaded
    by torchvision. Raises DataError if they are damaged or cannot be downloaded.
    """
    root = _complete_root()
    return _read(root, "train"), _read(root, "t10k")


def _read(root: Path, part: str) -> Split:
    """The images and labels of a part, `train` or `t10k`, of files whose bytes are MNIST's.

    The files are read here because the import of torchvision takes longer than all of this.
    """
    raw = root / "MNIST" / "raw"
    try:
        images = np.fromfile(raw / f"{part}-images-idx3-ubyte", np.uint8, offset=16).reshape(-1, 1, 28, 28)
        labels = np.fromfile(raw / f"{part}-labels-idx1-ubyte", np.uint8, offset=8)
    except (ValueError, OSError) as error:
        raise DataError(f"the files in {raw} are damaged ({error}); remove them and run again") from error
    return Split(torch.from_numpy(images), torch.from_numpy(labels).long())


def _complete_root() -> Path:
    for root in dict.fromkeys((data_root(), *readable_caches())):
        raw = root / "MNIST" / "raw"
        if all((raw / name).is_file() for name in FILES):
            wrong = [name for name in FILES if not _is_right(raw / name)]
            if not wrong:
                return root
            if root == data_root():
                raise DataError(
                    f"{raw / wrong[0]} does not hold the MNIST bytes (its md5 differs); download MNIST again"
                )
            for name in wrong:
                (raw / name).unlink()
        if all((raw / f"{name}.gz").is_file() for name in FILES):
            target = writable_cache("MNIST/raw")
            try:
                _decompress(raw, target)
            except OSError as error:
                raise DataError(
                    f"MNIST cannot be decompressed into {target}: {error.strerror}; "
                    "set XDG_CACHE_HOME to another folder"
                ) from error
            return target.parent.parent
    target = writable_cache("MNIST/raw").parent.parent
    try:
        torchvision().datasets.MNIST(target, download=True)
    except Exception as error:
        raise DataError(
            f"MNIST is not in {data_root() / 'MNIST' / 'raw'} and could not be downloaded "
            f"({reason_of(error)}). "
            f"Put its four files there ({', '.join(f'{name}.gz' for name in FILES)}), "
            "or set STRESSLENS_DATA to the folder that holds MNIST/raw"
        ) from error
    return target


def _decompress(source: Path, raw: Path) -> None:
    """Decompresses the four files of `source` into the folder `raw` and checks their bytes."""
    for name, md5 in FILES.items():
        if _is_right(raw / name):
            continue
        content = decompressed(source / f"{name}.gz")
        if hashlib.md5(content).hexdigest() != md5:
            raise DataError(
                f"{source / f'{name}.gz'} does not hold the MNIST bytes (md5 of the content differs); "
                "download it again"
            )
        replace_atomically(raw / name, lambda file, content=content: file.write(content))  # type: ignore[misc]


def decompressed(file: Path) -> bytes:
    """The content of a gzipped file. Raises DataError if it is damaged."""
    try:
        return gzip.decompress(file.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} cannot be decompressed ({error}); download it again") from error


def _is_right(file: Path) -> bool:
    """Whether a decompressed file is there and holds MNIST's bytes: a power cut may leave zeros."""
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "md5").hexdigest() == FILES[file.name]
