"""What of a trainer's output folder becomes the adapter, the log, or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner.errors import RunnerError
from runner.storage.artifact import scan_folder
from stages.trainers.output import collect, is_model_file

FIGURES = {"train_loss": 1.77}
ARGS = {
    "trust_remote_code": False,
    "dataset_dir": "/node/data",
    "output_dir": "out",
    "model_name_or_path": "/node/model",
}


def output_folder(folder: Path, targets: list[str], base: str) -> Path:
    (folder / "checkpoint-8").mkdir(parents=True)
    (folder / "checkpoint-8" / "optimizer.pt").write_bytes(b"pickle")
    for name in (
        "adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "merges.txt",
        "training_args.bin", "README.md", "trainer_state.json", "optimizer.pt", "modeling_x.py",
        "all_results.json", "train_results.json", "trainer_log.jsonl", "training_loss.png",
    ):  # fmt: skip
        (folder / name).write_text("{}")
    config = {"base_model_name_or_path": base, "target_modules": targets, "r": 8, "modules_to_save": None}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_sorts_files_into_adapter_and_log_and_leaves_pickles_behind(tmp_path: Path) -> None:
    final = collect(
        output_folder(tmp_path / "out", ["q_proj"], "/node/model"), tmp_path / "final", ARGS, "org/model", FIGURES
    )
    assert names(final / "adapter") == {
        "adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "tokenizer_config.json",
        "chat_template.jinja", "merges.txt",
    }  # fmt: skip
    assert names(final / "log") == {
        "all_results.json", "train_results.json", "trainer_log.jsonl", "training_loss.png", "args.json",
        "figures.json",
    }  # fmt: skip


def test_adapter_has_the_same_digest_wherever_it_was_trained(tmp_path: Path) -> None:
    digests = set()
    for name, targets in (("a", ["q_proj", "v_proj"]), ("b", ["v_proj", "q_proj"])):
        output = output_folder(tmp_path / name / "out", targets, f"/{name}/model")
        final = collect(output, tmp_path / name / "final", ARGS, "org/model", FIGURES)
        digests.add(scan_folder("checkpoint", final / "adapter").sha256)
    assert len(digests) == 1


def test_a_training_that_left_no_weights_has_failed(tmp_path: Path) -> None:
    """As of a model in shards that no library has put together: all that is there is a tokenizer."""
    output = output_folder(tmp_path / "out", [], "x")
    (output / "adapter_model.safetensors").unlink()
    with pytest.raises(RunnerError, match="has left no weights"):
        collect(output, tmp_path / "final", ARGS, "org/model", FIGURES)


def test_kept_arguments_name_no_folder_of_the_worker(tmp_path: Path) -> None:
    final = collect(output_folder(tmp_path / "out", [], "x"), tmp_path / "final", ARGS, "org/model", FIGURES)
    kept: dict[str, Any] = json.loads((final / "log" / "args.json").read_text())
    assert kept == {"trust_remote_code": False, "model_name_or_path": "org/model"}


@pytest.mark.parametrize("name", ["pytorch_model.bin", "optimizer.pt", "rng_state.pth", "scheduler.pt", "README.md"])
def test_never_takes_a_pickle_for_a_model_file(name: str) -> None:
    assert not is_model_file(Path(name), code=True)


def test_takes_python_files_only_of_a_trusted_model() -> None:
    assert not is_model_file(Path("modeling_x.py"))
    assert is_model_file(Path("modeling_x.py"), code=True)
