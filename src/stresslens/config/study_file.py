"""A study file: YAML and dotted overrides → validated runs, or every mistake at once with its file
and line."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from stresslens.config import old_words, registry
from stresslens.config.contrasts import ContrastSection, claims_of, pairs_of
from stresslens.config.data_sizes import DataSizePoint, DataSizes
from stresslens.config.dotted_keys import set_dotted
from stresslens.config.schema import STRICT, VariantConfig
from stresslens.config.search_space import Halving, Sweep
from stresslens.config.study_record import StatedClaim
from stresslens.config.sweep_validation import check_sweep
from stresslens.config.validation import (
    VARIANT_CONFIG,
    check_variant,
    depends_on,
    place_written,
    validated,
    with_renamed_runs,
)
from stresslens.config.yaml_source import Source, parse_value
from stresslens.core.errors import ConfigError, Problem, Problems, closest
from stresslens.core.splits import Division

ExecutorName = Literal["local", "ray"]
"""Where runs are carried out: on this machine, or on a Ray cluster."""


@dataclass(config=STRICT)
class Repeats:
    """Another division of the data for every repeat: k-fold, `times` over, or so many random
    splits. `only` picks some of them."""

    folds: Annotated[int, Field(ge=2, le=1000)] | None = None
    times: Annotated[int, Field(ge=1, le=1000)] = 1
    splits: Annotated[int, Field(ge=2, le=10_000)] | None = None
    only: list[Annotated[int, Field(ge=0, lt=2**32)]] | None = None

    @property
    def division(self) -> Division:
        return Division(self.folds, self.times)

    def alone(self, seed: int) -> dict[str, Any]:
        """What defines one repeat and nothing else, so that more of them change nothing about it."""
        if self.folds is not None:
            return {"folds": self.folds, "times": seed // self.folds + 1, "only": [seed]}
        return {"splits": max(2, seed + 1), "only": [seed]}

    def wrong(self) -> str | None:
        if (self.folds is None) == (self.splits is None):
            return "give either folds or splits"
        if self.splits is not None and self.times != 1:
            return "times belongs to folds; give more splits"
        most = (self.folds or 0) * self.times or self.splits or 0
        if self.only is not None and (
            not self.only or len(set(self.only)) < len(self.only) or max(self.only) >= most
        ):
            return f"only: expected some of the repeats 0 to {most - 1}, each once"
        return None

    @property
    def seeds(self) -> list[int]:
        return (
            list(range((self.folds or 0) * self.times or self.splits or 1))
            if self.only is None
            else self.only
        )


@dataclass(config=STRICT)
class _Frame:
    """The keys of a study besides those of a recipe."""

    study: str | None = None
    runs: dict[str, dict[str, Any] | None] | None = None
    grid: dict[str, list[Any]] | None = None
    repeats: (
        Annotated[int, Field(ge=1, le=10_000)] | list[Annotated[int, Field(ge=0, lt=2**32)]] | Repeats
    ) = 1
    contrasts: dict[str, ContrastSection] | None = None
    data_sizes: DataSizes | None = None
    sweep: Sweep | None = None
    executor: ExecutorName = "local"


@dataclass(config=STRICT)
class Variant:
    """A recipe with its name; `base` is the folder that paths to plug-ins start from."""

    name: str
    config: VariantConfig
    base: Path


@dataclass(config=STRICT)
class Study:
    """What a study file asks for, expanded: every run, every seed, every pair to compare (contrast,
    run, run)."""

    name: str
    runs: list[Variant]
    seeds: list[int]
    contrasts: list[tuple[str, str, str]]
    source: Path | None
    claims: list[StatedClaim] = field(default_factory=list)
    repeats: Repeats | None = None
    """How the data is divided anew for every seed, if it is."""
    curves: list[tuple[str, list[tuple[int, str]]]] = field(default_factory=list)
    """Of each data-size curve its name, and its sizes with their runs."""
    sweep: Sweep | None = None
    """What is tried for each run before its best settings are trained for every seed and tested."""
    executor: ExecutorName = "local"


_FRAME = TypeAdapter(_Frame)


def _section_of(path: registry.Keys) -> Any:
    if path[:1] == ("sweep",):
        return Halving if path[1:2] == ("halving",) else Sweep
    return {"repeats": Repeats, "data_sizes": DataSizes}.get(str(path[0]) if path else "", ContrastSection)


VARIANT_KEYS = (
    "data",
    "input",
    "model",
    "estimator",
    "train",
    "robustness",
    "corruptions",
    "explain",
    "views",
    "track",
)


STUDY_KEYS = ("study", "runs", "grid", "sweep", "repeats", "contrasts", "data_sizes", "executor")


def read_study(file: Path, overrides: Sequence[str] = ()) -> Study:
    """The study of a YAML file, with `key.path=value` overrides that apply to every run and show in
    the run folders' names.

    Raises ConfigError whose message lists every problem as `file:line: key: what is wrong`.
    """
    source = Source.read(file)
    line_of = {old_words.place_in_todays_words(path): line for path, line in source.lines.items()}
    try:
        source = replace(source, values=old_words.renamed(source.values), lines=line_of)
        return expand_study(
            source.values, overrides, name=file.stem, base=file.parent, source=file, problems=source.problems
        )
    except Problems as error:
        lines = {f"{source.place(p.path)}: {_dotted(p.path)}{p.message}": None for p in error.problems}
        raise ConfigError("\n".join(lines)) from None


def expand_study(
    values: Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    name: str,
    base: Path,
    source: Path | None = None,
    problems: Sequence[Problem] = (),
) -> Study:
    """A study from plain values. Raises Problems with the path of each."""
    values = old_words.renamed(values)
    overrides = [old_words.renamed_override(text) for text in overrides]
    found = list(problems)
    known = [*VARIANT_KEYS, *STUDY_KEYS]
    found += [
        Problem((key,), f"unknown key; {closest(str(key), known)}") for key in values if key not in known
    ]
    framing = {k: v for k, v in values.items() if k in STUDY_KEYS}
    before = len(found)
    frame = validated(_FRAME, framing, found, owner_of=_section_of)
    if frame is None:  # go on with the keys that are right, so that the mistakes in the runs are told as well
        broken = {problem.path[0] for problem in found[before:]}
        frame = validated(
            _FRAME, {k: v for k, v in framing.items() if k not in broken}, [], owner_of=_section_of
        )
    base_recipe = {k: v for k, v in values.items() if k in VARIANT_KEYS}

    given: list[tuple[str, Any]] = []
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            found.append(
                Problem(
                    ("command line", text),
                    "an override is written key.path=value, for example train.epochs=1",
                )
            )
        elif (first := key.partition(".")[0]) in STUDY_KEYS:
            found.append(
                Problem(("command line", text), f"{first} belongs to the study and cannot be overridden")
            )
        else:
            given.append((key, parse_value(value)))
    suffix = "".join(f",{text}" for text in overrides if text.partition("=")[0] != "track")

    study_name = frame.study or name
    runs: list[Variant] = []
    names: list[str] = []
    written: dict[str, dict[str, registry.Keys]] = {}
    curves: dict[str, list[tuple[int, str]]] = {}
    for run_name, changes, stem, point in _crossed(frame):
        whole = _safe(run_name + suffix)
        names.append(run_name)
        merged = copy.deepcopy(base_recipe)
        origins: dict[registry.Keys, registry.Keys] = {}
        fixed = {key: origin for key, _, origin in changes} | {
            key: ("the", "command", "line") for key, _ in given
        }
        for key, value, origin in [*changes, *((k, v, ("command line", f"{k}={v}")) for k, v in given)]:
            try:
                origins[set_dotted(merged, key, value)] = origin
            except ConfigError as error:
                found.append(Problem(origin, str(error)))
        if frame.data_sizes is not None and point is not None:
            for curve in frame.data_sizes.curves_of(stem or study_name, point):
                curves.setdefault(curve, []).append((point.size, whole))
            found += [
                Problem(place_written(problem.path, origins), problem.message)
                for problem in frame.data_sizes.clashes(merged)
            ]
            for key, value in frame.data_sizes.at(point, merged).items():
                origins[set_dotted(merged, key, value)] = (
                    "data_sizes",
                    "sizes",
                    frame.data_sizes.sizes.index(point.size),
                )
            fixed |= dict.fromkeys(frame.data_sizes.sets, ("the", "data_sizes"))
        config = check_variant(merged, (), base, found, origins)
        if (
            frame.sweep is not None
            and config is not None
            and any(what == "weights" for what, _ in depends_on(config))
        ):
            why = "a sweep begins before other runs are trained; train the one with the weights first, and give its file"
            found.append(Problem(("sweep",), f"{why}: weights: {{file: RUN/model.safetensors}}"))
        if frame.sweep is not None and config is not None:
            if config.estimator is not None or any(
                key.startswith("estimator") for key in frame.sweep.space or {}
            ):
                why = "trials are judged by the epochs of training, and an estimator has none; list its settings as runs"
                found.append(Problem(("sweep",), why))
            check_sweep(frame.sweep, config, fixed, base, found)
        if len(whole.encode()) > 200:
            found.append(
                Problem(
                    ("runs", run_name), "the name is too long for a folder (200 bytes with the overrides)"
                )
            )
        if whole in (run.name for run in runs):
            found.append(
                Problem(("runs", run_name), f"another run has the same folder name, {whole!r}; rename one")
            )
        elif config is not None:
            runs.append(Variant(whole, config, base))
            model_name = registry.name_and_options("models", config.model)[0]
            written[whole] = {
                "surrogate": place_written(("robustness", "surrogate"), origins),
                "weights": place_written(("model", model_name, "weights"), origins),
            }
    folders = {name: _safe(name + suffix) for name in names}
    beside = base.parent.parent if source is not None and source.name == "config.yaml" else None
    estimators = {run.name for run in runs if run.config.estimator is not None}
    runs = [_with_others(run, folders, beside, estimators, written[run.name], found) for run in runs]
    if not re.fullmatch(r"[\w][\w.,=+-]*", study_name):
        found.append(
            Problem(("study",), f"{study_name!r} cannot name a folder; use letters, digits and . , = + - _")
        )
    if isinstance(frame.repeats, list) and (
        not frame.repeats or len(set(frame.repeats)) < len(frame.repeats)
    ):
        found.append(Problem(("repeats",), "a list of seeds must hold at least one, and each once"))
    if frame.data_sizes is not None and len(set(frame.data_sizes.sizes)) < len(frame.data_sizes.sizes):
        found.append(Problem(("data_sizes", "sizes"), "each size once"))
    for place, run in enumerate((frame.data_sizes.runs if frame.data_sizes else None) or []):
        if run not in (frame.runs or {}):
            found.append(
                Problem(
                    ("data_sizes", "runs", place),
                    f"no run is called {run!r}; {closest(run, list(frame.runs or {}))}",
                )
            )
    if isinstance(frame.repeats, Repeats) and (wrong := frame.repeats.wrong()) is not None:
        found.append(Problem(("repeats",), wrong))
    if isinstance(frame.repeats, Repeats) and frame.sweep is not None:
        found.append(
            Problem(
                ("sweep",),
                "images that choose in one division are test images of another; repeat over seeds instead",
            )
        )
    recipes = {run.name: {k: v for k, v in as_values(run.config).items() if k != "track"} for run in runs}
    contrasts = pairs_of(frame.contrasts or {}, recipes, names, found)
    claims = claims_of(frame.contrasts or {}, contrasts, found)
    if found:
        raise Problems(list(dict.fromkeys(found)))
    if isinstance(frame.repeats, Repeats):
        seeds, repeats = frame.repeats.seeds, frame.repeats
    else:
        seeds, repeats = list(range(frame.repeats)) if isinstance(frame.repeats, int) else frame.repeats, None
    points = list(curves.items())
    return Study(
        study_name, runs, seeds, contrasts, source, claims, repeats, points, frame.sweep, frame.executor
    )


def with_executor(study: Study, executor: str | None) -> Study:
    """The study on another executor than it names. Raises ConfigError for one that there is not."""
    known: list[ExecutorName] = ["local", "ray"]
    if executor is None:
        return study
    for each in known:
        if each == executor:
            return replace(study, executor=each)
    raise ConfigError(f"no executor is called {executor!r}; {closest(executor, list(known))}")


def _with_others(
    run: Variant,
    folders: Mapping[str, str],
    beside: Path | None,
    estimators: set[str],
    at: Mapping[str, registry.Keys],
    found: list[Problem],
) -> Variant:
    """The run with the runs it needs by the names of their folders, which the overrides are part of.

    They are other runs of the study, or, for the config.yaml of a single run, folders that lie
    `beside` it. Weights may also be those of any run by its folder.
    """
    for what, asked in depends_on(run.config):
        name = folders.get(asked, asked)
        folder = what == "weights" and "/" in asked
        if folder and not Path(asked).is_dir():
            found.append(Problem(at[what], f"there is no folder {asked}"))
        elif (
            not folder
            and name not in folders.values()
            and not (beside is not None and (beside / name).is_dir())
        ):
            more = (
                "; a run to begin with has no grid, and no data_sizes (data_sizes: {runs: [...]})"
                if what == "weights"
                else ""
            )
            found.append(
                Problem(
                    at[what],
                    f"no run of the study is called {asked!r}; {closest(asked, list(folders))}{more}",
                )
            )
        if name in estimators:
            why = (
                "without gradients to attack with" if what == "surrogate" else "without weights to begin with"
            )
            found.append(Problem(at[what], f"{asked} is an estimator, {why}; name a run that is trained"))
    return replace(run, config=with_renamed_runs(run.config, folders))


def variant_config_from(values: Mapping[str, Any], base: Path) -> VariantConfig:
    """A single recipe, for calls from Python. Raises Problems."""
    found: list[Problem] = []
    config = check_variant(old_words.renamed(values), (), base, found, {})
    if config is None or found:
        raise Problems(found)
    return config


def as_values(config: VariantConfig) -> dict[str, Any]:
    """The recipe as plain values, as a study file writes them."""
    plain: dict[str, Any] = VARIANT_CONFIG.dump_python(config, mode="json")
    return plain


def _dotted(path: registry.Keys) -> str:
    return "" if path[:1] == ("command line",) or not path else ".".join(map(str, path)) + ": "


def _crossed(
    frame: _Frame,
) -> Iterator[tuple[str, list[tuple[str, Any, registry.Keys]], str, DataSizePoint | None]]:
    """Each run's name with its changes (key, value, where written), and if there is a curve the
    name without its point, and that: the named runs crossed with the grid and the curve."""
    named = frame.runs or {"" if frame.grid or frame.data_sizes else "run": {}}
    axes = [
        [(key, value, ("grid", key, i)) for i, value in enumerate(v)] for key, v in (frame.grid or {}).items()
    ]
    for name, changes in named.items():
        own = [(key, value, ("runs", name, key)) for key, value in (changes or {}).items()]
        for cell in itertools.product(*axes):
            label = ",".join(f"{key.rpartition('.')[2]}={_label(value)}" for key, value, _ in cell)
            stem = ",".join(filter(None, [name, label]))
            for point in frame.data_sizes.points_of(name) if frame.data_sizes else [None]:
                yield (
                    ",".join(
                        filter(
                            None, [stem, frame.data_sizes.label(point) if frame.data_sizes and point else ""]
                        )
                    ),
                    [*own, *cell],
                    stem,
                    point,
                )


def _label(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    return " ".join(
        f"{name} {' '.join(f'{k}={v}' for k, v in (options or {}).items())}"
        for name, options in value.items()
    )


def _safe(name: str) -> str:
    return re.sub(r"[^\w.,=+-]+", "_", name).lstrip(".") or "_"
