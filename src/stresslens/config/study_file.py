"""Study files: reads a YAML file and overrides, and expands them into the validated variants of a study.

All mistakes are reported at once, each with its file and line.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import field, replace
from functools import reduce
from pathlib import Path
from typing import Any

from pydantic.dataclasses import dataclass

from stresslens.config import old_words, registry
from stresslens.config.ablation import AblationRequest, expanded_ablation
from stresslens.config.contrasts import claims_of, margins_of, pairs_of
from stresslens.config.data_sizes import DataSizePoint, DataSizes
from stresslens.config.dotted_keys import set_dotted
from stresslens.config.ensembles import is_soup
from stresslens.config.grid import Change, cells, checked_grid, number_of_cells
from stresslens.config.overrides import overrides_of
from stresslens.config.presets import with_preset
from stresslens.config.recorded_study import describes_predictions
from stresslens.config.repeats import Repeats
from stresslens.config.run_names import folder_name, kept_name, safe
from stresslens.config.schema import LATER_SETTINGS, STRICT, VariantConfig
from stresslens.config.search_space import Sweep
from stresslens.config.setting_keys import unknown_setting
from stresslens.config.shipped_studies import shipped_studies
from stresslens.config.study_keys import (
    VARIANT_KEYS,
    ExecutorName,
    check_study_keys,
    seeds_of,
    study_keys_of,
)
from stresslens.config.study_record import StatedAblation, StatedClaim
from stresslens.config.sweep_validation import check_swept
from stresslens.config.validation import (
    LACKING,
    VARIANT_CONFIG,
    check_variant,
    depends_on,
    place_written,
    with_renamed_runs,
)
from stresslens.config.yaml_source import Source
from stresslens.core.errors import ConfigError, Problem, Problems
from stresslens.core.spelling import closest

MOST_VARIANTS = 2000


@dataclass(config=STRICT)
class Variant:
    """A named configuration. `base` is the folder that paths to plug-ins are relative to."""

    name: str
    config: VariantConfig
    base: Path


@dataclass(config=STRICT)
class Study:
    """An expanded study: its variants, its seeds, and the pairs to compare: (contrast, variant, variant)."""

    name: str
    variants: list[Variant]
    seeds: list[int]
    contrasts: list[tuple[str, str, str]]
    source: Path | None
    claims: list[StatedClaim] = field(default_factory=list)
    margins: dict[str, float] = field(default_factory=dict)
    """The margins of sameness, by contrast."""
    repeats: Repeats | None = None
    """How each seed splits the data, if each has its own split."""
    curves: list[tuple[str, list[tuple[int, str]]]] = field(default_factory=list)
    """Each data-size curve: its name, and its (size, variant) pairs."""
    sweep: Sweep | None = None
    """The search of each variant; its best settings are then trained with every seed and tested."""
    executor: ExecutorName = "local"
    own_names: dict[str, str] = field(default_factory=dict)
    """The names in the study file, by the names of the folders, which hold the overrides too."""
    overrides: dict[str, list[str]] = field(default_factory=dict)
    """The overrides of each variant, by the names of their folders."""
    kept_names: dict[str, list[str]] = field(default_factory=dict)
    """The names that the folders had in earlier versions, the latest first, by their names."""
    places: dict[str, str] = field(default_factory=dict)
    """Where the study file has each variant (`file:line: runs.name`), by the name of its folder."""
    sweep_places: dict[registry.Keys, str] = field(default_factory=dict)
    """Where the study file has each value of the sweep (`file:line`), by its path."""
    metrics: list[str] = field(default_factory=list)
    """Further metrics that judge the contrasts (`metrics.measures`)."""
    ablation: StatedAblation | None = None


def read_study(
    file: Path, overrides: Sequence[str] = (), *, ablation: AblationRequest | None = None
) -> Study:
    """Reads a study from a YAML file. The overrides `key.path=value` apply to every variant and are
    part of the folder names. An `ablation` is that of the file's ingredients.

    Raises ConfigError, whose message lists every mistake as `file:line: key: what is wrong`.
    """
    if not os.path.lexists(file) and file.stem in shipped_studies():
        raise ConfigError(f"there is no {file}; `stresslens init --study {file.stem}` writes one")
    source = Source.read(file)
    line_of = {old_words.place_in_todays_words(path): line for path, line in source.lines.items()}
    try:
        source = replace(source, lines=line_of)
        study = expand_study(
            source.values,
            overrides,
            name=file.stem,
            base=file.parent,
            source=file,
            parse_problems=source.problems,
            ablation=ablation,
        )
    except Problems as error:
        raise ConfigError(source.told(error.problems)) from None
    return replace(
        study,
        places={each.name: _place(each.name, study, source) for each in study.variants},
        sweep_places={path: source.place(path) for path in source.lines if path[0] == "sweep"},
    )


def _place(name: str, study: Study, source: Source) -> str:
    """Where the study file has a variant, for messages about it."""
    known = study.own_names.get(name, name)
    if ("runs", known) in source.lines:
        return f"{source.place(('runs', known))}: runs.{known}"
    return str(source.file) if len(study.variants) == 1 else f"{source.file}: the run {known}"


# long: each step of the expansion is one line, in order
def expand_study(
    values: Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    name: str,
    base: Path,
    source: Path | None = None,
    parse_problems: Sequence[Problem] = (),
    ablation: AblationRequest | None = None,
) -> Study:
    """A study from plain values; with an `ablation`, that of its ingredients. Raises Problems:
    `parse_problems` and every mistake found."""
    problems = list(parse_problems)
    if describes_predictions(values):
        why = "predictions train nothing; `stresslens run` and `sl.run` compare them, without overrides"
        raise Problems([*problems, Problem(("study",), why)])
    overridden = overrides_of(values, overrides, problems)
    named, override_changes = overridden.named, overridden.changes
    grid_keys = list(_grid(overridden.values))
    values = with_preset(old_words.renamed(overridden.values), problems)
    grid_names = dict(zip(_grid(values), grid_keys))
    keys = study_keys_of(values, problems)
    keys = replace(keys, grid=checked_grid(keys.grid, problems))
    shared = {k: v for k, v in values.items() if k in VARIANT_KEYS}
    ablated = expanded_ablation(keys, values, name, base, ablation, problems)
    if ablated is not None:
        keys, shared = ablated.keys, ablated.shared
        overridden.origins.update(ablated.places)

    number = number_of_cells(keys.runs, keys.grid, keys.data_sizes)
    if number > MOST_VARIANTS:
        why = f"makes {number:,} runs of one seed; a study has at most {MOST_VARIANTS:,}"
        at = place_written(("grid",) if keys.grid else ("runs",), overridden.origins)
        raise Problems([*problems, Problem(at, why)])
    study_name = keys.study or name
    variants: list[Variant] = []
    names: list[str] = []
    paths: dict[str, dict[str, registry.Keys]] = {}
    curves: dict[str, list[tuple[int, str]]] = {}
    for cell in cells(keys.runs, keys.grid, keys.data_sizes, grid_names):
        folder = folder_name(cell.name, named)
        names.append(cell.name)
        merged, origins = _merged(shared, [*cell.changes, *override_changes], problems)
        if keys.data_sizes is not None and cell.point is not None:
            for curve in keys.data_sizes.curves_of(cell.stem or study_name, cell.point):
                curves.setdefault(curve, []).append((cell.point.size, folder))
            _set_size(keys.data_sizes, cell.point, merged, origins, problems)
        config = check_variant(merged, (), base, problems, origins)
        if keys.sweep is not None and config is not None:
            check_swept(keys, cell, override_changes, config, base, problems)
        if folder in paths:
            why = f"another run has the same folder name, {folder!r}; rename one"
            problems.append(Problem(("runs", cell.name), why))
        elif config is not None:
            variants.append(Variant(folder, config, base))
            model = ("model", registry.name_and_options("models", config.model)[0])
            paths[folder] = {
                "surrogate": place_written(("robustness", "surrogate"), origins),
                "weights": place_written((*model, "weights"), origins),
                "teacher": place_written(("train", "objective", "distillation", "run"), origins),
                "member": place_written((*model, "runs"), origins),
            }
    folders = {name: folder_name(name, named) for name in names}
    siblings = base.parent.parent if source is not None and source.name == "config.yaml" else None
    estimators = {each.name for each in variants if each.config.estimator is not None}
    variants = [_with_needed_runs(each, folders, siblings, estimators, paths, problems) for each in variants]
    check_study_keys(keys, study_name, problems)
    configs = {
        each.name: {k: v for k, v in as_values(each.config).items() if k != "track"} for each in variants
    }
    contrasts = pairs_of(keys.contrasts or {}, configs, names, problems)
    claims = claims_of(keys.contrasts or {}, contrasts, problems)
    stated = ablated.for_folders(folders, configs, problems) if ablated is not None else None
    if problems:
        placed = (replace(p, path=place_written(p.path, overridden.origins)) for p in problems)
        raise Problems(list(dict.fromkeys(placed)))
    seeds, repeats = seeds_of(keys.repeats)
    return Study(
        study_name,
        variants,
        seeds,
        contrasts,
        source,
        claims,
        margins_of(keys.contrasts or {}),
        repeats,
        list(curves.items()),
        keys.sweep,
        keys.executor,
        {folder: safe(name) for name, folder in folders.items()},
        dict.fromkeys(folders.values(), named) if named else {},
        {folder: [kept_name(name, named)] for name, folder in folders.items()},
        metrics=keys.metrics or [],
        ablation=stated,
    )


def _grid(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The grid in plain values; empty where it is no mapping, which the validation reports."""
    grid = values.get("grid")
    return grid if isinstance(grid, Mapping) else {}


def _merged(
    shared: Mapping[str, Any], changes: Sequence[Change], problems: list[Problem]
) -> tuple[dict[str, Any], dict[registry.Keys, registry.Keys]]:
    """The plain values of a variant: those that all variants share, with its changes. Second, where
    the study file or the command line wrote each change."""
    merged = copy.deepcopy(dict(shared))
    origins: dict[registry.Keys, registry.Keys] = {}
    for key, value, origin in changes:
        if (why := unknown_setting(key, merged)) is not None:
            problems.append(Problem(origin[:2] if origin[0] == "grid" else origin, why))
            continue
        try:
            origins[set_dotted(merged, key, value)] = origin
        except ConfigError as error:
            problems.append(Problem(origin, str(error)))
    return merged, origins


def _set_size(
    data_sizes: DataSizes,
    point: DataSizePoint,
    merged: dict[str, Any],
    origins: dict[registry.Keys, registry.Keys],
    problems: list[Problem],
) -> None:
    """Applies the settings of a point of a data-size curve to `merged`."""
    clashes = data_sizes.clashes(merged)
    problems += [Problem(place_written(clash.path, origins), clash.message) for clash in clashes]
    origin = ("data_sizes", "sizes", data_sizes.sizes.index(point.size))
    with suppress(ConfigError):  # `train` is no section, which the validation reports
        for key, value in data_sizes.at(point, merged).items():
            origins[set_dotted(merged, key, value)] = origin


def with_executor(study: Study, executor: str | None) -> Study:
    """The study with another executor; None keeps its own. Raises ConfigError for an unknown
    one."""
    known: list[ExecutorName] = ["local", "ray"]
    if executor is None:
        return study
    for name in known:
        if name == executor:
            return replace(study, executor=name)
    raise ConfigError(f"no executor is called {executor!r}; {closest(executor, list(known))}")


def known_as(study: Study, name: str, *, kept: str) -> Study:
    """The study of a single variant that pages call `name`, which tells the overrides too, and whose
    folder was called `kept`, with the overrides, in earlier versions."""
    (variant,) = study.variants
    kept_names = {variant.name: [kept_name(kept, study.overrides.get(variant.name, []))]}
    return replace(study, own_names={variant.name: name}, overrides={variant.name: []}, kept_names=kept_names)


def named_alone(study: Study, name: str) -> Study:
    """The study of a single variant whose folder is called `name` alone. In earlier versions its
    overrides followed."""
    (variant,) = study.variants
    folder, overrides = folder_name(name), study.overrides.get(variant.name, [])
    return replace(
        renamed_variants(study, {variant.name: folder}),
        own_names={folder: folder},
        kept_names={folder: [variant.name, kept_name(name, overrides)]},
    )


def renamed_variants(study: Study, names: Mapping[str, str]) -> Study:
    """The study with other names for the folders of some variants, everywhere in it."""
    if not names:
        return study
    new = {variant.name: names.get(variant.name, variant.name) for variant in study.variants}
    return replace(
        study,
        variants=[
            replace(each, name=new[each.name], config=with_renamed_runs(each.config, new))
            for each in study.variants
        ],
        contrasts=[(contrast, new[a], new[b]) for contrast, a, b in study.contrasts],
        claims=[
            claim.model_copy(update={"pairs": [(new[a], new[b]) for a, b in claim.pairs]})
            for claim in study.claims
        ],
        curves=[(curve, [(size, new[run]) for size, run in points]) for curve, points in study.curves],
        own_names={new[name]: own for name, own in study.own_names.items()},
        overrides={new[name]: texts for name, texts in study.overrides.items()},
        kept_names={},
        ablation=study.ablation and study.ablation.renamed(new),
        places={new[name]: place for name, place in study.places.items()},
    )


def _with_needed_runs(
    run: Variant,
    folders: Mapping[str, str],
    siblings: Path | None,
    estimators: set[str],
    paths: Mapping[str, Mapping[str, registry.Keys]],
    problems: list[Problem],
) -> Variant:
    """The variant with the folder names of the variants that it needs; overrides are part of these.

    They belong to the same study, or for the config.yaml of a single run, to the folder `siblings`.
    Weights may also come from any run by the path of its folder; where that is missing, the other
    variants can still be trained. `paths` says where the study file writes these names. Mistakes are
    added to `problems`.
    """
    for what, needed in depends_on(run.config):
        name, at = folders.get(needed, needed), paths[run.name][what]
        if (
            not (what != "surrogate" and "/" in needed)
            and name not in folders.values()
            and not (siblings is not None and (siblings / name).is_dir())
        ):
            more = (
                "; a run that provides weights cannot have a grid or data_sizes (data_sizes: {runs: [...]})"
                if what == "weights"
                else ""
            )
            why = f"no run of the study is called {needed!r}; {closest(needed, list(folders))}{more}"
            problems.append(Problem(at, why))
        if name in estimators and (what != "member" or is_soup(run.config)):
            why = f"{needed} is an estimator and has no {LACKING[what]}; name a trained model"
            problems.append(Problem(at, why))
    return replace(run, config=with_renamed_runs(run.config, folders))


def variant_config_from(values: Mapping[str, Any], base: Path) -> VariantConfig:
    """A single configuration, for calls from Python. Raises Problems."""
    problems: list[Problem] = []
    config = check_variant(old_words.renamed(values), (), base, problems, {})
    if config is None or problems:
        raise Problems(problems)
    return config


def as_values(config: VariantConfig) -> dict[str, Any]:
    """The configuration as plain values, as a study file writes them."""
    plain: dict[str, Any] = VARIANT_CONFIG.dump_python(config, mode="json")
    for (*sections, key), default in LATER_SETTINGS.items():
        section = reduce(dict.__getitem__, sections, plain)
        if section[key] == default:
            del section[key]
    return plain
