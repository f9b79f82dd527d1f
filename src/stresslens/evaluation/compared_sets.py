"""Which sets of pictures a comparison is of: data sets, folders without classes, the data of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import nn

from stresslens.core.data import Data
from stresslens.core.errors import ConfigError
from stresslens.core.image_files import files_below
from stresslens.core.image_formats import is_image
from stresslens.core.run_folder import EstimatorCard, RunFolder
from stresslens.evaluation.classify_files import picture_files
from stresslens.evaluation.data_comparison import DataComparison, Features
from stresslens.evaluation.drift import compare_sets
from stresslens.evaluation.finished_run import finished
from stresslens.evaluation.network_features import features_of_network
from stresslens.evaluation.picture_set import PictureSet
from stresslens.evaluation.record import RunRecord
from stresslens.evaluation.run_data import DataPlace, data_of

SPLITS = ("train", "validation", "test", "all")


def files_without_classes(path: Path) -> list[Path] | None:
    """The image files of a folder that has them at its top and in no folder below, or the image file
    itself; None for anything else, which may be a data set with classes."""
    if path.is_file():
        return [path] if is_image(path.name) else None
    if not path.is_dir():
        return None
    images = [Path(entry.path) for entry in files_below(str(path)) if is_image(entry.path)]
    return picture_files([path]) if images and {image.parent for image in images} == {path} else None


def set_without_classes(path: Path, split: str | None, most: int, seed: int) -> PictureSet | None:
    """The set of `files_without_classes`; None where it is none. Raises ConfigError where a split of it is
    asked for."""
    files = files_without_classes(path)
    if files is None:
        return None
    if split is not None:
        raise ConfigError(f"{path} is a folder of images without classes, which has no {split} split")
    return PictureSet.of_files(str(path), files, most, seed)


def checked_split(split: str | None, default: str) -> str:
    """Raises ConfigError for anything but the name of a split, or `all`."""
    if split is not None and split not in SPLITS:
        raise ConfigError(f"split {split!r}: expected {', '.join(SPLITS[:-1])} or {SPLITS[-1]}")
    return split or default


# long: the arguments of a comparison with a run are spelled out
def compare_with_run(
    run: Path,
    other: Callable[[tuple[int, int]], PictureSet],
    *,
    features: Features,
    split: str | None,
    most: int,
    seed: int = 0,
    trust: bool = False,
    module: nn.Module | None = None,
    data: DataPlace = None,
) -> DataComparison:
    """Compares pictures with the images that a run was trained on, or with those of another `split`.

    `other` gives the set B for the size (height, width) of the run's images. With the features of the
    network, A are by default the validation images, where there are any: a network may know its
    training images so well that they differ from all others. Test images that pass through the network
    are a read of the test split, which the record counts. `trust`, `module` and `data` are as in
    `open_run`. Raises ConfigError for the network's features of an estimator.
    """
    folder = RunFolder(run)
    if features == "pictures":
        found = data_of(folder, trust=trust, data=data)
        a = PictureSet.of_data(found, checked_split(split, "train"), most, seed)
        return compare_sets(a, other(found.shape[1:]), seed=seed)
    if isinstance(folder.load_card(), EstimatorCard):
        raise ConfigError(f"{run} is the run of an estimator, which has no features of a network")
    with finished(folder, "train", trust=trust, device="cpu", module=module, data=data) as opened:
        model, found, record = opened
        chosen = checked_split(split, "validation" if found.validation is not None else "train")
        a = PictureSet.of_data(found, chosen, most, seed)
        b = other(found.shape[1:])
        compared = compare_sets(a, b, seed=seed, network=features_of_network(model, found.shape))
        _count_read(record, found, chosen, b)
    return compared


def _count_read(record: RunRecord, data: Data, split: str, other: PictureSet) -> None:
    """Counts a read of the test split if its images are among those that passed through the network."""
    read = {data.test.fingerprint} if data.test is not None else set()
    if split in ("test", "all") or read & other.fingerprints:
        record.reads_of_test += len(read)
