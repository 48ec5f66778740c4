"""Training arguments that exclude each other, and what the hardware can compute."""

from __future__ import annotations

from typing import Any

import pytest

from runner.cluster import environments
from tests.runner.recipes import QWEN, problems

pytestmark = pytest.mark.usefixtures("fake_stages")
REWARD_MODEL = "train.args.reward_model"
TRAIN_ONLY = {"pipeline": ["ingest", "train"]}


@pytest.fixture(autouse=True)
def with_every_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a package is installed is not what is asked here."""
    monkeypatch.setattr(environments, "version", lambda *names: "1")


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ({"eval_strategy": "steps"}, "eval_strategy"),
        ({"eval_dataset": "val", "val_size": 0.1}, "val_size"),
        ({"load_best_model_at_end": True}, "load_best_model_at_end"),
        ({"streaming": True}, "streaming"),
        ({"mask_history": True, "train_on_prompt": True}, "mask_history"),
        ({"finetuning_type": "full", "use_dora": True}, "use_dora"),
        ({"finetuning_type": "full", "pissa_init": True}, "pissa_init"),
        ({"use_galore": True}, "use_galore"),
        ({"use_badam": True}, "use_badam"),
        ({"warmup_ratio": 0.1, "warmup_steps": 10}, "warmup_ratio"),
        ({"max_steps": 5, "warmup_steps": 6}, "warmup_steps"),
        ({"lr_scheduler_type": "constant", "warmup_ratio": 0.1}, "lr_scheduler_type"),
        ({"lr_scheduler_type": "reduce_lr_on_plateau"}, "lr_scheduler_type"),
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "lr_scheduler_type"),
        ({"lr_scheduler_type": "warmup_stable_decay"}, "lr_scheduler_type"),
        ({"eval_on_start": True}, "eval_on_start"),
        ({"optim_args": "betas"}, "optim_args"),
        ({"debug": "all"}, "debug"),
        ({"do_eval": True}, "do_eval"),
        ({"do_predict": True}, "do_predict"),
        ({"shift_attn": True}, "shift_attn"),
        ({"finetuning_type": "full", "use_llama_pro": True}, "use_llama_pro"),
        ({"ddp_backend": "nccl"}, "ddp_backend"),
    ],
)
def test_arguments_that_exclude_each_other_are_refused(args: dict[str, Any], named: str) -> None:
    found = problems({**TRAIN_ONLY, **{f"train.args.{name}": value for name, value in args.items()}})
    assert list(found) == [f"train.args.{named}"]
    assert found[f"train.args.{named}"].hint


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ({"bf16": True, "fp16": True}, "fp16"),
        ({"quantization_bit": 4, "finetuning_type": "full"}, "quantization_bit"),
        ({"quantization_bit": 4, "resize_vocab": True}, "resize_vocab"),
    ],
)
def test_arguments_that_exclude_each_other_on_a_gpu_are_refused(args: dict[str, Any], named: str) -> None:
    found = problems({**TRAIN_ONLY, **{f"train.args.{name}": value for name, value in args.items()}}, QWEN)
    assert list(found) == [f"train.args.{named}"]


@pytest.mark.parametrize(
    "args",
    [
        {"eval_strategy": "steps", "eval_dataset": "val"},
        {"eval_strategy": "epoch", "save_strategy": "epoch", "val_size": 0.1, "load_best_model_at_end": True},
        {"streaming": True, "max_steps": 10},
        {"finetuning_type": "full", "use_galore": True, "galore_rank": 64, "optim_args": "rank=64, scale=2"},
        {"bf16": True},
        {"lr_scheduler_type": "constant_with_warmup", "warmup_ratio": 0.1},
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}},
        {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": {"num_decay_steps": 5}},
        {"dataloader_num_workers": 2, "dataloader_prefetch_factor": 4},
        {"eval_on_start": True, "val_size": 0.1},
        {"pref_beta": 0.1, "quantization_type": "nf4", "packing": False},
    ],
)
def test_arguments_that_go_together_are_fine(args: dict[str, Any]) -> None:
    assert problems({**TRAIN_ONLY, **{f"train.args.{name}": value for name, value in args.items()}}) == {}


GATHERED = {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True}


@pytest.mark.parametrize(
    "args",
    [
        {"fsdp": "full_shard auto_wrap", "eval_on_start": True, "val_size": 0.1},
        {"fsdp": "full_shard", "fsdp_config": {"version": 2, "reshard_after_forward": False}},
        {"fsdp": "full_shard", "fsdp_config": {"reshard_after_forward": "shard_grad_op", "min_num_params": 1000}},
        {"deepspeed": {"zero_optimization": GATHERED}},
        {"deepspeed": {"zero_optimization": {"stage": 2}}},
    ],
)
def test_a_model_is_spread_over_gpus(args: dict[str, Any]) -> None:
    assert problems({**TRAIN_ONLY, **{f"train.args.{name}": value for name, value in args.items()}}, QWEN) == {}


@pytest.mark.parametrize(
    ("args", "key", "says"),
    [
        ({"fsdp": "fully_shard"}, "fsdp", "must be of full_shard"),
        ({"fsdp": "full_shard", "deepspeed": {"zero_optimization": {"stage": 2}}}, "deepspeed", "exclude each other"),
        ({"fsdp_config": {"version": 2}}, "fsdp_config", "goes with fsdp only"),
        (
            {
                "deepspeed": {"zero_optimization": GATHERED},
                "load_best_model_at_end": True,
                "eval_strategy": "steps",
                "val_size": 0.1,
            },
            "load_best_model_at_end",
            "each has a part of the best",
        ),
        (
            {"fsdp": "full_shard", "fsdp_config": {"state_dict_type": "FULL_STATE_DICT"}},
            "fsdp_config.state_dict_type",
            "is not taken by train.trainer=llamafactory",
        ),
        ({"fsdp": "full_shard", "fsdp_config": {"version": 3}}, "fsdp_config.version", "must be one of 1, 2"),
        (
            {"deepspeed": {"zero_optimization": {"stage": 3}}},
            "deepspeed.zero_optimization.stage3_gather_16bit_weights_on_model_save",
            "no weights are left",
        ),
    ],
)
def test_settings_of_a_spread_model_are_used_or_refused(args: dict[str, Any], key: str, says: str) -> None:
    found = problems({**TRAIN_ONLY, **{f"train.args.{name}": value for name, value in args.items()}}, QWEN)
    assert list(found) == [f"train.args.{key}"]
    assert says in found[f"train.args.{key}"].message


def test_a_model_is_not_spread_over_cpus() -> None:
    """There the library would train copies of it without a word."""
    found = problems({**TRAIN_ONLY, "train.args.fsdp": "full_shard", "resources.train.num_workers": 2})
    assert found["train.args.fsdp"].message == "needs a GPU, and cluster.accelerator is cpu"


WITHOUT_EFFECT = {
    "pref_beta": (0.2, "it goes with train.stage=dpo or kto"),
    "pref_loss": ("orpo", "it goes with train.stage=dpo"),
    "kto_chosen_weight": (2.0, "it goes with train.stage=kto"),
    "ppo_epochs": (2, "it goes with train.stage=ppo"),
    "temperature": (0.2, "training writes no answers"),
    "galore_rank": (64, "it goes with use_galore"),
    "asft_alpha": (0.5, "it goes with use_asft_loss"),
    "loraplus_lr_embedding": (1e-3, "it goes with loraplus_lr_ratio"),
    "quantization_type": ("fp4", "it goes with quantization_bit"),
    "oft_rank": (8, "it goes with finetuning_type=oft"),
    "freeze_trainable_layers": (4, "it goes with finetuning_type=freeze"),
    "dataloader_prefetch_factor": (4, "it goes with dataloader_num_workers"),
    "metric_for_best_model": ("loss", "no model is chosen as the best"),
    "eval_delay": (5, "there is no evaluation during training"),
    "mix_strategy": ("interleave_under", "training has one dataset"),
    "add_tokens": ("<a>", "rows come as tokens"),
    "infer_dtype": ("float16", "training does not use it"),
}


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_an_argument_that_does_nothing_is_refused_with_what_it_goes_with(name: str) -> None:
    value, words = WITHOUT_EFFECT[name]
    found = problems({**TRAIN_ONLY, f"train.args.{name}": value})
    assert list(found) == [f"train.args.{name}"]
    assert found[f"train.args.{name}"].message.startswith(f"has no effect: {words}")


def test_a_scheduler_that_follows_a_metric_uses_its_name() -> None:
    follows = {"lr_scheduler_type": "reduce_lr_on_plateau", "metric_for_best_model": "loss"}
    evaluated = {"eval_strategy": "steps", "eval_steps": 5, "val_size": 0.1}
    given = {f"train.args.{name}": value for name, value in {**follows, **evaluated}.items()}
    assert problems({**TRAIN_ONLY, **given}) == {}


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ({"packing": True}, "packing"),
        ({"pref_loss": "hinge", "dpo_label_smoothing": 0.1}, "dpo_label_smoothing"),
        ({"simpo_gamma": 1.0}, "simpo_gamma"),
        ({"pissa_init": True}, "pissa_init"),
        ({"ref_model_quantization_bit": 5}, "ref_model_quantization_bit"),
    ],
)
def test_arguments_of_preferences_agree(args: dict[str, Any], named: str) -> None:
    given = {f"train.args.{name}": value for name, value in args.items()}
    found = problems({**TRAIN_ONLY, "train.stage": "dpo", **given})
    assert [key for key in found if key.startswith("train.args")] == [f"train.args.{named}"]


@pytest.mark.parametrize(("name", "value"), [("train_from_scratch", True), ("rope_scaling", "linear")])
def test_an_adapter_of_another_model_than_the_engine_loads_is_refused(name: str, value: Any) -> None:
    assert "does not fit the model" in problems({f"train.args.{name}": value})[f"train.args.{name}"].message
    assert problems({**TRAIN_ONLY, f"train.args.{name}": value}) == {}


def test_ppo_needs_a_reward_model() -> None:
    assert list(problems({**TRAIN_ONLY, "train.stage": "ppo"})) == ["train.stage"]
    assert problems({**TRAIN_ONLY, "train.stage": "ppo", "train.args.reward_model": "path"}, trust=REWARD_MODEL) == {}


def test_arguments_of_supervised_training_are_refused_elsewhere() -> None:
    ppo = {**TRAIN_ONLY, "train.stage": "ppo", "train.args.reward_model": "x", "train.args.neat_packing": True}
    assert list(problems(ppo, trust=REWARD_MODEL)) == ["train.args.neat_packing"]


def test_a_stream_has_no_number_of_samples() -> None:
    stream = {"train.args.streaming": True, "train.args.max_steps": 10, "train.max_samples": 100}
    assert list(problems({**TRAIN_ONLY, **stream})) == ["train.max_samples"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("fp16", True), ("pure_bf16", True), ("flash_attn", "fa2"), ("quantization_bit", 4), ("tf32", True)],
)
def test_what_needs_a_gpu_is_refused_on_a_cpu(name: str, value: Any) -> None:
    found = problems({f"train.args.{name}": value})
    assert list(found) == [f"train.args.{name}"]
    assert "needs a GPU" in found[f"train.args.{name}"].message


def test_bfloat16_is_refused_on_gpus_without_it() -> None:
    found = problems({"resources.train.accelerator_type": "V100"}, QWEN)
    assert list(found) == ["train.args.bf16"]
    assert "V100" in found["train.args.bf16"].message


EVALUATED = {
    "eval_strategy": "steps",
    "eval_steps": 5,
    "save_steps": 5,
    "val_size": 0.1,
    "load_best_model_at_end": True,
}


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ({"metric_for_best_model": "bleu"}, "metric_for_best_model"),
        ({"metric_for_best_model": "eval_los"}, "metric_for_best_model"),
        ({"metric_for_best_model": "accuracy"}, "metric_for_best_model"),
        ({"metric_for_best_model": "loss", "greater_is_better": True}, "greater_is_better"),
        ({"metric_for_best_model": "eval_loss"}, None),
        ({"metric_for_best_model": "accuracy", "compute_accuracy": True}, None),
    ],
)
def test_the_best_model_is_chosen_by_a_metric_that_training_measures(args: dict[str, Any], named: str | None) -> None:
    found = problems({**TRAIN_ONLY, **{f"train.args.{name}": value for name, value in {**EVALUATED, **args}.items()}})
    assert list(found) == ([f"train.args.{named}"] if named else [])
