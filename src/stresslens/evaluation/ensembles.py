"""The members of an ensemble or a soup on a split, beside it: accuracies with their paired differences,
and what the members' disagreement says of errors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from torch import nn

from stresslens.core.answers import confidence, predicted
from stresslens.core.data import Split
from stresslens.core.ensembles import ensemble_in
from stresslens.core.types import Estimate
from stresslens.evaluation import scores
from stresslens.evaluation.ensemble_record import EnsembleRecord, MembersOfSplit
from stresslens.metrics import classification, ranking
from stresslens.metrics.intervals import Floats, bounded_mean, wilson


def members_in(model: nn.Module) -> Iterator[nn.Module]:
    """The members of the ensemble in a model; none where it is another model."""
    ensemble = ensemble_in(model)
    yield from ensemble.members if ensemble is not None else ()


def score_members(
    members: Iterable[nn.Module],
    images: Split,
    whole: scores.Predictions,
    record: EnsembleRecord,
    split: str,
) -> None:
    """Scores each member on a split whose predictions by the ensemble or the soup are `whole`, into its
    record; without members it stays as it was."""
    each = [
        scores.predictions_of(member, images).calibrated(described.temperature)
        for member, described in zip(members, record.members)
    ]
    if not each:
        return
    record.splits = {**record.splits, split: members_compared(each, whole)}


def members_compared(each: list[scores.Predictions], whole: scores.Predictions) -> MembersOfSplit:
    """The members' predictions of the same images beside those of the ensemble, `whole`."""
    right = np.stack([scores.right(member).astype(float) for member in each])  # (M, N)
    together = scores.right(whole).astype(float)
    answers = np.stack([predicted(member.scores) for member in each])
    probabilities = np.stack([member.probabilities for member in each])
    information = mutual_information(probabilities)
    most = math.log(min(len(each), probabilities.shape[2]))
    n = len(together)
    return MembersOfSplit(
        accuracy=[member.accuracy for member in each],
        cross_entropy=[
            classification.cross_entropy(member.answered.scores, member.answered.labels) for member in each
        ],
        gain=[bounded_mean(together - one, (-1, 1)) for one in right],
        mean=bounded_mean(right.mean(0), (0, 1)),
        gain_over_mean=bounded_mean(together - right.mean(0), (-1, 1)),
        disagreement=wilson(int((answers != answers[0]).any(0).sum()), n),
        mutual_information=bounded_mean(information, (0, most)),
        errors_by_information=_errors_found(information, together == 0),
        errors_by_confidence=_errors_found(1 - confidence(whole.probabilities), together == 0),
    )


def mutual_information(probabilities: Floats) -> Floats:
    """(N,) mutual information, in nats, between the class and the member, from probabilities (M, N, K).

    It is the entropy of the members' mean minus the mean of their entropies (Depeweg et al. 2018,
    equation 2): 0 where all members give the same probabilities, at most ln M and ln K. An image that a
    member gives no answer to has the most.
    """
    mean, each = _entropy(probabilities.mean(0)), _entropy(probabilities).mean(0)
    most = math.log(min(probabilities.shape[0], probabilities.shape[2]))
    return np.where(np.isfinite(mean), np.clip(mean - each, 0, most), most)


def _entropy(probabilities: Floats) -> Floats:
    logs = np.log(np.where(probabilities > 0, probabilities, 1))
    return np.asarray(-(probabilities * logs).sum(-1))


def _errors_found(doubt: Floats, wrong: NDArray[np.bool_]) -> Estimate:
    """The AUROC of the errors by a score of doubt (N,); NaN without errors, or without right answers."""
    return ranking.auroc(np.stack([-doubt, doubt], 1), wrong.astype(np.int64)).each[1]
