"""Weights & Biases tracker."""

from __future__ import annotations

import hashlib
import html
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from stresslens.core.extras import extra
from stresslens.core.tracking import (
    Embedding,
    Entry,
    Figure,
    Histograms,
    Outcome,
    Pictures,
    Scalars,
    Text,
    Tracker,
)


def wandb(
    folder: Path,
    config: Mapping[str, Any],
    *,
    project: str | None = None,
    entity: str | None = None,
    mode: Literal["online", "offline", "disabled"] | None = None,
) -> Tracker:
    """A run of Weights & Biases.

    It has the settings, scalars by step and by epoch, histograms of the weights, images with true
    and predicted classes, the confusion matrix, an embedding as a table, and the scores. `project`
    is the study's name by default. `mode` is by default that of WANDB_MODE, or else offline: no
    data leaves this machine until `wandb sync`. Raises ConfigError if wandb is not installed, and
    wandb's own errors if it cannot start.
    """
    mode = mode or os.environ.get("WANDB_MODE") or "offline"  # type: ignore[assignment]
    if mode != "online":
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    with extra("wandb", "the tracker"):
        import wandb as client

    quiet = client.Settings(
        silent=True,
        console="off",
        disable_git=True,
        save_code=False,
        x_disable_stats=True,
        x_disable_machine_info=True,
    )
    run = client.init(
        dir=folder.parent,  # wandb creates its folder "wandb" in it
        project=project or config["study"],
        entity=entity,
        mode=mode,
        config=dict(config),
        group=config["run"],
        name=f"{config['run']}/seed-{config['seed']}",
        id=hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16],
        resume="allow" if mode == "online" else None,
        reinit="create_new",
        settings=quiet,
    )
    return _WeightsAndBiases(client, run)


class _WeightsAndBiases:
    """Numbers its log entries, so that wandb skips entries that it already has.

    A run that resumes logs all entries again from the start.
    """

    def __init__(self, client: Any, run: Any) -> None:
        self.client, self.run, self.count = client, run, 0
        for axis in ("step", "epoch"):
            run.define_metric(axis, hidden=True)
            run.define_metric(f"{axis}/*", step_metric=axis)
        run.define_metric("weights/*", step_metric="epoch")

    def log(self, entry: Entry) -> None:
        client = self.client
        match entry:
            case Scalars():
                self._put(
                    {entry.by: entry.at}
                    | {f"{entry.by}/{name}": value for name, value in entry.values.items()}
                )
            case Histograms():
                of = {
                    name: client.Histogram(np_histogram=(h.counts, h.edges)) for name, h in entry.of.items()
                }
                self._put(
                    {"epoch": entry.epoch} | {f"weights/{name}": histogram for name, histogram in of.items()}
                )
            case Text():
                self._put({entry.name: client.Html(f"<pre>{html.escape(entry.markdown)}</pre>")})
            case Pictures():
                pairs = zip(entry.pixels, entry.captions)
                self._put(
                    {
                        f"images/{entry.name}": [
                            client.Image(picture, caption=caption) for picture, caption in pairs
                        ]
                    }
                )
            case Figure():
                self._put({f"figures/{entry.name}": client.Image(entry.pixels)})
            case Embedding():
                columns = ["class", "image", *(f"f{k}" for k in range(entry.features.shape[1]))]
                rows = zip(entry.labels, entry.pixels, entry.features.tolist())
                data = [[label, client.Image(picture), *values] for label, picture, values in rows]
                self._put({"embedding": client.Table(columns=columns, data=data)})
            case Outcome():
                self.run.summary.update({f"scores/{name}": value for name, value in entry.scores.items()})

    def close(self) -> None:
        self.run.finish()

    def _put(self, values: dict[str, Any]) -> None:
        self.run.log(values, step=self.count)
        self.count += 1
