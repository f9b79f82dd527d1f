"""Failures of runs: an error as record.json keeps it, and as it is raised at the end of a study."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path

from stresslens.core.errors import ConfigError, DataError, StresslensError, TrainingDiverged, first_line
from stresslens.core.text import printable
from stresslens.evaluation.record import Failure, RunRecord

LOG = "errors.log"
"""The file beside record.json that has the tracebacks of unexpected errors."""
KINDS: dict[int, type[StresslensError]] = {
    kind.exit_code: kind for kind in (ConfigError, DataError, TrainingDiverged)
}


def failure_of(error: Exception, folder: Path, part: str) -> Failure:
    """The failure that an error is. The traceback of an unexpected error is added to the folder's log,
    under the name of the part that failed."""
    if isinstance(error, StresslensError):
        images = error.images if isinstance(error, TrainingDiverged) else []
        return Failure(message=str(error), exit_code=error.exit_code, images=images)
    log = folder / LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{part}\n{''.join(traceback.format_exception(error))}\n")
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename and Path(frame.filename).is_file()
    ]
    place = f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own else ""
    kind, said = type(error).__name__, printable(first_line(error))
    what = kind if said == kind else f"{kind}: {said}"
    return Failure(message=f"{what}{place}; the whole traceback is in {log}", exit_code=1)


def error_of(failures: Mapping[str, Failure]) -> StresslensError:
    """The error to raise for failures by their place: one line for each, with the kind that all have,
    or StresslensError where they differ."""
    message = "\n".join(
        f"{place}: {failure.message}" if place else failure.message for place, failure in failures.items()
    )
    codes = {failure.exit_code for failure in failures.values()}
    kind = KINDS.get(codes.pop(), StresslensError) if len(codes) == 1 else StresslensError
    if issubclass(kind, TrainingDiverged):
        return kind(message, next(iter(failures.values())).images)
    return kind(message)


def succeeded(record: RunRecord) -> RunRecord:
    """The record of a run. Raises the error of its first stage that failed, if one did."""
    for failure in record.failures.values():
        raise error_of({"": failure})
    return record
