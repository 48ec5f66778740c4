"""What validate says of training by TRL: names, values, methods, and packages that its environment lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.cluster import environments
from runner.recipe.arguments import accepts
from runner.recipe.load import to_recipe
from stages.trainers.accelerate.mappings import RESERVED_ARGS, TRL
from stages.trainers.accelerate.trainer import Accelerate
from stages.trainers.accelerate.values import SAME
from stages.trainers.llamafactory.mappings import LLAMAFACTORY
from tests.paths import ROOT
from tests.runner.recipes import QUICKSTART, QWEN, changed, problems

pytestmark = pytest.mark.usefixtures("fake_stages")
TRAIN_ONLY = {"pipeline": ["ingest", "train"], "train.trainer": "accelerate"}


def of_args(args: dict[str, Any], recipe: str = QUICKSTART, stage: str = "sft") -> dict[str, Any]:
    """The problems, but that the shipped recipe's rows are not of another method."""
    given = {f"train.args.{name}": value for name, value in args.items()}
    found = problems({**TRAIN_ONLY, "train.stage": stage, **given}, recipe)
    return {key: problem for key, problem in found.items() if not problem.message.startswith("takes rows")}


@pytest.mark.parametrize("recipe", [QUICKSTART, QWEN])
def test_a_recipe_changes_its_trainer_by_one_line(recipe: str) -> None:
    assert problems({"train.trainer": "accelerate"}, recipe) == {}


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("cluster/*.yaml")), ids=lambda path: path.stem)
def test_a_clusters_file_names_arguments_of_every_trainer(path: Path) -> None:
    args = yaml.safe_load(path.read_text()).get("train", {}).get("args", {})
    assert set(args) <= set(TRL.table("arguments")) & set(LLAMAFACTORY.table("arguments")) - set(SAME)


def test_every_number_that_the_trainer_takes_has_a_reviewed_range() -> None:
    table, bounds = TRL.table("arguments"), TRL.bounds["arguments"]
    numbers = {name for name, entry in table.items() if {"int", "float"} & set(entry.get("type", "").split("|"))}
    assert numbers - set(bounds) <= set(RESERVED_ARGS)
    assert set(bounds) <= numbers
    assert all(accepts(table[name], table[name].get("default")) for name in bounds)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"per_device_train_batch_size": 0}, "a whole number >= 1"),
        ({"max_length": 0, "cutoff_len": None}, "a whole number >= 1"),
        ({"lora_dropout": 1.5}, "a number >= 0 and < 1"),
        ({"beta": 0.1}, "goes with train.stage=dpo or kto only"),
        ({"loss_type": "sigmoid"}, "must be one of chunked_nll, dft, nll with train.stage=sft"),
        ({"attn_implementation": "someone/kernel", "flash_attn": None}, "runs code that is fetched from a hub"),
        ({"learning_rate": 1}, "has a key of its own in the recipe: train.learning_rate"),
        ({"lr_scheduler_type": "constant", "warmup_steps": 5}, "has no warm-up"),
        ({"warmup_steps": 6, "max_steps": 5}, "more than max_steps=5"),
        ({"packing_strategy": "bfd_split"}, "has no effect: it goes with packing"),
        ({"bnb_4bit_quant_type": "fp4"}, "has no effect: it goes with load_in_4bit"),
        ({"dataloader_prefetch_factor": 2}, "has no effect: it goes with dataloader_num_workers"),
        ({"metric_for_best_model": "accuracy"}, "is not measured during training"),
        ({"ddp_backend": "nccl"}, "needs a GPU"),
        ({"model_init_kwargs": {"a": 1}}, "has a key of its own"),
        ({"completion_only_loss": True}, "is not for a recipe to set"),
        ({"use_dora": True, "finetuning_type": "full"}, "goes with finetuning_type=lora only"),
        ({"mask_history": True, "train_on_prompt": True}, "exclude each other"),
        ({"sync_ref_model": True}, "goes with train.stage=dpo or kto only"),
        ({"eval_strategy": "steps"}, "there is nothing to evaluate on"),
        ({"save_steps": 2.5}, "must be a whole number of steps"),
        ({"report_to": "tensorbord"}, "names no tracker"),
        ({"load_in_4bit": True}, "needs a GPU"),
        ({"fp16": True}, "needs a GPU"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(args: dict[str, Any], says: str) -> None:
    found = of_args(args)
    assert list(found) == [f"train.args.{next(iter(args))}"]
    assert says in next(iter(found.values())).message


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("pref_beta", "Did you mean train.args.beta?"),
        ("quantization_bit", "Did you mean train.args.load_in_4bit?"),
        ("enable_liger_kernel", "Did you mean train.args.use_liger_kernel?"),
        ("additional_target", "Did you mean train.args.lora_modules_to_save?"),
        ("kto_chosen_weight", "Did you mean train.args.desirable_weight?"),
        ("lora_target", "Did you mean train.lora_target?"),
        ("max_seq_length", "Did you mean train.args.max_length?"),
    ],
)
def test_a_name_of_the_other_trainer_leads_to_this_ones(name: str, hint: str) -> None:
    assert of_args({name: 1})[f"train.args.{name}"].hint == hint


def test_one_value_by_two_names_is_refused() -> None:
    found = of_args({"max_length": 512})  # the quickstart has cutoff_len
    assert "is LLaMA-Factory's name of train.args.max_length" in found["train.args.cutoff_len"].message
    assert of_args({"max_length": 512, "cutoff_len": None}) == {}


@pytest.mark.parametrize(
    ("args", "package"),
    [
        ({"load_in_4bit": True}, "bitsandbytes"),
        ({"attn_implementation": "flash_attention_2", "flash_attn": None}, "flash-attn"),
        ({"use_liger_kernel": True}, "liger-kernel"),
        ({"deepspeed": {"zero_optimization": {"stage": 2}}}, "deepspeed"),
        ({"optim": "paged_adamw_8bit"}, "bitsandbytes"),
        ({"report_to": "tensorboard"}, "tensorboard"),
    ],
)
def test_a_package_that_the_environment_lacks_is_named_before_anything_runs(
    args: dict[str, Any], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "version", lambda name, package, accelerator: None)
    (found,) = of_args({"bf16": True, **args}, QWEN).values()
    assert f"needs {package}, which the environment accelerate does not have" in found.message


def test_a_method_that_only_the_other_trainer_has_is_refused_with_its_name() -> None:
    found = of_args({}, stage="ppo")["train.stage"]
    assert (found.message, found.hint) == (
        "is not trained by train.trainer=accelerate, which has sft, pt, dpo, kto", "Set train.trainer=llamafactory.",
    )  # fmt: skip


def test_a_template_of_llamafactory_is_refused() -> None:
    assert list(problems({**TRAIN_ONLY, "model.template": "smollm2"})) == ["model.template"]


@pytest.mark.parametrize("stage", ["dpo", "kto"])
def test_a_reference_model_that_follows_the_model_is_its_own(stage: str) -> None:
    assert list(of_args({"sync_ref_model": True}, stage=stage)) == ["train.args.sync_ref_model"]
    assert of_args({"sync_ref_model": True, "finetuning_type": "full"}, stage=stage) == {}


def test_judged_answers_are_compared_within_a_batch() -> None:
    assert of_args({}, stage="kto") == {}
    found = of_args({"per_device_train_batch_size": 1, "train_sampling_strategy": "random"}, stage="kto")
    assert sorted(found) == ["train.args.per_device_train_batch_size", "train.args.train_sampling_strategy"]
    apart = {"per_device_train_batch_size": 1, "loss_type": "apo_zero_unpaired"}
    assert of_args(apart, stage="kto") == {}


@pytest.mark.parametrize(
    ("args", "leaves", "traits"),
    [
        ({}, "adapter", []),
        ({"finetuning_type": "full"}, "model", []),
        ({"use_dora": True, "lora_modules_to_save": ["lm_head"]}, "adapter", ["whole modules", "dora"]),
    ],
)
def test_the_engine_is_told_what_training_leaves(args: dict[str, Any], leaves: str, traits: list[str]) -> None:
    recipe = to_recipe(changed({f"train.args.{name}": value for name, value in args.items()}))[0]
    found = Accelerate().trained(recipe)
    assert (found.kind, [each.name for each in found.traits]) == (leaves, traits)


def test_the_longest_row_is_known_by_either_name() -> None:
    rows = [
        Accelerate().longest_row(to_recipe(changed(changes))[0])
        for changes in ({}, {"train.args": {"max_length": 99, "cutoff_len": None}})
    ]
    assert [(row.tokens, row.key) for row in rows if row] == [
        (256, "train.args.cutoff_len"), (99, "train.args.max_length"),
    ]  # fmt: skip


ZERO3 = {
    "stage": 3,
    "overlap_comm": True,
    "stage3_prefetch_bucket_size": "auto",
    "offload_optimizer": {"device": "cpu"},
}


BEST = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_dataset": "val", "save_steps": 500}
IN_SHARDS = {"fsdp": "full_shard", "fsdp_config": {"state_dict_type": "SHARDED_STATE_DICT"}}


@pytest.mark.parametrize("recipe", [QUICKSTART, QWEN])
@pytest.mark.parametrize(
    "args",
    [
        IN_SHARDS,
        {"deepspeed": {"zero_optimization": {"stage": 2, "reduce_bucket_size": 1000}}},
        {"deepspeed": {"zero_optimization": ZERO3}},
        {"fsdp": "full_shard auto_wrap"},
        {"fsdp": "shard_grad_op", "fsdp_config": {"version": 2, "reshard_after_forward": False}},
    ],
)
def test_a_model_is_spread_by_keys_on_any_hardware(args: dict[str, Any], recipe: str) -> None:
    assert of_args({"bf16": recipe == QWEN, **args}, recipe) == {}


@pytest.mark.parametrize(
    ("args", "key", "says"),
    [
        ({"deepspeed": {}}, "deepspeed", "names no zero_optimization"),
        ({"deepspeed": {"steps_per_print": 1}}, "deepspeed.steps_per_print", "is not taken"),
        ({"deepspeed": {"bf16": {"enabled": True}}}, "deepspeed.bf16", "filled in from what the recipe says"),
        ({"deepspeed": {"zero_optimization": {}}}, "deepspeed.zero_optimization", "names no stage"),
        ({"deepspeed": {"zero_optimization": {"stage": 0}}}, "deepspeed.zero_optimization.stage", "one of 1, 2, 3"),
        (
            {"deepspeed": {"zero_optimization": {"stage": 3, "reduce_bucket_size": 0}}},
            "deepspeed.zero_optimization.reduce_bucket_size",
            "a whole number >= 1",
        ),
        (
            {"deepspeed": {"zero_optimization": {"stage": 2, "offload_param": {"device": "cpu"}}}},
            "deepspeed.zero_optimization.offload_param",
            "goes with stage=3 only",
        ),
        (
            {"deepspeed": {"zero_optimization": {"stage": 3, "offload_param": {"device": "disk"}}}},
            "deepspeed.zero_optimization.offload_param.device",
            "one of cpu, none",
        ),
        (
            {"deepspeed": {"zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": False}}},
            "deepspeed.zero_optimization.stage3_gather_16bit_weights_on_model_save",
            "is not taken",
        ),
        ({"deepspeed": "ds.json"}, "deepspeed", "names a file"),
        ({"deepspeed": {"zero_optimization": {"stage": 2}}, "bf16": True}, "bf16", "not computed by DeepSpeed on CPUs"),
        ({"deepspeed": {"zero_optimization": {"stage": 2}}, "fsdp": "full_shard"}, "deepspeed", "exclude each other"),
        ({"fsdp": "hybrid_shard"}, "fsdp", "must be of full_shard"),
        ({"fsdp": "full_shard offload"}, "fsdp", "must be of full_shard"),
        ({"fsdp": "full_shard", "fsdp_config": {"version": 1}}, "fsdp_config.version", "one of 2"),
        ({"fsdp": "full_shard", "fsdp_config": {"cpu_offload": True}}, "fsdp_config.cpu_offload", "is not taken"),
        ({"fsdp_config": {"version": 2}}, "fsdp_config", "goes with fsdp only"),
        (
            {"fsdp": "full_shard", "fsdp_config": {"state_dict_type": "LOCAL_STATE_DICT"}},
            "fsdp_config.state_dict_type",
            "must be one of SHARDED_STATE_DICT, FULL_STATE_DICT",
        ),
        ({**BEST, "fsdp": "full_shard"}, "load_best_model_at_end", "each has a part of the best"),
        ({**IN_SHARDS, "save_only_model": True}, "save_only_model", "saves the model in one piece"),
    ],
)
def test_settings_of_a_spread_model_are_judged_like_keys(args: dict[str, Any], key: str, says: str) -> None:
    assert says in of_args(args)[f"train.args.{key}"].message


@pytest.mark.parametrize("spread", [{"fsdp": "full_shard"}, {"deepspeed": {"zero_optimization": {"stage": 3}}}])
def test_weights_of_four_bits_are_not_spread(spread: dict[str, Any]) -> None:
    (found,) = of_args({"bf16": True, "load_in_4bit": True, **spread}, QWEN).values()
    assert "spread over the workers" in found.message
