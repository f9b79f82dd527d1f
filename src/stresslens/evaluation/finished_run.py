"""Opens a finished run: model, data set and record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from torch import nn

from stresslens.config import registry
from stresslens.config.run_config import read_run_data
from stresslens.core.data import Data
from stresslens.core.devices import pick_device
from stresslens.core.errors import ConfigError
from stresslens.core.files import UnreadableRun
from stresslens.core.run_folder import RunFolder
from stresslens.core.splits import fewer
from stresslens.evaluation.record import RunRecord, noting_shortages, read_record, write_record
from stresslens.evaluation.saved_model import as_computed, open_model


def open_run(folder: RunFolder, *, trust: bool = False) -> tuple[nn.Sequential, Data]:
    """A run's model and the data set it was trained on.

    Raises ConfigError if the data set has changed since the training.
    """
    record = read_record(folder)
    model = as_computed(open_model(folder, trust=trust), folder)
    data = data_of(folder, trust=trust)
    if data.fingerprint != record.data.fingerprint:
        raise ConfigError(
            f"{folder.path}: the data set has changed since the run was trained; "
            "measurements on it would not belong to this run"
        )
    return model, data


@contextmanager
def finished(
    folder: RunFolder, split: str, *, trust: bool = False, device: str = "auto"
) -> Iterator[tuple[nn.Module, Data, RunRecord]]:
    """A finished run's model, data and record. The record is written back at the end, also after an
    error.

    The folder is locked meanwhile. Raises ConfigError if the folder is not a run's, or if its data
    set does not have the split.
    """
    if not folder.record.is_file():
        raise ConfigError(f"{folder.path} is no run's folder (…/seed-0): there is no record.json in it")
    with folder.locked():
        model, data = open_run(folder, trust=trust)
        if split not in data.splits:
            raise ConfigError(f"{data.name} has no {split} split here; it has {', '.join(data.splits)}")
        record = read_record(folder)
        try:
            with noting_shortages(record):
                yield model.to(pick_device(device)), data, record
        finally:
            write_record(folder, record)


def data_of(folder: RunFolder, *, trust: bool = False) -> Data:
    """Loads the data set a run was trained on, as its config.yaml describes it.

    A trial of a sweep gets no test split. Your own plug-ins are executed only with `trust`. Raises
    UnreadableRun if config.yaml cannot be read, or if the data came from Python.
    """
    config = read_run_data(folder.config)
    value, repeats, subset = config.data, config.repeats, config.train.subset
    if isinstance(value, str) and value.startswith("own data"):
        raise UnreadableRun(
            f"{folder.path} was trained on your {value}; evaluate it from Python, with stresslens.evaluate"
        )
    data: Data = registry.resolve("datasets", value, path=("data",), base=folder.path, trust=trust)()
    seed = (repeats if isinstance(repeats, list) else repeats.seeds)[0]
    if not isinstance(repeats, list):
        data = repeats.division.of(data, seed)
    splits = read_record(folder).data.splits
    if splits and "test" not in splits:
        data = replace(data, test=None)
    return data if subset is None else fewer(data, subset.images, balanced=subset.balanced, seed=seed)
