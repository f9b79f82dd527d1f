"""The lines of a sweep's journal, `journal.jsonl`, and what they say about each trial."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from stresslens.core.json_file import JsonFile
from stresslens.evaluation.record import Failure


class TrialBegan(JsonFile):
    """A new trial: its settings, in the words of version 0.1.0, and the numbers that were drawn for them,
    by setting."""

    event: Literal["began"] = "began"
    trial: int
    settings: dict[str, Any]
    drawn: dict[str, int | float] = {}


class RungReached(JsonFile):
    """The value of a trial after so many epochs; None where it failed."""

    event: Literal["rung"] = "rung"
    trial: int
    epochs: int
    value: float | None


class TrialFailed(JsonFile):
    """Why a trial failed, before its end."""

    event: Literal["failed"] = "failed"
    trial: int
    failure: Failure


class TrialEnded(JsonFile):
    """The end of a trial: its value, or None where it failed or was left out."""

    event: Literal["ended"] = "ended"
    trial: int
    value: float | None


Event = TrialBegan | RungReached | TrialFailed | TrialEnded
_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])


@dataclass
class TrialState:
    """What the journal says about a trial."""

    settings: dict[str, Any]
    drawn: dict[str, int | float]
    rungs: dict[int, float | None] = field(default_factory=dict)
    failure: Failure | None = None
    ended: bool = False
    value: float | None = None


def add_event(trials: list[TrialState], event: Event) -> None:
    """Adds what an event says to the trials so far. Raises ValueError where it does not follow them."""
    if isinstance(event, TrialBegan):
        if event.trial != len(trials):
            raise ValueError(f"trial {event.trial} begins after {len(trials)} trials")
        trials.append(TrialState(event.settings, event.drawn))
        return
    if not 0 <= event.trial < len(trials) or trials[event.trial].ended:
        raise ValueError(f"trial {event.trial} is not under way")
    trial = trials[event.trial]
    if isinstance(event, RungReached):
        trial.rungs[event.epochs] = event.value
    elif isinstance(event, TrialFailed):
        trial.failure = event.failure
    else:
        trial.ended, trial.value = True, event.value


def line_of(event: Event) -> bytes:
    return json.dumps(event.as_json(), allow_nan=False, ensure_ascii=False).encode() + b"\n"


def event_of(line: bytes) -> Event:
    """Raises ValueError for a line that is no event."""
    return _EVENT.validate_json(line)


FINISHED, PRUNED, FAILED = 1, 2, 3
"""The states of an ended trial in Optuna's journal. A pruned one has the value of its last rung there."""


def events_of_optuna(line: bytes, number_of_trials: int) -> Iterator[Event]:
    """The events of a line that versions up to 0.3.0 wrote, which let Optuna keep the journal. Raises
    ValueError for any other line."""
    try:
        entry = json.loads(line)
        match entry["op_code"]:
            case 0:  # the study was created or opened
                pass
            case 4:
                settings = entry["user_attrs"]["settings"]
                yield TrialBegan(trial=number_of_trials, settings=settings, drawn=_numbers(entry))
            case 6 if entry["state"] in (FINISHED, PRUNED, FAILED):
                value = entry["values"][0] if entry["state"] == FINISHED else None
                yield TrialEnded(trial=entry["trial_id"], value=value)
            case 7:
                value = entry["intermediate_value"]
                finite = value if abs(value) < float("inf") else None
                yield RungReached(trial=entry["trial_id"], epochs=entry["step"], value=finite)
            case 8:
                failure = Failure.model_validate(entry["user_attr"]["failure"])
                yield TrialFailed(trial=entry["trial_id"], failure=failure)
            case other:
                raise ValueError(f"no line of a sweep has the code {other}")
    except (KeyError, IndexError, TypeError, AttributeError, ValidationError) as error:
        raise ValueError(f"no line of a sweep: {error}") from None


def _numbers(entry: dict[str, Any]) -> dict[str, int | float]:
    """The numbers that were drawn for a trial. Optuna writes whole numbers as 16.0."""
    kinds = {key: json.loads(kind)["name"] for key, kind in entry["distributions"].items()}
    return {
        key: float(value) if kinds[key] == "FloatDistribution" else int(value)
        for key, value in entry["params"].items()
    }
