from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import nn

from stresslens.core.ensembles import Average, Ensemble


def ensemble(
    members: Sequence[nn.Module] | None,
    *,
    runs: Annotated[str, Field(min_length=1)] | Annotated[list[str], Field(min_length=1)],
    average: Average = "probabilities",
) -> nn.Module:
    """Trained runs that answer together.

    `runs` names one run or several: other runs of the study, which stand for all their seeds, or folders
    of runs (runs/mnist/cnn, runs/mnist/cnn/seed-0). All must have the same classes and shape of images;
    their architectures may differ. The program opens them as `members`; a run of the ensemble holds
    copies of their weights and is not trained, so that `input` and `train` have no effect on it.
    `average: probabilities` is the mean of the members' softmax, and its logarithm are the logits (deep
    ensembles: Lakshminarayanan et al. 2017); `logits` is the mean of their logits. The scores of an
    estimator are divided by the temperature of its run first. Raises ValueError without members.
    """
    if not members:
        raise ValueError(f"the runs of an ensemble ({runs}) were not opened")
    return Ensemble(members, average)
