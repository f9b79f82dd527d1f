"""The run that a call from Python describes: its model, its data and its settings, as one task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from stresslens.api.arguments import folder_name_of, model_key, plain_data
from stresslens.api.runs import Run
from stresslens.api.studies import Study
from stresslens.config import study_file
from stresslens.config.function_files import with_names
from stresslens.core.copies import eager_module, usable_module
from stresslens.core.data import Data
from stresslens.core.draws import seed_number
from stresslens.study.run_tasks import python_task
from stresslens.training.task import Task


def training_task(
    model: Any,
    data: Any,
    options: Mapping[str, Any],
    *,
    out: Path,
    name: str | None,
    seed: int,
    input: Mapping[str, Any] | None,
    more: Mapping[str, Any],
) -> Task:
    """The task of the arguments of `train`. `more` are further keys of the study. The caller's own functions
    are written into `out`. Raises ConfigError for everything that can be refused before data are loaded."""
    on = "; for more epochs, repeat the call of the run with name= and epochs=; to start from its "
    hint = f"{on}weights, give its model()" if isinstance(model, Run | Study) else ""
    given = [*(["input"] if input else []), *(f"train.{name}" for name in sorted(options))]
    key = model_key(model, given, hint)
    seed = seed_number(seed)
    data = data if isinstance(data, Data) else plain_data(data)
    own_data, own_model = isinstance(data, Data), isinstance(model, nn.Module)
    values = {
        "data": "digits" if own_data else data,
        key: "linear" if own_model else model,
        "input": dict(input or {}),
        "train": with_names(options, out),
        **more,
    }
    config = study_file.variant_config_from(values, Path.cwd())
    module = eager_module(usable_module(model)) if isinstance(model, nn.Module) else None
    own = data.uncached() if isinstance(data, Data) else None
    return python_task(config, values, out, folder_name_of(name), seed, data=own, module=module)
