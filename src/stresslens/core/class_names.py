"""Class names: the class that a user means by a name or a number, and names that look alike."""

from __future__ import annotations

import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from stresslens.core.errors import ConfigError, Notice
from stresslens.core.spelling import closest

WRAPPERS = (nn.DataParallel, DistributedDataParallel, AveragedModel)
CLASS_NAMES = "_stresslens_class_names"
"""The attribute of a module that holds the names of its classes, so that copies have them too."""


def name_classes(model: nn.Module, names: Sequence[str]) -> None:
    """Remembers the names of a model's classes in the model."""
    vars(model)[CLASS_NAMES] = list(names)


def names_of(model: Any) -> tuple[str, ...] | None:
    """The names of a model's classes, if they were remembered: those of a run's model, of its copies, and
    of the wrappers of torch around it."""
    while isinstance(model, nn.Module):
        if CLASS_NAMES in vars(model):
            return tuple(vars(model)[CLASS_NAMES])
        inside = dict(model.named_children()).get("_orig_mod")  # of torch.compile
        model = model.module if isinstance(model, WRAPPERS) else inside
    return None


def plain_form(name: str) -> str:
    """A name without its case, its blanks at the ends, repeated blanks, and its Unicode form (NFKC)."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def alike(classes: Sequence[str]) -> list[list[str]]:
    """Groups of class names that differ only by case, blanks or Unicode form."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in classes:
        groups[plain_form(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


def class_number(wanted: int | str, classes: Sequence[str], what: str) -> int:
    """The number of the class that a user names; `what` is the setting, for messages.

    A name wins over a number, because people see names: of classes called 1, 10 and 2, the class 2
    is the third one. A Notice says it where the two differ. Case, blanks and Unicode form of a name
    count only where they decide. Raises ConfigError if no class is meant, or several.
    """
    text, number = str(wanted), int(wanted) if str(wanted).isdecimal() else None
    if text in classes:
        named = list(classes).index(text)
        if number is not None and number != named and number < len(classes):
            warnings.warn(
                f"{what}: {text} is the class called {text} (number {named}); "
                f"for the class number {number}, write its name, {classes[number]}",
                Notice,
                stacklevel=2,
            )
        return named
    if number is not None:
        if number < len(classes):
            return number
        raise ConfigError(
            f"{what}: {text} is no class; they are 0 to {len(classes) - 1}, or give one by its name"
        )
    similar = [k for k, name in enumerate(classes) if plain_form(name) == plain_form(text)]
    if len(similar) == 1:
        return similar[0]
    if similar:
        raise ConfigError(
            f"{what}: which class is {text!r}: {', '.join(repr(classes[k]) for k in similar)}? "
            "Write it exactly, or give its number"
        )
    raise ConfigError(f"{what}: no class is called {text!r}; {closest(text, list(classes))}")
