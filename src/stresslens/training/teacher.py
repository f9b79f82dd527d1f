"""The teacher of a distillation: another run, opened to be asked."""

from __future__ import annotations

from torch import nn

from stresslens.core.class_names import plain_form
from stresslens.core.data import Data
from stresslens.core.devices import ComputeConfig
from stresslens.core.errors import ConfigError
from stresslens.core.run_folder import EstimatorCard
from stresslens.evaluation.saved_model import open_model
from stresslens.training.task import Task


def open_teacher(task: Task, data: Data, compute: ComputeConfig) -> nn.Module | None:
    """The model of the run that a task's objective learns from, in evaluation mode and without gradients
    of its weights; None for another objective. Code of the user's own is executed in a teacher of the
    task's own study alone.

    Raises ConfigError for an estimator, and for other classes or another shape of images than the data's.
    """
    folder = task.plan.teacher
    if folder is None:
        return None
    card = folder.load_card()
    if isinstance(card, EstimatorCard):
        raise ConfigError(f"teacher: {folder.path} holds an estimator, which has no logits to learn from")
    if list(map(plain_form, card.classes)) != list(map(plain_form, data.classes)):
        raise ConfigError(
            f"teacher: {folder.path} has the classes {', '.join(map(str, card.classes[:5]))}, … and the data "
            f"{', '.join(map(str, data.classes[:5]))}, …; a teacher needs the same, in the same order"
        )
    if card.shape != data.shape:
        taken, given = ("×".join(map(str, shape)) for shape in (card.shape, data.shape))
        raise ConfigError(
            f"teacher: {folder.path} takes images of {taken} (channels, height, width), the data have {given}"
        )
    own = task.folder.parent.parent.resolve() in folder.path.resolve().parents
    return compute.place(open_model(folder, trust=own)).eval().requires_grad_(False)
