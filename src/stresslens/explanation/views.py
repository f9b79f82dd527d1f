"""What a model has learned: views called on a trained model, their pictures, points and lines saved."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.config.schema import Views
from stresslens.core.attack_base import attacked
from stresslens.core.data import Data, Split
from stresslens.core.errors import ConfigError
from stresslens.core.files import write_atomically, write_json
from stresslens.core.fingerprint import fingerprint_of
from stresslens.core.json_file import Seconds
from stresslens.core.panels import Grid, Lines, Panel, Points
from stresslens.core.progress import advance
from stresslens.core.run_folder import RunFolder
from stresslens.evaluation.finished_run import finished
from stresslens.evaluation.record import RunRecord
from stresslens.evaluation.scores import Predictions
from stresslens.explanation.image_selection import selected_images
from stresslens.explanation.svg import png, svg
from stresslens.explanation.view_file import GridPart, LinesPart, PointsPart, ViewFile
from stresslens.robustness.result import AttackResult

Adversarials = tuple[Tensor, Tensor, Tensor]
"""Images, adversarial images (n, C, H, W each) in [0, 1], and labels (n,)."""


def view(
    home: Path,
    model: nn.Module,
    split: Split,
    predictions: Predictions,
    asked: Views,
    *,
    of: str,
    base: Path,
    classes: Sequence[str],
    train: Split | None = None,
    adversarials: Adversarials | None = None,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> list[ViewFile]:
    """One result for each view, as `home/<name>-<8 hex>/result.json` holds it; found there
    finished, it is read.

    Beside it each grid of pictures is an SVG, and its pictures are PNGs. `of` names the model and
    the images (a fingerprint). The model is in evaluation mode meanwhile, and in float32 from then
    on. Raises ConfigError for what cannot be seen of this model.
    """
    bound = [(value, registry.resolve("views", value, base=base)) for value in asked.kinds]
    places = selected_images(split, asked.choose, asked.images, predictions, asked.seed)
    some = split.select(torch.from_numpy(places))
    model = model.float()
    device = next(model.parameters(), torch.empty(0)).device
    x, y = some.floats(some.images[:]).to(device, torch.float32), some.labels.to(device)
    own = None if adversarials is None else tuple(each.to(device) for each in adversarials)
    results = []
    for place, (value, each) in enumerate(bound):
        tell(place, len(bound))
        name, options = registry.name_and_options("views", value)
        against = (
            [len(adversarials[0])]
            if adversarials is not None and each.asks_for("views", "adversarials")
            else []
        )
        what = [name, dict(options), *registry.source_digests(value, base=base), *against]
        fingerprint = fingerprint_of([of, asked.split, what, asked.seed, places.tolist()])
        folder = home / f"{name.rpartition(':')[2]}-{fingerprint[:8]}"
        if (kept := ViewFile.read_finished(folder, fingerprint)) is not None:
            results.append(kept)
            continue
        began = time.perf_counter()
        with attacked(model):
            panel = each(model, x, y, train, split, classes, own)
        if not isinstance(panel, Panel):
            raise ConfigError(f"view {name} returned a {type(panel).__name__}; expected a Panel")
        result = ViewFile(
            fingerprint=fingerprint,
            view=name.rpartition(":")[2],
            options=dict(options),
            said=list(panel.said),
            facts=dict(panel.facts),
            parts=[_saved(folder, number, part) for number, part in enumerate(panel.parts, 1)],
            cost=Seconds(seconds=time.perf_counter() - began),
        )
        write_json(folder / "result.json", result.as_json())
        results.append(result)
    tell(len(bound), len(bound))
    return results


def view_run(
    folder: RunFolder, asked: Views, *, base: Path, trust: bool = False, device: str = "auto"
) -> list[ViewFile]:
    """Looks into a finished run, and keeps the results in its folder. Raises ConfigError for what
    cannot be seen of it."""
    with finished(folder, asked.split, trust=trust, device=device) as (model, data, record):
        return look_into(folder, model, data, asked, record, base=base)


def look_into(
    folder: RunFolder, model: nn.Module, data: Data, asked: Views, record: RunRecord, *, base: Path
) -> list[ViewFile]:
    """The stage of a run: calls the views, and names their results in the record."""
    split = data.splits[asked.split]
    results = view(
        folder.path / "views",
        model,
        split,
        Predictions.of_arrays(folder.load_predictions(asked.split)),
        asked,
        of=record.fingerprint,
        base=base,
        classes=data.classes,
        train=data.train,
        adversarials=adversarials_of(folder, asked.split, split),
        tell=lambda done, total: advance(
            f"looking into {folder.path.parent.name} {folder.path.name}", done, total
        ),
    )
    record.count_reads("views", [each.fingerprint for each in results], asked.split)
    return results


def _saved(folder: Path, number: int, part: Grid | Points | Lines) -> GridPart | PointsPart | LinesPart:
    """A part as result.json holds it; the pictures of a grid lie in files."""
    if isinstance(part, Points):
        places = [(float(a), float(b)) for a, b in part.places]
        return PointsPart(
            title=part.title, places=places, groups=list(part.groups), wrong=part.wrong.tolist()
        )
    if isinstance(part, Lines):
        return LinesPart(title=part.title, x_label=part.x_label, y_label=part.y_label, lines=dict(part.lines))
    for row, cells in enumerate(part.rows):
        for column, cell in enumerate(cells):
            if cell is not None:
                content = png(cell.pixels)
                write_atomically(
                    folder / f"grid-{number}" / f"{row:02d}-{column:02d}.png",
                    lambda file, content=content: file.write(content),  # type: ignore[misc]
                )
    text = svg(part)
    write_atomically(folder / f"grid-{number}.svg", lambda file: file.write(text.encode()))
    captions = [[cell.caption if cell else None for cell in cells] for cells in part.rows]
    return GridPart(title=part.title, file=f"grid-{number}.svg", captions=captions)


def adversarials_of(folder: RunFolder, split_name: str, split: Split) -> Adversarials | None:
    """What the attacks on a run have kept of this split's images, of each the adversarial image
    nearest to it; None without."""
    best: dict[int, tuple[float, np.ndarray, int]] = {}
    for file in sorted((folder.path / "robustness").glob("*/result.json")):
        robust = AttackResult.load(file.parent)
        arrays = robust.arrays
        if robust.result.split != split_name:
            continue
        for place, row in enumerate(arrays["rows"]):
            index, size = int(arrays["index"][row]), float(arrays["size"][place])
            if arrays["smallest"][row] > 0 and (index not in best or size < best[index][0]):
                best[index] = size, arrays["adversarials"][place], int(arrays["labels"][row])
    if not best:
        return None
    images = split.floats(split.images[torch.tensor(list(best))].cpu()).float()
    changed = torch.from_numpy(np.stack([each[1] for each in best.values()])).float()
    return images, changed, torch.tensor([each[2] for each in best.values()])
