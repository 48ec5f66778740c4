"""What each Ray Train worker runs: a trainer's training, with its checkpoints and progress reported to Ray.

A worker writes to a folder of its own on its node. Two kinds of checkpoints go to Ray Train's storage: one for each
checkpoint of the trainer, with all that resuming needs, and at the end one with `adapter/` and `log/`, the results.
Each is sealed (`stages.trainers.checkpoints`), so that a corrupt one is never resumed from. When the run is to end, the
workers save a checkpoint after the step that they are at, and stop.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.errors import RunnerError
from stages.trainers.checkpoints import ADAPTER
from stages.trainers.failure import explain_in_worker
from stages.trainers.output import TRAINER_LOG, collect, keep_chat_template
from stages.trainers.worker.callback import StoppedError, callback
from stages.trainers.worker.folder import work_folder
from stages.trainers.worker.report import is_final, report
from stages.trainers.worker.reporter import Reporter
from stages.trainers.worker.size import for_workers


@dataclass(frozen=True)
class Training:
    """A trainer's own part of a worker.

    train: called with the arguments, the folder of the checkpoint to resume from (None for none) and the reporter's
    callback; leaves its files in `args["output_dir"]`. known: the trainer's own mistakes as RunnerErrors, None for
    others. can_resume: whether it can resume a training with these arguments. gathers_within: names of the mappings,
    one in the other, that hold its argument of gathered batches.
    """

    train: Callable[[dict[str, Any], Path | None, Any], None]
    memory_hint: str
    known: Callable[[Exception], RunnerError | None]
    can_resume: Callable[[dict[str, Any]], bool] = lambda args: True
    gathers_within: tuple[str, ...] = ()


def run(config: dict[str, Any], training: Training) -> None:
    """Train, on one of the workers. Raises RunnerError for what would fail again, RuntimeError for what may not.

    config: `args` (of the trainer's `arguments`, with `output_dir` and `trust_remote_code`), `source` (the model's, as
    published), `chat_template` (its text), `progress`, `most_workers` (that a step is made for), `nodes_may_go`,
    `save_every_s` (of `train.checkpoints.every_s`).
    """
    import ray.train

    context = ray.train.get_context()
    rank, now = context.get_world_rank(), context.get_world_size()
    args = for_workers(config["args"], training.gathers_within, config["most_workers"], now)
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None and is_final(checkpoint):
        return  # an earlier attempt finished, but its results were not kept
    with work_folder(ray.get_runtime_context().get_job_id(), context.get_node_rank()) as work:
        notice = ray.train.get_preemption_info if config["nodes_may_go"] else None
        can_resume = training.can_resume(args) and not weights_only(args)
        reporter = Reporter(
            rank, now, config["progress"], most_workers=config["most_workers"], notice=notice,
            save_every_s=config["save_every_s"] if can_resume else 0.0,
        )  # fmt: skip
        try:
            resume = fetched(checkpoint, work, args) if can_resume else None
            training.train(dict(args), resume, callback(reporter))
        except StoppedError:
            return
        except RunnerError:
            raise
        except Exception as error:
            begun, hint = reporter.num_steps > 0, training.memory_hint
            raise explain_in_worker(error, begun=begun, memory_hint=hint, known=training.known) from error
        require_a_step(reporter.num_steps)
        figures = reporter.summary()
        final = None
        if rank == 0:
            final = collect(Path(args["output_dir"]), work / "final", args, config["source"], figures)
            keep_chat_template(final / ADAPTER, config["chat_template"])
        report(figures | {"final": True}, final, rank=rank, num_parts=1)


def require_a_step(num_steps: int) -> None:
    """Raise RunnerError where a training has learned nothing, which transformers' trainer tells in its log alone."""
    if not num_steps:
        raise RunnerError(
            "the training has made no step, so nothing is learned: the rows are fewer than the batches of a step",
            "Set train.args.dataloader_drop_last=false, or a smaller batch, or give more rows.",
        )


def weights_only(args: Mapping[str, Any]) -> bool:
    """Whether checkpoints lack the optimizer's state, without which a resumed training would be another one."""
    return any(bool(each.get("save_only_model")) for each in (args, args.get("config") or {}))


def fetched(checkpoint: Any, work: Path, args: dict[str, Any]) -> Path | None:
    """The checkpoint to resume from as a folder on this node, its log copied to the output folder; None for none.

    One in a local file system is read where it is: every worker would copy the parts of all.
    """
    from pyarrow.fs import LocalFileSystem

    if checkpoint is None:
        return None
    is_here, output = isinstance(checkpoint.filesystem, LocalFileSystem), work / args["output_dir"]
    resume = Path(checkpoint.path) if is_here else work / "resume"
    if not is_here:
        checkpoint.to_directory(str(resume))
    output.mkdir(parents=True, exist_ok=True)
    if (resume / TRAINER_LOG).is_file():
        shutil.copyfile(resume / TRAINER_LOG, output / TRAINER_LOG)
    return resume
