"""Recipe keys as TRL's arguments, compared with golden files, and rows as TRL's columns; no TRL is imported."""

from __future__ import annotations

from typing import Any

import pytest

from runner.errors import RunnerError
from runner.testing import assert_golden
from stages.data.example import Example
from stages.models.chat_template import ChatTemplate
from stages.models.learned import NO_LOSS
from stages.patches.trl_prepared import rotated
from stages.sections.recipe import Recipe
from stages.trainers.accelerate.config import trl_args
from stages.trainers.accelerate.mappings import RESERVED_ARGS
from stages.trainers.accelerate.tokens import TrlEncoder, rules_of
from stages.trainers.accelerate.trainer import Accelerate
from stages.trainers.accelerate.worker import explain
from stages.trainers.worker.log import entry
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
ZERO3_OFFLOADED = {"stage": 3, "offload_optimizer": {"device": "cpu"}}
ONE_GPU_EACH = {"num_workers": 4, "cpus_per_worker": 4.0, "gpus_per_worker": 1.0}
RECIPES: dict[str, dict[str, Any]] = {
    "cpu_by_llamafactorys_names": {
        "train": {"args": {"cutoff_len": 256, "disable_gradient_checkpointing": True, "flash_attn": "disabled"}},
    },
    "two_cpu_workers_full": {
        "train": {"args": {"finetuning_type": "full", "save_strategy": "epoch"}},
        "resources": {"train": {"num_workers": 2}},
    },
    "gpus_packed": {
        "train": {"lora_target": "q_proj,v_proj", "args": {"max_length": 4096, "bf16": True, "packing": True}},
        "resources": {"train": ONE_GPU_EACH},
    },
    "qlora_dpo": {
        "train": {"stage": "dpo", "lora_rank": 64, "args": {"load_in_4bit": True, "bf16": True, "beta": 0.2}},
        "resources": {"train": ONE_GPU_EACH},
    },
    "texts_by_fsdp": {
        "train": {"stage": "pt", "args": {"fsdp": "full_shard"}},
        "resources": {"train": ONE_GPU_EACH},
    },
    "zero3_offloaded": {
        "train": {"args": {"bf16": True, "deepspeed": {"zero_optimization": ZERO3_OFFLOADED}}},
        "resources": {"train": ONE_GPU_EACH},
    },
    "two_cpu_workers_by_zero2": {
        "train": {"args": {"deepspeed": {"zero_optimization": {"stage": 2}}}},
        "resources": {"train": {"num_workers": 2}},
    },
}
SYSTEM = {"role": "system", "content": "Be brief."}
ASKED = {"role": "user", "content": "Open?"}


def answer(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def recipe_of(**sections: Any) -> Recipe:
    return Recipe.model_validate({**BASE, **sections})


def encoder(stage: str, **args: Any) -> TrlEncoder:
    return TrlEncoder(ChatTemplate(tokenizer_of("chatml")), rules_of(recipe_of(train={"stage": stage, "args": args})))


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_arguments_match_the_golden_file(name: str) -> None:
    assert_golden(trl_args(recipe_of(**RECIPES[name]), **WHERE), GOLDEN / f"trl_args_{name}.json")


@pytest.mark.parametrize("name", sorted(RESERVED_ARGS))
def test_refuses_arguments_that_are_the_runners_to_set(name: str) -> None:
    with pytest.raises(RunnerError, match=rf"train\.args\.{name}="):
        trl_args(recipe_of(train={"args": {name: "x"}}), **WHERE)


def test_train_args_win_over_defaults() -> None:
    own = {"logging_steps": 7, "max_length": 99, "bf16": True}
    config = trl_args(recipe_of(train={"args": own}), **WHERE)["config"]
    assert {name: config[name] for name in own} == own


def test_the_fingerprint_is_the_same_by_either_name_and_without_what_has_no_effect() -> None:
    names = (
        {"cutoff_len": 64, "flash_attn": "fa2"},
        {"max_length": 64, "attn_implementation": "flash_attention_2", "report_to": "tensorboard"},
    )
    found = [Accelerate().canonical(recipe_of(train={"args": args})) for args in names]
    assert found[0] == found[1] == {"train.args": {"max_length": 64, "attn_implementation": "flash_attention_2"}}
    full = Accelerate().canonical(recipe_of(train={"args": {"finetuning_type": "full"}}))
    assert full["train.lora_rank"] is None


def test_on_cpus_attention_is_written_out_unless_the_recipe_leaves_it_to_transformers() -> None:
    args = ({}, {"flash_attn": "auto"}, {"attn_implementation": "sdpa"})
    found = [trl_args(recipe_of(train={"args": each}), **WHERE)["model"].get("attn_implementation") for each in args]
    assert found == ["eager", None, "sdpa"]
    on_gpus = trl_args(recipe_of(resources={"train": ONE_GPU_EACH}), **WHERE)
    assert "attn_implementation" not in on_gpus["model"]
    assert "gradient_checkpointing" not in on_gpus["config"]


@pytest.mark.parametrize(
    ("args", "shards"),
    [({}, False), ({"fsdp": "full_shard"}, True), ({"deepspeed": {"zero_optimization": {"stage": 3}}}, True)],
)
def test_a_sharded_model_needs_a_process_group(args: dict[str, Any], shards: bool) -> None:
    assert Accelerate().shards(trl_args(recipe_of(train={"args": args}), **WHERE)) == shards


@pytest.mark.parametrize(
    ("args", "kind"),
    [
        ({}, "SHARDED_STATE_DICT"),
        ({"fsdp_config": {"state_dict_type": "FULL_STATE_DICT"}}, "FULL_STATE_DICT"),
        ({"save_only_model": True}, "FULL_STATE_DICT"),
    ],
)
def test_each_worker_saves_its_shard_unless_the_whole_is_needed(args: dict[str, Any], kind: str) -> None:
    found = trl_args(recipe_of(train={"args": {"fsdp": "full_shard", **args}}), **WHERE)
    assert found["config"]["fsdp_config"]["state_dict_type"] == kind


@pytest.mark.environment("llamafactory")
def test_a_pair_is_one_prompt_with_its_system_message_and_two_answers() -> None:
    made = encoder("dpo")
    pair = Example("1", [SYSTEM, ASKED], chosen=[answer("Yes.")], rejected=[answer("No.")])
    (row,) = made.columns([pair])
    assert row["prompt_ids"] == made.template.prompt_ids(pair.prompt)
    assert [made.template.tokenizer.decode(row[name]) for name in ("chosen_ids", "rejected_ids")] == [
        "Yes.<|im_end|>\n", "No.<|im_end|>\n",
    ]  # fmt: skip


@pytest.mark.environment("llamafactory")
def test_a_judged_answer_follows_its_prompt() -> None:
    made = encoder("kto")
    row = Example("1", [ASKED, answer("Yes.")], label=False)
    (columns,) = made.columns([row])
    assert columns["prompt_ids"] == made.template.prompt_ids(row.prompt)
    assert made.template.tokenizer.decode(columns["completion_ids"]) == "Yes.<|im_end|>\n"
    assert columns["label"] is False


def test_judged_answers_of_a_batch_are_rotated_to_estimate_the_divergence() -> None:
    rows = {"completion_ids": [[1], [2], [3]], "label": [True, False, True]}
    assert rotated(rows) == {**rows, "KL_completion_ids": [[3], [1], [2]]}


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
def test_rows_that_are_too_long_are_told_by_the_argument_that_the_recipe_names() -> None:
    assert encoder("sft", cutoff_len=8).rules.limit_name == "cutoff_len"
    assert encoder("sft", max_length=8).rules.limit_name == "max_length"
    assert encoder("sft").rules.limit == 2048


def test_a_line_of_the_log_has_the_numbers_of_transformers_entry() -> None:
    line = entry(3, 10, {"loss": 0.5, "learning_rate": 1e-4, "rewards/margins": 0.2, "note": "x"})
    assert line == {"current_steps": 3, "total_steps": 10, "loss": 0.5, "lr": 1e-4, "rewards/margins": 0.2}


def test_an_unknown_argument_is_explained_with_the_nearest_one() -> None:
    found = explain(TypeError("SFTConfig.__init__() got an unexpected keyword argument 'warmup_step'"))
    assert found is not None
    assert found.message.startswith("TRL knows no train.args.warmup_step (did you mean warmup_steps")
    assert explain(ValueError("unexpected keyword argument 'x'")) is None
