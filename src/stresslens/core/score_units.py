"""The units of scores: which lie between 0 and 1, and which of them are written in percent."""

from __future__ import annotations

WITHIN_ONE = ("ece", "ece_calibrated", "auroc", "auprc", "aurc", "no_answer")
"""Scores between 0 and 1 that are not written in percent."""


def is_proportion(score: str) -> bool:
    """Whether a score lies between 0 and 1 and is written in percent."""
    return score in ("balanced_accuracy", "majority_baseline") or score.startswith(
        ("accuracy", "top", "macro_", "weighted_", "robust@")
    )


def is_within_one(score: str) -> bool:
    """Whether a score lies between 0 and 1."""
    return is_proportion(score) or score in WITHIN_ONE
