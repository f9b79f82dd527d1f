"""The images that several files of predictions share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stresslens.core.errors import DataError
from stresslens.core.text import enumeration
from stresslens.evaluation.prediction_table import PredictionTable
from stresslens.evaluation.true_labels import SHORTER


def shared_images(tables: Sequence[PredictionTable]) -> list[PredictionTable]:
    """The tables with the images that all have, in one order; notes say what was left out.

    Where no image has the same name in all, they are paired by the names of their files without folders, or
    without the ending, if these are unique in each table. Tables without names are taken to have the same
    images in the same order. Raises DataError where this cannot be, where no image is in all, and for an
    image whose label differs.
    """
    head = tables[0]
    tables = [_with_classes(table, head) for table in tables]
    if not all(table.names for table in tables):
        lengths = {len(table) for table in tables}
        if len(lengths) > 1:
            raise DataError(
                "the files have different numbers of rows, and not all have a column of file names by which "
                "rows could be paired"
            )
        note = "not all files name their images; rows are paired by their order"
        found = [replace(table, names=(), notes=(*table.notes, note)) for table in tables]
    else:
        found = _paired_by_name(tables)
    for table in found[1:]:
        if len(differ := np.flatnonzero(table.labels != found[0].labels)):
            k = int(differ[0])
            name = found[0].names[k] if found[0].names else f"row {k + 1}"
            one, other = (head.classes[each.labels[k]] for each in (found[0], table))
            raise DataError(
                f"{len(differ)} images have another label in {table.source} than in {head.source}: {name} is "
                f"{one} there and {other} here"
            )
    return found


def _with_classes(table: PredictionTable, head: PredictionTable) -> PredictionTable:
    """The table with its classes in the order of another one. Raises DataError for other classes."""
    if table.classes == head.classes:
        return table
    if set(table.classes) != set(head.classes):
        raise DataError(
            f"{head.source} has the classes {enumeration(head.classes)}, and {table.source} has "
            f"{enumeration(table.classes)}; name all of them, in the order of the scores (--classes)"
        )
    order = [table.classes.index(name) for name in head.classes]
    labels = np.argsort(order)[table.labels]
    return replace(table, classes=head.classes, labels=labels, scores=table.scores[:, order])


def _paired_by_name(tables: Sequence[PredictionTable]) -> list[PredictionTable]:
    for short in SHORTER:
        named = [tuple(map(short, table.names)) for table in tables]
        common = set(named[0]).intersection(*named[1:])
        if common and all(len(set(names)) == len(names) for names in named):
            break
    else:
        examples = ", ".join(f"{table.source} has {table.names[0]}" for table in tables)
        raise DataError(f"no image is in all {len(tables)} files: {examples}")
    note = () if short is SHORTER[0] else ("images are paired by the names of their files, without folders",)
    renamed = [replace(t, names=names, notes=(*t.notes, *note)) for t, names in zip(tables, named)]
    return [_in_order(table, sorted(common)) for table in renamed]


def _in_order(table: PredictionTable, order: Sequence[str]) -> PredictionTable:
    place = {name: k for k, name in enumerate(table.names)}
    left = len(table) - len(order)
    notes = (f"{left} of {len(table)} images are not in all files and are left out",) if left else ()
    found = table.select(np.array([place[name] for name in order]))
    return replace(found, notes=(*table.notes, *notes))
