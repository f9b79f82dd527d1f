"""The data set of a run, also where it lies elsewhere than when the run was trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stresslens.config import registry
from stresslens.config.data_sets import loaded_data_set
from stresslens.config.run_config import read_run_data
from stresslens.core.data import Data, Split
from stresslens.core.data_root import data_in
from stresslens.core.errors import ConfigError, DataError, reworded
from stresslens.core.files import UnreadableRun
from stresslens.core.run_folder import RunFolder
from stresslens.core.splits import calibration_rows, fewer, set_aside, split_named
from stresslens.evaluation.record import read_record

DataPlace: TypeAlias = Data | Path | None
"""The data themselves, or where they lie now; None: where the run's configuration says."""


def data_of(folder: RunFolder, *, trust: bool = False, data: DataPlace = None) -> Data:
    """Loads the data set a run was trained on, as its config.yaml describes it.

    `data` says where it lies now. Without it, a relative path is looked for in the working folder, and
    then in the folders above the run. A trial of a sweep gets no test split. Your own plug-ins are
    executed only with `trust`. Raises UnreadableRun if config.yaml cannot be read, or if the data came
    from Python and are not given.
    """
    config = read_run_data(folder.config)
    repeats, subset = config.repeats, config.train.subset
    found = undivided_data_of(folder, trust=trust, data=data)
    seed = (repeats if isinstance(repeats, list) else repeats.seeds)[0]
    if not isinstance(repeats, list):
        found = repeats.division.of(found, seed)
    splits = read_record(folder).data.splits
    if splits and "test" not in splits:
        found = replace(found, test=None)
    if subset is not None:
        found = fewer(found, subset.images, balanced=subset.balanced, seed=seed)
    return set_aside(found, config.train.calibration)


def undivided_data_of(folder: RunFolder, *, trust: bool = False, data: DataPlace = None) -> Data:
    """The data set of a run before it was divided anew for the run's seed, or reduced. `data`, `trust` and
    errors are as in `data_of`."""
    value = read_run_data(folder.config).data
    if isinstance(data, Data):
        return data.uncached()
    if isinstance(value, str) and value.startswith("own data"):
        raise UnreadableRun(
            f"{folder.path} was trained on your {value}; give these data from Python, "
            "for example sl.open(RUN, data=DATA)"
        )
    return _loaded(value, folder, data, trust)


def pooled_positions(
    folder: RunFolder, split: str, data: Data, whole: Split, tested: Mapping[str, NDArray[Any]]
) -> NDArray[np.int64]:
    """(n,) the places, in `whole`, of the images of `tested`, a run's saved predictions on validation or
    test. `whole` are the pooled images of `data`, which are those of `undivided_data_of`.

    Raises ConfigError for the validation images of a run that divided the data anew, where the split is
    missing, and where the labels have changed since the run was tested.
    """
    config = read_run_data(folder.config)
    repeats, calibration = config.repeats, config.train.calibration
    if isinstance(repeats, list):
        of_split = split_named(data, split)
        start = sum(map(len, takewhile(lambda each: each is not of_split, data.splits.values())))
        positions = np.arange(start, start + len(of_split))
        if split == "validation" and calibration is not None:
            positions = positions[calibration_rows(data, calibration)["train"].numpy()]
    elif split == "test":
        positions = repeats.division.test_positions(data, whole, repeats.seeds[0]).numpy()
    else:
        raise ConfigError(f"{folder.path} divided the data anew; only its test images can be told apart")
    index = tested["index"]
    same = index.max(initial=-1) < len(positions)
    found: NDArray[np.int64] = positions[index] if same else positions
    if not same or not np.array_equal(whole.labels.cpu().numpy()[found], tested["labels"]):
        raise ConfigError(f"{folder.path}: the labels of the data set have changed since it was tested")
    return found


def same_data_of(folder: RunFolder, *, trust: bool = False, data: DataPlace = None) -> Data:
    """As `data_of`. Raises ConfigError unless the data are those that the run was trained on."""
    found = data_of(folder, trust=trust, data=data)
    if found.fingerprint == read_record(folder).data.fingerprint:
        return found
    if data is not None:
        what = f"{data} holds" if isinstance(data, Path) else f"{data.name}: these are"
        raise ConfigError(f"{folder.path}: {what} other data than the run was trained on")
    raise ConfigError(
        f"{folder.path}: the data set has changed since the run was trained; "
        "measurements on it would not belong to this run. If the old data lie elsewhere, say where: "
        "--data PATH"
    )


def _loaded(value: Any, folder: RunFolder, place: Path | None, trust: bool) -> Data:
    """The data set of a configuration, from `place` if that is given."""
    name, options = registry.name_and_options("datasets", value)
    if isinstance(corrections := options.get("corrections"), str):
        options = {**options, "corrections": str(path_found(Path(corrections).expanduser(), folder))}
        value = {name: options}
    path = Path(options["path"]).expanduser() if isinstance(options.get("path"), str) else None
    if place is not None and path is None:
        with data_in(place):
            return loaded_data_set(value, path=("data",), base=folder.path, trust=trust)
    if path is not None:
        value = {name: {**options, "path": str(place or path_found(path, folder))}}
    try:
        return loaded_data_set(value, path=("data",), base=folder.path, trust=trust)
    except (ConfigError, DataError) as error:
        missing = not path_found(path, folder).exists() if path else isinstance(error, DataError)
        if place is not None or not missing:
            raise
        raise reworded(error, f"{error}. If the data lie elsewhere now, say where: --data PATH") from error


def path_found(path: Path, folder: RunFolder) -> Path:
    """The path, or the same one in a folder above the run, if it is there alone."""
    if path.is_absolute() or path.exists():
        return path
    above = (parent / path for parent in folder.path.resolve().parents)
    return next((each for each in above if each.exists()), path)
