"""Runs trained together in one program: their parameters are stacked, and a step computes all runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor

from stresslens.core.data import Batch
from stresslens.core.errors import ConfigError
from stresslens.core.sampling import shuffled
from stresslens.training.joint_step import JointStep
from stresslens.training.loop import SHOW_SECONDS, Training
from stresslens.training.stacked_net import stacked_logits, stacked_loss

TOLERANCE = 1e-3
"""A gradient computed in the stack may differ from that of the run's own step by so much of its largest
value; rounding differs by far less."""


def fit_together(s: Stack) -> None:
    """Trains all runs of the stack until each has reached its last epoch, an early stop, or an error,
    which `s.errors` then holds: the others go on.

    Raises Stopped after saving all of them when a signal came.
    """
    while s.begin_epoch():
        for batch in s.batches():  # one of each run
            losses = s.losses(batch)  # the forward pass of all runs
            s.backward(losses)  # adds to the gradients
            s.check(losses, batch)  # a run whose loss or gradient is not finite ends here
            s.optimizer_step()  # updates the weights, every `accumulate` batches
            s.count(batch)  # one batch more is done
            s.after_step()  # progress, checkpoints, signals
        s.end_epoch()  # of each run: evaluation, logs, the best epoch, early stopping
    s.raise_if_stopped()


class Stack:
    """Trainings of one net on images of one shape, at the same place in the same epoch.

    The parameters of the runs are views of stacked tensors (R, ...), so the checkpoint, evaluation,
    moving average and best epoch of a run work on its own. The forward and backward pass are one call
    for all runs, and the optimizers' step as few as `JointStep` needs.

    The bits of a run do not depend on the other runs in the stack: they are those of the run stacked
    with itself. For every size of a batch the first losses and gradients of the stack are compared with
    these, and where a bit differs, each run is computed with itself.
    """

    def __init__(self, trainings: Sequence[Training]) -> None:
        self.errors: dict[Training, Exception] = {}
        """The errors of runs that have left the stack."""
        self.trainings = list(trainings)
        self._all = list(trainings)
        self._gathers = _same_images(trainings)
        self._stack()

    @property
    def going(self) -> list[Training]:
        """The runs that have met no error."""
        return [t for t in self.trainings if t not in self.errors]

    def _stack(self) -> None:
        """Puts the parameters of the runs, and gradients that they have, into stacked tensors."""
        own = [dict(t.model.get_submodule("net").named_parameters()) for t in self.trainings]
        self.stacked: dict[str, Tensor] = {}
        """The parameters of all runs by their names in the net, (R, ...)."""
        self._own: dict[str, list[Tensor]] = {}
        for name in own[0]:
            self._own[name] = [parameters[name] for parameters in own]
            together = torch.stack([p.detach() for p in self._own[name]])
            for parameter, row in zip(self._own[name], together):
                parameter.data = row
            self.stacked[name] = together.requires_grad_(self._own[name][0].requires_grad)
            gradients = [p.grad for p in self._own[name] if p.grad is not None]
            if len(gradients) == len(own):  # between two batches of one update
                together.grad = torch.stack(gradients)
        batch_loss = self.trainings[0].batch_loss
        self._net, self._inputs = batch_loss.net, None if batch_loss.takes_inputs else batch_loss.input_layers
        self._loss = stacked_loss(batch_loss.objective.options["loss"])
        self._optimizers = JointStep([t.optimizer for t in self.trainings])
        self.as_one: dict[int, bool] = {}
        """Whether all runs are computed in one call, for each size of a batch. Otherwise each is computed
        with itself."""

    def _go_on_with(self, left: list[Training]) -> None:
        """Stacks the runs anew without those that are left out."""
        if left != self.trainings:
            self.trainings = left
            if left:
                self._stack()

    def begin_epoch(self) -> bool:
        """Prepares an epoch of the runs that are not over, and saves the others; False where all are."""
        for t in self.going:
            if t.over or t.state.epoch >= t.until:
                t.save()
        self._go_on_with([t for t in self.going if not (t.over or t.state.epoch >= t.until)])
        for t in self.trainings:
            t.fine_tuning.begin(t.state.epoch)
        self._clock = self._shown_at = time.perf_counter()
        return bool(self.trainings)

    def batches(self) -> Iterator[Batch]:
        """The batches that are left of the epoch: (R, N, ...), one of each run in the stack."""
        for batch in self._gathered() if self._gathers else self._collected():
            if batch.y.shape[1] not in self.as_one:
                self.as_one[batch.y.shape[1]] = self._has_the_bits_of_one(batch)
            yield batch

    def _collected(self) -> Iterator[Batch]:
        """The runs' own batches."""
        coming = {t: t.batches() for t in self.trainings}
        while batches := [batch for t in self.trainings if (batch := next(coming[t], None)) is not None]:
            yield Batch(*map(torch.stack, zip(*batches)))

    def _gathered(self) -> Iterator[Batch]:
        """The same, where all take shuffled images from one split as they are."""
        first, images = self.trainings[0], self.trainings[0].images
        dtype = first.compute.dtype if images is first.data.train else images.images.dtype
        orders = {t: shuffled(len(images), t.seed, t.state.epoch) for t in self.trainings}
        size, done = first.batch_size, first.state.step
        for start in range(done * size, len(images), size):
            if not self.trainings:
                return
            places = torch.stack([orders[t][start : start + size] for t in self.trainings])
            places = places.to(images.labels.device)
            yield Batch(images.floats(images.images[places], dtype), images.labels[places], places)

    def losses(self, batch: Batch) -> Tensor:
        """(R,) the loss of each run: the mean over its batch."""
        return self._together(batch) if self.as_one[batch.y.shape[1]] else self._apart(batch)

    def _together(self, batch: Batch) -> Tensor:
        return self._losses(self.stacked, batch)

    def _apart(self, batch: Batch) -> Tensor:
        """The losses of each run, stacked with itself alone."""
        losses = []
        for row in range(len(batch.y)):
            twice = {name: torch.stack([p[row], p[row].detach()]) for name, p in self.stacked.items()}
            losses.append(self._losses(twice, Batch(*(values[[row, row]] for values in batch)))[0])
        return torch.stack(losses)

    def _losses(self, parameters: dict[str, Tensor], batch: Batch) -> Tensor:
        x = batch.x
        if self._inputs is not None:
            x = self._inputs(x.flatten(0, 1)).unflatten(0, (len(x), -1))
        return self._loss(stacked_logits(self._net, parameters, x), batch.y)

    def _has_the_bits_of_one(self, batch: Batch) -> bool:
        """Whether each run has the same bits in one call of all as stacked with itself. Raises ConfigError
        where the loss draws random numbers, and where the first gradient of a training is not that of a
        run's own step; later ones may be so small that they are rounding alone."""
        leaves = [p for p in self.stacked.values() if p.requires_grad]
        numbers = torch.get_rng_state()
        together, apart = (
            [losses.detach(), *torch.autograd.grad(losses.sum(), leaves)]
            for losses in (self._together(batch), self._apart(batch))
        )
        if not torch.equal(torch.get_rng_state(), numbers):
            raise ConfigError(
                "train.stack: the loss draws numbers from torch's generator, which all runs would share; "
                "use stack: false"
            )
        first = self.trainings[0]
        if not first.iteration:
            alone = torch.autograd.grad(first.batch_loss(_row(batch, 0)), first.parameters)
            for gradient, of_all in zip(alone, apart[1:]):
                if (gradient - of_all[0]).abs().max() > TOLERANCE * gradient.abs().max():
                    raise ConfigError(
                        "train.stack: another gradient together than one by one; use stack: false"
                    )
        return all(a.allclose(b, rtol=0, atol=0, equal_nan=True) for a, b in zip(together, apart))

    def backward(self, losses: Tensor) -> None:
        """Adds to the gradients, of which those of the runs are views."""
        losses.sum().backward()
        for name, together in self.stacked.items():
            if together.grad is not None:
                for parameter, gradient in zip(self._own[name], together.grad.unbind()):
                    parameter.grad = gradient

    def check(self, losses: Tensor, batch: Batch) -> None:
        """Ends each run whose loss or gradient is not finite, before its weights are changed."""
        gradients = [g for p in self.stacked.values() if (g := p.grad) is not None]
        norms = torch.stack([torch.linalg.vector_norm(g.flatten(1), dim=1) for g in gradients]).sum(0)
        self._values = losses.tolist()
        sound = [math.isfinite(value + norm) for value, norm in zip(self._values, norms.tolist())]
        for row, (t, finite) in enumerate(zip(self.trainings, sound)):
            if not finite or t.train.clip is not None or t.train.accumulate > 1:  # these need its norms
                self._of_one(t, partial(t.check, self._values[row], _row(batch, row)))

    def _of_one(self, t: Training, step: Callable[[], None]) -> None:
        """A step of one run, whose error ends this run alone."""
        try:
            step()
        except Exception as error:
            self.errors[t] = error
            for parameter in t.parameters:
                parameter.grad = None  # so that its weights stay

    def optimizer_step(self) -> None:
        """Updates the weights of all runs, every `accumulate` batches."""
        complete = [t for t in self.going if t.completes_gradient()]
        if complete:
            self._optimizers.step()
            for t in complete:
                t.after_update()
            for together in self.stacked.values():
                together.grad = None

    def count(self, batch: Batch) -> None:
        """Counts a batch of each run."""
        for t, value in zip(self.trainings, self._values):
            if t not in self.errors:
                t.count(value, batch.y.shape[1])

    def after_step(self) -> None:
        """Shows how training is going, goes on without runs that ended, and saves all where that is due.
        Each run counts its share of the time."""
        now = time.perf_counter()
        for t in self.trainings:
            t.state.seconds += (now - self._clock) / len(self.trainings)
        self._clock = now
        if self.errors:
            self._go_on_with(self.going)
        if now - self._shown_at > SHOW_SECONDS:
            self._shown_at = now
            for t in self.trainings:
                t.show(t.state, t.train.epochs, t.share_done)
        if self.trainings:
            self._save_if_due()

    def _save_if_due(self) -> None:
        """Saves all runs at the same step, between two updates, and obeys signals."""
        first = self.trainings[0]
        between = (
            first.state.step in (first.steps_per_epoch, 0) or not first.state.step % first.train.accumulate
        )
        if between and (first.caught is not None or first.checkpointer.due):
            for t in self.trainings:
                t.save()
            self.raise_if_stopped()
            self._clock = time.perf_counter()

    def raise_if_stopped(self) -> None:
        """Raises Stopped for a signal that was caught. All runs are saved by then."""
        self._all[0].raise_if_stopped(self._all[0].caught)

    def end_epoch(self) -> None:
        """Ends the epoch of each run."""
        for t in self.trainings:
            self._of_one(t, t.end_epoch)


def _row(batch: Batch, row: int) -> Batch:
    """One run's batch."""
    return Batch(*(values[row] for values in batch))


def _same_images(trainings: Sequence[Training]) -> bool:
    """Whether all take the same images as they are, in an order of their own."""
    first = trainings[0]
    images, train = first.images.images, first.train
    if not isinstance(images, Tensor) or first.augment or train.balance == "sampling" or train.replay > 1:
        return False
    return all(
        t.train.shuffle
        and t.batch_size < len(t.images)
        and isinstance(t.images.images, Tensor)
        and _equal(t.images.images, images)
        and _equal(t.images.labels, first.images.labels)
        for t in trainings
    )


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.data_ptr() == other.data_ptr() or one.equal(other)
