"""stresslens trains image classifiers, attacks them, hardens them, looks inside them, and says
which differences are real."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stresslens.core import old_paths, torchvision_compat
from stresslens.core.version import __version__

if TYPE_CHECKING:
    from stresslens.api import Ablation as Ablation
    from stresslens.api import LearningRates as LearningRates
    from stresslens.api import Run as Run
    from stresslens.api import Study as Study
    from stresslens.api import ablate as ablate
    from stresslens.api import as_model as as_model
    from stresslens.api import attack as attack
    from stresslens.api import check_data as check_data
    from stresslens.api import compare as compare
    from stresslens.api import compare_across as compare_across
    from stresslens.api import compare_data as compare_data
    from stresslens.api import ensemble as ensemble
    from stresslens.api import evaluate as evaluate
    from stresslens.api import explain as explain
    from stresslens.api import export as export
    from stresslens.api import find_label_errors as find_label_errors
    from stresslens.api import find_lr as find_lr
    from stresslens.api import layer_table as layer_table
    from stresslens.api import load as load
    from stresslens.api import open as open
    from stresslens.api import predict as predict
    from stresslens.api import prediction_sets as prediction_sets
    from stresslens.api import run as run
    from stresslens.api import train as train
    from stresslens.api import verify as verify
    from stresslens.api import write_report as write_report
    from stresslens.api.comparisons import AcrossDataSets as AcrossDataSets
    from stresslens.api.comparisons import Comparison as Comparison
    from stresslens.api.named_scores import Scores as Scores
    from stresslens.charts.chart import Chart as Chart
    from stresslens.core.ball import Ball as Ball
    from stresslens.core.data import Data as Data
    from stresslens.core.data import Split as Split
    from stresslens.core.draws import Draws as Draws
    from stresslens.core.errors import ConfigError as ConfigError
    from stresslens.core.errors import DataError as DataError
    from stresslens.core.errors import StresslensError as StresslensError
    from stresslens.core.errors import TrainingDiverged as TrainingDiverged
    from stresslens.core.types import Estimate as Estimate
    from stresslens.core.types import Finding as Finding
    from stresslens.evaluation.data_comparison import DataComparison as DataComparison
    from stresslens.evaluation.export import Exported as Exported
    from stresslens.explanation.explanation import Explanation as Explanation
    from stresslens.robustness.result import AttackResult as AttackResult
    from stresslens.robustness.result import Robust as Robust
    from stresslens.robustness.verification import Verification as Verification

_HOMES = {
    "Ablation": "api.ablations",
    "ablate": "api",
    "Ball": "core.ball",
    "Chart": "charts.chart",
    "AcrossDataSets": "api.comparisons",
    "Comparison": "api.comparisons",
    "Scores": "api.named_scores",
    "verify": "api",
    "as_model": "api",
    "attack": "api",
    "Verification": "robustness.verification",
    "AttackResult": "robustness.result",
    "Robust": "robustness.result",
    "Data": "core.data",
    "Split": "core.data",
    "Draws": "core.draws",
    "ConfigError": "core.errors",
    "DataError": "core.errors",
    "StresslensError": "core.errors",
    "TrainingDiverged": "core.errors",
    "layer_table": "api",
    "Estimate": "core.types",
    "Finding": "core.types",
    "LearningRates": "api",
    "Run": "api",
    "Study": "api",
    "check_data": "api",
    "compare": "api",
    "compare_across": "api",
    "compare_data": "api",
    "ensemble": "api",
    "evaluate": "api",
    "Explanation": "explanation.explanation",
    "explain": "api",
    "export": "api",
    "find_label_errors": "api",
    "find_lr": "api",
    "DataComparison": "evaluation.data_comparison",
    "Exported": "evaluation.export",
    "load": "api",
    "open": "api",
    "predict": "api",
    "prediction_sets": "api",
    "run": "api",
    "train": "api",
    "write_report": "api",
}

__all__ = [*_HOMES, "__version__"]

old_paths.keep_alive()
torchvision_compat.cure()


def __getattr__(name: str) -> Any:
    """Public names are imported when they are first used, so that `import stresslens` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'stresslens' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"stresslens.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
