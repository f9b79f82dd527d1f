"""stresslens trains image classifiers, attacks them, hardens them, looks inside them, and says which differences are real."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from stresslens.core.ball import Ball as Ball
    from stresslens.core.data import Data as Data
    from stresslens.core.data import Split as Split
    from stresslens.core.draws import Draws as Draws
    from stresslens.core.errors import ConfigError as ConfigError
    from stresslens.core.errors import DataError as DataError
    from stresslens.core.errors import StresslensError as StresslensError
    from stresslens.core.errors import TrainingDiverged as TrainingDiverged
    from stresslens.core.layers import layer_table as layer_table
    from stresslens.core.types import Estimate as Estimate
    from stresslens.core.types import Finding as Finding
    from stresslens.exporting import Exported as Exported
    from stresslens.python import Explanation as Explanation
    from stresslens.python import Run as Run
    from stresslens.python import attack as attack
    from stresslens.python import check_data as check_data
    from stresslens.python import compare as compare
    from stresslens.python import evaluate as evaluate
    from stresslens.python import explain as explain
    from stresslens.python import export as export
    from stresslens.python import load as load
    from stresslens.python import predict as predict
    from stresslens.python import run as run
    from stresslens.python import train as train
    from stresslens.python import verify as verify
    from stresslens.python import write_report as write_report
    from stresslens.robust_result import Robust as Robust
    from stresslens.verification import Verification as Verification

_HOMES = {
    "Ball": "core.ball",
    "verify": "python",
    "attack": "python",
    "Verification": "verification",
    "Robust": "robust_result",
    "Data": "core.data",
    "Split": "core.data",
    "Draws": "core.draws",
    "ConfigError": "core.errors",
    "DataError": "core.errors",
    "StresslensError": "core.errors",
    "TrainingDiverged": "core.errors",
    "layer_table": "core.layers",
    "Estimate": "core.types",
    "Finding": "core.types",
    "Run": "python",
    "check_data": "python",
    "compare": "python",
    "evaluate": "python",
    "Explanation": "python",
    "explain": "python",
    "export": "python",
    "Exported": "exporting",
    "load": "python",
    "predict": "python",
    "run": "python",
    "train": "python",
    "write_report": "python",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used, so that `import stresslens` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'stresslens' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"stresslens.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
