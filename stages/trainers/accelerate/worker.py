"""What each Ray Train worker runs: a trainer of TRL on Accelerate, inside the loop that trainers share."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

from runner.errors import RunnerError
from stages.trainers.accelerate.config import MEMORY_HINT
from stages.trainers.accelerate.mappings import TRL
from stages.trainers.worker.log import log_file
from stages.trainers.worker.loop import Training, run

# Python's words for an argument that no field has.
_UNKNOWN = re.compile(r"unexpected keyword argument '(\w+)'")


def train_loop(config: dict[str, Any]) -> None:
    """Train, on one of the workers: `stages.trainers.worker.loop.run`. config: `args` as of `config.trl_args`."""
    run(config, Training(_train, MEMORY_HINT, explain, gathers_within=("config",)))


def _train(args: dict[str, Any], resume: Path | None, callback: Any) -> None:
    trainer = made(args, [callback, log_file(Path(args["output_dir"]))])
    trainer.train(resume_from_checkpoint=str(resume) if resume else None)
    trainer.save_model(args["output_dir"])


def made(args: dict[str, Any], callbacks: list[Any]) -> Any:
    """The trainer of TRL for the arguments, with its rows and model loaded."""
    from datasets import load_from_disk
    from transformers import AutoTokenizer

    from stages.patches.deepspeed_checkpoints import in_parts

    config_class, trainer_class = _classes(args["method"])
    rows = load_from_disk(args["tokenized_path"])
    trust = args["trust_remote_code"]
    config = _configured(config_class, args)
    return in_parts(trainer_class)(
        model=_started(args) if args["start"] else args["model_name_or_path"],
        args=config,
        train_dataset=rows["train"],
        eval_dataset=rows.get("validation"),
        processing_class=AutoTokenizer.from_pretrained(args["model_name_or_path"], trust_remote_code=trust),
        peft_config=None if args["start"] else _peft_config(args["lora"]),
        quantization_config=None if args["start"] else _quantization(args["quantization"]),
        callbacks=callbacks,
    )


def _configured(config_class: Any, args: dict[str, Any]) -> Any:
    """The configuration of TRL. Accelerate spreads no model over CPUs by itself."""
    from stages.patches.accelerate_on_cpus import deepspeed_on_cpus, fsdp_on_cpus

    given, on_cpus = args["config"], args["on_cpus"]
    if given.get("deepspeed") and on_cpus:
        deepspeed_on_cpus()
    config = config_class(
        output_dir=args["output_dir"],
        model_init_kwargs=args["model"],
        trust_remote_code=args["trust_remote_code"],
        **given,
    )
    if given.get("fsdp") and on_cpus:
        fsdp_on_cpus()
    return config


def _started(args: dict[str, Any]) -> Any:
    """The model with the adapter that training continues, which TRL takes for the reference of preferences, too."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        args["model_name_or_path"],
        trust_remote_code=args["trust_remote_code"],
        quantization_config=_quantization(args["quantization"]),
        **args["model"],
    )
    return PeftModel.from_pretrained(model, args["start"], is_trainable=True)


def _classes(method: str) -> tuple[Any, Any]:
    """(configuration, trainer)."""
    import trl

    from stages.patches import trl_prepared

    if method == "dpo":
        return trl.DPOConfig, trl_prepared.dpo_trainer()
    if method == "kto":
        return trl.KTOConfig, trl_prepared.kto_trainer()
    return trl.SFTConfig, trl.SFTTrainer


def _peft_config(lora: dict[str, Any] | None) -> Any:
    from peft import LoraConfig

    return LoraConfig(**lora) if lora else None


def _quantization(settings: dict[str, Any] | None) -> Any:
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(**settings) if settings else None


def explain(error: Exception) -> RunnerError | None:
    """A RunnerError for an argument that TRL does not know, with the nearest it does; else None."""
    found = _UNKNOWN.search(str(error)) if isinstance(error, TypeError) else None
    if not found:
        return None
    near = difflib.get_close_matches(found.group(1), TRL.table("arguments"), n=2)
    meant = f" (did you mean {' or '.join(near)}?)" if near else ""
    return RunnerError(
        f"TRL knows no train.args.{found.group(1)}{meant}", "`train.args` takes TRL's own argument names."
    )
