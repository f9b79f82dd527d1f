"""Division of a data set: the parts that its source gives, those that are drawn, and its classes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from stresslens.core.data import Data, Split, part_of
from stresslens.core.errors import ConfigError, DataError, naming
from stresslens.core.spelling import closest
from stresslens.core.splits import divided, drawn
from stresslens.core.text import repeated_words


@dataclass(frozen=True)
class Division:
    """How many images are drawn for the parts that are not given: the options of those names of the
    dataset `folder`."""

    test: float | None = None
    validation: float | None = None
    subset: int | None = None
    seed: int = 42


def chosen_classes(chosen: Sequence[str] | None, present: list[str], name: str) -> list[str]:
    if chosen is None:
        return present
    for label in chosen:
        if label not in present:
            raise ConfigError(f"classes: {name} has no class {label!r}; {closest(label, present)}")
    if len(set(chosen)) < max(2, len(chosen)):
        raise ConfigError(f"classes: expected at least two classes, each once; got {', '.join(chosen)}")
    return list(chosen)


def renamed(classes: list[str], names: Mapping[str, str] | Sequence[str] | None, folder: str) -> list[str]:
    """The names of the classes, those in `names` in place of the folders'."""
    if isinstance(names, Mapping):
        for label in names:
            if label not in classes:
                raise ConfigError(f"names: {folder} has no class {label!r}; {closest(label, classes)}")
    elif names is not None and len(names) != len(classes):
        raise ConfigError(
            f"names: {folder} has {len(classes)} classes ({', '.join(classes)}), and {len(names)} names "
            "are given; give one for each, or only some as {class: name}"
        )
    by_class = names if isinstance(names, Mapping) else dict(zip(classes, names or classes))
    titles = [by_class.get(label, label) for label in classes]
    if double := repeated_words(titles):
        raise ConfigError(f"names: several classes of {folder} would be called {', '.join(double)}")
    return titles


def divided_as_given(
    given: Mapping[str | None, Split], classes: Sequence[str], name: str, division: Division
) -> Data:
    """The data set with the parts `given` by their names; a missing validation part is drawn from train.

    The images under None have no part: from them, test and validation are drawn. Raises ConfigError for
    an option of the division that does not fit the parts, and DataError without a train part, and for a
    class that is in another part only.
    """
    test, validation = division.test, division.validation
    share = 0.2 if validation is None else validation
    drawing: dict[str, Any] = {"subset": division.subset, "seed": division.seed}
    if None in given:
        of_test = 0.2 if test is None else test
        data = drawn(given[None], classes, name, test=of_test, validation=share, **drawing)
        return replace(data, parts=_in_words(given, data))
    parts = {str(part): split for part, split in given.items()}
    if "train" not in parts:
        found = ", ".join(sorted(parts))
        raise DataError(f"{name} has the parts {found}, and no train part to learn from")
    for part, option in (("test", test), ("validation", validation)):
        if option is not None and part in parts:
            raise ConfigError(
                f"{name} already has a {part} part ({len(parts[part])} images); leave the option `{part}` out"
            )
    if test:
        raise ConfigError(
            f"{name} has its own parts, but no test part; add a test folder (or rows), or leave `test` out"
        )
    learned = parts["train"].labels.unique()
    for part, split in parts.items():
        present = split.labels.unique()  # sorted
        unknown = present[~torch.isin(present, learned)]
        if len(unknown):
            raise DataError(
                f"{name}: the {part} part has images of {classes[int(unknown[0])]!r}, "
                "and the train part has none to learn from"
            )
    count = 0 if "validation" in parts else share
    data = divided(parts["train"], parts.get("test"), classes, name, validation=count, **drawing)
    data = replace(data, validation=parts.get("validation", data.validation))
    return replace(data, parts=_in_words(given, data))


def _in_words(given: Collection[str | None], data: Data) -> str:
    """Which parts the source gave, and which were drawn."""
    own = [part for part in data.splits if part in given]
    drawn_parts = [part for part in data.splits if part not in own and part != "train"]
    taken = f"{', '.join(own)} as given" if own else ""
    rest = f"{' and '.join(drawn_parts)} drawn from {'train' if own else 'all images'}" if drawn_parts else ""
    missing = "" if "test" in data.splits else "no test part"
    return "; ".join(filter(None, [taken, rest, missing]))


def data_of_arrays(
    given: Mapping[str | None, Split],
    name: str,
    division: Division,
    every: Sequence[str],
    *,
    classes: Sequence[str] | None = None,
    names: Mapping[str, str] | Sequence[str] | None = None,
) -> Data:
    """The data set of the parts `given`, as `divided_as_given`; its labels are numbers of the classes
    `every`. `classes` and `names` are the options of those names of the dataset `folder`."""
    kept = chosen_classes(classes, list(every), name)
    titles = renamed(kept, names, name)
    if classes is not None:
        numbers = [every.index(label) for label in kept]
        selected = {part: _of_classes(split, numbers) for part, split in given.items()}
        given = {part: split for part, split in selected.items() if split is not None}
    with naming(name):
        return divided_as_given(given, titles, name, division)


def _of_classes(split: Split, numbers: Sequence[int]) -> Split | None:
    """The images of these classes, numbered in this order; None if there are none."""
    place = torch.full((max(int(split.labels.max()), *numbers) + 1,), -1)
    place[torch.tensor(numbers)] = torch.arange(len(numbers))
    labels = place[split.labels]
    kept = part_of(split, (labels >= 0).nonzero().flatten())
    return None if kept is None else replace(kept, labels=labels[labels >= 0])
