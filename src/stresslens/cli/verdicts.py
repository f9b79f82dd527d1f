"""Verdicts of a comparison on the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stresslens.cli.ablation_table import print_ablation
from stresslens.cli.terminal import print_table

if TYPE_CHECKING:
    from stresslens.comparison.folders import FolderComparison
    from stresslens.comparison.schema import ComparisonFile
    from stresslens.config.run_names import ShortNames

VERDICTS = 24
"""If there are more verdicts, those that are not distinguishable are not printed."""


def told_short_names(folder: Path, *, quiet: bool = False) -> ShortNames:
    """The short names of the variants of a study's folder. Unless `quiet`, prints what they leave out."""
    from stresslens.config.study_record import read_study_record, short_names_of

    study = read_study_record(folder)
    short = short_names_of(study, study.runs)
    if short.shared and not quiet:
        print(f"all runs: {', '.join(short.shared)}")
    if short.keys and not quiet:
        print(f"names of variants give their {', '.join(short.keys)}")
    return short


def print_verdicts(compared: ComparisonFile, *, plans: bool = False) -> None:
    """Print the headline and each pair's verdict, once. Below verdicts that are not distinguishable
    (with `plans`, below all), print how many images and seeds would be needed. The contrasts of an
    ablation are in its table."""
    from stresslens.comparison.other_metrics import said_in_short
    from stresslens.comparison.schema import Contrast, verdicts_on_margins
    from stresslens.config.ablation import OWN_CONTRASTS

    contrasts, verdicts = compared.by_verdict, list(dict.fromkeys(compared.verdicts))
    in_table = OWN_CONTRASTS if compared.ablation is not None else ()
    verdicts = [
        each
        for each in verdicts
        if each not in contrasts or any(pair.contrast not in in_table for pair in contrasts[each])
    ]
    printed = verdicts
    if len(printed) > VERDICTS:
        printed = [verdict for verdict in printed if verdict not in contrasts or contrasts[verdict][0].real][
            :VERDICTS
        ]
    for verdict in printed:
        print(verdict)
        same_pair = contrasts.get(verdict, [])
        for plan in dict.fromkeys(each.plan for each in same_pair if each.plan and (plans or not each.real)):
            print(f"    {plan}")
        for asked in verdicts_on_margins(same_pair):
            print("\n    ".join(filter(None, (asked.verdict, asked.plan))))
    if len(printed) < len(verdicts):
        more = len(verdicts) - len(printed)
        print(f"{more} more, most of them not distinguishable, are in the report and in comparison.json")
    for metric, by_metric in compared.by_metric.items():
        print("\n".join(said_in_short(metric, by_metric)))
    for pair in compared.robustness:
        if not isinstance(pair, Contrast) or pair.contrast not in in_table:
            print(pair.verdict)
    if compared.ablation is not None:
        print_ablation(compared.ablation)
    for claim in compared.claims:
        print(f"claim: {claim.claim}. {claim.sentence}")


def print_comparison(result: FolderComparison, *, plans: bool) -> None:
    """Print the accuracies, or figures of another metric, as a table, then the verdicts on them and on
    costs."""
    from stresslens.cli.comparison_table import figure_rows

    compared = result.comparison
    kind, metric = "run" if result.kind == "run" else "variant", compared.metric
    over = "n" if any(e.unit == "seeds" for e in compared.recipes.values()) else "images"
    columns = [kind, metric, "95 % interval", over, "method"]
    print_table(columns, figure_rows(compared), f"{compared.split} {metric}")
    if compared.best:
        print(compared.best.said)
    print_verdicts(compared, plans=plans)
    for cost in compared.costs:
        print(cost.verdict)
    for sentence in result.changes.sentences if result.changes else ():
        print(sentence)
