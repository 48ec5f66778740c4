"""What each Ray Train worker runs: LLaMA-Factory's training, with its checkpoints and progress reported to Ray.

A worker writes to a folder of its own on its node. Two kinds of checkpoints go to Ray Train's storage: one for each
checkpoint of the trainer, with all that resuming needs, and at the end one with `adapter/` and `log/`, the results.
Each is sealed (`stages.trainers.checkpoints`), so that a torn one is never resumed from. When the run is to end, the
workers save a checkpoint after the step that they are at, and stop.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.errors import RunnerError
from stages.trainers.base import ADAPTER
from stages.trainers.checkpoints import seal
from stages.trainers.failure import explain_in_worker
from stages.trainers.llamafactory import arguments as llamafactory
from stages.trainers.llamafactory.output import TRAINER_LOG, collect, keep_chat_template

_PROGRESS_EVERY_S = 0.5
_ASK_EVERY_S = 0.5

# Files of a trainer's checkpoint that resuming does not read: the tokenizer comes from the model, the rest is a pickle
# of the arguments and a model card.
_NOT_NEEDED_TO_RESUME = {
    "training_args.bin", "README.md", "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json",
    "merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
}  # fmt: skip


def train_loop(config: dict[str, Any]) -> None:
    """Train, on one of the workers. Raises RunnerError for what would fail again, RuntimeError for what may not.

    config: `args` (LLaMA-Factory's), `source` (the model's, as published), `chat_template` (its text), `progress`.
    """
    import ray.train

    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None and _is_final(checkpoint):
        return  # an earlier attempt finished, only its results were not taken over
    with _work_folder(rank, context.get_node_rank()) as work:
        reporter = Reporter(rank, world_size, config["progress"])
        try:
            args = _prepare(config["args"], checkpoint, work)
            tuner = llamafactory.import_tuner()
            tuner.run_exp(dict(args), [_callback(reporter)])
        except _Stopped:
            return
        except RunnerError:
            raise
        except Exception as error:
            begun, known = reporter.num_steps > 0, llamafactory.explain_arguments
            raise explain_in_worker(error, begun=begun, memory_hint=llamafactory.MEMORY_HINT, known=known) from error
        figures = reporter.summary()
        final = None
        if rank == 0:
            final = collect(Path(args["output_dir"]), work / "final", config["args"], config["source"], figures)
            keep_chat_template(final / ADAPTER, config["chat_template"])
        _report(figures | {"final": True}, final, rank=rank, num_parts=1)


class _Stopped(Exception):  # noqa: N818 (no error)
    """The run is to end; what was trained so far is saved."""


def _require_finite(loss: float, step: int) -> None:
    """Raise RunnerError for a loss that is no number: the weights are none either, and no later step mends them."""
    if not math.isfinite(loss):
        raise RunnerError(
            f"the loss of step {step} is {loss}: training has diverged, or the model's weights are damaged",
            "Lower train.learning_rate, or train with bf16 instead of fp16; a damaged model is fetched again when its "
            "folder below storage.cache is removed.",
        )


def _is_final(checkpoint: Any) -> bool:
    with checkpoint.as_directory() as folder:
        return (Path(folder) / ADAPTER).is_dir()


@contextmanager
def _work_folder(rank: int, node_rank: int) -> Iterator[Path]:
    """A fresh folder in Ray Train's working directory on this node, made the current one; removed at the end.

    The node's workers share the cache of tokenised data: the first makes it and the others read it.
    """
    home = Path.cwd()
    work = home / f"rank-{rank}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    os.environ["HF_DATASETS_CACHE"] = str(home / f"datasets-{node_rank}")
    os.chdir(work)
    try:
        yield work
    finally:
        os.chdir(home)
        shutil.rmtree(work, ignore_errors=True)


def _prepare(args: dict[str, Any], checkpoint: Any, work: Path) -> dict[str, Any]:
    """The arguments with the checkpoint to resume from, if there is one, as a folder on this node."""
    if checkpoint is None or args["stage"] == "ppo":  # LLaMA-Factory cannot resume PPO
        return args
    resume = work / "resume"
    checkpoint.to_directory(str(resume))
    output = work / args["output_dir"]
    output.mkdir(parents=True, exist_ok=True)
    if (resume / TRAINER_LOG).is_file():
        shutil.move(resume / TRAINER_LOG, output / TRAINER_LOG)
    resumed = {**args, "resume_from_checkpoint": str(resume)}
    if args["stage"] == "rm" and args["finetuning_type"] == "lora":  # the trainer does not load it below a value head
        resumed["adapter_name_or_path"] = str(resume)
    return resumed


@dataclass
class Reporter:
    """Follows the trainer: tells the driver how far it is, and reports its checkpoints.

    `num_steps` is the trainer's count, which goes on where a resumed training left off.
    """

    rank: int
    world_size: int
    progress: Any
    now: Callable[[], float] = time.monotonic
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
    is_stopping: bool = False
    checkpoints_s: float = 0.0
    _pending: tuple[Path, Path] | None = None

    def begin(self, args: Any, state: Any, num_samples: int | None) -> None:
        self.num_samples = num_samples
        self.num_steps = self._first_step = state.global_step
        self.total_steps = state.max_steps
        self._rows_per_step = args.train_batch_size * args.gradient_accumulation_steps * self.world_size
        self._begun_at = self._ended_at = self.now()
        self.losses = [(entry["step"], entry["loss"]) for entry in state.log_history if "loss" in entry]
        self.eval_losses = [float(entry["eval_loss"]) for entry in state.log_history if "eval_loss" in entry]
        self._tell()

    def step(self, state: Any, *, log_follows: bool) -> None:
        self.num_steps = state.global_step
        self._ended_at = self.now()
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
        self.progress.update(self.num_steps, self.total_steps, "step", loss=loss, rows_per_s=self.samples_per_s())

    def saved(self, folder: Path, output: Path) -> None:
        """The trainer has written a checkpoint. It is reported at its next event, when all callbacks are through."""
        self._pending = (folder, output)

    def flush(self, *, wait: bool = False) -> None:
        """Report the checkpoint that waits for it; every worker does so at the same step.

        Training goes on while it is uploaded, unless `wait` says that this is its end.
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
        _report({"step": self.num_steps}, folder, rank=self.rank, num_parts=self.world_size, wait=wait)
        self.checkpoints_s += self.now() - begin

    def must_stop(self, device: Any) -> bool:
        """Whether the run is to end, the same answer on every worker: the first one's, which asks now and then."""
        if self.rank == 0 and self.now() - self._asked_at >= _ASK_EVERY_S:
            self._asked_at = self.now()
            self.is_stopping = self.progress.is_stopping()
        if self.world_size > 1:
            self.is_stopping = _first_ones(self.is_stopping, device)
        return self.is_stopping

    def summary(self) -> dict[str, Any]:
        """Figures of the training. A loss is the mean since the log entry before; `train_loss` weighs them by steps.

        first_step_at: when this attempt's first step ended (Unix time, s); None when it had none to do.
        checkpoints_s: how long training stood still for checkpoints to be reported.
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
            "checkpoints_s": self.checkpoints_s,
        }


def _report(metrics: dict[str, Any], folder: Path | None, *, rank: int, num_parts: int, wait: bool = True) -> None:
    """Upload the folder to Ray Train's storage as this worker's part of a checkpoint. Every worker must call this.

    wait: until it and all reports before it are through; otherwise it is uploaded beside the training.
    """
    import ray.train

    if folder is None:
        ray.train.report(metrics)
        return
    seal(folder, rank, num_parts, metrics)
    if wait:
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(str(folder)))
        return
    # The trainer deletes its old checkpoints, and this worker its folder, whether they are uploaded or not.
    kept = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=Path.cwd().parent))
    shutil.copytree(folder, kept, copy_function=os.link, dirs_exist_ok=True)
    ray.train.report(
        metrics,
        checkpoint=ray.train.Checkpoint.from_directory(str(kept)),
        checkpoint_upload_mode=ray.train.CheckpointUploadMode.ASYNC,  # which deletes the folder in the end
    )


def _first_ones(flag: bool, device: Any) -> bool:
    """The flag of the first worker, on every one of them."""
    import torch

    shared = torch.tensor([flag], dtype=torch.uint8, device=device)
    torch.distributed.broadcast(shared, src=0)
    return bool(shared.item())


def _callback(reporter: Reporter) -> Any:
    """The reporter as a callback of transformers' trainer."""
    from transformers import TrainerCallback

    class Forward(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            rows: Any = getattr(
                kwargs.get("train_dataloader"), "dataset", None
            )  # a stream has no length, PPO no loader
            reporter.begin(args, state, len(rows) if hasattr(rows, "__len__") else None)

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            reporter.flush()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            reporter.step(state, log_follows=control.should_log)
            if reporter.must_stop(args.device) and state.global_step < state.max_steps:
                control.should_save = control.should_training_stop = True

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            reporter.log(state, logs or {})

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            reporter.saved(Path(args.output_dir, f"checkpoint-{state.global_step}"), Path(args.output_dir))

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            reporter.flush(wait=True)
            if state.global_step < state.max_steps and reporter.is_stopping:
                raise _Stopped

    return Forward()
