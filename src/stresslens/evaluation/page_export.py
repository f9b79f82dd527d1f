"""A run's model as one HTML page that needs no server: it draws, answers and explains in a browser."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from markupsafe import Markup
from torch import Tensor, nn

from stresslens.config import registry
from stresslens.core.answers import confidence, predicted
from stresslens.core.data import Split
from stresslens.core.errors import ConfigError, StresslensError
from stresslens.core.format import count, percent_sign, plugin_text
from stresslens.core.layers import preparation
from stresslens.core.page_files import page_file, page_templates
from stresslens.core.run_folder import ModelCard, RunFolder
from stresslens.core.sampling import rank_within
from stresslens.core.version import __version__
from stresslens.evaluation import scores
from stresslens.evaluation.flat_graph import ELSEWHERE, FlatGraph
from stresslens.evaluation.guarantees import CalibrationImages, Wanted, calibration_content, guarantees_of
from stresslens.evaluation.model_info import ModelInfo
from stresslens.evaluation.record import RunRecord, read_record
from stresslens.evaluation.run_data import same_data_of
from stresslens.evaluation.scores import Predictions

COVERAGES = (0.9, 0.95)
SHOWN, MOST_IMAGE_BYTES = 20, 1_000_000
"""The test images on a page: at most so many, in at most so many bytes."""
LOOKED_AT = 200
"""Test images that say how drawings look: on which paper, how large."""
USUAL_EXTENT = 20 / 28
"""The longer side of a digit of MNIST, as a share of its image."""
INK, SAME_PAPER = 0.2, 0.9
"""A pixel that differs from the paper by so much is ink; so large a share of the pixels at the edge are
paper where images are drawings."""
FITS = {
    "crop": "cropped in its middle and resized",
    "pad": "resized and padded with black",
    "stretch": "stretched",
}


class Checked(NamedTuple):
    """The largest difference of the page's logits from the run's, computed in Python at export."""

    difference: float
    allowed: float
    images: int
    shown: str


class Drawings(NamedTuple):
    """How a drawing is to look: on light paper or dark, centred or not, and how large."""

    light: bool = False
    centred: bool = False
    extent: float = USUAL_EXTENT


def check_card_for_page(card: ModelCard, folder: RunFolder) -> None:
    """Raises ConfigError where images cannot be drawn or read from picture files."""
    if card.shape[0] not in (1, 3):
        raise ConfigError(
            f"{folder.path} takes images of {card.shape[0]} channels, which a page cannot show; a page is "
            f"for 1 channel (grey) or 3 (red, green, blue); {ELSEWHERE}"
        )


def page_of(
    folder: RunFolder, model: nn.Module, graph: FlatGraph, facts: ModelInfo, checked: Checked, *, trust: bool
) -> bytes:
    """The page of a run whose model is `graph`."""
    card, record = folder.load_card(), read_record(folder)
    assert isinstance(card, ModelCard)
    test = _test_split(folder, card, trust)
    images = None if test is None else _test_images(folder, record, model, test)
    drawings = Drawings() if test is None else _drawings(test)
    sets = _sets(folder, facts)
    pattern = torch.arange(int(np.prod(card.shape))).mul(7919).remainder(256).div(255).view(1, *card.shape)
    content: dict[str, Any] = {
        "facts": facts.as_json(),
        "steps": graph.steps,
        "shape": list(card.shape),
        "classes": facts.classes,
        "temperature": facts.temperature,
        "fit": facts.fit,
        "sets": sets,
        "images": images,
        **drawings._asdict(),
        "pattern": _logits(model, pattern)[0],
        "allowed": checked.allowed,
        "checked": checked._asdict(),
    }
    script, style = _script(), page_file("core", "colours.css") + _asset("page.css")
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )
    _, height, width = card.shape
    prepared = preparation(model, card.shape)
    return (
        page_templates("evaluation", "templates")
        .get_template("page.html.j2")
        .render(
            title=facts.run,
            byline=_byline(card, record),
            colour=card.shape[0] == 3,
            centring=_centring(drawings, from_run=test is not None),
            fitted=f"{FITS[facts.fit]} to {width}×{height} pixels, as stresslens predict does",
            calibrated=_calibrated(facts),
            sets=sets,
            no_sets="The run has no images that calibrate them (the data set's option validation).",
            size=f"{width}×{height}",
            preparation=f"; the network gets it {prepared}" if prepared else "",
            chosen=_chosen(images),
            about=_about(card, record, facts, graph, checked),
            version=__version__,
            policy=policy,
            style=Markup(style),
            script=Markup(script),
            model=Markup(_json(content)),
            weights=Markup(base64.b64encode(graph.content).decode()),
        )
        .encode()
    )


def _test_split(folder: RunFolder, card: ModelCard, trust: bool) -> Split | None:
    """The test images of a run; None where they cannot be read."""
    try:
        test = same_data_of(folder, trust=trust).test
    except StresslensError:
        return None
    return test if test is not None and test.shape == card.shape else None


def _test_images(
    folder: RunFolder, record: RunRecord, model: nn.Module, test: Split
) -> dict[str, Any] | None:
    """Some test images with their true and predicted classes and the run's logits; None without saved
    predictions."""
    if not folder.predictions("test").is_file():
        return None
    predictions = Predictions.of_arrays(folder.load_predictions("test")).answered
    most = min(SHOWN, MOST_IMAGE_BYTES // int(np.prod(test.shape)))
    kinds = chosen_images(predictions.calibrated(record.temperature), most)
    index = predictions.index[list(kinds)]
    if not kinds or predictions.index.max() >= len(test):
        return None
    part = test.select(torch.from_numpy(index))
    stored, scale = part.images[:].cpu(), part.scale
    if stored.dtype != torch.uint8:
        stored, scale = part.floats(stored).clamp(0, 1).mul(255).round().to(torch.uint8), 255.0
    logits = _logits(model, stored.float() / scale)
    answers = predicted(predictions.scores)
    rows = [
        {
            "truth": int(predictions.labels[row]),
            "predicted": int(answers[row]),
            "kind": kind,
            "logits": logits[k],
        }
        for k, (row, kind) in enumerate(kinds.items())
    ]
    return {"content": base64.b64encode(stored.numpy().tobytes()).decode(), "scale": scale, "rows": rows}


def chosen_images(predictions: Predictions, most: int) -> dict[int, str]:
    """At most so many rows of predictions, and why they are shown: a third are the surest mistakes
    ("wrong"), a third the least sure answers ("unsure"), the others are drawn at random from right ones
    ("right"), of each class in turn."""
    answers, sure = predicted(predictions.scores), confidence(predictions.probabilities)
    wrong = np.flatnonzero(answers != predictions.labels)
    wrong = wrong[np.argsort(-sure[wrong], kind="stable")][: most // 3]
    others = np.setdiff1d(np.arange(len(answers)), wrong)
    unsure = others[np.argsort(sure[others], kind="stable")][: most // 3]
    right = np.setdiff1d(others[answers[others] == predictions.labels[others]], unsure)
    right = np.random.default_rng(0).permutation(right)
    turn = np.argsort(rank_within(predictions.labels[right]), kind="stable")
    right = right[turn][: most - len(wrong) - len(unsure)]
    right = right[np.argsort(predictions.labels[right], kind="stable")]
    return {
        **dict.fromkeys(right.tolist(), "right"),
        **dict.fromkeys(wrong.tolist(), "wrong"),
        **dict.fromkeys(unsure.tolist(), "unsure"),
    }


def _drawings(test: Split) -> Drawings:
    """How test images look, as far as they are drawings: grey, on paper of one colour."""
    rows = torch.linspace(0, len(test) - 1, min(LOOKED_AT, len(test))).long()
    part = test.select(rows)
    x = part.floats(part.images[:].cpu()).float().mean(1)
    edge = torch.cat([x[:, 0], x[:, -1], x[:, :, 0], x[:, :, -1]], 1)
    paper = float(edge.median())
    light, alike = paper > 0.5, float(((edge - paper).abs() < INK).float().mean())
    if test.shape[0] != 1 or alike < SAME_PAPER or min(paper, 1 - paper) > INK:
        return Drawings(light)
    ink = (x - paper).abs() > INK
    rows_seen, columns_seen = ink.any(2), ink.any(1)
    longest = torch.maximum(_length(rows_seen), _length(columns_seen))[rows_seen.any(1)]
    extent = float(longest.mean()) if len(longest) else USUAL_EXTENT
    return Drawings(light, True, round(min(max(extent, 0.1), 1.0), 3))


def _length(seen: Tensor) -> Tensor:
    """(n,) from the first to the last place that is seen (n, side), as a share of the side."""
    side = seen.shape[1]
    places = torch.arange(side)
    last, first = torch.where(seen, places, -1).amax(1), torch.where(seen, places, side).amin(1)
    return (last + 1 - first) / side


def _sets(folder: RunFolder, facts: ModelInfo) -> list[dict[str, Any]]:
    """For each coverage the threshold of prediction sets (None: every class), and what is promised."""
    held = calibration_content(folder)
    if held is None:
        return []
    calibrating = CalibrationImages.of_content(held, folder.path)
    found = []
    for coverage in COVERAGES:
        guarantees = guarantees_of(Wanted(coverage), calibrating, facts.classes)
        assert guarantees.sets is not None
        threshold = float(guarantees.sets.thresholds[0])
        found.append(
            {
                "share": f"{100 * coverage:g} %",
                "coverage": coverage,
                "threshold": threshold if np.isfinite(threshold) else None,
                "said": " ".join(guarantees.sentences),
            }
        )
    return found


def _logits(model: nn.Module, x: Tensor) -> list[list[float]]:
    split = Split(x, torch.zeros(len(x), dtype=torch.int64), 1.0)
    found: list[list[float]] = scores.logits_of(model, split).tolist()
    return found


def _byline(card: ModelCard, record: RunRecord) -> str:
    name, options = registry.name_and_options("models", card.model)
    split = next((each for each in ("test", "validation") if "accuracy" in record.scores.get(each, {})), None)
    parts = [plugin_text(name, options), f"{len(card.classes)} classes"]
    if split is not None:
        found = record.scores[split]["accuracy"]
        parts.append(f"accuracy {percent_sign(found)} on {count(found.n)} {split} images")
    return " · ".join(parts).replace(" %", "\u00a0%")


def _about(
    card: ModelCard, record: RunRecord, facts: ModelInfo, graph: FlatGraph, checked: Checked
) -> list[tuple[str, str]]:
    name, options = registry.name_and_options("models", card.model)
    accuracies = [
        f"{percent_sign(found)} on {count(found.n)} {split} images ({100 * found.level:g} %, {found.method})"
        for split, scored in record.scores.items()
        if split in ("test", "validation") and (found := scored.get("accuracy")) is not None
    ]
    return [
        ("Run", facts.run),
        ("Model", plugin_text(name, options)),
        ("Data", record.data.name or "not named"),
        *([("Accuracy", "; ".join(accuracies))] if accuracies else []),
        ("Size", f"{len(graph.content) / 1e6:.2f} MB of weights in {len(graph.steps)} steps"),
        ("Version", f"stresslens {__version__}; fingerprint {facts.fingerprint}"),
        (
            "Checked at export",
            f"In Python, the steps and weights of this page gave logits that differ from the run's by at "
            f"most {checked.difference:.2g} on {count(checked.images)} {checked.shown} images (allowed "
            f"{checked.allowed:g}, relative for logits above 1).",
        ),
    ]


def _calibrated(facts: ModelInfo) -> str:
    if facts.calibrated_on is None:
        return f"Probabilities are not calibrated: {facts.not_calibrated}."
    said = f"Probabilities are calibrated on the {facts.calibrated_on} images"
    return f"{said} (temperature {facts.temperature:.3g})."


def _centring(drawings: Drawings, *, from_run: bool) -> str:
    like = "the run's test images" if from_run and drawings.centred else "MNIST"
    return (
        f"Centre drawings, as in {like}: the ink fills {100 * drawings.extent:.0f}\u00a0% of the side, its "
        "centre of mass is in the middle"
    )


def _chosen(images: dict[str, Any] | None) -> str:
    kinds = [row["kind"] for row in images["rows"]] if images else []
    return (
        f"{kinds.count('right')} of the right answers, {kinds.count('wrong')} surest mistakes and "
        f"{kinds.count('unsure')} least sure answers; they say nothing of how many there are. Below each "
        "are its true class and, where it is another one, the run's answer."
    )


def _json(content: dict[str, Any]) -> str:
    """JSON that can stand in a script element."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@cache
def _script() -> str:
    """The script without indentation and lines of comments."""
    lines = (line.strip() for line in (_asset("engine.js") + _asset("page.js")).splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("//"))


def _asset(name: str) -> str:
    return page_file("evaluation", f"templates/{name}")
