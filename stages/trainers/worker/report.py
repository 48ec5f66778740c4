"""Reports of a worker to Ray Train: metrics, and its sealed part of a checkpoint."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.trainers.checkpoints import ADAPTER, seal


def report(metrics: dict[str, Any], folder: Path | None, *, rank: int, num_parts: int, wait: bool = True) -> None:
    """Upload the folder to Ray Train's storage as this worker's part of a checkpoint. Every worker must call this.

    wait: until it and all reports before it are through; otherwise it is uploaded while training continues.
    """
    import ray.train

    if folder is None:
        ray.train.report(metrics)
        return
    seal(folder, rank, num_parts, metrics, ray.train.get_context().get_experiment_name())
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


def first_ones(flags: Sequence[bool], device: Any) -> list[bool]:
    """The flags of the first worker, on every one of them."""
    import torch

    shared = torch.tensor(flags, dtype=torch.uint8, device=device)
    torch.distributed.broadcast(shared, src=0)
    return [bool(flag) for flag in shared.tolist()]


def is_final(checkpoint: Any) -> bool:
    """Whether an earlier attempt reported it with its results."""
    with checkpoint.as_directory() as folder:
        return (Path(folder) / ADAPTER).is_dir()
