"""What each ingredient of a recipe is worth, on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stresslens.cli.terminal import print_table

if TYPE_CHECKING:
    from stresslens.comparison.schema import Ablation


def print_ablation(ablation: Ablation) -> None:
    """Print a table for each metric, and below it what it would take to tell the rest."""
    from stresslens.comparison.ablation_words import ablation_sentences, headings, table_title, worth_rows

    for table in ablation.tables:
        print_table(
            headings(table),
            worth_rows(ablation, table),
            f"what each ingredient is worth in {table_title(table)}",
        )
        for sentence in ablation_sentences(table):
            print(sentence)
    if ablation.excluded:
        print(ablation.excluded)
