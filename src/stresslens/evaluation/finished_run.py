"""Opens a finished run: model, data set and record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from stresslens.core.data import Data
from stresslens.core.devices import pick_device
from stresslens.core.errors import ConfigError
from stresslens.core.run_folder import RunFolder
from stresslens.core.splits import split_named
from stresslens.evaluation.record import RunRecord, noting_shortages, read_record, write_record
from stresslens.evaluation.run_data import DataPlace, same_data_of
from stresslens.evaluation.run_data import data_of as data_of
from stresslens.evaluation.saved_model import as_computed, open_model


def open_run(
    folder: RunFolder, *, trust: bool = False, module: nn.Module | None = None, data: DataPlace = None
) -> tuple[nn.Sequential, Data]:
    """A run's model and the data set it was trained on.

    `module` is as in `open_model`, `data` as in `data_of`. Raises ConfigError if the data set has changed
    since the training.
    """
    model = as_computed(open_model(folder, trust=trust, module=module), folder)
    return model, same_data_of(folder, trust=trust, data=data)


@contextmanager
def finished(
    folder: RunFolder,
    split: str,
    *,
    trust: bool = False,
    device: str = "auto",
    module: nn.Module | None = None,
    data: DataPlace = None,
) -> Iterator[tuple[nn.Module, Data, RunRecord]]:
    """A finished run's model, data and record. The record is written back at the end, also after an
    error.

    The folder is locked meanwhile. `module` and `data` are as in `open_run`. Raises ConfigError if the
    folder is not a run's, or if its data set does not have the split.
    """
    if not folder.record.is_file():
        raise ConfigError(f"{folder.path} is no run's folder (…/seed-0): there is no record.json in it")
    with folder.locked():
        model, found = open_run(folder, trust=trust, module=module, data=data)
        split_named(found, split)
        record = read_record(folder)
        try:
            with noting_shortages(record):
                yield model.to(pick_device(device)), found, record
        finally:
            write_record(folder, record)
