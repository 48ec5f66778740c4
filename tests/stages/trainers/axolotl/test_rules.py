"""What validate says of training by axolotl: names, values, methods, and packages that its environment lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.cluster import environments
from runner.recipe.arguments import accepts
from runner.recipe.load import to_recipe
from stages.trainers.axolotl import rules
from stages.trainers.axolotl.mappings import AXOLOTL, RESERVED_ARGS
from stages.trainers.axolotl.trainer import Axolotl
from tests.paths import ROOT
from tests.runner.recipes import QUICKSTART, QWEN, changed, problems

pytestmark = pytest.mark.usefixtures("fake_stages")
TRAIN_ONLY = {"pipeline": ["ingest", "train"], "train.trainer": "axolotl"}


def of_args(args: dict[str, Any], recipe: str = QUICKSTART, stage: str = "sft") -> dict[str, Any]:
    """The problems, but that the shipped recipe's rows are not of another method."""
    given = {f"train.args.{name}": value for name, value in args.items()}
    found = problems({**TRAIN_ONLY, "train.stage": stage, **given}, recipe)
    return {key: problem for key, problem in found.items() if not problem.message.startswith("takes rows")}


@pytest.mark.parametrize("recipe", [QUICKSTART, QWEN])
def test_a_recipe_changes_its_trainer_by_one_line(recipe: str) -> None:
    assert problems({"train.trainer": "axolotl"}, recipe) == {}


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("cluster/*.yaml")), ids=lambda path: path.stem)
def test_a_clusters_file_names_arguments_of_this_trainer(path: Path) -> None:
    args = yaml.safe_load(path.read_text()).get("train", {}).get("args", {})
    assert set(args) <= set(AXOLOTL.table("arguments")) - set(RESERVED_ARGS)


def test_every_number_that_the_trainer_takes_has_a_reviewed_range() -> None:
    table, bounds = AXOLOTL.table("arguments"), AXOLOTL.bounds["arguments"]
    numbers = {name for name, entry in table.items() if {"int", "float"} & set(entry.get("type", "").split("|"))}
    assert numbers - set(bounds) <= set(RESERVED_ARGS)
    assert set(bounds) <= numbers
    assert all(accepts(table[name], table[name].get("default")) for name in bounds)


def test_what_is_refused_is_an_argument_and_has_one_reason() -> None:
    assert set(RESERVED_ARGS) <= set(AXOLOTL.table("arguments"))
    named = (ROOT / "stages/trainers/axolotl/refused.json").read_text().split('"')[1::2]
    assert len(named) == len(set(named))


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"micro_batch_size": 0, "per_device_train_batch_size": None}, "a whole number >= 1"),
        ({"sequence_len": 0, "cutoff_len": None}, "a whole number >= 1"),
        ({"lora_dropout": 1.5}, "a number >= 0 and < 1"),
        ({"logging_steps": 0.5}, "a whole number >= 1"),
        ({"bf16": "auto"}, "must be true or false"),
        ({"attn_implementation": "someone/kernel", "flash_attn": None}, "must be one of auto, eager, sdpa"),
        ({"optimizer": "muon"}, "must be one of adamw_torch"),
        ({"optim": "schedule_free_adamw"}, "must be one of adamw_torch"),
        ({"save_strategy": "best"}, "must be one of no, steps, epoch"),
        ({"learning_rate": 1}, "has a key of its own in the recipe: train.learning_rate"),
        ({"adapter": "qlora"}, "has a key of its own in the recipe: train.args.finetuning_type"),
        ({"val_set_size": 0.1}, "has a key of its own in the recipe: train.args.val_size"),
        ({"chat_template": "chatml"}, "has a key of its own in the recipe: model.chat_template"),
        ({"datasets": [{"path": "x"}]}, "has a key of its own in the recipe: dataset.source"),
        ({"sample_packing": True}, "is not for a recipe to set"),
        ({"plugins": ["a.B"]}, "is not for a recipe to set"),
        ({"use_wandb": True}, "is not for a recipe to set"),
        ({"hub_model_id": "a/b"}, "is not for a recipe to set"),
        ({"tokens": ["x"]}, "is not for a recipe to set"),
        ({"lora_mlp_kernel": True}, "is not for a recipe to set"),
        ({"fsdp_config": {}}, "is not for a recipe to set"),
        ({"load_in_4bit": True}, "is not for a recipe to set"),
        ({"peft_use_dora": True, "finetuning_type": "full"}, "goes with finetuning_type=lora only"),
        ({"mask_history": True, "train_on_prompt": True}, "and train_on_inputs exclude each other"),
        ({"cosine_min_lr_ratio": 0.1}, "goes with lr_scheduler=cosine only"),
        ({"cosine_constant_lr_ratio": 0.1, "lr_scheduler": "cosine"}, "goes with cosine_min_lr_ratio only"),
        ({"warmup_steps": 1}, "is 2 to axolotl"),
        ({"lr_scheduler": "constant", "warmup_steps": 10}, "has no warm-up"),
        ({"lr_scheduler": "reduce_lr_on_plateau"}, "follows the loss of an evaluation"),
        ({"dataloader_prefetch_factor": 4}, "has no effect: it goes with dataloader_num_workers"),
        ({"warmup_ratio": 0.1, "warmup_steps": 10}, "and warmup_steps=10 exclude each other"),
        ({"warmup_steps": 6, "max_steps": 5}, "more than max_steps=5"),
        ({"save_steps": 10, "save_strategy": "epoch"}, "goes with save_strategy=steps only"),
        ({"eval_strategy": "steps"}, "there is nothing to evaluate on"),
        ({"save_steps": 2.5}, "must be a whole number of steps"),
        ({"tf32": True}, "needs a GPU"),
        ({"fp16": True}, "needs a GPU"),
        ({"optimizer": "paged_adamw_8bit"}, "needs a GPU"),
        ({"optim": "paged_adamw_8bit"}, "needs a GPU"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused(args: dict[str, Any], says: str) -> None:
    (found,) = of_args(args).items()
    assert found[0] in {f"train.args.{name}" for name in (*args, "optimizer")}
    assert says in found[1].message


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("lora_target", "Did you mean train.lora_target?"),
        ("additional_target", "Did you mean train.args.lora_modules_to_save?"),
        ("max_seq_length", "Did you mean train.args.sequence_len?"),
        ("lora_rank", "Did you mean train.lora_rank?"),
        ("disable_shuffling", "Did you mean train.args.curriculum_sampling?"),
        ("num_train_epochs", "Did you mean train.num_epochs?"),
    ],
)
def test_a_name_of_the_other_trainer_leads_to_this_ones(name: str, hint: str) -> None:
    assert of_args({name: 1})[f"train.args.{name}"].hint == hint


def test_one_value_by_two_names_is_refused() -> None:
    found = of_args({"sequence_len": 512})  # the quickstart has cutoff_len
    assert "is LLaMA-Factory's name of train.args.sequence_len" in found["train.args.cutoff_len"].message
    assert of_args({"sequence_len": 512, "cutoff_len": None}) == {}


def test_a_refused_argument_has_its_reason() -> None:
    packing = of_args({"sample_packing": True})["train.args.sample_packing"]
    assert packing.hint == "Remove it; axolotl's packing leaves out the rows of its last batch."


@pytest.mark.parametrize(
    ("args", "package"),
    [
        ({"attn_implementation": "flash_attention_2", "flash_attn": None}, "flash-attn"),
        ({"optimizer": "paged_adamw_8bit"}, "bitsandbytes"),
        ({"optim": "lomo"}, "lomo-optim"),
    ],
)
def test_a_package_that_the_environment_lacks_is_named_before_anything_runs(
    args: dict[str, Any], package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "version", lambda name, package, accelerator: None)
    (found,) = of_args(args, QWEN).values()
    assert f"needs {package}, which the environment axolotl does not have" in found.message


@pytest.mark.parametrize(("stage", "other"), [("dpo", "accelerate"), ("kto", "accelerate"), ("ppo", "llamafactory")])
def test_a_method_that_only_another_trainer_has_is_refused_with_its_name(stage: str, other: str) -> None:
    (found,) = rules.method_is_trained(to_recipe(changed({"train.stage": stage}))[0])
    assert found.key == "train.stage"
    assert found.message.startswith("is not trained by train.trainer=axolotl, which has sft, pt")
    assert ("other tokens of preferences" in found.message) is (stage != "ppo")
    assert found.hint == f"Set train.trainer={other}."


def test_a_template_of_llamafactory_is_refused() -> None:
    assert list(problems({**TRAIN_ONLY, "model.template": "smollm2"})) == ["model.template"]


def test_a_model_that_takes_images_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "tokenizer_folder", lambda recipe: "folder")
    monkeypatch.setattr(rules, "model_type_of_vision", lambda folder: "gemma3")
    found = problems(TRAIN_ONLY)["model.source"]
    assert "is of the type gemma3, which takes images" in found.message


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"train.args.gradient_accumulation_steps": 4}, "weighs the batches of a step alike"),
        ({"resources.train.num_workers": 2}, "weighs the batches of a step alike"),
        ({"train.args.bf16": True, "train.args.finetuning_type": "full"}, "in bfloat16, other trainers in float32"),
        ({"train.args.bf16": True}, None),
    ],
)
def test_a_plan_says_where_this_trainer_computes_otherwise(changes: dict[str, Any], says: str | None) -> None:
    found = list(Axolotl().remarks(to_recipe(changed(changes))[0]))
    assert [says in line for line in found] == [True] if says else found == []


def test_a_plan_says_that_gpus_have_not_been_tried() -> None:
    *_, last = Axolotl().remarks(to_recipe(changed({}, QWEN))[0])
    assert last == "train.trainer=axolotl has been tried on CPUs only"


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
    found = Axolotl().trained(recipe)
    assert (found.kind, [each.name for each in found.traits]) == (leaves, traits)


def test_the_longest_row_is_known_by_either_name() -> None:
    rows = [
        Axolotl().longest_row(to_recipe(changed(changes))[0])
        for changes in ({}, {"train.args": {"sequence_len": 99, "cutoff_len": None}})
    ]
    assert [(row.tokens, row.key) for row in rows if row] == [
        (256, "train.args.cutoff_len"), (99, "train.args.sequence_len"),
    ]  # fmt: skip
