"""Follows a training by transformers' trainer: progress, figures, checkpoints, and whether it is to stop."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from runner.errors import RunnerError
from stages.trainers.output import TRAINER_LOG
from stages.trainers.worker.report import first_ones, report

_PROGRESS_EVERY_S = 0.5
_ASK_EVERY_S = 0.5
_LOOK_EVERY_S = 2.0
_TRAINED_BY_SAVED = 20.0  # the least time between checkpoints saved by time, as a multiple of what the last one took

# Files of a trainer's checkpoint that resuming does not read: the tokenizer comes from the model, the rest is a pickle
# of the arguments, a model card, and programs of DeepSpeed.
_NOT_NEEDED_TO_RESUME = {
    "training_args.bin", "README.md", "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json",
    "merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "zero_to_fp32.py",
    "zero_to_torch.py",
}  # fmt: skip


def _require_finite(loss: float, step: int) -> None:
    """Raise RunnerError for a loss that is not a number: no later step corrects the weights."""
    if not math.isfinite(loss):
        raise RunnerError(
            f"the loss of step {step} is {loss}: training has diverged, or the model's weights are damaged",
            "Lower train.learning_rate, or train with bf16 instead of fp16; a damaged model is fetched again when its "
            "folder below storage.cache is removed.",
        )


class Seen(NamedTuple):
    """What is to be done after a step. is_stopping: the run is to end. is_leaving: a worker's node has just been told
    that it is taken away. is_due: it is time for a checkpoint."""

    is_stopping: bool
    is_leaving: bool
    is_due: bool


@dataclass
class Reporter:
    """Follows the trainer: tells the driver how far it is, and reports its checkpoints.

    `num_steps` is the trainer's count, which continues where a resumed training stopped. most_workers: of the training,
    whose nodes may come and go; None: as many as there are. notice: what Ray knows of nodes that are about to be taken
    away, None for nothing; every worker must ask as often. None where no node is. save_every_s: seconds after a
    checkpoint until the next is due, 0 for never.
    """

    rank: int
    world_size: int
    progress: Any
    now: Callable[[], float] = time.monotonic
    most_workers: int | None = None
    notice: Callable[[], Any] | None = None
    save_every_s: float = 0.0
    num_steps: int = 0
    total_steps: int = 0
    num_samples: int | None = None
    losses: list[tuple[int, float]] = field(default_factory=list)
    eval_losses: list[float] = field(default_factory=list)
    _rows_per_step: int = 1
    _begun_at: float = 0.0
    _first_step: int = 0
    _ended_at: float = 0.0
    _first_step_at: float | None = None
    _told_at: float = float("-inf")
    _asked_at: float = float("-inf")
    _looked_at: float = float("-inf")
    is_stopping: bool = False
    is_leaving: bool = False
    num_checkpoints: int = 0
    checkpoints_s: float = 0.0
    _saved_at: float = 0.0
    _saving_s: float = 0.0
    _worked_at: float = 0.0
    _pending: tuple[Path, Path] | None = None

    def begin(self, args: Any, state: Any, num_samples: int | None) -> None:
        self.num_samples = num_samples
        self.num_steps = self._first_step = state.global_step
        self.total_steps = state.max_steps
        self._rows_per_step = args.train_batch_size * args.gradient_accumulation_steps * self.world_size
        self._begun_at = self._ended_at = self._worked_at = self._saved_at = self.now()
        self.losses = [(entry["step"], entry["loss"]) for entry in state.log_history if "loss" in entry]
        self.eval_losses = [float(entry["eval_loss"]) for entry in state.log_history if "eval_loss" in entry]
        self._tell()

    def step(self, state: Any, *, log_follows: bool) -> None:
        self.num_steps = state.global_step
        self._ended_at = self._worked_at = self.now()
        self._first_step_at = self._first_step_at or time.time()
        if not log_follows:
            self._tell_now_and_then()

    def log(self, state: Any, logs: dict[str, Any]) -> None:
        if "loss" in logs:
            _require_finite(float(logs["loss"]), state.global_step)
            self.losses.append((state.global_step, float(logs["loss"])))
            self._tell_now_and_then()
        if "eval_loss" in logs:
            self.eval_losses.append(float(logs["eval_loss"]))
        self._worked_at = self.now()

    def evaluated(self) -> None:
        """The trainer has evaluated: what follows may be a checkpoint."""
        self._worked_at = self.now()

    def samples_per_s(self) -> float | None:
        """Rows a second of this attempt, over all workers."""
        elapsed = self._ended_at - self._begun_at
        done = self.num_steps - self._first_step
        return done * self._rows_per_step / elapsed if done and elapsed > 0 else None

    def _tell_now_and_then(self) -> None:
        if self.now() - self._told_at >= _PROGRESS_EVERY_S or self.num_steps == self.total_steps:
            self._tell()

    def _tell(self) -> None:
        if self.rank:
            return
        self._told_at = self.now()
        loss = self.losses[-1][1] if self.losses else None
        figures: dict[str, Any] = {"loss": loss, "rows_per_s": self.samples_per_s()}
        if self.most_workers not in (None, self.world_size):
            figures["workers"] = f"{self.world_size} of {self.most_workers}"
        self.progress.update(self.num_steps, self.total_steps, "step", **figures)

    def saved(self, folder: Path, output: Path) -> None:
        """The trainer has written a checkpoint. It is reported at its next event, when all callbacks are through."""
        self._pending = (folder, output)
        self._saved_at = self.now()
        self._saving_s = self._saved_at - self._worked_at
        self.checkpoints_s += self._saving_s

    def flush(self, *, wait: bool = False) -> None:
        """Report the checkpoint that waits for it; every worker does so at the same step.

        Training continues while it is uploaded, unless `wait` says that this is its end.
        """
        if self._pending is None:
            return
        (folder, output), self._pending = self._pending, None
        for name in _NOT_NEEDED_TO_RESUME:
            (folder / name).unlink(missing_ok=True)
        if self.rank == 0 and (output / TRAINER_LOG).is_file():
            shutil.copyfile(output / TRAINER_LOG, folder / TRAINER_LOG)
        folder.mkdir(exist_ok=True)  # a rank of a trainer that saves nothing on it still reports its part
        begin = self.now()
        report({"step": self.num_steps}, folder, rank=self.rank, num_parts=self.world_size, wait=wait)
        self._saving_s += self.now() - begin
        self.checkpoints_s += self.now() - begin
        self.num_checkpoints += 1

    def look(self, device: Any) -> Seen:
        """What is to be done: the same on every worker. The first one asks, and looks, now and then."""
        is_looking, is_due = False, self.rank == 0 and self._is_due()
        if self.rank == 0 and self.now() - self._asked_at >= _ASK_EVERY_S:
            self._asked_at = self.now()
            self.is_stopping = self.progress.is_stopping()
        if self.rank == 0 and self.notice and not self.is_leaving and self.now() - self._looked_at >= _LOOK_EVERY_S:
            self._looked_at, is_looking = self.now(), True
        if self.world_size > 1:
            self.is_stopping, is_looking, is_due = first_ones((self.is_stopping, is_looking, is_due), device)
        if is_looking and self.notice is not None:
            self.is_leaving = self.notice() is not None
        return Seen(self.is_stopping, is_looking and self.is_leaving, is_due)

    def _is_due(self) -> bool:
        least = max(self.save_every_s, _TRAINED_BY_SAVED * self._saving_s)
        return self.save_every_s > 0 and self.now() - self._saved_at >= least

    def summary(self) -> dict[str, Any]:
        """Figures of the training. A loss is the mean since the log entry before; `train_loss` weighs them by steps.

        first_step_at: when this attempt's first step ended (Unix time, s); None when it had none to do.
        checkpoints_s: how long training stood still for checkpoints to be written, sealed and handed to the upload.
        """
        weighted, before = 0.0, 0
        for step, loss in self.losses:
            weighted += loss * (step - before)
            before = step
        return {
            "num_steps": self.num_steps,
            "num_samples": self.num_samples,
            "num_workers": self.world_size,
            "train_loss": weighted / before if before else None,
            "loss_first": self.losses[0][1] if self.losses else None,
            "loss_last": self.losses[-1][1] if self.losses else None,
            "eval_loss_last": self.eval_losses[-1] if self.eval_losses else None,
            "eval_loss_best": min(self.eval_losses, default=None),
            "samples_per_s": self.samples_per_s(),
            "train_runtime_s": self._ended_at - self._begun_at,
            "resumed_at_step": self._first_step or None,
            "first_step_at": self._first_step_at,
            "num_checkpoints": self.num_checkpoints,
            "checkpoints_s": self.checkpoints_s,
        }
