"""The teacher of a distillation: another run, opened to be asked."""

from __future__ import annotations

from torch import nn

from stresslens.core import layers
from stresslens.core.data import Data
from stresslens.core.devices import ComputeConfig
from stresslens.core.errors import ConfigError
from stresslens.core.run_folder import EstimatorCard
from stresslens.evaluation.saved_model import open_model
from stresslens.training.input_sizes import shown_size
from stresslens.training.members import other_data
from stresslens.training.task import Task


def open_teacher(task: Task, data: Data, compute: ComputeConfig) -> nn.Module | None:
    """The model of the run that a task's objective learns from, in evaluation mode and without gradients
    of its weights; None for another objective. Code of the user's own is executed in a teacher of the
    task's own study alone.

    Where augmentations show images in the size of the nets, it takes them without resizing and cropping,
    as the student does. Raises ConfigError for an estimator, for other classes or another shape of images
    than the data's, and for a net of another size than the images shown.
    """
    folder = task.plan.teacher
    if folder is None:
        return None
    card = folder.load_card()
    if isinstance(card, EstimatorCard):
        raise ConfigError(f"teacher: {folder.path} holds an estimator, which has no logits to learn from")
    if why := other_data(card, data, "teacher and student"):
        raise ConfigError(f"teacher: {folder.path} {why}")
    own = task.folder.parent.parent.resolve() in folder.path.resolve().parents
    teacher = compute.place(open_model(folder, trust=own)).eval().requires_grad_(False)
    if (shown := shown_size(task.config.train, task.base)) is None:
        return teacher
    if (seen := layers.shape_seen(teacher, data.shape)[1:]) != shown:
        raise ConfigError(
            f"teacher: {folder.path} has a net for images of {seen[0]}×{seen[1]}, and train.augment "
            f"shows {shown[0]}×{shown[1]}; show both the same size, or take a teacher of that input size"
        )
    return layers.for_shown_images(teacher)
