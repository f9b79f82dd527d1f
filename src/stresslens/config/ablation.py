"""The key `ablate:` of a study file: what each ingredient of the recipe is worth. It becomes the runs of an
ordinary study (the full recipe, the bare one, each ingredient left out or added in) and their contrasts."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from stresslens.config import registry
from stresslens.config.contrasts import ContrastSection
from stresslens.config.dotted_keys import get_dotted, set_dotted, single_settings
from stresslens.config.ingredients import (
    ADDED,
    Ingredient,
    Ingredients,
    found_ingredients,
    stated_ingredients,
    unused,
)
from stresslens.config.run_names import value_in_words
from stresslens.config.study_keys import VARIANT_KEYS, StudyKeys
from stresslens.config.study_record import StatedAblation, StatedIngredient
from stresslens.core.errors import ConfigError, Problem
from stresslens.core.spelling import closest
from stresslens.core.text import enumeration

FULL, BARE = "full", "bare"
LEFT_OUT, ADDED_IN, TOGETHER = "left out of full", "added to bare", "all together"
OWN_CONTRASTS = (LEFT_OUT, ADDED_IN, TOGETHER)
"""The names of the contrasts."""
SEEDS = 3
"""The seeds of an ablation that does not say how many: with fewer, no recipe is told from another."""
Side = Literal["leave out", "add in"]

CLASHES = {
    "runs": "the ablation makes the runs itself. Put what they share at the top level; or leave `ablate` "
    "out, and give the run whose ingredients are meant: stresslens ablate FILE --variant NAME",
    "grid": "the ablation makes the runs itself; leave one of the two out",
    "data_sizes": "the ablation is at one size of the data; set train.subset, or leave one of the two out",
}
"""Keys that an ablation cannot have beside it, and why."""


@dataclass(frozen=True)
class AblationRequest:
    """What `stresslens ablate` asks for beside the study file: the sides; the ingredients by their names, or
    all; and the variant that is the recipe, of a file with `runs`."""

    sides: Collection[Side] = ("leave out", "add in")
    ingredients: Sequence[str] = ()
    variant: str | None = None


def request_of(
    leave_out: bool, add_in: bool, ingredients: Sequence[str], variant: str | None
) -> AblationRequest:
    """The request of a command or call; with neither or both of the first two, both sides."""
    sides: dict[Side, bool] = {"leave out": leave_out, "add in": add_in}
    return AblationRequest(
        [side for side, asked in sides.items() if asked or leave_out == add_in], ingredients, variant
    )


@dataclass(frozen=True)
class ExpandedAblation:
    """An ablation as an ordinary study: its keys, what all runs share, and where the study file wrote each
    change of a run (`places`). `stated` has the names of the variants."""

    keys: StudyKeys
    shared: dict[str, Any]
    stated: StatedAblation
    places: dict[registry.Keys, registry.Keys] = field(default_factory=dict)

    def for_folders(
        self, folders: Mapping[str, str], configs: Mapping[str, Any], problems: list[Problem]
    ) -> StatedAblation:
        """The ablation with the names of the folders. An ingredient that changes nothing in their
        configurations is added to `problems`, if there are no others."""
        stated = self.stated.renamed(folders)
        for each in [] if problems else stated.ingredients:
            for pair in filter(None, (each.left_out, each.added)):
                first, second = (configs.get(name) for name in pair)
                if first is not None and first == second:
                    why = (
                        "changes nothing: the run is the same with and without it. Take its settings out of "
                        "the rest of the file and of the command line, or say what is without it, as in "
                        "{train.ema: {with: 0.999, without: 0.9}}"
                    )
                    problems.append(Problem(("ablate", each.name), why))
                    break
        return stated


def expanded_ablation(
    keys: StudyKeys,
    values: Mapping[str, Any],
    name: str,
    base: Path,
    request: AblationRequest | None,
    problems: list[Problem],
) -> ExpandedAblation | None:
    """The ablation of a study, whose keys were validated and whose plain `values` the file gives; None for
    a study without one. With a `request`, a file without `ablate:` is searched for ingredients, and the study
    is called `NAME-ablation`. Mistakes are added to `problems`."""
    if keys.ablate is None and request is None:
        return None
    recipe = {key: value for key, value in values.items() if key in VARIANT_KEYS}
    if keys.ablate is None:
        keys, recipe = _of_variant(keys, recipe, name, request or AblationRequest(), problems)
    elif request is not None and request.variant is not None and keys.runs is None:
        why = f"--variant {request.variant}: the recipe is that of the file, which has no `runs`"
        problems.append(Problem(("ablate",), f"{why}; leave the option out"))
    request = request or AblationRequest()
    for key, why in CLASHES.items():
        if getattr(keys, key) is not None:
            problems.append(Problem((key,), f"cannot stand beside `ablate`: {why}"))
    taken = {*OWN_CONTRASTS} & set(keys.contrasts or {})
    problems += [Problem(("contrasts", each), "the ablation has a contrast of this name") for each in taken]
    if isinstance(keys.ablate, dict):
        ingredients = stated_ingredients(keys.ablate, recipe, problems)
    else:
        ingredients = found_ingredients(recipe, base, request.ingredients)
        if not ingredients.all and not problems:
            why = "no ingredient was found: every setting that could be left out has its default. Name them"
            problems.append(Problem(("ablate",), f"{why}, as in ablate: {{ema: {{train.ema: 0.999}}}}"))
    chosen = ingredients.named(request.ingredients, problems)
    alternatives = _alternatives(ingredients.all)
    for key, names in alternatives.items():
        if "add in" not in request.sides:
            why = f"{enumeration(names)} set {key}; no recipe has both, so none can be left out of it"
            problems.append(Problem(("ablate",), f"{why}. Leave the option --leave-out out"))
        without = [each.without_it[key] for each in ingredients.all if key in each.without_it]
        if any(value != without[0] for value in without):
            why = f"{enumeration(names)} say different things of {key} without them; the bare recipe has one"
            problems.append(Problem(("ablate",), why))
    if "repeats" not in values:
        keys = replace(keys, repeats=SEEDS)
    return _expanded(keys, ingredients, chosen, request.sides, has_full=not alternatives)


def _of_variant(
    keys: StudyKeys,
    recipe: dict[str, Any],
    name: str,
    request: AblationRequest,
    problems: list[Problem],
) -> tuple[StudyKeys, dict[str, Any]]:
    """The keys and the recipe of a file that has no `ablate:`. Of a file with `runs`, the recipe is that
    of the variant that was asked for; the contrasts, which are between the runs, are left out."""
    known, variant = list(keys.runs or {}), request.variant
    recipe = copy.deepcopy(recipe)
    if variant is not None and variant not in known:
        why = f"--variant {variant}: no run of the study has this name; {closest(variant, known)}"
        problems.append(Problem(("runs",), why))
    elif variant is None and len(known) > 1:
        problems.append(Problem(("runs",), f"which is the recipe? give --variant: {', '.join(known)}"))
    for path, value in single_settings((keys.runs or {}).get(variant or next(iter(known), "")) or {}):
        try:
            set_dotted(recipe, ".".join(path), value)
        except ConfigError as error:
            problems.append(Problem(("runs", variant or known[0], *path), str(error)))
    called = "-".join(filter(None, [str(keys.study or name), variant, "ablation"])).replace(" ", "_")
    contrasts = None if known else keys.contrasts
    return replace(keys, study=called, ablate="auto", runs=None, contrasts=contrasts), recipe


def _alternatives(ingredients: Sequence[Ingredient | StatedIngredient]) -> dict[str, list[str]]:
    """The keys that more than one ingredient sets, with the names of these: no recipe has two of them."""
    by_key: dict[str, list[str]] = {}
    for each in ingredients:
        for key in each.with_it:
            by_key.setdefault(key, []).append(each.name)
    return {key: names for key, names in by_key.items() if len(names) > 1 and key not in ADDED}


def _name_of(present: Collection[str], names: Sequence[str]) -> str:
    """What the run with these of all ingredients is called, whichever of them were asked for."""
    there = [name for name in names if name in present]
    missing = [name for name in names if name not in present]
    if not there or not missing:
        return FULL if there else BARE
    if len(there) <= len(missing):
        return f"only {enumeration(there)}"
    return f"without {enumeration(missing)}"


def _expanded(
    keys: StudyKeys,
    ingredients: Ingredients,
    chosen: Sequence[str],
    sides: Collection[Side],
    *,
    has_full: bool,
) -> ExpandedAblation:
    """Without a full recipe, whose ingredients exclude each other, no run has those that were not chosen."""
    runs: dict[str, dict[str, Any] | None] = {}
    places: dict[registry.Keys, registry.Keys] = {}
    names = [each.name for each in ingredients.all]
    always = [name for name in names if name not in chosen] if has_full else []
    of_set: dict[frozenset[str], str] = {}

    def run(chosen_ones: Collection[str]) -> str:
        """The name of the run with these ingredients, which is made if there is none."""
        present = frozenset({*chosen_ones, *always})
        if present not in of_set:
            called = of_set[present] = unused(_name_of(present, names), runs)
            changes = runs[called] = {}
            for key, value, at in _changes(ingredients, present):
                changes[key] = value
                places.update({("runs", called, key, *below): place for below, place in at.items()})
        return of_set[present]

    full, bare = run(chosen) if has_full else None, run(())
    alone = {name: run([name]) for name in chosen if "add in" in sides}
    left_out = {
        name: run([each for each in chosen if each != name])
        for name in chosen
        if has_full and "leave out" in sides
    }
    stated = [
        (
            name,
            (left_out[name], full) if full and left_out else None,
            (bare, alone[name]) if name in alone else None,
        )
        for name in chosen
    ]
    ends = [full] if full else []
    runs = {name: runs[name] for name in (*ends, *left_out.values(), *alone.values(), bare)}
    pairs = {
        LEFT_OUT: [left for _, left, _ in stated if left],
        ADDED_IN: [added for _, left, added in stated if added and added != left],
        TOGETHER: [(bare, full)] if full and len(chosen) > 1 else [],
    }
    made = {name: ContrastSection(pairs=each) for name, each in pairs.items() if each}
    by_name = {each.name: each for each in ingredients.all}
    listed = [_stated(by_name[name], left, added) for name, left, added in stated]
    kept = dict.fromkeys(always, "not asked for") | ingredients.kept
    record = StatedAblation(full=full, bare=bare, ingredients=listed, kept=kept)
    contrasts = {**made, **(keys.contrasts or {})}
    keys = replace(keys, runs=runs, grid=None, data_sizes=None, contrasts=contrasts)
    return ExpandedAblation(keys, ingredients.bare, record, places)


def _stated(
    of: Ingredient, left_out: tuple[str, str] | None, added: tuple[str, str] | None
) -> StatedIngredient:
    return StatedIngredient(
        name=of.name, with_it=of.with_it, without_it=of.without_it, left_out=left_out, added=added
    )


Below = dict[registry.Keys, registry.Keys]
"""Where the study file has a value, and parts of it by their paths in it."""


def _changes(ingredients: Ingredients, present: Collection[str]) -> Iterator[tuple[str, Any, Below]]:
    """The changes of the bare recipe that make a run: key, value and place. Shorter keys come first, so that
    a plug-in is there before its options are set. A list gets the elements of all ingredients in order."""
    found: dict[str, tuple[Any, Below]] = {}
    taken = {key for each in ingredients.all if each.name in present for key in each.with_it} - ADDED
    for each in ingredients.all:
        is_present = each.name in present
        settings = each.with_it if is_present else each.without_it
        for key, value in settings.items():
            if key in taken and not is_present:  # an alternative has it
                continue
            place = each.places[key]
            if key not in ADDED or not isinstance(value, list):
                found[key] = (copy.deepcopy(value), {(): place})
                continue
            before, at = found.get(key) or (_listed_at(ingredients.bare, key), {(): place})
            more: Below = {(len(before) + k,): place for k in range(len(value))}
            found[key] = ([*before, *copy.deepcopy(value)], {**at, **more})
    for key in sorted(found, key=lambda key: key.count(".")):
        yield key, *found[key]


def _listed_at(values: Mapping[str, Any], dotted: str) -> list[Any]:
    """The list at a dotted key; empty where there is none."""
    try:
        found = get_dotted(values, dotted)
    except KeyError:
        return []
    return list(found) if isinstance(found, list) else []


def ingredient_in_words(ingredient: Ingredient | StatedIngredient) -> str:
    """`train.ema 0.999`, `train.loss mse (without it cross_entropy)`."""

    def written(value: Any) -> str:
        return ", ".join(map(value_in_words, value)) if isinstance(value, list) else value_in_words(value)

    parts = []
    for key, value in ingredient.with_it.items():
        without = ingredient.without_it.get(key)
        stated = "" if without is None else f" (without it {written(without) or 'none'})"
        parts.append(f"{key} {written(value)}{stated}")
    return ", ".join(parts)


def alternatives_in_words(ingredients: Sequence[StatedIngredient]) -> str:
    """Which ingredients exclude each other; empty where none do."""
    keys: dict[tuple[str, ...], list[str]] = {}
    for key, names in _alternatives(ingredients).items():
        keys.setdefault(tuple(names), []).append(key)
    parts = [f"{enumeration(names)} set {enumeration(these)}" for names, these in keys.items()]
    return f"{'; '.join(parts)}: no recipe has two of them, each is added to the bare one" if parts else ""


def kept_in_words(kept: Mapping[str, str]) -> str:
    """What else a recipe sets, and why it is no ingredient; empty where there is nothing."""
    by_reason: dict[str, list[str]] = {}
    for key, why in kept.items():
        by_reason.setdefault(why, []).append(key)
    parts = [f"{enumeration(keys)} ({why})" for why, keys in by_reason.items()]
    return f"in all runs: {'; '.join(parts)}" if parts else ""
