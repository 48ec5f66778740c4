"""What LLaMA-Factory is told, and how its modules get into a worker. Its own names throughout (version 0.9.5).

LLaMA-Factory's own Ray mode has no retries, no storage path and hangs on a small cluster, so it is never turned on:
`stages.trainers.llamafactory.loop` calls its training function inside a Ray Train worker.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from runner.errors import RunnerError

if TYPE_CHECKING:
    from stages.sections.recipe import Recipe

# Arguments that the recipe has a key for, and those that say where things are or who starts the processes.
RESERVED_ARGS = {
    "seed": "seed",
    "learning_rate": "train.learning_rate",
    "num_train_epochs": "train.num_epochs",
    "max_samples": "train.max_samples",
    "lora_rank": "train.lora_rank",
    "lora_target": "train.lora_target",
    "model_name_or_path": "model.source",
    "trust_remote_code": "model.trust_remote_code",
    "dataset_dir": "dataset.source",
    "output_dir": "storage.root",
    "overwrite_output_dir": "force",
    "resume_from_checkpoint": "train.max_failures",
    "save_total_limit": "train.checkpoints.keep",
    "do_train": "pipeline",
    "use_cpu": "resources.train.gpus_per_worker",
    "local_rank": "resources.train.num_workers",
    "ray_num_workers": "resources.train.num_workers",
    "ray_init_kwargs": "cluster.address",
    "master_addr": "cluster.address",
    "master_port": "cluster.address",
    "tokenized_path": "model.chat_template",
    "enable_thinking": "model.chat_template_kwargs",
    "preserve_thinking": "model.chat_template_kwargs",
    "tool_format": "model.chat_template",
    "image_max_pixels": "model.source",
    "image_min_pixels": "model.source",
    "image_do_pan_and_scan": "model.source",
    "crop_to_patches": "model.source",
}

# LLaMA-Factory's template that renders nothing: rows come to it as tokens (`stages.trainers.llamafactory.tokens`).
NO_TEMPLATE = "empty"

# Where a recipe names none of these. They differ from LLaMA-Factory's own.
DEFAULTS = {
    "plot_loss": True,
    "logging_steps": 1,
    "logging_nan_inf_filter": False,  # which would log 0.0 for a loss that is not a number
    "save_strategy": "steps",
    "save_steps": 100,
    "report_to": "none",
    "overwrite_cache": True,
    "disable_tqdm": True,
}

# Where a recipe names none of these and workers have no GPU. The activations of a small model fit into memory, so none
# is computed twice; and attention written out is faster on CPUs than torch's fused kernel for batches of short rows.
CPU_DEFAULTS = {"disable_gradient_checkpointing": True, "flash_attn": "disabled"}

# What they change is how a training is watched, or how fast it reads its rows.
WITHOUT_EFFECT = (
    "report_to", "run_name", "disable_tqdm", "log_level", "log_level_replica", "preprocessing_num_workers",
    "dataloader_num_workers", "dataloader_pin_memory",
)  # fmt: skip

MEMORY_HINT = (
    "Lower train.args.per_device_train_batch_size or train.args.cutoff_len, or leave gradient checkpointing on "
    "(train.args.disable_gradient_checkpointing: false); train.args.gradient_accumulation_steps keeps the batch."
)

# HfArgumentParser's words for arguments that no dataclass has.
_UNKNOWN_KEYS = re.compile(r"Some keys are not used by the HfArgumentParser: \[(.*)\]")


def defaults_of(recipe: Recipe) -> dict[str, Any]:
    """The runner's defaults for the recipe's workers."""
    return DEFAULTS if recipe.resources_of("train").gpus_per_worker else {**DEFAULTS, **CPU_DEFAULTS}


def llamafactory_args(
    recipe: Recipe, *, model: str, dataset_dir: str, output_dir: str, tokens: str, start: str | None = None
) -> dict[str, Any]:
    """The recipe as LLaMA-Factory's arguments. `train.args` win over the defaults here.

    model, dataset_dir, output_dir: folders on the worker. tokens: folder of the tokenized datasets, which are all that
    it reads of the rows; it wants the name of another one. start: folder of the adapter that training continues.
    Raises RunnerError when `train.args` holds an argument that is the runner's to set.
    """
    _refuse_reserved(recipe.train.args)
    train, resources = recipe.train, recipe.resources_of("train")
    given = {name: value for name, value in train.args.items() if value is not None}
    args: dict[str, Any] = {
        "stage": train.stage,
        "finetuning_type": given.get("finetuning_type", "lora"),
        "template": NO_TEMPLATE,
        "dataset": "train",
        "learning_rate": train.learning_rate,
        "num_train_epochs": train.num_epochs,
        "max_samples": train.max_samples,
        "seed": recipe.seed,
        **defaults_of(recipe),
    }
    if args["finetuning_type"] == "lora":
        args |= {"lora_rank": train.lora_rank, "lora_target": train.lora_target}
    if start is not None and train.stage in ("dpo", "kto"):  # else its reference is the model without an adapter
        args |= {"ref_model": model, "ref_model_adapters": start}
    if not resources.gpus_per_worker:
        args["use_cpu"] = True
        if resources.most_workers > 1:
            args["ddp_backend"] = "gloo"
    where = {
        "do_train": True,
        "model_name_or_path": model,
        "trust_remote_code": recipe.model.trust_remote_code,
        "dataset_dir": dataset_dir,
        "tokenized_path": tokens,
        "output_dir": output_dir,
        "save_total_limit": train.checkpoints.keep,
        "adapter_name_or_path": start,
    }
    merged = {**args, **given, **where}
    return {name: value for name, value in merged.items() if value is not None}


def _refuse_reserved(args: dict[str, Any]) -> None:
    for name in args:
        if name in RESERVED_ARGS:
            raise RunnerError(
                f"train.args.{name}={args[name]!r} is not for a recipe to set",
                f"The runner sets it; see {RESERVED_ARGS[name]}.",
            )


def import_tuner() -> Any:
    """The module `llamafactory.train.tuner`, imported in this process with its own Ray mode off."""
    os.environ.pop("USE_RAY", None)
    with torchaudio_stand_in():
        from llamafactory.train import tuner
    return tuner


@contextmanager
def torchaudio_stand_in() -> Iterator[None]:
    """Let `llamafactory.data.mm_plugin` import where there is no torchaudio: it does so at its top, used or not.

    Whether torchaudio is there is asked before (transformers remembers the answer), and the stand-in goes afterwards,
    so nobody else takes it for the real one. It has a `__spec__`, without which `importlib.util.find_spec` raises.
    """
    from importlib.machinery import ModuleSpec
    from importlib.util import find_spec
    from types import ModuleType

    if "torchaudio" in sys.modules or find_spec("torchaudio") is not None:
        yield
        return
    from transformers.utils import is_torchaudio_available

    is_torchaudio_available()
    stand_in = ModuleType("torchaudio")
    stand_in.__spec__ = ModuleSpec("torchaudio", None)
    sys.modules["torchaudio"] = stand_in
    try:
        yield
    finally:
        sys.modules.pop("torchaudio", None)


def explain_arguments(error: Exception) -> RunnerError | None:
    """A RunnerError for an argument that LLaMA-Factory does not know, with the nearest it does; else None."""
    found = _UNKNOWN_KEYS.search(str(error))
    if not found:
        return None
    unknown = [name.strip(" '\"") for name in found.group(1).split(",")]
    known = _argument_names()
    texts = []
    for name in unknown:
        near = difflib.get_close_matches(name, known, n=2)
        texts.append(f"train.args.{name}" + (f" (did you mean {' or '.join(near)}?)" if near else ""))
    return RunnerError(
        f"LLaMA-Factory knows no {', '.join(texts)}", "`train.args` takes LLaMA-Factory's own argument names."
    )


def _argument_names() -> list[str]:
    from dataclasses import fields

    from llamafactory import hparams

    kinds = ("ModelArguments", "DataArguments", "TrainingArguments", "FinetuningArguments", "GeneratingArguments")
    return sorted({field.name for kind in kinds for field in fields(getattr(hparams, kind))})
