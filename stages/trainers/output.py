"""What a finished training leaves: which of a trainer's files are the adapter, which results, which neither."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from runner.errors import RunnerError
from stages.trainers.checkpoints import ADAPTER, LOG

TRAINER_LOG = "trainer_log.jsonl"

# Weights are safetensors; the rest of a model or adapter is JSON, a chat template or a vocabulary.
_MODEL_SUFFIXES = {".safetensors", ".json", ".jinja", ".txt", ".model", ".tiktoken"}
_RESULTS = {
    TRAINER_LOG, "all_results.json", "train_results.json", "eval_results.json", "predict_results.json",
    "generated_predictions.jsonl",
}  # fmt: skip
_NEITHER = {"trainer_state.json"}
_FOLDERS = {  # of a worker
    "dataset_dir", "tokenized_path", "output_dir", "start", "adapter_name_or_path", "ref_model", "ref_model_adapters",
}  # fmt: skip


def is_result(path: Path) -> bool:
    """Whether a file of the output folder is a log, a result or a loss plot."""
    return path.name in _RESULTS or (path.suffix == ".png" and path.name.startswith("training_"))


def is_model_file(path: Path, *, code: bool = False) -> bool:
    """Whether a file of the output folder belongs to the adapter or model: no pickle, log, plot or model card.

    code: also take Python files, which a model with `trust_remote_code` needs.
    """
    if path.name in _NEITHER or is_result(path):
        return False
    return path.suffix in _MODEL_SUFFIXES or (code and path.suffix == ".py")


def collect(output: Path, final: Path, args: dict[str, Any], source: str, figures: dict[str, Any]) -> Path:
    """Move a finished output folder's files into `final/adapter/` and `final/log/`, and leave the rest.

    Nothing of this machine stays in the adapter: its config names the base model by the recipe's source, and lists
    modules in a fixed order (peft keeps them in a set), so equal trainings have equal digests. `figures` are kept as
    figures.json, because all_results.json is wrong after a resumption: the trainer then divides the last attempt's loss
    and time by the steps and rows of all. Raises RunnerError where no weights were left.
    """
    for name in (ADAPTER, LOG):
        (final / name).mkdir(parents=True)
    for path in sorted(path for path in output.iterdir() if path.is_file()):
        if is_result(path):
            shutil.move(path, final / LOG / path.name)
        elif is_model_file(path, code=args["trust_remote_code"]):
            shutil.move(path, final / ADAPTER / path.name)
    if not any((final / ADAPTER).glob("*.safetensors")):
        raise RunnerError("the training has left no weights as safetensors", "The stage's log names what was saved.")
    described = final / ADAPTER / "adapter_config.json"
    if described.is_file():
        _write(described, portable_config(json.loads(described.read_text()), source))
    _write(final / LOG / "args.json", portable_args(args, source))
    _write(final / LOG / "figures.json", figures)
    return final


def keep_chat_template(adapter: Path, text: str | None) -> None:
    """Have the adapter's folder hold the chat template that it was trained with, and none where that is not known.

    Trainers write one of their own, LLaMA-Factory also for a model that has none.
    """
    path = adapter / "chat_template.jinja"
    path.unlink(missing_ok=True)
    if text is not None:
        path.write_text(text, encoding="utf-8")


def portable_config(values: dict[str, Any], source: str) -> dict[str, Any]:
    """An adapter_config.json without the folder of its base model, and with its lists of modules in order."""
    ordered = {
        name: sorted(values[name])
        for name in ("target_modules", "modules_to_save")
        if isinstance(values.get(name), list)
    }
    return {**values, **ordered, "base_model_name_or_path": source}


def portable_args(args: dict[str, Any], source: str) -> dict[str, Any]:
    """The arguments as kept with the results: the model by its source, and no folder of the worker."""
    kept = {name: value for name, value in args.items() if name not in _FOLDERS}
    return {**kept, "model_name_or_path": source}


def log_points(log: Path) -> list[dict[str, Any]]:
    """The lines of a log folder's TRAINER_LOG. Raises OSError or ValueError when they are gone or damaged."""
    return [json.loads(line) for line in (log / TRAINER_LOG).read_text(encoding="utf-8").splitlines()]


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
