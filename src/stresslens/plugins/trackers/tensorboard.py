"""TensorBoard tracker: writes event files."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stresslens.core.errors import Notice, first_line
from stresslens.core.extras import extra
from stresslens.core.inspection import evaluating
from stresslens.core.tracking import (
    Embedding,
    Entry,
    Figure,
    Graph,
    Histogram,
    Histograms,
    Outcome,
    Pictures,
    Pixels,
    Scalars,
    Text,
    Tracker,
)
from stresslens.plugins.trackers._sheet import sheet

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

CHARTS = {
    "by epoch": {
        "loss": ["Multiline", ["epoch/loss", "epoch/.*/loss"]],
        "accuracy": ["Multiline", ["epoch/.*/accuracy"]],
    }
}
"""The charts of TensorBoard's page "Custom Scalars"."""


def tensorboard(
    folder: Path, config: Mapping[str, Any], *, graph: bool = True, histograms: bool = True
) -> Tracker:
    """Event files for `tensorboard --logdir runs/STUDY`.

    They hold the network's graph, scalars by step and by epoch, images, the confusion matrix,
    settings, histograms of the weights, an embedding of validation images, and hyper-parameters
    with the scores. `graph` needs a model that torch.jit.trace can trace; for other models there is
    a notice, and everything else is written. Raises ConfigError if tensorboard is not
    installed, and OSError if the folder cannot be written.
    """
    with extra("tensorboard", "the tracker"):
        from torch.utils.tensorboard import SummaryWriter

    return _TensorBoard(SummaryWriter(folder, flush_secs=10), graph, histograms)


class _TensorBoard:
    def __init__(self, writer: SummaryWriter, graph: bool, histograms: bool) -> None:
        self.writer, self.graph, self.histograms = writer, graph, histograms
        writer.add_custom_scalars(CHARTS)

    def log(self, entry: Entry) -> None:
        writer = self.writer
        match entry:
            case Scalars():
                for name, value in entry.values.items():
                    writer.add_scalar(f"{entry.by}/{name}", value, entry.at)
            case Histograms() if self.histograms:
                for name, histogram in entry.of.items():
                    writer.add_histogram_raw(f"weights/{name}", global_step=entry.epoch, **_summed(histogram))
            case Text():
                writer.add_text(entry.name, entry.markdown)
            case Graph() if self.graph:
                self._draw(entry)
            case Pictures():
                writer.add_image(
                    f"images/{entry.name}", sheet(entry.pixels, entry.captions), dataformats="HWC"
                )
            case Figure():
                writer.add_image(f"figures/{entry.name}", entry.pixels, dataformats="HWC")
            case Embedding():
                writer.add_embedding(
                    entry.features, list(entry.labels), _sprites(entry.pixels), tag="last layer"
                )
            case Outcome():
                self._conclude(entry)

    def close(self) -> None:
        self.writer.close()

    def _draw(self, entry: Graph) -> None:
        """Writes the graph; warnings and output of tracing, about Python code of models, are
        suppressed."""
        try:
            with (
                warnings.catch_warnings(),
                contextlib.redirect_stdout(io.StringIO()),
                evaluating(entry.model),
            ):
                warnings.simplefilter("ignore")
                self.writer.add_graph(entry.model, entry.example)
        except Exception as error:
            what = f"TensorBoard gets no graph of this model, which cannot be traced: {first_line(error)}"
            warnings.warn(what, Notice, stacklevel=2)

    def _conclude(self, entry: Outcome) -> None:
        """Writes hyper-parameters and scores into this folder.

        `add_hparams` would write them into a subfolder, which TensorBoard shows as another run.
        """
        from torch.utils.tensorboard.summary import hparams

        scores = {f"scores/{name}": value for name, value in entry.scores.items()}
        # torch converts booleans to numbers
        settings = {
            name: str(value) if isinstance(value, bool) else value for name, value in entry.settings.items()
        }
        for summary in hparams(settings, scores):
            self.writer._get_file_writer().add_summary(summary)
        for name, value in scores.items():
            self.writer.add_scalar(name, value)


def _sprites(pixels: Pixels) -> Tensor:
    """(N, 3, side, side) in [0, 1]; images are padded with black to squares for the projector."""
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    height, width = x.shape[2:]
    return F.pad(x, (0, max(0, height - width), 0, max(0, width - height)))


def _summed(histogram: Histogram) -> dict[str, Any]:
    """A histogram in TensorBoard's format: upper ends of bins, counts, and sums.

    The sums, which are not shown, take all values at the middle of their bin.
    """
    counts, edges = histogram.counts, histogram.edges
    middle = (edges[:-1] + edges[1:]) / 2
    return {
        "min": edges[0],
        "max": edges[-1],
        "num": counts.sum(),
        "sum": counts @ middle,
        "sum_squares": counts @ np.square(middle),
        "bucket_limits": [*edges[1:]],
        "bucket_counts": [*counts],
    }
