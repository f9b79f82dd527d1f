"""Model files of other software as an argument of `evaluate`: they become a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stresslens.core.errors import ConfigError
from stresslens.core.model_suffixes import PLUGINS

if TYPE_CHECKING:
    from stresslens.core.run_folder import RunFolder

SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Of a model file: what the model expects, as scale=255, layout=nhwc, output=probabilities.",
        show_default=False,
    ),
]


def run_of_model(
    file: Path, data: Path | None, out: Path, options: Sequence[str], *, trust: bool
) -> RunFolder:
    """The folder of a run that is made from a model file, whose scores are in its record. Raises ConfigError
    where the data are not said, or where the file is not to be trusted."""
    from stresslens.cli.data import data_value
    from stresslens.cli.training_progress import silent
    from stresslens.config import registry, study_file
    from stresslens.config.run_names import data_and_model
    from stresslens.config.yaml_source import typed_mistakes
    from stresslens.core.files import digest_of_file
    from stresslens.core.run_folder import RunFolder
    from stresslens.evaluation.record import RunRecord
    from stresslens.study import pipeline
    from stresslens.training.task import Task

    if data is None:
        raise ConfigError(
            f"{file} is a model; say on which images: --data digits, or the path of your images"
        )
    plugin = PLUGINS[file.suffix.lower()]
    if wrong := next((each for each in options if "=" not in each), None):
        raise ConfigError(f"--set {wrong}: expected KEY=VALUE, as scale=255")
    holds_code = registry.beside(registry.plugin("models", plugin), "needs_trust") is not None
    trusted = {"trusted": True} if trust and holds_code else {}
    model = {plugin: {"file": str(file), **trusted}}
    with typed_mistakes():
        found = data_value(str(data))
        name = ",".join(["run", *data_and_model(found, plugin), f"{file.stem}-{digest_of_file(file)[:8]}"])
        values = {"data": found, "model": model, "runs": {name: {}}}
        overrides = [f"model.{each.removeprefix('model.')}" for each in options]
        study = study_file.expand_study(values, overrides, name="evaluate", base=Path.cwd())
    made: list[Path] = []

    def on_finished(task: Task, record: RunRecord) -> None:
        made.append(task.folder)

    carried = pipeline.carry_out_study(
        study,
        out=out,
        jobs=None,
        show=lambda task: silent,
        tell=on_finished,
        say=lambda line: typer.echo(line, err=True),
    )
    carried.raise_failed()
    return RunFolder(made[0])
