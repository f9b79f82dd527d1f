"""Public names for plug-in authors: `from stresslens.plugins import Maps, Panel, Ball, Count, …`.

These names are stable, even if their modules move. Each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stresslens.core.attack_base import Watch as Watch
    from stresslens.core.attack_base import gradient as gradient
    from stresslens.core.attack_base import per_image as per_image
    from stresslens.core.ball import Ball as Ball
    from stresslens.core.ball import L2Ball as L2Ball
    from stresslens.core.ball import LinfOrL2Ball as LinfOrL2Ball
    from stresslens.core.ball import Norm as Norm
    from stresslens.core.data import Data as Data
    from stresslens.core.data import Split as Split
    from stresslens.core.draws import Draws as Draws
    from stresslens.core.errors import ConfigError as ConfigError
    from stresslens.core.errors import DataError as DataError
    from stresslens.core.evidence import Curve as Curve
    from stresslens.core.evidence import Row as Row
    from stresslens.core.evidence import Trace as Trace
    from stresslens.core.findings import no_sign as no_sign
    from stresslens.core.findings import not_checked as not_checked
    from stresslens.core.findings import sign as sign
    from stresslens.core.foreign_model import ForeignModel as ForeignModel
    from stresslens.core.inspection import evaluating as evaluating
    from stresslens.core.inspection import tapped as tapped
    from stresslens.core.layers import StraightThrough as StraightThrough
    from stresslens.core.maps import Maps as Maps
    from stresslens.core.panels import Grid as Grid
    from stresslens.core.panels import Lines as Lines
    from stresslens.core.panels import Panel as Panel
    from stresslens.core.panels import Picture as Picture
    from stresslens.core.panels import Points as Points
    from stresslens.core.panels import image_pixels as image_pixels
    from stresslens.core.panels import number_pixels as number_pixels
    from stresslens.core.picture_facts import PictureFacts as PictureFacts
    from stresslens.core.pretrained import PretrainedWeights as PretrainedWeights
    from stresslens.core.published_facts import PublishedFacts as PublishedFacts
    from stresslens.core.sampling import balanced_subset as balanced_subset
    from stresslens.core.sampling import divide as divide
    from stresslens.core.tracking import Embedding as Embedding
    from stresslens.core.tracking import Entry as Entry
    from stresslens.core.tracking import Figure as Figure
    from stresslens.core.tracking import Graph as Graph
    from stresslens.core.tracking import Histogram as Histogram
    from stresslens.core.tracking import Histograms as Histograms
    from stresslens.core.tracking import Outcome as Outcome
    from stresslens.core.tracking import Pictures as Pictures
    from stresslens.core.tracking import Scalars as Scalars
    from stresslens.core.tracking import Text as Text
    from stresslens.core.tracking import Tracker as Tracker
    from stresslens.core.types import Attack as Attack
    from stresslens.core.types import Augmentation as Augmentation
    from stresslens.core.types import Chance as Chance
    from stresslens.core.types import Count as Count
    from stresslens.core.types import Decay as Decay
    from stresslens.core.types import Estimate as Estimate
    from stresslens.core.types import Estimator as Estimator
    from stresslens.core.types import Finding as Finding
    from stresslens.core.types import Loss as Loss
    from stresslens.core.types import Natural as Natural
    from stresslens.core.types import NonNegative as NonNegative
    from stresslens.core.types import Objective as Objective
    from stresslens.core.types import Optimizer as Optimizer
    from stresslens.core.types import Parameters as Parameters
    from stresslens.core.types import PluginOption as PluginOption
    from stresslens.core.types import Positive as Positive
    from stresslens.core.types import Radius as Radius
    from stresslens.core.types import Schedule as Schedule
    from stresslens.core.types import Seed as Seed
    from stresslens.core.types import Shape as Shape
    from stresslens.core.types import Share as Share
    from stresslens.core.types import Step as Step

_HOMES = {
    "attack_base": ("Watch", "gradient", "per_image"),
    "ball": ("Ball", "L2Ball", "LinfOrL2Ball", "Norm"),
    "data": ("Data", "Split"),
    "draws": ("Draws",),
    "errors": ("ConfigError", "DataError"),
    "evidence": ("Curve", "Row", "Trace"),
    "findings": ("no_sign", "not_checked", "sign"),
    "foreign_model": ("ForeignModel",),
    "inspection": ("evaluating", "tapped"),
    "layers": ("StraightThrough",),
    "maps": ("Maps",),
    "panels": ("Grid", "Lines", "Panel", "Picture", "Points", "image_pixels", "number_pixels"),
    "picture_facts": ("PictureFacts",),
    "pretrained": ("PretrainedWeights",),
    "published_facts": ("PublishedFacts",),
    "sampling": ("balanced_subset", "divide"),
    "tracking": (
        *("Embedding", "Entry", "Figure", "Graph", "Histogram", "Histograms", "Outcome", "Pictures"),
        *("Scalars", "Text", "Tracker"),
    ),
    "types": (
        *(
            "Attack",
            "Augmentation",
            "Estimator",
            "Loss",
            "Objective",
            "Optimizer",
            "PluginOption",
            "Schedule",
        ),
        *("Chance", "Count", "Decay", "Natural", "NonNegative", "Positive", "Radius", "Seed", "Share"),
        *("Estimate", "Finding", "Parameters", "Shape", "Step"),
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = list(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'stresslens.plugins' has no attribute {name!r}")
    return getattr(import_module(f"stresslens.core.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
