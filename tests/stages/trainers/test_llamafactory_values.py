"""Values of training arguments: their ranges, what goes with what, and packages that they need."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from runner.cluster import environments
from runner.recipe.arguments import accepts
from runner.recipe.load import to_recipe
from stages.trainers.llamafactory.mappings import LLAMAFACTORY
from tests.runner.recipes import QWEN, changed, problems

pytestmark = pytest.mark.usefixtures("fake_stages")
TRAIN_ONLY = {"pipeline": ["ingest", "train"]}


def of_args(args: dict[str, Any], recipe: str = "viggo_quickstart", trust: str = "") -> dict[str, Any]:
    return problems({**TRAIN_ONLY, **{f"train.args.{name}": value for name, value in args.items()}}, recipe, trust)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("per_device_train_batch_size", 0, "a whole number >= 1"),
        ("gradient_accumulation_steps", 0, "a whole number >= 1"),
        ("cutoff_len", -1, "a whole number >= 1"),
        ("val_size", -0.1, "a number >= 0"),
        ("lora_dropout", 1.5, "a number >= 0 and < 1"),
        ("lora_alpha", 0, "a whole number >= 1"),
        ("warmup_ratio", 1.1, "a number >= 0 and <= 1"),
        ("max_grad_norm", -1, "a number >= 0"),
        ("save_steps", 0, "a number > 0"),
        ("eval_steps", 0, "a number > 0"),
        ("logging_steps", 0, "a number > 0"),
        ("max_steps", 0, "one of -1, or a whole number >= 1"),
        ("weight_decay", -0.1, "a number >= 0"),
        ("adam_beta2", 1, "a number >= 0 and < 1"),
        ("label_smoothing_factor", 1.0, "a number >= 0 and < 1"),
    ],
)
def test_a_value_outside_its_range_is_refused_with_the_range(name: str, value: float, says: str) -> None:
    found = of_args({name: value})
    assert list(found) == [f"train.args.{name}"]
    assert says in found[f"train.args.{name}"].message


def test_the_ends_of_a_range_are_legal() -> None:
    ends = {"max_steps": -1, "lora_dropout": 0, "max_grad_norm": 0, "warmup_ratio": 1.0, "val_size": 0.0}
    assert of_args({**ends, "per_device_train_batch_size": 1}) == {}


def test_every_number_that_the_trainer_takes_has_a_reviewed_range() -> None:
    table, bounds = LLAMAFACTORY.table("arguments"), LLAMAFACTORY.bounds["arguments"]
    free = set(LLAMAFACTORY.bounds["any_number"]["arguments"])
    reserved = {"learning_rate", "lora_rank", "max_samples", "num_train_epochs", "ray_num_workers", "save_total_limit"}
    numbers = {name for name, entry in table.items() if {"int", "float"} & set(entry.get("type", "").split("|"))}
    assert numbers - set(bounds) - free == reserved | {"seed"}
    assert set(bounds) <= numbers
    for name in bounds:
        assert accepts(table[name], table[name].get("default")), name


@pytest.mark.parametrize("name", ["lora_rank", "learning_rate", "num_train_epochs"])
def test_what_has_a_key_of_its_own_is_refused_as_an_argument(name: str) -> None:
    assert "has a key of its own" in of_args({name: 0})[f"train.args.{name}"].message


@pytest.mark.parametrize("value", [1.5, 1.0, 20.5])
def test_a_validation_size_is_a_share_or_a_number_of_rows(value: float) -> None:
    found = of_args({"val_size": value, "eval_strategy": "epoch"})
    assert list(found) == ["train.args.val_size"]
    assert of_args({"val_size": 100, "eval_strategy": "epoch"}) == {}
    assert of_args({"val_size": 0.2, "eval_strategy": "epoch"}) == {}


def test_steps_are_whole_or_a_share_of_all() -> None:
    assert list(of_args({"save_steps": 2.5})) == ["train.args.save_steps"]
    assert of_args({"save_steps": 0.25}) == {}


BEST = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_dataset": "val"}


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ({"eval_steps": 3, "save_steps": 4}, "must be a multiple of eval_steps=3"),
        ({"eval_steps": 30}, "must be a multiple of eval_steps=30"),  # of the default of 100
        ({"eval_steps": 200, "save_steps": 100}, "must be a multiple of eval_steps=200"),
        ({"eval_steps": 0.1, "save_steps": 50}, "must both be numbers of steps"),
        ({"eval_steps": 0.1, "save_steps": 0.25}, "must be a multiple of eval_steps=0.1"),
    ],
)
def test_the_best_model_is_saved_when_it_is_evaluated(steps: dict[str, float], says: str) -> None:
    found = of_args({**BEST, **steps})
    assert list(found) == ["train.args.save_steps"]
    assert says in found["train.args.save_steps"].message


@pytest.mark.parametrize("steps", [{"eval_steps": 3, "save_steps": 6}, {"eval_steps": 0.1, "save_steps": 0.2}, {}])
def test_saving_at_a_multiple_of_evaluating_keeps_the_best_model(steps: dict[str, float]) -> None:
    assert of_args({**BEST, **steps}) == {}


def test_the_best_model_needs_an_evaluation() -> None:
    assert list(of_args({"load_best_model_at_end": True})) == ["train.args.load_best_model_at_end"]


def test_early_stopping_needs_the_best_model_and_an_evaluation() -> None:
    (found,) = of_args({"early_stopping_steps": 3}).values()
    for word in ("load_best_model_at_end=true", "eval_strategy=steps", "val_size=0.1"):
        assert word in found.hint
    added = dict(each.removeprefix("train.args.").split("=") for each in found.hint[4:-1].split())
    values = {name: yaml.safe_load(value) for name, value in added.items()}
    assert of_args({"early_stopping_steps": 3, **values}) == {}
    assert of_args({"early_stopping_steps": 3, **BEST}) == {}


def test_steps_of_an_evaluation_that_never_is_are_refused() -> None:
    assert list(of_args({"eval_steps": 10})) == ["train.args.eval_steps"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"create_new_adapter": True}, "vLLM loads the new one on the base alone"),
        ({}, "replaces train.lora_rank"),
    ],
)
def test_training_on_top_of_another_adapter_is_refused_even_when_it_is_trusted(more: Any, says: str) -> None:
    found = of_args({"adapter_name_or_path": "/some/adapter", **more})
    assert says in found["train.args.adapter_name_or_path"].message
    assert next(iter(found)) == "train.args.adapter_name_or_path"


def test_modules_to_adapt_are_a_list_or_a_text_and_the_same() -> None:
    listed, text = (changed({"train.lora_target": each}) for each in (["q_proj", "v_proj"], "q_proj,v_proj"))
    assert to_recipe(listed)[0].train.lora_target == "q_proj,v_proj" == to_recipe(text)[0].train.lora_target


@pytest.mark.parametrize("value", ["all,q_proj", "q_proj,,v_proj", [], ["q_proj", 3], "qproj", ["q_proj", "v"]])
def test_modules_that_cannot_be_meant_are_refused(value: Any) -> None:
    assert list(problems({"train.lora_target": value})) == ["train.lora_target"]


def test_modules_may_be_named_with_what_they_are_in() -> None:
    assert problems({"train.lora_target": ["self_attn.q_proj", "v_proj"]}) == {}


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment with the trainer and none of the packages that some arguments need."""
    monkeypatch.setattr(environments, "version", lambda *names: None)


@pytest.mark.parametrize(
    ("args", "package"),
    [
        ({"flash_attn": "fa2"}, "flash-attn"),
        ({"quantization_bit": 4}, "bitsandbytes"),
        ({"quantization_bit": 4, "quantization_method": "hqq"}, "hqq"),
        ({"enable_liger_kernel": True}, "liger-kernel"),
        ({"finetuning_type": "full", "use_galore": True}, "galore-torch"),
        ({"finetuning_type": "full", "use_apollo": True}, "apollo-torch"),
        ({"finetuning_type": "full", "use_badam": True}, "badam"),
        ({"optim": "paged_adamw_8bit"}, "bitsandbytes"),
        ({"report_to": "tensorboard"}, "tensorboard"),
    ],
)
def test_an_argument_whose_package_the_lock_lacks_is_refused(lacking: None, args: dict[str, Any], package: str) -> None:
    (found,) = of_args({"bf16": True, **args}, QWEN).values()
    assert found.message == f"needs {package}, which the environment llamafactory does not have"
    assert "requirements/environments/llamafactory-gpu.lock" in found.hint


@pytest.mark.parametrize(
    ("name", "value", "package"),
    [
        ("report_to", "wandb", "wandb"),
        ("report_to", ["tensorboard", "mlflow"], "mlflow"),
        ("use_unsloth", True, "unsloth"),
        ("deepspeed", "ds.json", "deepspeed"),
    ],
)
def test_a_trusted_argument_whose_package_the_lock_lacks_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: Any, package: str
) -> None:
    monkeypatch.setattr(environments, "version", lambda name, package, accelerator: {"tensorboard": "2"}.get(package))
    found = of_args({name: value}, QWEN, trust=f"train.args.{name}")
    assert found[f"train.args.{name}"].message.startswith(f"needs {package}, ")


def test_what_the_lock_of_gpus_has_is_taken() -> None:
    assert of_args({"bf16": True, "quantization_bit": 4, "enable_liger_kernel": True}, QWEN) == {}


def test_a_missing_package_does_not_hide_that_the_value_needs_trust(lacking: None) -> None:
    found = of_args({"deepspeed": "ds.json"}, QWEN)["train.args.deepspeed"]
    assert "needs deepspeed" in found.message
    assert "it also names" in found.message
    first, second = found.hint.splitlines()
    assert first.startswith("Remove it")
    assert "--trust train.args.deepspeed" in second


def test_a_misspelt_tracker_leads_to_the_one_that_is_meant() -> None:
    found = of_args({"report_to": "tensorbord"})
    assert found["train.args.report_to"].hint == "Did you mean tensorboard?"


def test_to_save_nothing_and_to_save_by_time_exclude_each_other() -> None:
    nothing = {**TRAIN_ONLY, "train.args.save_strategy": "no"}
    (found,) = problems(nothing).values()
    assert found.key == "train.args.save_strategy"
    assert "train.checkpoints.every_s=300 saves one every 300 s" in found.message
    assert problems({**nothing, "train.checkpoints.every_s": 0}) == {}
