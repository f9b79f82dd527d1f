"""The loop. What varies (objective, optimizer, schedule, augmentations, rules) arrives as an argument."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from stresslens.config import registry
from stresslens.config.schema import FineTune, Train
from stresslens.core.data import Batch, Data
from stresslens.core.devices import ComputeConfig
from stresslens.core.distributed import ALONE, ProcessGroup
from stresslens.core.draws import Draws, mix
from stresslens.core.errors import ConfigError, Stopped, StresslensError, TrainingDiverged
from stresslens.core.layers import pooled_first
from stresslens.core.run_folder import RunFolder
from stresslens.core.types import Scheduler, Step, reported
from stresslens.evaluation import scores
from stresslens.training import best_epoch
from stresslens.training.batch_loss import augmentation, objective_for, prepared
from stresslens.training.fine_tuning import FineTuning
from stresslens.training.state import TrainingState
from stresslens.training.tracking import Tracking

Show = Callable[["TrainingState", int, float], None]
"""Called a few times a second: where training stands, how many epochs there are, and the share of
them that is done."""

SHOW_SECONDS = 0.25


def fit(t: Training) -> None:
    """Trains until the last epoch (or `until`), an early stop or a signal.

    Raises TrainingDiverged at the first loss or gradient that is not finite, and Stopped after
    saving when a signal came.
    """
    while not (t.over or t.state.epoch >= t.until):
        t.tuning.begin(t.state.epoch)
        for batch in t.batches():
            loss = t.loss_of(batch)
            t.backward(loss)
            t.reduce_and_check(loss, batch)
            t.update()
            t.after_step()
        t.end_epoch()
    t.save()
    t.raise_if_stopped(t.caught)


class Training:
    """One training under way: the parts that the loop calls, and where it stands."""

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
    ) -> None:
        """`model` is a net behind its input layers (core.layers.with_input_layers); `group` the
        processes that share each batch.

        With `until` training rests after so many epochs, of the `train.epochs` that schedules are
        laid out for. Raises ConfigError when a rule needs a missing split.
        """
        self.model = compute.place(model)
        self.data, self.train, self.compute, self.seed, self.folder, self.show = (
            data,
            train,
            compute,
            seed,
            folder,
            show,
        )
        self.group, self.tracking, self.until = group, Tracking(), until or train.epochs
        self.state = TrainingState()
        self.objective_state: dict[str, Tensor] = {}
        self.carried: dict[str, Tensor] = {}
        self.size = len(data.train) if train.batch_size == "full" else min(train.batch_size, len(data.train))
        self.steps_per_epoch = math.ceil(len(data.train) / self.size) * train.replay
        self.select, self.watch = best_epoch.selection_rules(train, data, base=base)

        normed = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
        if normed and (len(data.train) - 1) % self.size == 0:
            raise ConfigError(
                f"batch norm cannot train on a batch of one image, which {len(data.train)} images in batches of {self.size} leave; "
                f"set train.batch_size to {self.size + 1}"
            )
        self.tuning = FineTuning(self.model, train.fine_tune or FineTune(), data.shape)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        if not self.parameters:
            raise ConfigError("the model has no parameters to train")
        optimized = self.tuning.parameters(train.lr)
        self.optimizer: torch.optim.Optimizer = registry.resolve("optimizers", train.optimizer, base=base)(
            optimized, train.lr
        )
        if not isinstance(self.optimizer, torch.optim.Optimizer):
            raise ConfigError(
                f"the optimizer {train.optimizer!r} returned {self.optimizer!r:.60}; expected a torch.optim.Optimizer"
            )
        updates_per_epoch = math.ceil(self.steps_per_epoch / train.accumulate)
        schedule = registry.resolve("schedules", train.schedule, base=base)
        self.schedule: Scheduler = schedule(
            self.optimizer, train.epochs * updates_per_epoch, updates_per_epoch
        )
        if not all(hasattr(self.schedule, part) for part in ("step", "state_dict", "load_state_dict")):
            raise ConfigError(
                f"the schedule {train.schedule!r} returned {self.schedule!r:.60}; expected a torch LRScheduler"
            )
        self.loss: Any = registry.resolve("losses", train.loss, base=base)
        classes = len(data.classes)
        self.augment = [augmentation(value, base=base, classes=classes) for value in train.augment]
        objective = objective_for(train, data.train.labels, base=base, classes=classes)
        robust = self.select == "robust"
        self.robust_accuracy = (
            best_epoch.robust_accuracy(objective, data.validation, group=group) if robust else None
        )
        self.images, loss_of = prepared(
            pooled_first(self.model),
            data.train,
            objective,
            compute=compute,
            augmented=bool(self.augment),
            step=self._step,
        )
        self.loss_of = group.of_part(loss_of)
        self.average = AveragedModel(self.model, multi_avg_fn=_ema(train.ema)) if train.ema else None
        self.best: dict[str, Tensor] = {}
        self.signals: list[int] = []
        """Those that were noted, for `after_step`, which saves first."""
        self._gradients: list[Tensor] = []
        self._norms: list[float] = []
        self._clock = self._saved_at = self._shown_at = time.perf_counter()

    @property
    def over(self) -> bool:
        return self.state.epoch >= self.train.epochs or bool(self.state.stopped)

    @property
    def iteration(self) -> int:
        """Batches shown since the start."""
        return self.state.epoch * self.steps_per_epoch + self.state.step

    @property
    def caught(self) -> int | None:
        return self.signals[-1] if self.signals else None

    @property
    def lr(self) -> float:
        """The learning rate, of several the highest."""
        return max(float(group["lr"]) for group in self.optimizer.param_groups)

    @property
    def share_done(self) -> float:
        return (self.state.epoch + self.state.step / self.steps_per_epoch) / self.train.epochs

    @property
    def evaluated(self) -> nn.Module:
        """The model that is watched, selected and kept: the moving average where there is one."""
        return self.average.module if self.average is not None else self.model

    def batches(self) -> Iterator[Batch]:
        """What is left of the running epoch, each batch `replay` times in a row."""
        p, replay = self.state, self.train.replay
        done, again = divmod(p.step, replay)
        fresh = self.images.batches(
            self.size,
            seed=self.seed,
            shuffle=self.train.shuffle,
            balanced=self.train.balance == "sampling",
            epoch=p.epoch,
            start_step=done,
            dtype=self.compute.dtype,
            augment=self.augment,
            part=self.group.part,
        )
        for batch in fresh:
            for _ in range(replay - again):
                self.group.reseed(self.seed, p.epoch, p.step)
                yield batch
            again = 0

    def backward(self, loss: Tensor) -> None:
        """Adds to the gradients; an objective that wrote them itself returns a loss without a graph."""
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]

    def reduce_and_check(self, loss: Tensor, batch: Batch) -> None:
        """Counts the loss in, of the parts of all processes. Raises TrainingDiverged, before any
        weight is touched, unless it and every gradient are finite."""
        if not isinstance(loss, Tensor) or loss.ndim:
            raise ConfigError(f"the objective or the loss returned {loss!r:.60}; expected a scalar tensor")
        value, size = self.group.combine(self.parameters, loss, len(batch.y), self.objective_state)
        self._gradients = [g for p in self.parameters if (g := p.grad) is not None]
        norms = torch._foreach_norm(self._gradients)
        self._norms = torch.stack(norms).tolist() if loss.is_cuda else [norm.item() for norm in norms]
        if not math.isfinite(value) or not math.isfinite(sum(self._norms)):
            self._diverged(value, batch)
        p = self.state
        p.last_loss = value
        p.loss_sum += value * size
        p.images += size
        p.step += 1

    def update(self) -> None:
        """One optimizer step at the end of each group of `accumulate` batches; the last group of an
        epoch may be smaller."""
        p, group = self.state, self.train.accumulate
        in_group = (p.step - 1) % group + 1
        if in_group < group and p.step < self.steps_per_epoch:
            return
        if in_group > 1:
            torch._foreach_div_(self._gradients, in_group)
            self._norms = [norm / in_group for norm in self._norms]
        if self.train.clip is not None:
            norm = math.hypot(*self._norms)
            if norm > self.train.clip:
                torch._foreach_mul_(self._gradients, self.train.clip / norm)
        self.optimizer.step()
        self.schedule.step()
        for parameter in self.parameters:
            parameter.grad = None
        p.updates += 1
        if self.average is not None:
            self.average.update_parameters(self.model)

    def after_step(self) -> None:
        """Shows progress, writes a checkpoint every `checkpoint_seconds`, and obeys signals:
        between updates, never inside one."""
        now = time.perf_counter()
        self.state.seconds += now - self._clock
        self._clock = now
        self.tracking.after_step(self.iteration, self.state.last_loss, self.lr)
        if now - self._shown_at > SHOW_SECONDS:
            self._shown_at = now
            self.show(self.state, self.train.epochs, self.share_done)
        if self.state.step % self.train.accumulate and self.state.step < self.steps_per_epoch:
            return
        caught, due = self.group.agreed(self.caught, now - self._saved_at >= self.train.checkpoint_seconds)
        if caught is not None or due:
            self.save()
            self.raise_if_stopped(caught)

    def raise_if_stopped(self, caught: int | None) -> None:
        """Raises Stopped if a signal came; what is done is saved by then."""
        if caught is not None:
            name, epoch = signal.Signals(caught).name, self.state.epoch
            raise Stopped(
                f"stopped by {name} after {epoch} epochs; saved, the same command goes on from here", caught
            )

    def end_epoch(self) -> None:
        """Closes the epoch: evaluation and a line of metrics where they are due, the best weights,
        the stopping rules."""
        p, train = self.state, self.train
        p.epoch += 1
        p.step = 0
        if (
            train.stop
            and train.stop.loss_change
            and abs(p.last_loss - p.last_loss_before) < train.stop.loss_change
        ):
            p.stopped = f"the last batch's loss changed by less than {train.stop.loss_change:g}"
        p.last_loss_before = p.last_loss
        due = self.watch and (p.epoch % train.evaluate_every == 0 or self.over)
        seen = self._evaluate() if due else {}
        if due or p.epoch % train.log_every == 0 or self.over:
            line = {
                "epoch": p.epoch,
                "loss": p.loss_sum / p.images,
                "last_loss": p.last_loss,
                "lr": self.lr,
                **seen,
            }
            figures = reported(self.objective_state)
            line |= {"objective": figures} if figures else {}
            self.append("metrics", line)
            self.append("timings", {"epoch": p.epoch, "seconds": p.seconds})
            self.tracking.after_epoch(self.iteration, line, self.evaluated.get_submodule("net"))
        p.loss_sum, p.images = 0.0, 0
        self._clock = time.perf_counter()

    def chosen(self) -> dict[str, Tensor]:
        """The net's weights of the chosen epoch: the best by validation, or the last."""
        return self.best if self.best else _copied(self.evaluated)

    @property
    def chosen_epoch(self) -> int:
        return self.state.best_epoch if self.best else self.state.epoch

    def save(self) -> None:
        self.write(
            {
                "position": asdict(self.state),
                "net": self.model.get_submodule("net").state_dict(),
                "average": self.average.state_dict() if self.average is not None else None,
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "objective": self.objective_state,
                "carried": {
                    k: self.group.gather(self.carried.get(k, torch.empty(0)))
                    for k in self.group.broadcast_object([*self.carried])
                },
                "best": self.best,
                "random": torch.get_rng_state(),
                "cuda_random": torch.cuda.get_rng_state()
                if torch.device(self.compute.device).type == "cuda"
                else None,
            }
        )
        self._saved_at = self._clock = time.perf_counter()

    def write(self, state: dict[str, Any]) -> None:
        self.folder.save_checkpoint(state)

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to a checkpoint, written by however many processes."""
        try:
            self.state = TrainingState(**state["position"])
            self.state.best = tuple(self.state.best)  # type: ignore[assignment]
            self.model.get_submodule("net").load_state_dict(state["net"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
            self.objective_state.update({k: v.to(self.compute.device) for k, v in state["objective"].items()})
            rank, world = self.group.part
            self.carried.update(
                {k: v[rank::world].to(self.compute.device) for k, v in state["carried"].items()}
            )
            self.best = state["best"]
            torch.set_rng_state(state["random"])
            if state["cuda_random"] is not None and torch.cuda.is_available():
                torch.cuda.set_rng_state(state["cuda_random"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            place = self.folder.checkpoint
            raise ConfigError(
                f"{place} does not belong to this model and configuration ({error}); move it away to start anew"
            ) from error

    def cut_logs(self) -> None:
        """Back to what they held when the checkpoint was written."""
        for path, size in (
            (self.folder.metrics, self.state.metrics_bytes),
            (self.folder.timings, self.state.timings_bytes),
        ):
            if path.exists():
                os.truncate(path, min(size, path.stat().st_size))

    def start_logs(self) -> None:
        """Empties what an attempt that never reached its first checkpoint may have logged."""
        self.folder.metrics.unlink(missing_ok=True)
        self.folder.timings.unlink(missing_ok=True)

    def _evaluate(self) -> dict[str, dict[str, float]]:
        p = self.state
        self.group.broadcast(self.evaluated.buffers())
        splits = {name: self.data.splits[name] for name in self.watch}
        seen = {
            name: scores.watched(self.evaluated, s, self.loss, group=self.group) for name, s in splits.items()
        }
        p.reads_of_test += "test" in seen
        if self.select != "last":
            if self.robust_accuracy is not None:
                seen["validation"]["robust"] = self.robust_accuracy(self.evaluated)
            seen = self.group.broadcast_object(seen)
            rank = best_epoch.rank(self.select, seen["validation"])
            p.evaluations_since_best += 1
            if rank > p.best:
                p.best, p.best_epoch, p.evaluations_since_best = rank, p.epoch, 0
                self.best = _copied(self.evaluated)
            patience = self.train.stop.patience if self.train.stop else None
            if patience is not None and p.evaluations_since_best >= patience:
                p.stopped = f"no better {best_epoch.SELECTION_NAMES[self.select]} on validation in {patience} evaluations"
        return seen

    def append(self, log: str, line: dict[str, Any]) -> None:
        path: Path = getattr(self.folder, log)
        try:
            with path.open("ab") as file:
                file.write(json.dumps(line).encode() + b"\n")
                setattr(self.state, f"{log}_bytes", file.tell())
        except OSError as error:
            raise StresslensError(
                f"cannot write {path}: {error.strerror}; the last checkpoint is unharmed"
            ) from error

    def _step(self, index: Tensor) -> Step:
        p = self.state
        draws = Draws(mix(self.seed, p.epoch, 1, p.step % self.train.replay), index)
        return Step(
            draws, p.epoch, self.share_done, self.objective_state, p.step, self.steps_per_epoch, self.carried
        )

    def _diverged(self, loss: float, batch: Batch) -> None:
        p = self.state
        images = sorted(self.group.gather(batch.places).tolist())
        shown = ", ".join(map(str, images[:8])) + (f", … ({len(images)} in all)" if len(images) > 8 else "")
        what = f"the loss is {loss}" if not math.isfinite(loss) else "a gradient is not finite"
        if (
            all(bool(torch.isfinite(v).all()) for v in self.model.state_dict().values())
            and p.step % self.train.accumulate == 0
        ):
            self.save()
        raise TrainingDiverged(
            f"{what} in epoch {p.epoch + 1}, batch {p.step + 1}, at the training images {shown}. "
            f"Lower train.lr (now {self.train.lr:g}) or set train.clip"
            + (
                f". The last good weights are in {self.folder.checkpoint}"
                if self.folder.checkpoint.exists()
                else ""
            ),
            images,
        )


def _ema(decay: float) -> Any:
    return get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: value.detach().cpu().clone() for name, value in model.get_submodule("net").state_dict().items()
    }
