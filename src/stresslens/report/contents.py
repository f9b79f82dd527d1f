"""The lists of contents of the pages: which sections a page has, in their order."""

from __future__ import annotations

from typing import Any

from stresslens.evaluation.record import RunRecord

ROBUSTNESS_PARTS = ("threats", "robust_contrasts", "transfers", "corruptions", "certificates", "damaged")
RUN_ROBUSTNESS_PARTS = ("attacked", "corruptions", "certificates", "damaged")
"""Parts of the section on robustness; any one of them makes the section appear."""


def study_contents(sections: dict[str, Any]) -> list[tuple[str, str]]:
    """(anchor, title) of the sections that a study's page has."""

    def any_part(name: str) -> bool:
        return any(getattr(part, name) for part in sections["parts"])

    contents = [
        ("verdicts", "Verdicts", True),
        ("ablation", "Ablation", sections["ablation"]),
        ("results", "Results", sections["parts"]),
        ("averaged", "Test-time augmentation", sections["averaged"]),
        ("contrasts", "Contrasts", sections["contrasts"]),
        ("metrics", "Other metrics", sections["other_metrics"]),
        ("matrix", "All pairs", sections["matrix"]),
        ("data-size", "Data size", sections["sizes"]),
        ("settings", "Which settings matter", sections["sweeps"] or sections["importance"]),
        ("robustness", "Robustness", any(sections[part] for part in ROBUSTNESS_PARTS)),
        ("curves", "Curves", any_part("curves")),
        ("pace", "Convergence", sections["convergence"]),
        ("confusion", "Confusion", any_part("confusions")),
        ("classes", "Classes", any_part("recalls")),
        ("cost", "Costs", sections["costs"] or any_part("cost_charts")),
        ("explained", "Explanations", sections["explained"]),
        ("confidence", "Confidence", any_part("confidence")),
        ("data", "Data", sections["data_cards"]),
        ("variants", "Settings", sections["settings"]),
        ("runs", "Runs", True),
        ("environment", "Environment", sections["environment"]),
        ("reproduce", "Reproduce", True),
    ]
    return [(id, name) for id, name, there in contents if there]


def run_contents(sections: dict[str, Any], record: RunRecord) -> list[tuple[str, str]]:
    """(anchor, title) of the sections that a run's page has."""
    ensemble = sections["ensemble"]
    contents = [
        ("scores", "Scores", sections["scores"]),
        ("averaged", "Test-time augmentation", sections["averaged"]),
        ("ensemble", ensemble.whole.capitalize() if ensemble else "", ensemble),
        ("curves", "Curves", sections["curves"]),
        ("confusion", "Confusion", sections["confusion"]),
        ("pictures", "Images", sections["gallery"]),
        ("robustness", "Robustness", any(sections[part] for part in RUN_ROBUSTNESS_PARTS)),
        ("explained", "Explanations", sections["explained"]),
        ("views", "Views", sections["views"]),
        ("classes", "Classes", sections["class_table"]),
        ("ranking", "ROC and precision–recall", sections["ranking"]),
        ("confidence", "Confidence", sections["reliability"] or sections["risk"]),
        ("sets", "Prediction sets", sections["prediction_sets"]),
        ("ood", "Out of distribution", sections["ood"]),
        ("slices", "Slices", sections["slices"] or sections["found_slices"]),
        ("layers", "Layers", record.layers),
        ("data", "Data", sections["data_cards"]),
        ("history", "Events", record.findings or record.resumed_from),
        ("environment", "Environment", sections["environment"]),
        ("reproduce", "Reproduce", True),
    ]
    return [(id, name) for id, name, there in contents if there]
