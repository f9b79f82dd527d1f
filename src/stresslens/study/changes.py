"""What has changed since the run in a folder was trained, in words."""

from __future__ import annotations

from stresslens.core.data import Data
from stresslens.evaluation.record import RunRecord
from stresslens.training.task import Task


def change_since(task: Task, kept: RunRecord, data: Data) -> str:
    """What differs between a task on this data and a run that was kept; empty if nothing does."""
    if kept.data.fingerprint != data.fingerprint:
        return "the data set has changed since"
    if kept.fingerprint == task.plan.fingerprint(data):
        return ""
    if kept.fingerprint == task.plan.fingerprint(data, corrected=False):
        corrected = ", and ".join(task.plan.corrections(data))
        return (
            f"the run was trained by version {kept.version or '0.1.0'}; "
            f"this version computes its training in another way ({corrected})"
        )
    return "the configuration, the initial weights or the code of a plug-in has changed since"
