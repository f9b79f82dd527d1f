"""`stresslens train … --find-lr`: a learning-rate range test over several seeds, with its chart."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from stresslens.cli.terminal import print_json, print_table

if TYPE_CHECKING:
    from stresslens.config.study_file import Study
    from stresslens.training.rate_range import RateRange

SEEDS = 3
"""Seeds of a test that names none."""


def find_rate(study: Study, out: Path, device: str | None, seed: int | None, as_json: bool) -> None:
    """Tests the learning rates of a study of one variant, prints the suggestion and saves the chart
    below `out`."""
    from stresslens.core.errors import ConfigError
    from stresslens.study.run_tasks import tasks_of
    from stresslens.training.autotune import autotune
    from stresslens.training.rate_range import central_rate, rate_range

    if len(study.variants) != 1:
        raise ConfigError("--find-lr tests one set of settings; leave the grid out")
    chosen = [seed] if seed is not None else list(range(SEEDS)) if len(study.seeds) == 1 else study.seeds
    if device is not None:
        (variant,) = study.variants
        train = replace(variant.config.train, device=device)
        study = replace(study, variants=[replace(variant, config=replace(variant.config, train=train))])
    tasks = tasks_of(replace(study, seeds=chosen), out / study.name)
    tasks = autotune(tasks, most_threads=os.cpu_count() or 1)
    ranges = [rate_range(task) for task in tasks]
    found = [each.suggestion for each in ranges]
    file = _drawn(ranges).save(_made(out / "find-lr") / f"{study.variants[0].name}.svg")
    if as_json:
        print_json(_as_json(ranges, central_rate(ranges), file))
        return
    print_table(
        ["seed", "suggested rate", "lowest loss"],
        [[str(each.seed), f"{each.suggestion:.2g}", f"{min(each.losses):.3g}"] for each in ranges],
        "learning-rate range test",
    )
    spread = (
        f"({min(found):.2g} to {max(found):.2g} over {len(found)} seeds)" if len(found) > 1 else "(1 seed)"
    )
    typer.echo(f"suggestion: train.lr={central_rate(ranges):.2g} {spread}; chart: {file}")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _as_json(ranges: list[RateRange], central: float, file: Path) -> dict[str, Any]:
    each = [
        {"seed": r.seed, "suggestion": r.suggestion, "rates": r.rates, "losses": r.losses} for r in ranges
    ]
    return {"suggestion": central, "seeds": each, "chart": str(file)}


def _drawn(ranges: list[RateRange]) -> Any:
    from stresslens.charts.axes import linear_axis, log_axis
    from stresslens.charts.line_charts import Series, line_chart

    series = [
        Series(
            f"seed {each.seed}",
            list(zip(each.rates, each.losses)),
            place,
            marks=[(each.suggestion, _at(each))],
            mark="suggested",
        )
        for place, each in enumerate(ranges)
    ]
    axes = (
        log_axis([x for s in series for x, _ in s.points]),
        linear_axis([y for s in series for _, y in s.points]),
    )
    return line_chart(
        series, title="Learning-rate range test", x_label="learning rate", y_label="smoothed loss", axes=axes
    )


def _at(each: RateRange) -> float:
    """The loss at the tested rate next to the suggestion."""
    nearest = min(range(len(each.rates)), key=lambda k: abs(each.rates[k] - each.suggestion))
    return each.losses[nearest]
