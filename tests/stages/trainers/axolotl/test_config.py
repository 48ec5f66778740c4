"""Recipe keys as axolotl's configuration, compared with golden files, and rows as its columns. Nothing imports it."""

from __future__ import annotations

from typing import Any

import pytest

from runner.errors import RunnerError
from runner.recipe.schema import StageResources
from runner.testing import assert_golden
from stages.data.example import Example
from stages.models.chat_template import ChatTemplate
from stages.models.learned import NO_LOSS
from stages.sections.model import Architecture
from stages.sections.recipe import Recipe
from stages.trainers.axolotl.config import OF_THE_RUNNER, axolotl_args
from stages.trainers.axolotl.mappings import AXOLOTL, RESERVED_ARGS
from stages.trainers.axolotl.plugin import require_all_workers, require_same_vocabulary
from stages.trainers.axolotl.setup import setup_of
from stages.trainers.axolotl.tokens import AxolotlEncoder, rules_of
from stages.trainers.axolotl.trainer import Axolotl
from stages.trainers.axolotl.values import SAME, Same
from stages.trainers.axolotl.worker import explain
from stages.trainers.memory import train_memory
from tests.paths import GOLDEN
from tests.stages.models.families import tokenizer_of

WHERE = {
    "model": "/models/base",
    "dataset_dir": "/runs/1/ingest/train_set",
    "output_dir": "out",
    "tokens": "/runs/1/train/tokens",
}
BASE: dict[str, Any] = {
    "name": "viggo",
    "model": {"source": "org/model"},
    "dataset": {"source": "s3://viggo-ds", "prompt": {"user": "{input}", "assistant": "{output}"}},
    "serve": {"model_id": "base"},
}
ONE_GPU_EACH = {"num_workers": 4, "cpus_per_worker": 4.0, "gpus_per_worker": 1.0}
RECIPES: dict[str, dict[str, Any]] = {
    "cpu_by_llamafactorys_names": {
        "train": {
            "args": {
                "cutoff_len": 256,
                "per_device_train_batch_size": 4,
                "disable_gradient_checkpointing": True,
                "flash_attn": "disabled",
                "lr_scheduler_type": "cosine",
            }
        },
    },
    "two_cpu_workers_full": {
        "train": {"args": {"finetuning_type": "full", "save_strategy": "epoch", "warmup_ratio": 0.1}},
        "resources": {"train": {"num_workers": 2}},
    },
    "gpus_evaluated": {
        "train": {
            "lora_target": "q_proj,v_proj",
            "args": {"sequence_len": 4096, "bf16": True, "val_size": 0.1, "eval_strategy": "steps", "eval_steps": 50},
        },
        "resources": {"train": ONE_GPU_EACH},
    },
    "texts": {"train": {"stage": "pt", "lora_rank": 64, "args": {"max_steps": 30, "peft_use_rslora": True}}},
}
ARCHITECTURE = Architecture(
    of="org/model", model_type="llama", vocab_size=64, hidden_size=8, intermediate_size=16, num_hidden_layers=1,
    num_attention_heads=1, num_key_value_heads=1,
)  # fmt: skip
ASKED = {"role": "user", "content": "Open?"}


def answer(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def recipe_of(**sections: Any) -> Recipe:
    return Recipe.model_validate({**BASE, **sections})


def encoder(stage: str, **args: Any) -> AxolotlEncoder:
    rules = rules_of(recipe_of(train={"stage": stage, "args": args}))
    return AxolotlEncoder(ChatTemplate(tokenizer_of("chatml")), rules)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_arguments_match_the_golden_file(name: str) -> None:
    assert_golden(axolotl_args(recipe_of(**RECIPES[name]), **WHERE), GOLDEN / f"axolotl_args_{name}.json")


@pytest.mark.parametrize("name", sorted(RESERVED_ARGS))
def test_refuses_arguments_that_are_the_runners_to_set(name: str) -> None:
    with pytest.raises(RunnerError, match=rf"train\.args\.{name}="):
        axolotl_args(recipe_of(train={"args": {name: "x"}}), **WHERE)


def test_train_args_win_over_defaults() -> None:
    own = {"logging_steps": 7, "sequence_len": 99, "lr_scheduler": "constant", "lora_alpha": 3}
    config = axolotl_args(recipe_of(train={"args": own}), **WHERE)["config"]
    assert {name: config[name] for name in own} == own


def test_the_fingerprint_is_the_same_by_either_name_and_without_what_has_no_effect() -> None:
    names = (
        {"cutoff_len": 64, "per_device_train_batch_size": 2, "optim": "sgd", "use_dora": True},
        {
            "sequence_len": 64, "micro_batch_size": 2, "optimizer": "sgd", "peft_use_dora": True,
            "dataloader_num_workers": 4,
        },
    )  # fmt: skip
    found = [Axolotl().canonical(recipe_of(train={"args": args})) for args in names]
    assert found[0] == found[1]
    assert found[0]["train.args"] == {
        "sequence_len": 64, "micro_batch_size": 2, "optimizer": "sgd", "peft_use_dora": True,
    }  # fmt: skip
    full = Axolotl().canonical(recipe_of(train={"args": {"finetuning_type": "full"}}))
    assert full["train.lora_rank"] is None


def test_kernels_of_axolotls_own_are_off() -> None:
    config = axolotl_args(recipe_of(resources={"train": ONE_GPU_EACH}), **WHERE)["config"]
    assert [config[f"lora_{part}_kernel"] for part in ("mlp", "qkv", "o", "embedding")] == [False] * 4


def test_on_cpus_attention_is_written_out_unless_the_recipe_leaves_it_to_transformers() -> None:
    args = ({}, {"flash_attn": "auto"}, {"attn_implementation": "sdpa"})
    found = [axolotl_args(recipe_of(train={"args": each}), **WHERE)["config"] for each in args]
    assert [each.get("attn_implementation") for each in found] == ["eager", None, "sdpa"]
    on_gpus = axolotl_args(recipe_of(resources={"train": ONE_GPU_EACH}), **WHERE)["config"]
    assert "attn_implementation" not in on_gpus
    assert on_gpus["gradient_checkpointing"] is True


def test_a_worker_reports_nothing_and_asks_no_hub() -> None:
    env = Axolotl().worker_env(recipe_of().resources_of("train"))
    assert (env["AXOLOTL_DO_NOT_TRACK"], env["HF_HUB_OFFLINE"]) == ("1", "1")
    assert (env["CUDA_VISIBLE_DEVICES"], env["ACCELERATE_USE_CPU"]) == ("", "true")
    assert "ACCELERATE_USE_CPU" not in Axolotl().worker_env(StageResources.model_validate(ONE_GPU_EACH))


@pytest.mark.environment("llamafactory")
@pytest.mark.parametrize(
    ("args", "learned"),
    [
        ({}, "1<|im_end|>\n2<|im_end|>\n"),
        ({"mask_history": True}, "2<|im_end|>\n"),
    ],
)
def test_all_answers_of_a_conversation_are_learned_unless_earlier_ones_are_masked(args: Any, learned: str) -> None:
    made = encoder("sft", **args)
    (row,) = made.columns([Example("1", [ASKED, answer("1"), ASKED, answer("2")])])
    assert made.template.tokenizer.decode([each for each in row["labels"] if each != NO_LOSS]) == learned


@pytest.mark.environment("llamafactory")
@pytest.mark.parametrize("name", ["train_on_inputs", "train_on_prompt"])
def test_a_prompt_is_learned_by_either_name(name: str) -> None:
    rows = [list(encoder("sft", **args).columns([Example("1", [ASKED, answer("1")])])) for args in ({}, {name: True})]
    assert [NO_LOSS in each["labels"] for (each,) in rows] == [True, False]


@pytest.mark.environment("llamafactory")
def test_of_texts_every_token_is_learned_in_blocks_of_the_limit() -> None:
    rows = list(
        encoder("pt", sequence_len=8).columns([Example("1", [], text="one two three"), Example("2", [], text="x")])
    )
    assert [len(row["input_ids"]) for row in rows[:-1]] == [8] * (len(rows) - 1)
    assert all(row["labels"] == row["input_ids"] for row in rows)


@pytest.mark.environment("llamafactory")
def test_rows_that_are_too_long_are_told_by_the_argument_that_the_recipe_names() -> None:
    assert encoder("sft", cutoff_len=8).rules.limit_name == "cutoff_len"
    assert encoder("sft", sequence_len=8).rules.limit_name == "sequence_len"
    assert encoder("sft").rules.limit == 2048


def test_changes_that_would_save_memory_are_named_as_the_recipe_names_them() -> None:
    names = setup_of(recipe_of(train={"args": {"cutoff_len": 8, "disable_gradient_checkpointing": True}})).names
    assert (names["length"], names["batch"]) == ("train.args.cutoff_len", "train.args.micro_batch_size")
    assert names["checkpointed"] == "train.args.disable_gradient_checkpointing=false"


def test_weights_are_held_in_float32_unless_the_recipe_computes_in_16_bits() -> None:
    def weights(**args: Any) -> int:
        recipe = recipe_of(train={"args": args}, cluster={"accelerator": "gpu"}, resources={"train": ONE_GPU_EACH})
        parts = train_memory(recipe, setup_of(recipe), ARCHITECTURE, 1000)
        assert not isinstance(parts, str)
        return parts["weights"]

    assert (weights(), weights(bf16=True)) == (4000, 2000)


def test_a_changed_vocabulary_ends_the_training() -> None:
    require_same_vocabulary(32, 32)
    with pytest.raises(RunnerError, match="vocabulary from 32 to 33"):
        require_same_vocabulary(32, 33)


def test_workers_that_train_each_a_model_of_its_own_end_the_training() -> None:
    require_all_workers(2, 2)
    with pytest.raises(RunnerError, match="on 1 of 2 workers together"):
        require_all_workers(2, 1)


def test_what_axolotl_refuses_is_named_by_the_recipes_key() -> None:
    from pydantic import BaseModel, ValidationError

    class Config(BaseModel):
        sequence_len: int

    with pytest.raises(ValidationError) as failure:
        Config.model_validate({"sequence_len": "x"})
    found = explain(failure.value)
    assert found is not None
    assert found.message.startswith("axolotl refuses train.args.sequence_len: Input should be a valid integer")
    assert explain(ValueError("x")) is None


PASSED_ON = sorted(set(AXOLOTL.table("arguments")) - set(RESERVED_ARGS) - set(OF_THE_RUNNER))
SAMPLES = {"bool": True, "int": 3, "float": 0.25, "list": ["x"], "dict": {"x": 1}}


@pytest.mark.parametrize("name", PASSED_ON)
def test_an_argument_that_is_not_refused_reaches_axolotl(name: str) -> None:
    entry = AXOLOTL.table("arguments")[name]
    kinds = [kind for kind in entry.get("type", "").split("|") if kind in SAMPLES]
    value = SAMPLES[kinds[0]] if kinds else entry["choices"][-1]
    config = axolotl_args(recipe_of(train={"args": {name: value}}), **WHERE)["config"]
    assert config[SAME.get(name, Same(name)).name] == SAME.get(name, Same(name)).value(value)
