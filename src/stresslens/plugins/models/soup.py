from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import nn

from stresslens.core.soups import Choice, averaged


def soup(
    members: Sequence[nn.Module] | None,
    *,
    runs: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)],
    choose: Choice = "all",
) -> nn.Module:
    """One net with the mean of the weights of trained runs (model soups: Wortsman et al. 2022).

    `runs` names one run or several: other runs of the study, which stand for all their seeds, or folders
    of runs (runs/mnist/cnn, runs/mnist/cnn/seed-0). All must have the same architecture and prepare images
    in the same way. Weights have a useful mean where the runs were fine-tuned from the same weights, rarely
    where each started from random weights of its own. The program opens them as `members`; the run holds
    the one net and is not trained, so that `input` and `train` have no effect on it. `choose: all` averages
    all runs. `choose: greedy` keeps a run if the accuracy of the mean on validation images does not fall,
    in the order of the runs' own accuracy (the paper's algorithm 1); the mean that is returned here is of
    all. Statistics of batch norm are then computed anew over the training images. Raises ValueError without
    members, and for members whose tensors differ in name or shape.
    """
    if not members:
        raise ValueError(f"the runs of a soup ({runs}) were not opened")
    return averaged(members)
