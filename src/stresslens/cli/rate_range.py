"""`stresslens train … --find-lr`: a learning-rate range test over several seeds, with its chart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from stresslens.cli.terminal import print_json, print_table

if TYPE_CHECKING:
    from stresslens.config.study_file import Study
    from stresslens.training.rate_range import RateRange


def find_rate(study: Study, out: Path, device: str | None, seed: int | None, as_json: bool) -> None:
    """Tests the learning rates of a study of one variant, prints the suggestion and saves the chart
    below `out`."""
    from stresslens.core.errors import ConfigError
    from stresslens.report.learning_rates import rate_chart
    from stresslens.study.run_tasks import tasks_of
    from stresslens.training.rate_range import SEEDS, central_rate, rate_ranges, spread_in_words

    if len(study.variants) != 1:
        raise ConfigError("--find-lr tests one set of settings; leave the grid out")
    chosen = [seed] if seed is not None else list(range(SEEDS)) if len(study.seeds) == 1 else study.seeds
    if device is not None:
        (variant,) = study.variants
        train = replace(variant.config.train, device=device)
        study = replace(study, variants=[replace(variant, config=replace(variant.config, train=train))])
    ranges = list(rate_ranges(tasks_of(replace(study, seeds=chosen), out / study.name)))
    file = rate_chart(ranges).save(_made(out / "find-lr") / f"{study.variants[0].name}.svg")
    if as_json:
        print_json(_as_json(ranges, central_rate(ranges), file))
        return
    print_table(
        ["seed", "suggested rate", "lowest loss"],
        [[str(each.seed), f"{each.suggestion:.2g}", f"{min(each.losses):.3g}"] for each in ranges],
        "learning-rate range test",
    )
    central, spread = central_rate(ranges), spread_in_words(ranges)
    typer.echo(f"suggestion: train.lr={central:.2g} ({spread}); chart: {file}")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _as_json(ranges: list[RateRange], central: float, file: Path) -> dict[str, Any]:
    each = [
        {"seed": r.seed, "suggestion": r.suggestion, "rates": r.rates, "losses": r.losses} for r in ranges
    ]
    return {"suggestion": central, "seeds": each, "chart": str(file)}
