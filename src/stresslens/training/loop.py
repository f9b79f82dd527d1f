"""The training loop. What varies (objective, optimizer, schedule, augmentations, rules) is an argument."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from stresslens.config import registry
from stresslens.config.schema import FineTune, Train
from stresslens.config.selection_rules import RULES
from stresslens.core.data import Batch, Data
from stresslens.core.devices import ComputeConfig
from stresslens.core.distributed import ALONE, ProcessGroup
from stresslens.core.draws import Draws, mix
from stresslens.core.errors import ConfigError, Stopped
from stresslens.core.inspection import fresh_images
from stresslens.core.layers import for_shown_images
from stresslens.core.read_ahead import read_ahead, worth_reading_ahead
from stresslens.core.run_folder import RunFolder
from stresslens.core.types import Step, reported
from stresslens.evaluation import scores
from stresslens.training.bare_steps import bare_step
from stresslens.training.batch_loss import BatchLoss, augmentation, net_inputs, objective_for
from stresslens.training.best_epoch import BestEpoch, copied_weights, robust_accuracy, selection_rules
from stresslens.training.checkpoint import Checkpointer, TrainingParts
from stresslens.training.divergence import all_finite, divergence
from stresslens.training.epoch_log import EpochMetrics, EpochTime
from stresslens.training.fine_tuning import FineTuning
from stresslens.training.first_batch import check_first_batch
from stresslens.training.gradients import Gradients
from stresslens.training.input_sizes import shown_size
from stresslens.training.late_losses import LateLosses, reads_late
from stresslens.training.loss_scale import LossScale
from stresslens.training.moving_average import average_epoch, averaged_model, takes_epoch, weight_average
from stresslens.training.optimization import build_optimizer, build_schedule, step_schedule, tell_schedule
from stresslens.training.setup import laid_out
from stresslens.training.state import TrainingState
from stresslens.training.tracking import Tracking

Show = Callable[[TrainingState, int, float], None]
"""Called a few times a second with the training state, the number of epochs and the share of them
that is done."""

SHOW_SECONDS = 0.25


def fit(t: Training) -> None:
    """Trains until the last epoch (or `until`), an early stop or a signal.

    Raises TrainingDiverged at the first loss or gradient that is not finite, and Stopped after
    saving when a signal came.
    """
    while not (t.over or t.state.epoch >= t.until):
        t.fine_tuning.begin(t.state.epoch)  # training mode; frozen layers in evaluation mode
        for batch in t.batches():
            loss = t.batch_loss(batch)  # the forward pass
            t.backward(loss)  # adds to the gradients
            value, images = t.reduce(loss, batch)  # loss and gradients of the whole batch
            t.check(value, batch)  # stops here unless they are finite
            t.optimizer_step()  # updates the weights, every `accumulate` batches
            t.count(value, images)  # one batch more is done
            t.after_step()  # progress, trackers, checkpoint, signals
        t.end_epoch()  # evaluation, logs, the best epoch, early stopping
    t.save()
    t.raise_if_stopped(t.caught)


class Training:
    """A training: the parts that the loop calls, and how far it has come."""

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        train: Train,
        *,
        compute: ComputeConfig,
        seed: int,
        folder: RunFolder,
        base: Path,
        show: Show,
        group: ProcessGroup = ALONE,
        until: int | None = None,
        teacher: nn.Module | None = None,
    ) -> None:
        """`model` is a net behind its input layers (core.layers.with_input_layers); `group` the
        processes that share each batch; `teacher` a model that an objective learns from.

        With `until` training pauses after that many of the `train.epochs` for which schedules are
        laid out. Raises ConfigError when a rule needs a split that is missing.
        """
        self.model, self.compute = laid_out(model, compute, data), compute
        self.data, self.train, self.seed, self.folder, self.show = data, train, seed, folder, show
        self.group, self.tracking, self.until = group, Tracking(), until or train.epochs
        self.state = TrainingState()
        self.objective_state: dict[str, Tensor] = {}
        self.carried: dict[str, Tensor] = {}
        n = len(data.train)
        self.batch_size = n if train.batch_size == "full" else min(train.batch_size, n)
        self.steps_per_epoch = math.ceil(n / self.batch_size) * train.replay
        self.select, self.watch = selection_rules(train, data, base=base)
        check_first_batch(self.model, train, data)
        self.fine_tuning = FineTuning(self.model, train.fine_tune or FineTune(), data.shape)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        if not self.parameters:
            raise ConfigError("the model has no parameters to train; set train.epochs=0")
        self.optimizer = build_optimizer(train, self.fine_tuning.parameters(train.lr), model, base)
        self.schedule = build_schedule(train, self.optimizer, self.steps_per_epoch, base)
        self._update = bare_step(self.optimizer)
        self.average = weight_average(self.model, train)
        late = train.stack is not True and reads_late(compute, group)  # a stack reads those of all runs
        self.late = LateLosses() if late else None
        self.gradients = Gradients(self.parameters, late=self.late is not None)
        self.loss_scale = LossScale(compute)
        self._prepare_batches(base, teacher)
        self.checkpointer = Checkpointer(
            folder, self._parts(), seconds=train.checkpoint_seconds, device=compute.device, group=group
        )
        self.signals: list[int] = []
        """Signals that arrived; `after_step` obeys them once a checkpoint is written."""
        self._clock = self._shown_at = time.perf_counter()

    def _prepare_batches(self, base: Path, teacher: nn.Module | None) -> None:
        """Sets up the images, augmentations and loss of batches, and what the epochs are judged by."""
        data, train, compute, model = self.data, self.train, self.compute, self.model
        classes = len(data.classes)
        self.loss: Any = registry.resolve("losses", train.loss, base=base)
        self.augment = [augmentation(value, base=base, classes=classes) for value in train.augment]
        objective = objective_for(train, data.train.labels, base=base, classes=classes)
        inputs = net_inputs(model, data.train, objective, compute=compute, augmented=bool(self.augment))
        self.images = data.train if inputs is None else inputs
        if inputs is not None:  # batches may be views of them, or come again
            nn.Module.register_forward_pre_hook(model.get_submodule("net"), fresh_images, prepend=True)
        of_batches = model if shown_size(train, base) is None else for_shown_images(model)
        takes_inputs, step = inputs is not None, self._step
        self.batch_loss = BatchLoss(
            of_batches, objective, compute=compute, step=step, takes_inputs=takes_inputs, teacher=teacher
        )
        rule = RULES.get(self.select)
        robust = rule is not None and rule.needs_robust_accuracy
        self.best = BestEpoch(
            rule,
            self.state,
            patience=train.stop.patience if train.stop else None,
            robust_accuracy=robust_accuracy(objective, data.validation, group=self.group) if robust else None,
        )

    def _parts(self) -> TrainingParts:
        net = self.model.get_submodule("net")
        return TrainingParts(
            *(self.state, net, self.average, self.optimizer, self.schedule, self.best),
            *(self.objective_state, self.carried, self.loss_scale),
        )

    @property
    def over(self) -> bool:
        return self.state.epoch >= self.train.epochs or bool(self.state.stopped)

    @property
    def iteration(self) -> int:
        """Batches done since the start."""
        return self.state.epoch * self.steps_per_epoch + self.state.step

    @property
    def caught(self) -> int | None:
        """The last signal that arrived."""
        return self.signals[-1] if self.signals else None

    @property
    def lr(self) -> float:
        """The learning rate, or the highest of several."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    @property
    def share_done(self) -> float:
        return (self.state.epoch + self.state.step / self.steps_per_epoch) / self.train.epochs

    @property
    def evaluated(self) -> nn.Module:
        """The model that is evaluated and kept: the average of the weights where there is one."""
        return averaged_model(self.average, self.model)

    def batches(self) -> Iterator[Batch]:
        """The batches that are left of the current epoch, each `replay` times in a row."""
        state, replay = self.state, self.train.replay
        done, repeated = divmod(state.step, replay)
        different = self.images.batches(
            self.batch_size,
            seed=self.seed,
            shuffle=self.train.shuffle,
            balanced=self.train.balance == "sampling",
            epoch=state.epoch,
            start_step=done,
            dtype=self.compute.dtype if self.images is self.data.train else self.images.images.dtype,
            augment=self.augment,
            part=self.group.part,
        )
        if worth_reading_ahead(self.images.images):
            different = read_ahead(different, self.compute.device)
        for batch in different:
            for _ in range(replay - repeated):
                self.group.reseed(self.seed, state.epoch, state.step)
                yield batch
            repeated = 0

    def backward(self, loss: Tensor) -> None:
        """Adds to the gradients, in float16 times the scale of the loss."""
        images = self.group.share(self._images_in(self.state.step))
        self.group.backward(lambda: self.loss_scale.backward(loss), self.parameters, images)

    def reduce(self, loss: Tensor, batch: Batch) -> tuple[float | Tensor, int]:
        """The loss and the size of the whole batch, whose gradients the parameters have from here
        on: several processes average them, weighted by the sizes of their parts. A loss that is read
        late is still a tensor."""
        if self.late is not None:
            return loss, len(batch.y)
        return self.group.combine(self.parameters, loss, len(batch.y), self.objective_state)

    def check(self, loss: float | Tensor, batch: Batch) -> None:
        """Raises TrainingDiverged, before any weight is changed, unless the loss and every gradient
        are finite, or the update is skipped; ConfigError where there is no gradient. A loss that is read
        late stops the training one batch later, and before anything is saved."""
        self.gradients.measure()
        if isinstance(loss, Tensor):
            assert self.late is not None
            self.late.add(loss, self.gradients.device_norms, self.state, batch.places)
            return self._read_losses(keep=1 if self.iteration else 0)
        finite = self.gradients.finite
        if not (finite and math.isfinite(loss)) and (finite or not self.loss_scale.can_skip()):
            self._diverged(loss, batch.places)

    def _read_losses(self, keep: int = 0) -> None:
        """Counts the losses that were read late, all but the last `keep`. Raises TrainingDiverged."""
        for late in self.late.read(keep) if self.late is not None else ():
            if not late.finite:
                self._diverged(late.value, late.places, at=(late.epoch, late.step))
            self._count_loss(late.value, len(late.places))

    def optimizer_step(self) -> None:
        """Updates the weights at the end of each group of `accumulate` batches."""
        if self.completes_gradient():
            skip = not self.gradients.finite  # only in float16
            self.loss_scale.step(self.optimizer, self._update, skip=skip)
            self.after_update(skip=skip)

    def completes_gradient(self) -> bool:
        """Whether the batch is the last of its group, whose gradient then is the mean over the group's
        images; the last group of an epoch, and its last batch, may be smaller."""
        state, group = self.state, self.train.accumulate
        sizes = [self._images_in(step) for step in range(state.step - state.step % group, state.step + 1)]
        ends = len(sizes) == group or state.step + 1 == self.steps_per_epoch
        self.gradients.accumulate(sizes, None if ends else self._images_in(state.step + 1))
        if ends:
            self.gradients.norms_divided(self.loss_scale.unscale(self.optimizer))
            self.gradients.clip(self.train.clip)
        return ends

    def after_update(self, *, skip: bool = False) -> None:
        """What follows an update of the weights: the schedule, and the moving average."""
        step_schedule(self.schedule, skipped=skip)
        self.gradients.clear()
        self.state.skipped += skip
        self.state.updates += not skip
        if self.average is not None and self.train.ema and not skip:
            self.average.update_parameters(self.model)

    def _images_in(self, step: int) -> int:
        """The number of images in a batch of an epoch, of all processes together."""
        return min(self.batch_size, len(self.data.train) - step // self.train.replay * self.batch_size)

    def count(self, loss: float | Tensor, images: int) -> None:
        """Counts a batch of this mean loss and size."""
        if not isinstance(loss, Tensor):
            self._count_loss(loss, images)
        self.state.step += 1

    def _count_loss(self, loss: float, images: int) -> None:
        if not self.iteration:
            self.state.first_loss = loss
        self.state.add_loss(loss, images)

    def after_step(self) -> None:
        """Shows how training is going; between two updates, never inside one, it saves where that is
        due and obeys signals."""
        self._count_seconds()
        self.tracking.after_step(self.iteration, self.state.last_loss, self.lr)
        self._show_progress()
        if self.state.step % self.train.accumulate == 0 or self.state.step == self.steps_per_epoch:
            self.save_if_due()

    def _count_seconds(self) -> None:
        now = time.perf_counter()
        self.state.seconds += now - self._clock
        self._clock = now

    def _show_progress(self, *, at_once: bool = False) -> None:
        if at_once or self._clock - self._shown_at > SHOW_SECONDS:
            self._shown_at = self._clock
            self.show(self.state, self.train.epochs, self.share_done)

    def save_if_due(self) -> None:
        """Saves every `checkpoint_seconds` and after a signal, which it then obeys. Raises Stopped."""
        caught, due = self.group.agreed(self.caught, self.checkpointer.due)
        if caught is not None or due:
            self.save()
            self.raise_if_stopped(caught)

    def save(self) -> None:
        """Writes a checkpoint; the time this takes is not counted as training."""
        self._read_losses()
        self.checkpointer.save()
        self._clock = time.perf_counter()

    def raise_if_stopped(self, caught: int | None) -> None:
        """Raises Stopped for a signal that was caught. The training is saved by then."""
        if caught is not None:
            when = f"{signal.Signals(caught).name} after {self.state.epoch} epochs"
            raise Stopped(f"stopped by {when}; saved, the same command resumes it", caught)

    def end_epoch(self) -> None:
        """Ends the epoch: early stopping, and evaluation, the best epoch and a line in the logs where
        they are due."""
        state, train = self.state, self.train
        self._read_losses()
        state.epoch += 1
        state.step = 0
        state.stop_if_loss_settled(train.stop)
        if self.average is not None and train.swa and takes_epoch(train.swa, state.epoch, train.epochs):
            average_epoch(self.average, self.model, self.data.train, batch_size=self.batch_size)
        evaluates = self.watch and (state.epoch % train.evaluate_every == 0 or self.over)
        figures = self._evaluate() if evaluates else {}
        if evaluates or state.epoch % train.log_every == 0 or self.over:
            self._log(figures)
        state.loss_sum, state.images = 0.0, 0
        self._clock = time.perf_counter()
        self._show_progress(at_once=self.over)

    def _evaluate(self) -> dict[str, dict[str, float]]:
        """The figures of each watched split; by those of validation the best epoch is updated."""
        model = self.evaluated
        self.group.broadcast(model.buffers())
        figures: dict[str, dict[str, float]] = {
            name: scores.watched(model, self.data.splits[name], self.loss, group=self.group)
            for name in self.watch
        }
        self.state.reads_of_test += "test" in figures
        if self.best.robust_accuracy is not None:
            figures["validation"]["robust"] = self.best.robust_accuracy(model)
        figures = self.group.broadcast_object(figures)
        self.best.update(model, figures.get("validation", {}))
        tell_schedule(self.schedule, figures)
        return figures

    def _log(self, figures: Mapping[str, Any]) -> None:
        """Adds the epoch to metrics.jsonl and timings.jsonl, and tells the trackers."""
        state = self.state
        metrics = EpochMetrics(**state.mean_losses, epoch=state.epoch, lr=self.lr, **figures)
        if self.loss_scale.on:
            metrics.loss_scale, metrics.skipped_updates = self.loss_scale.value, state.skipped
        if of_objective := reported(self.objective_state):
            metrics.objective = of_objective
        line = metrics.as_json(self.watch)
        self.checkpointer.append("metrics", line)
        self.checkpointer.append("timings", EpochTime(epoch=state.epoch, seconds=state.seconds).as_json())
        self.tracking.after_epoch(self.iteration, line, self.evaluated.get_submodule("net"))

    def chosen(self) -> dict[str, Tensor]:
        """The net's weights of the chosen epoch: the best on validation, or the last."""
        return self.best.weights or copied_weights(self.evaluated)

    @property
    def chosen_epoch(self) -> int:
        return self.state.best_epoch if self.best.weights else self.state.epoch

    @property
    def chosen_updates(self) -> int:
        """Updates of the weights until the end of the chosen epoch."""
        return self.chosen_epoch * math.ceil(self.steps_per_epoch / self.train.accumulate)

    def _step(self, places: Tensor) -> Step:
        """How far training has come, for an objective that is given a batch of these places."""
        state = self.state
        draws = Draws(mix(self.seed, state.epoch, 1, state.step % self.train.replay), places)
        kept = self.objective_state, state.step, self.steps_per_epoch, self.carried
        return Step(draws, state.epoch, self.share_done, *kept)

    def _diverged(self, loss: float, places: Tensor, at: tuple[int, int] | None = None) -> None:
        """Raises TrainingDiverged for the batch of these images, by default the current one; before, it
        saves where the weights are still finite."""
        images = sorted(self.group.gather(places).tolist())
        if at is None and self.state.step % self.train.accumulate == 0 and all_finite(self.model):
            self.save()
        kept, scaled = self.folder.checkpoint, self.loss_scale.on
        raise divergence(loss, images, self.state, self.train.lr, kept, scaled=scaled, at=at)
