"""Import paths of version 0.1.0 give the modules that took their place, with one notice."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from stresslens.config.registry import VOCABULARY
from stresslens.core import old_paths
from stresslens.core.errors import Notice


def test_every_old_path_leads_somewhere() -> None:
    assert set(VOCABULARY) - set(old_paths.KINDS) == {"checks", "detectors"}  # which came later
    assert set(old_paths.KINDS) < set(VOCABULARY)
    assert all(importlib.import_module(f"stresslens.{new}") for new in old_paths.MODULES.values())


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("stresslens.attacks.noise", "stresslens.plugins.attacks.noise", "noise"),
        ("stresslens.estimators.knn", "stresslens.plugins.estimators.knn", "knn"),
        ("stresslens.core.attacking", "stresslens.core.attack_base", "gradient"),
        ("stresslens.core.tapping", "stresslens.core.inspection", "tapped"),
        (
            "stresslens.views.counterfactual",
            "stresslens.plugins.views.adversarial_examples",
            "counterfactual",
        ),
        ("stresslens.core.attacking", "stresslens.core.attack_base", "logits_of"),
        ("stresslens.models.timm", "stresslens.plugins.models.timm", "usual"),
    ],
)
def test_an_old_path_gives_the_same_function(old: str, new: str, name: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(Notice, match=rf"{old} is now {new}; import that instead"):
        module = importlib.import_module(old)
    known = importlib.import_module(new)
    today = old_paths.NAMES.get(new.removeprefix("stresslens."), {}).get(name, name)
    assert getattr(module, name) is getattr(known, today)
    assert known.__spec__ is not None
    assert known.__spec__.name == new


@pytest.mark.slow
def test_a_script_with_old_paths_runs() -> None:
    code = (
        "from stresslens.attacks.noise import noise; from stresslens.core.positions import divide; "
        "print(noise.__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "stresslens.plugins.attacks.noise"
    assert done.stderr.count(": Notice:") == 2


def test_what_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("stresslens.attackers")
