"""What the worker process of the page does: it opens the runs with their gradients, and answers job after
job, a part at a time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stresslens.config import registry
from stresslens.core.answers import predicted
from stresslens.core.ball import Norm
from stresslens.core.colormaps import coloured
from stresslens.core.errors import ConfigError, StresslensError, first_line
from stresslens.core.panels import image_pixels
from stresslens.evaluation.classify_files import Upload
from stresslens.evaluation.predictor import open_predictor
from stresslens.explanation.svg import png
from stresslens.serve.classification import ServedRuns
from stresslens.serve.live_attack import AttackGoal, Attempt, LiveAttack
from stresslens.serve.page_runs import PageRun, address_of, corrupted, picture_of
from stresslens.serve.processes import begin_worker, forget_garbage, set_threads

PAGE = 24
"""Images of the run's own data on a page of them."""


@dataclass(frozen=True)
class Subject:
    """The picture that a job is about: the content of a file, or an image of a run's own data; under
    corruptions, each at its severity."""

    content: bytes = b""
    own: tuple[str, int] | None = None
    """Run and position."""
    corruptions: Mapping[str, int] = field(default_factory=dict)


class Job(NamedTuple):
    """What the page asks: the name of a method of `_Page`, and its arguments."""

    what: str
    arguments: dict[str, Any]


STOP = Job("stop", {})
"""Nobody waits for the rest of the job."""


class Ended(NamedTuple):
    """The last message of a job, and why it could not be done; empty where it was."""

    why: str = ""


def answer_page(connection: Connection, served: ServedRuns) -> None:
    """The loop of the process: takes a `Job`, sends its parts and `Ended`, until the other end is closed.
    The first message describes the runs, or is the error why they could not be opened. While nothing is
    asked, it prepares what later answers need."""
    begin_worker()
    warnings.simplefilter("ignore")
    try:
        page = _Page(served)
        described = page.described()
        forget_garbage()
        connection.send(described)
    except StresslensError as error:
        connection.send(error)
        return
    preparations = page.preparations()
    with suppress(EOFError, BrokenPipeError):
        while True:
            while not connection.poll() and next(preparations, None) is not None:
                pass
            job = connection.recv()
            if job != STOP:
                connection.send(Ended(_answered(connection, page, job)))


def _answered(connection: Connection, page: _Page, job: Job) -> str:
    """Sends the parts of a job, and returns why there are no more."""
    try:
        with closing(getattr(page, job.what)(**job.arguments)) as parts:
            for part in parts:
                connection.send(part)
                if connection.poll():  # what is asked next, or STOP: nobody waits for this any more
                    return "stopped"
    except StresslensError as error:
        return str(error)
    except Exception as error:  # a model may raise anything, and the next picture may be right
        return f"The model could not be computed: {first_line(error)}"
    return ""


Parts = Iterator[dict[str, Any]]


class _Page:
    """The opened runs. Each job yields plain values, a part at a time."""

    def __init__(self, served: ServedRuns) -> None:
        opened = {name: open_predictor(path, trust=served.trust) for name, path in served.paths.items()}
        set_threads(served.threads, opened.values())
        self.runs = {
            name: PageRun(name, served.paths[name], predictor, served) for name, predictor in opened.items()
        }

    def described(self) -> dict[str, Any]:
        return {
            "runs": [run.described() for run in self.runs.values()],
            "corruptions": registry.names("corruptions"),
        }

    def preparations(self) -> Iterator[str]:
        """Prepares the training images of every run, a little at a time."""
        for run in self.runs.values():
            yield from run.own.preparations()

    def look(
        self,
        subject: Subject,
        names: list[str],
        explainer: str,
        captions: tuple[str, ...] = (),
    ) -> Parts:
        """First what every run says of the picture; then why, and then the nearest training images."""
        looks = {}
        for name in names:
            run = self._run(name, captions)
            x, truth = self._images(subject, run)
            found = run.look(x)
            looks[name] = (run, x, found)
            yield {"run": name, "kind": "look", "truth": truth, **found}
        for name, (run, x, found) in looks.items():
            if found["classes"]:
                yield {"run": name, "kind": "map", **run.explained(x, explainer, found["classes"][0][0])}
        for run, x, found in looks.values():
            if found["classes"]:
                yield from self._nearest(run, x, found["classes"][0][0])

    def _nearest(self, run: PageRun, x: Tensor, answer: str) -> Parts:
        """The nearest training images; before them, while they are prepared, how far that is."""
        about = {"run": run.name, "kind": "nearest"}
        try:
            for said in run.own.preparations():
                yield {**about, "images": [], "said": said, "how": ""}
            yield {**about, **run.own.nearest(x, answer)}
        except StresslensError as error:
            yield {**about, "images": [], "said": str(error), "how": ""}

    def images(self, name: str, which: str, of_class: str, number: int) -> Parts:
        yield self._run(name).own.page(which, of_class, number, PAGE)

    def attack(
        self,
        subject: Subject,
        names: list[str],
        norm: Norm,
        radius: float,
        target: str = "",
        captions: tuple[str, ...] = (),
    ) -> Parts:
        """What is known after each attempt, run after run."""
        for name in names:
            run = self._run(name, captions)
            x, _ = self._images(subject, run)
            with torch.no_grad():
                y = int(predicted(run.model(x))[0])
            if y < 0 or (target and target not in run.facts.classes):
                why = "the model gives no answer" if y < 0 else f"it has no class {target!r}"
                yield {"run": name, "done": True, "found": False, "said": f"Not attacked: {why}."}
                continue
            answer = run.facts.classes[y]
            if target == answer:
                yield {"run": name, "done": True, "found": False, "said": f"It is {target} already."}
                continue
            goal = AttackGoal(norm, radius, run.facts.classes.index(target) if target else None)
            with closing(LiveAttack(run.model, x, y, goal).attempts()) as attempts:
                attempt = Attempt(radius)
                for attempt in attempts:
                    yield {"run": name, "done": False, **_shown(run, x, attempt)}
            said = _said(attempt, goal, target)
            yield {"run": name, "done": True, "said": said, **_shown(run, x, attempt)}

    def _run(self, name: str, captions: tuple[str, ...] = ()) -> PageRun:
        run = self.runs[name]
        return run.prompted(captions) if captions else run

    def _images(self, subject: Subject, run: PageRun) -> tuple[Tensor, str | None]:
        """The picture as a run takes it, and its true class where that is known. Raises ConfigError for one
        that cannot be read."""
        truth, content = None, subject.content
        x: Tensor | str | None = None
        if subject.own is not None:
            name, position = subject.own
            image, truth = self.runs[name].own.image(position)
            same = image.shape[1:] == torch.Size(run.facts.shape)
            x, content = (image if same else None), png(image_pixels(image)[0], 1)
        x = run.images_of(Upload("", content)) if x is None else x
        if isinstance(x, str):
            raise ConfigError(f"The picture cannot be read: {x}.")
        return corrupted(x, subject.corruptions), truth


def _shown(run: PageRun, x: Tensor, attempt: Attempt) -> dict[str, Any]:
    """An attempt as the page shows it."""
    values: dict[str, Any] = {"radius": attempt.radius, "found": attempt.x_adv is not None}
    if attempt.x_adv is None:
        return values
    found, change = run.predicted(attempt.x_adv), (attempt.x_adv - x)[0]
    largest = max(float(change.abs().max()), 1e-12)
    if len(change) == 1:
        shown = coloured(change[0].numpy(), largest, signed=True)
    else:
        shown = image_pixels(0.5 + 0.5 * change[None] / largest)[0]
    return {
        **values,
        "size": attempt.size,
        "largest": largest,
        "original": picture_of(x),
        "change": address_of(shown),
        "coloured": len(change) == 1,
        "attacked": picture_of(attempt.x_adv),
        "before": run.predicted(x)["classes"][:3],
        "after": found["classes"][:3],
        "unlike": found["unlike"],
        "by": attempt.by,
    }


def _said(attempt: Attempt, goal: AttackGoal, target: str) -> str:
    """What was found and what was not, in sentences."""
    wish = f"makes it {target}" if target else "makes it another class"
    no_proof = "That is no proof that there is none"
    tried = f"{no_proof}; tried: {attempt.none_by}."
    if attempt.size is None:
        return f"No change of at most {_size(goal.norm, goal.radius)} was found that {wish}. {tried}"
    found = f"A change of {_size(goal.norm, attempt.size)} {wish}, found by {attempt.by}."
    if not attempt.none_at:
        return f"{found} A smaller one may exist: the search ended here."
    return f"{found} None was found up to {_size(goal.norm, attempt.none_at)}. {tried}"


def _size(norm: Norm, size: float) -> str:
    """The size of a change, in words."""
    levels = f", {255 * size:.3g} of 255 grey levels" if norm == "linf" else ""
    return f"{size:.3g} ({norm}{levels})"
