"""What each Ray Train worker runs: LLaMA-Factory's training function, inside the loop that trainers share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stages.trainers.llamafactory import arguments as llamafactory
from stages.trainers.llamafactory.images import image_args
from stages.trainers.worker.loop import Training, run


def train_loop(config: dict[str, Any]) -> None:
    """Train, on one of the workers: `stages.trainers.worker.loop.run`. config: `args` are LLaMA-Factory's."""
    run(config, Training(_train, llamafactory.MEMORY_HINT, llamafactory.explain_arguments, _can_resume))


def _train(args: dict[str, Any], resume: Path | None, callback: Any) -> None:
    tuner = llamafactory.import_tuner()
    tuner.run_exp(resumed({**args, **image_args(args["model_name_or_path"])}, resume), [callback])


def _can_resume(args: dict[str, Any]) -> bool:
    return bool(args["stage"] != "ppo")  # LLaMA-Factory cannot resume it


def resumed(args: dict[str, Any], resume: Path | None) -> dict[str, Any]:
    """The arguments with the checkpoint to resume from, if there is one."""
    if resume is None:
        return args
    more = {"resume_from_checkpoint": str(resume)}
    if args["stage"] == "rm" and args["finetuning_type"] == "lora":  # the trainer does not load it below a value head
        more["adapter_name_or_path"] = str(resume)
    return {**args, **more}
