"""The public functions, and what they return: train, attack, explain, …, for plug-ins by name and for
your own modules and tensors."""

from __future__ import annotations

from stresslens.api.ablations import Ablation
from stresslens.api.attacker import attack, verify
from stresslens.api.drift import compare_data
from stresslens.api.ensembles import ensemble
from stresslens.api.evaluator import evaluate, export, layer_table, load, predict
from stresslens.api.explainer import explain
from stresslens.api.folders import check_data, compare, compare_across, open, write_report
from stresslens.api.label_search import find_label_errors
from stresslens.api.learning_rates import LearningRates, find_lr
from stresslens.api.own_models import as_model
from stresslens.api.prediction_sets import prediction_sets
from stresslens.api.runs import Run
from stresslens.api.split_results import (
    ClassTable,
    ConfusionMatrix,
    ReliabilityDiagram,
    RiskCoverageCurve,
    SplitResults,
)
from stresslens.api.studies import Study
from stresslens.api.trainer import ablate, run, train

__all__ = [
    "Ablation",
    "ClassTable",
    "ConfusionMatrix",
    "LearningRates",
    "ReliabilityDiagram",
    "RiskCoverageCurve",
    "Run",
    "SplitResults",
    "Study",
    "ablate",
    "as_model",
    "attack",
    "check_data",
    "compare",
    "compare_across",
    "compare_data",
    "ensemble",
    "evaluate",
    "explain",
    "export",
    "find_label_errors",
    "find_lr",
    "layer_table",
    "load",
    "open",
    "predict",
    "prediction_sets",
    "run",
    "train",
    "verify",
    "write_report",
]
