"""What each Ray Train worker runs: axolotl's training function, inside the loop that trainers share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from runner.errors import RunnerError
from stages.trainers.axolotl import plugin
from stages.trainers.axolotl.config import MEMORY_HINT
from stages.trainers.worker.log import log_file
from stages.trainers.worker.loop import Training, run


def train_loop(config: dict[str, Any]) -> None:
    """Train, on one of the workers: `stages.trainers.worker.loop.run`. config: `args` as of `config.axolotl_args`."""
    run(config, Training(train_by_axolotl, MEMORY_HINT, explain))


def train_by_axolotl(args: dict[str, Any], resume: Path | None, callback: Any) -> None:
    """Train on the rows of `args["tokenized_path"]` and leave the adapter or model in `args["output_dir"]`.

    resume: folder of a checkpoint to resume from. callback: of transformers' trainer.
    """
    from axolotl.common.datasets import TrainDatasetMeta
    from axolotl.train import train
    from datasets import load_from_disk
    from transformers import set_seed

    cfg = checked({**args["config"], **places(args)}, resume)
    plugin.register([callback, log_file(Path(args["output_dir"]))], args["trainer"])
    rows = load_from_disk(args["tokenized_path"])
    set_seed(cfg.seed)  # axolotl draws the adapter's weights before its trainer does this
    train(cfg=cfg, dataset_meta=TrainDatasetMeta(rows["train"], rows.get("validation")))
    if cfg.adapter:
        Path(cfg.output_dir, "config.json").unlink(missing_ok=True)  # of the base model


def places(args: dict[str, Any]) -> dict[str, Any]:
    """Folders on this worker. axolotl wants to be told of rows, though those that it trains on are handed to it."""
    rows = {"path": args["tokenized_path"], "ds_type": "arrow"}
    found = {"base_model": args["model_name_or_path"], "output_dir": args["output_dir"], "datasets": [rows]}
    return {**found, "lora_model_dir": args["start"]} if args["start"] else found


def checked(config: dict[str, Any], resume: Path | None) -> Any:
    """The configuration as axolotl's own commands prepare it for a worker. Raises RunnerError for what it refuses."""
    from axolotl.cli.config import gpu_capabilities
    from axolotl.utils.config import normalize_config, validate_config
    from axolotl.utils.dict import DictDefault
    from axolotl.utils.trainer import prepare_optim_env

    capabilities, env_capabilities = gpu_capabilities()
    cfg = validate_config(DictDefault(config), capabilities=capabilities, env_capabilities=env_capabilities)
    prepare_optim_env(cfg)
    normalize_config(cfg)
    if cfg.is_multimodal:
        raise RunnerError("train.trainer=axolotl trains models of text alone", "Set train.trainer=llamafactory.")
    cfg.use_ray = True  # which leaves signals and the process group to Ray
    cfg.plugins = [plugin.NAME]
    if resume is not None:
        cfg.resume_from_checkpoint = str(resume)
    if cfg.device == "cpu":
        cfg.device_map = None  # axolotl would name a GPU by the worker's rank
    return cfg


def explain(error: Exception) -> RunnerError | None:
    """A RunnerError for a configuration that axolotl refuses; else None."""
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return None
    found = "; ".join(f"{_key(each)}: {each['msg']}" for each in error.errors())
    return RunnerError(f"axolotl refuses {found}", "Change or remove what is named.")


def _key(error: Any) -> str:
    return ".".join(["train.args", *map(str, error["loc"])])
