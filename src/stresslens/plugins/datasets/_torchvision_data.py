"""A classification set of torchvision as a data set: found or downloaded, read through torchvision's
class, and divided."""

from __future__ import annotations

import inspect
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stresslens.core.cache_folder import readable_caches, writable_cache
from stresslens.core.data import Data, Split, data_root
from stresslens.core.errors import ConfigError, DataError, first_line
from stresslens.core.files import replace_atomically
from stresslens.core.image_cache import Files
from stresslens.core.image_files import digest
from stresslens.core.temporary_files import temporary_folder
from stresslens.core.text import printable, repeated_words
from stresslens.core.torchvision_compat import reason_of, torchvision
from stresslens.plugins.datasets._division import Division, data_of_arrays
from stresslens.plugins.datasets._listed_images import Decoding, data_of_files
from stresslens.plugins.datasets._listing import Listing, size_and_time
from stresslens.plugins.datasets._mnist_files import decompressed
from stresslens.plugins.datasets._torchvision_sets import TorchvisionSet, torchvision_set

Objects = Mapping[str | None, Any]
"""torchvision's object for each part; under None that of all pictures."""


@dataclass(frozen=True)
class Wanted:
    """A set of torchvision by its `name` and `variant`, below the folder `path` or where data sets lie.

    `title` is what the data set is called.
    """

    name: str
    variant: str | None = None
    path: str | None = None
    title: str = ""

    @cached_property
    def _resolved(self) -> tuple[TorchvisionSet, str]:
        return torchvision_set(self.name, self.variant)

    @property
    def source(self) -> TorchvisionSet:
        return self._resolved[0]

    @property
    def chosen(self) -> str:
        """The variant that is meant; "" for a set without variants."""
        return self._resolved[1]

    @property
    def root(self) -> Path:
        return data_root() if self.path is None else Path(self.path).expanduser()

    def opened(self, root: Path, *, download: bool = False) -> Objects:
        """torchvision's objects on the files below `root`. Raises whatever torchvision raises."""
        common: dict[str, Any] = {"download": download} if self.source.downloads else {}
        if self.source.files is not None and "loader" in _parameters(self.name):
            common["loader"] = str
        made = getattr(torchvision().datasets, self.name)
        return {
            part: made(root, **{**common, **keywords})
            for part, keywords in self.source.variants[self.chosen].items()
        }


def torchvision_data(
    wanted: Wanted,
    division: Division,
    decoding: Decoding | None = None,
    *,
    classes: Sequence[str] | None = None,
    names: Mapping[str, str] | Sequence[str] | None = None,
    least: int = 1,
) -> Data:
    """The data set; the options are those of the dataset `torchvision`."""
    source, title = wanted.source, wanted.title or wanted.name
    root, objects = _found(wanted)
    found = _contents(wanted, root, objects)
    if least > 1 and classes is None:
        counts = Counter(label for of_part in found.labels.values() for label in of_part)
        classes = [name for name in found.classes if counts[name] >= least]
        if len(classes) < 2:
            raise ConfigError(f"least: fewer than two classes of {wanted.name} have {least} pictures")
    options: dict[str, Any] = {"classes": classes, "names": names}
    if source.files is not None:
        listed = _listing(found, root, source)
        data = data_of_files(listed, title, decoding or Decoding(), division, every=found.classes, **options)
    elif decoding is not None and decoding.size is not None:
        raise ConfigError(
            f"size: the pictures of {wanted.name} have one size; to show a model another one, "
            "use `input: {size: …}`"
        )
    else:
        number = {name: k for k, name in enumerate(found.classes)}
        splits = {
            part: _split(found.pictures[part], [number[label] for label in labels])
            for part, labels in found.labels.items()
        }
        data = data_of_arrays(splits, title, division, found.classes, **options)
    return replace(data, notes=(*source.notes, *data.notes))


@dataclass(frozen=True)
class _Contents:
    """What torchvision's objects hold: for each part that has any, pixels or files, and class names."""

    pictures: Mapping[str | None, Any]
    labels: Mapping[str | None, list[str]]
    classes: list[str]
    """All classes in the set's order."""


def _contents(wanted: Wanted, root: Path, objects: Objects) -> _Contents:
    """Raises DataError for files of another form, and without pictures.

    Class numbers of a part are looked up in its own classes: torchvision numbers those that the part has.
    """
    source, pictures, labels, classes = wanted.source, {}, {}, dict[str, None]()
    read = source.files or source.pixels
    assert read is not None
    try:
        for part, each in objects.items():
            names = _distinct([str(name) for name in source.classes(each)])
            content, numbers = read(each)
            classes.update(dict.fromkeys(names))
            if len(content):
                pictures[part], labels[part] = content, [_name(names, int(k)) for k in numbers]
    except ConfigError:
        raise
    except Exception as error:  # a class of torchvision may raise anything for files of another form
        raise DataError(
            f"{wanted.name}: the files in {root} are damaged ({first_line(error)}); "
            f"remove them and download them again: {source.needs}"
        ) from error
    if not labels:
        raise DataError(f"{wanted.name}: the files in {root} hold no pictures; needed are {source.needs}")
    return _Contents(pictures, labels, list(classes))


def _name(names: Sequence[str], number: int) -> str:
    """The name of a class. Raises IndexError for a number that no class has."""
    if number not in range(len(names)):
        raise IndexError(f"a picture has the class {number}, and there are {len(names)} classes")
    return names[number]


def _distinct(names: Sequence[str]) -> list[str]:
    """Class names; one that several classes have gets the number of the class."""
    several = set(repeated_words(names))
    return [f"{name} ({k})" if name in several else name for k, name in enumerate(names)]


def _split(pixels: Any, labels: Sequence[int]) -> Split:
    images = torch.from_numpy(np.ascontiguousarray(pixels))
    if images.ndim == 3:
        images = images[:, None]
    if images.shape[-1] == 3:
        images = images.permute(0, 3, 1, 2).contiguous()
    return Split(images, torch.tensor(labels))


def _listing(found: _Contents, root: Path, source: TorchvisionSet) -> Listing:
    """The files of all parts, sorted by their names below `root`."""
    rows = sorted(
        (printable(os.path.relpath(path, root).replace(os.sep, "/")), path, label, part or "")
        for part, labels in found.labels.items()
        for path, label in zip(found.pictures[part], labels)
    )
    paths = [path for _, path, _, _ in rows]
    facts = [size_and_time(Path(path)) for path in paths]
    stamp = digest(repr((str(root.resolve()), [row[0] for row in rows], facts)).encode()).hex()
    groups = {"group": [source.group(path) for path in paths]} if source.group is not None else {}
    return Listing(
        Files([row[0] for row in rows], sum(size for size, _ in facts), stamp, lambda: enumerate(paths)),
        [row[2] for row in rows],
        [row[3] or None for row in rows],
        groups,
    )


def _found(wanted: Wanted) -> tuple[Path, Objects]:
    """The folder where a set lies, and torchvision's objects; it is downloaded if it is not complete
    anywhere. Raises DataError that says where to put it."""
    why = ""
    for root in _roots(wanted):
        if not root.is_dir():
            continue
        try:
            return root, wanted.opened(root)
        except (ConfigError, ImportError):
            raise
        except Exception as error:  # torchvision raises many kinds of errors for missing files
            why = why or f" (torchvision: {reason_of(error)})"
    how = "" if wanted.source.downloads else ", and torchvision does not download it"
    if wanted.source.downloads and wanted.path is None:
        try:
            return _download(wanted)
        except Exception as error:
            how = f" and could not be downloaded ({reason_of(error)})"
    raise DataError(
        f"{wanted.name} is not complete in {wanted.root}{why}{how}. Put there: {wanted.source.needs}"
        + (
            "; or set STRESSLENS_DATA to the folder that holds it"
            if wanted.path is None
            else "; `path` is the folder that torchvision calls root"
        )
    )


def _roots(wanted: Wanted) -> Iterator[Path]:
    """Folders that may hold a set: its root, that of its unpacked files, and, where the user names no
    folder, what was downloaded of it, of any variant."""
    yield wanted.root
    yield from _unpacked(wanted)
    for cache in () if wanted.path is not None else readable_caches():
        folders = (cache / "torchvision").glob(f"{wanted.name}*")
        yield from sorted(folder for folder in folders if folder.name.partition("-")[0] == wanted.name)


def _download(wanted: Wanted) -> tuple[Path, Objects]:
    """Downloads a set into the cache, as a whole: what is interrupted is not kept."""
    name = "-".join(filter(None, [wanted.name, wanted.chosen]))
    target = writable_cache("torchvision") / name
    with temporary_folder(target) as temporary:
        wanted.opened(temporary / "root", download=True)
        with suppress(OSError):  # another process was faster
            (temporary / "root").rename(target)
    return target, wanted.opened(target)


def _unpacked(wanted: Wanted) -> Iterator[Path]:
    """A folder of the cache with the unpacked files of a set, or of a variant of EMNIST, that lies gzipped
    in MNIST's format below the root; none for any other set. Raises DataError for a damaged file."""
    raw = wanted.root / wanted.name / "raw"
    zipped = sorted(raw.glob("*-ubyte.gz")) + sorted(raw.glob("*-int.gz"))
    zipped = [file for file in zipped if not file.with_suffix("").exists()]
    if wanted.chosen:
        zipped = [file for file in zipped if file.name.startswith(f"emnist-{wanted.chosen}-")]
    if not zipped:
        return
    of_root = digest(str(raw.resolve()).encode()).hex()
    target = writable_cache(f"unpacked/{of_root}/{wanted.name}/raw")
    for file in zipped:
        unpacked = target / file.stem
        if unpacked.exists() and unpacked.stat().st_mtime_ns > file.stat().st_mtime_ns:
            continue
        content = decompressed(file)
        replace_atomically(unpacked, lambda opened, content=content: opened.write(content))  # type: ignore[misc]
    yield target.parents[1]


def _parameters(name: str) -> Mapping[str, Any]:
    """The parameters of a class of torchvision; those of its base where it passes them on."""
    made = getattr(torchvision().datasets, name)
    found: dict[str, Any] = {}
    for each in reversed(made.__mro__[:2]):
        found.update(inspect.signature(each.__init__).parameters)
    return found
