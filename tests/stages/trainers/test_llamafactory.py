"""Recipe keys as LLaMA-Factory's arguments, compared with golden files; no LLaMA-Factory is imported."""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import pytest

from runner.errors import RunnerError
from runner.recipe.schema import StageResources
from runner.testing import assert_golden
from stages.sections.recipe import Recipe
from stages.trainers.llamafactory.arguments import RESERVED_ARGS, llamafactory_args, torchaudio_stand_in
from stages.trainers.llamafactory.trainer import LlamaFactory
from stages.trainers.worker.environment import worker_env
from tests.paths import GOLDEN

WHERE = {
    "model": "/models/base",
    "dataset_dir": "/runs/1/ingest/train_set",
    "output_dir": "out",
    "tokens": "/runs/1/train/tokens",
}
BASE: dict[str, Any] = {
    "name": "viggo",
    "model": {"source": "org/model", "template": "qwen"},
    "dataset": {"source": "s3://viggo-ds", "prompt": {"user": "{input}", "assistant": "{output}"}},
    "serve": {"model_id": "base"},
}
ONE_GPU_EACH = {"num_workers": 4, "cpus_per_worker": 4.0, "gpus_per_worker": 1.0}
RECIPES: dict[str, dict[str, Any]] = {
    "cpu": {"train": {"args": {"disable_gradient_checkpointing": True}}},
    "two_cpu_workers_full": {
        "train": {"args": {"finetuning_type": "full", "save_strategy": "epoch"}},
        "resources": {"train": {"num_workers": 2}},
    },
    "gpus": {
        "train": {"num_epochs": 5.0, "max_samples": 1000, "args": {"cutoff_len": 2048, "bf16": True}},
        "resources": {"train": ONE_GPU_EACH},
    },
    "qlora_dpo": {
        "train": {"stage": "dpo", "lora_rank": 64, "args": {"quantization_bit": 4, "pref_beta": 0.1}},
        "resources": {"train": ONE_GPU_EACH},
    },
}


def recipe_of(**sections: Any) -> Recipe:
    return Recipe.model_validate({**BASE, **sections})


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_arguments_match_the_golden_file(name: str) -> None:
    args = llamafactory_args(recipe_of(**RECIPES[name]), **WHERE)
    assert_golden(args, GOLDEN / f"llamafactory_args_{name}.json")


def test_train_args_win_over_defaults() -> None:
    own = {"logging_steps": 7, "plot_loss": False}
    args = llamafactory_args(recipe_of(train={"args": own}), **WHERE)
    assert {name: args[name] for name in own} == own


def test_a_null_is_an_argument_that_is_not_given() -> None:
    left_out, null = recipe_of(), recipe_of(train={"args": {"finetuning_type": None, "save_steps": None}})
    assert llamafactory_args(null, **WHERE) == llamafactory_args(left_out, **WHERE)
    assert LlamaFactory().canonical(null) == LlamaFactory().canonical(left_out)


@pytest.mark.parametrize("stage", ["pt", "sft", "rm", "ppo", "dpo", "kto"])
@pytest.mark.parametrize("finetuning_type", ["lora", "oft", "freeze", "full"])
def test_passes_every_stage_and_finetuning_type(stage: str, finetuning_type: str) -> None:
    args = llamafactory_args(recipe_of(train={"stage": stage, "args": {"finetuning_type": finetuning_type}}), **WHERE)
    assert (args["stage"], args["finetuning_type"]) == (stage, finetuning_type)
    assert ("lora_rank" in args) == (finetuning_type == "lora")


@pytest.mark.parametrize("name", sorted(RESERVED_ARGS))
def test_refuses_arguments_that_are_the_runners_to_set(name: str) -> None:
    with pytest.raises(RunnerError, match=rf"train\.args\.{name}") as caught:
        llamafactory_args(recipe_of(train={"args": {name: "x"}}), **WHERE)
    assert RESERVED_ARGS[name] in caught.value.hint


def test_trust_remote_code_follows_the_model_only() -> None:
    assert llamafactory_args(recipe_of(), **WHERE)["trust_remote_code"] is False
    trusting = recipe_of(model={**BASE["model"], "trust_remote_code": True})
    assert llamafactory_args(trusting, **WHERE)["trust_remote_code"] is True


def test_worker_without_gpus_sees_none_and_has_a_thread_for_each_cpu() -> None:
    env = worker_env(StageResources(cpus_per_worker=4.0))
    assert (env["CUDA_VISIBLE_DEVICES"], env["OMP_NUM_THREADS"]) == ("", "4")
    assert worker_env(StageResources(cpus_per_worker=0.5))["OMP_NUM_THREADS"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in worker_env(StageResources(gpus_per_worker=1.0))


def test_stand_in_for_torchaudio_is_there_only_while_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    class Utils:
        @staticmethod
        def is_torchaudio_available() -> bool:
            asked.append("torchaudio" in sys.modules)
            return False

    monkeypatch.delitem(sys.modules, "torchaudio", raising=False)
    monkeypatch.setitem(sys.modules, "transformers.utils", Utils)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with torchaudio_stand_in():
        assert sys.modules["torchaudio"].__spec__ is not None
    assert "torchaudio" not in sys.modules
    assert asked == [False]
