"""Deprecated import paths of version 0.1.0, for users' plug-ins and scripts.

Each old path still gives the module that replaced it.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
import warnings
from collections.abc import Sequence

from stresslens.core.errors import Notice

KINDS = (
    *(
        "attacks",
        "audits",
        "augmentations",
        "certificates",
        "corruptions",
        "datasets",
        "estimators",
        "explainers",
    ),
    *("losses", "models", "objectives", "optimizers", "schedules", "trackers", "views"),
)
MODULES = {
    "core.attacking": "core.attack_base",
    "core.positions": "core.sampling",
    "core.tapping": "core.inspection",
    "core.division": "core.splits",
    "core.pictures": "core.image_files",
    "core.results": "core.run_folder",
    "core.colours": "core.colormaps",
    "core.blurring": "core.blur",
    "core.printing": "core.text",
    "core.durations": "core.text",
    "core.image_store": "core.image_cache",
    "core.torchvision_cure": "core.torchvision_compat",
    "core.yaml_source": "config.yaml_source",
    "metrics.crossed": "metrics.random_effects",
    "views.counterfactual": "plugins.views.adversarial_examples",
    "building": "evaluation.finished_run",
    "find": "config.registry",
    "python": "api",
}
NAMES = {
    "core.attack_base": {"logits_of": "batched_mean_logits", "Steered": "BatchedModel"},
    "core.inspection": {"last_layer": "classifier_layers"},
    "core.sampling": {"sampled": "sampled_positions"},
    "plugins.views.adversarial_examples": {"counterfactual": "adversarial_examples"},
    "plugins.models.torchvision": {"usual": "default_preprocessing"},
    "plugins.models.timm": {"usual": "default_preprocessing"},
    "plugins.models.openclip": {"usual": "default_preprocessing"},
}
"""Names that such a module had, and those of today; they are there once it is imported by its old path."""


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """The importer of old paths.

    It is the first in `sys.meta_path`; otherwise a package would be imported a second time under
    its old name.
    """

    spec: importlib.machinery.ModuleSpec | None = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        return importlib.machinery.ModuleSpec(fullname, self) if _new(fullname) else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        new = _new(spec.name)
        assert new is not None
        module = importlib.import_module(new)
        if spec.name.partition(".")[2] not in KINDS:  # the module inside the package gets the notice
            warnings.warn(f"{spec.name} is now {new}; import that instead", Notice, stacklevel=2)
        for old, name in NAMES.get(new.removeprefix("stresslens."), {}).items():
            setattr(module, old, getattr(module, name))
        self.spec = module.__spec__
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Restores the module's spec; the module has already run under its new name."""
        module.__spec__ = self.spec


def _new(fullname: str) -> str | None:
    package, _, rest = fullname.partition(".")
    if package != "stresslens":
        return None
    if rest in MODULES:
        return f"stresslens.{MODULES[rest]}"
    return f"stresslens.plugins.{rest}" if rest.partition(".")[0] in KINDS else None


def keep_alive() -> None:
    """Makes the old paths importable from now on."""
    if not any(isinstance(finder, Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, Finder())
