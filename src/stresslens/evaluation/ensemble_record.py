"""The members of an ensemble or a soup, as record.json holds them."""

from __future__ import annotations

from stresslens.core.json_file import Figure, OrderedJsonFile

WEIGHTS = "weights"
"""The average of a soup."""


class MemberRecord(OrderedJsonFile):
    """A run that is a member of an ensemble or a soup: where it was, its fingerprint and that of its weights,
    and what its logits are divided by."""

    folder: str
    study: str = ""
    run: str = ""
    seed: int | None = None
    model: str = ""
    fingerprint: str = ""
    weights_digest: str = ""
    temperature: float = 1.0


class MembersOfSplit(OrderedJsonFile):
    """The members of an ensemble on a split: `accuracy` and `cross_entropy` of each, `gain` is the accuracy
    of the ensemble minus that of the member, with a paired interval, and `mean` and `gain_over_mean` are
    the same for the mean member. `disagreement` is the share of images that the members do not all give
    the same class, `mutual_information` (in nats) the part of the entropy of the mean probabilities that
    is due to the members' differing. `errors_by_information` and `errors_by_confidence` are the AUROC of
    the ensemble's errors by the mutual information, and by one minus the highest probability."""

    accuracy: list[Figure]
    cross_entropy: list[Figure]
    gain: list[Figure]
    mean: Figure
    gain_over_mean: Figure
    disagreement: Figure
    mutual_information: Figure
    errors_by_information: Figure
    errors_by_confidence: Figure


class SoupStep(OrderedJsonFile):
    """A step of a greedy soup: a member by its number, the accuracy on validation images of the mean with
    it, and whether it was kept."""

    member: int
    accuracy: float
    kept: bool


class EnsembleRecord(OrderedJsonFile):
    """The members of an ensemble, and what they do on each split. Of a soup, whose `average` is that of
    weights, also the `steps` in which a greedy one was chosen, and how many layers of batch norm had their
    statistics computed anew."""

    LATER_KEYS = frozenset({"steps", "renewed_layers"})

    average: str = "probabilities"
    members: list[MemberRecord] = []
    splits: dict[str, MembersOfSplit] = {}
    steps: list[SoupStep] = []
    renewed_layers: int = 0

    @property
    def is_soup(self) -> bool:
        return self.average == WEIGHTS

    @property
    def names(self) -> list[str]:
        """What the members are called: their run and seed, and their study where they are of several."""
        studies = {member.study for member in self.members}
        return [
            " · ".join(
                filter(
                    None,
                    [
                        member.study if len(studies) > 1 else "",
                        member.run or member.folder,
                        "" if member.seed is None else f"seed {member.seed}",
                    ],
                )
            )
            for member in self.members
        ]
