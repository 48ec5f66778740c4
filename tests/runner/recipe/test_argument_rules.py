"""Arguments that a recipe passes through to vLLM, LLaMA-Factory and Ray."""

from __future__ import annotations

from typing import Any

import pytest

from runner.cluster import environments
from runner.pipeline.registry import mappings
from tests.runner.recipes import problems

pytestmark = pytest.mark.usefixtures("fake_stages")


@pytest.mark.parametrize(
    ("key", "value", "meant"),
    [
        ("train.args.lora_rnk", 4, "train.lora_rank"),
        ("train.args.batch_size", 4, "train.args.per_device_train_batch_size"),
        ("train.args.num_epochs", 3, "train.num_epochs"),
        ("train.args.modules_to_save", "embed_tokens", "train.args.additional_target"),
        ("infer.engine_kwargs.max_modle_len", 4096, "infer.engine_kwargs.max_model_len"),
        ("infer.engine_kwargs.max-num-seqs", 4, "infer.engine_kwargs.max_num_seqs"),
        ("serve.engine_kwargs.enable_prefix_cache", True, "serve.engine_kwargs.enable_prefix_caching"),
        ("infer.sampling.max_token", 10, "infer.sampling.max_tokens"),
        ("infer.sampling.max_new_tokens", 10, "infer.sampling.max_tokens"),
        ("infer.sampling.guided_regex", "a+", "infer.sampling.structured_outputs"),
        ("infer.sampling.structured_output", {}, "infer.sampling.structured_outputs"),
        ("infer.sampling.structured_outputs.regexp", "a+", "infer.sampling.structured_outputs.regex"),
        ("infer.sampling.structured_outputs.json_schema", {}, "infer.sampling.structured_outputs.json"),
        (
            "infer.engine_kwargs.structured_outputs_config.backends",
            "auto",
            "infer.engine_kwargs.structured_outputs_config.backend",
        ),
        ("serve.autoscaling.min_replica", 1, "serve.autoscaling.min_replicas"),
        ("serve.deployment.max_ongoing_request", 1, "serve.deployment.max_ongoing_requests"),
        ("resources.train.runtime_env.env_var", {}, "resources.train.runtime_env.env_vars"),
    ],
)
def test_an_unknown_name_is_refused_with_the_one_that_was_meant(key: str, value: Any, meant: str) -> None:
    found = problems({key: value})
    assert list(found) == [key]
    assert found[key].hint == f"Did you mean {meant}?"
    assert found[key].value == value


def test_the_library_and_its_version_are_named() -> None:
    found = problems({"train.args.foo": 1, "infer.engine_kwargs.foo": 1, "serve.autoscaling.foo": 1})
    assert "LLaMA-Factory 0.9.5" in found["train.args.foo"].message
    assert "vLLM 0.29.0" in found["infer.engine_kwargs.foo"].message
    assert "Ray 2.60.0" in found["serve.autoscaling.foo"].message


@pytest.mark.parametrize(
    ("key", "home"),
    [
        ("infer.engine_kwargs.temperature", "infer.sampling"),
        ("infer.sampling.max_model_len", "infer.engine_kwargs"),
        ("infer.sampling.regex", "infer.sampling.structured_outputs"),
        ("infer.engine_kwargs.weight_decay", "train.args"),
        ("train.args.max_model_len", "infer.engine_kwargs"),
        ("infer.engine_kwargs.response_role", "serve.engine_kwargs"),
        ("train.cutoff_len", "train.args"),
        ("infer.temperature", "infer.sampling"),
        ("serve.max_replicas", "serve.autoscaling"),
        ("serve.max_ongoing_requests", "serve.deployment"),
    ],
)
def test_an_argument_in_the_wrong_place_is_sent_to_the_right_one(key: str, home: str) -> None:
    found = problems({key: 1})
    assert list(found) == [key]
    assert found[key].hint.endswith(f"put it under {home}.")


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("train.args.cutoff_len", "long", "a whole number"),
        ("train.args.weight_decay", [0.1], "a number"),
        ("train.args.bf16", "yes", "true or false"),
        ("train.args.lr_scheduler_type", "cosin", "one of linear, cosine"),
        ("train.args.flash_attn", "fa9", "one of auto, disabled, sdpa, fa2, fa3"),
        ("infer.engine_kwargs.max_model_len", 4096.5, "one of -1, a whole number >= 1, or null"),
        ("infer.engine_kwargs.gpu_memory_utilization", 1.5, "a number > 0 and <= 1"),
        ("infer.engine_kwargs.dtype", "int8", "one of auto, half"),
        ("infer.engine_kwargs.max_lora_rank", 12, "one of 1, 8, 16, 32"),
        ("infer.engine_kwargs.enforce_eager", "no", "true or false"),
        ("serve.engine_kwargs.max_loras", 0, "a whole number >= 1"),
        ("infer.sampling.temperature", -1, "0, or a number >= 0.01 and <= 2"),
        ("infer.sampling.top_p", 0, "a number > 0 and <= 1"),
        ("infer.sampling.max_tokens", "250", "a whole number >= 1 and <= 2147483647, or null"),
        ("serve.autoscaling.target_ongoing_requests", 0, "a number > 0, or null"),
        ("serve.autoscaling.upscale_delay_s", "soon", "a number >= 0"),
        ("serve.deployment.max_ongoing_requests", 0, "a whole number > 0"),
        ("resources.train.runtime_env.env_vars", ["A=1"], "a mapping"),
    ],
)
def test_a_value_of_the_wrong_kind_or_range_is_refused_with_what_is_allowed(key: str, value: Any, allowed: str) -> None:
    found = problems({key: value})
    assert list(found) == [key]
    assert allowed in found[key].message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.args.deepspeed", {"zero_optimization": {"stage": 2}, "bf16": {"enabled": True}}),
        ("train.args.weight_decay", 1),
        ("train.args.lora_alpha", 16),
        ("train.args.warmup_steps", 0.1),
        ("train.args.cutoff_len", None),
        ("train.args.bf16", 1),
        ("infer.engine_kwargs.compilation_config", {"level": 3}),
        ("infer.engine_kwargs.attention_backend", "flash_attn"),
        ("infer.engine_kwargs.quantization", "compressed-tensors"),
        ("infer.engine_kwargs.max_num_seqs", None),
        ("infer.sampling.stop", ["\n"]),
        ("infer.sampling.structured_outputs", {"regex": "a+"}),
        ("infer.sampling.structured_outputs", {"json": {"type": "object"}, "disable_any_whitespace": False}),
        ("infer.sampling.structured_outputs", {"choice": ["yes", "no"]}),
        ("infer.sampling.structured_outputs", {"grammar": 'root ::= "a"'}),
        ("infer.engine_kwargs.structured_outputs_config", {"backend": "guidance"}),
        ("serve.engine_kwargs.enable_prompt_tokens_details", True),
        ("serve.deployment.ray_actor_options", {"num_cpus": 0}),
        ("resources.train.runtime_env.env_vars", {"OMP_NUM_THREADS": "4", "NCCL_DEBUG": "INFO"}),
    ],
)
def test_what_the_library_takes_is_not_refused(key: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "version", lambda *names: "1")
    assert problems({key: value}) == {}


@pytest.mark.parametrize(
    ("key", "instead"),
    [
        ("train.args.seed", "seed"),
        ("train.args.learning_rate", "train.learning_rate"),
        ("train.args.num_train_epochs", "train.num_epochs"),
        ("train.args.max_samples", "train.max_samples"),
        ("train.args.lora_rank", "train.lora_rank"),
        ("train.args.lora_target", "train.lora_target"),
        ("train.args.model_name_or_path", "model.source"),
        ("train.args.template", "model.template"),
        ("train.args.stage", "train.stage"),
        ("train.args.dataset", "dataset.source"),
        ("train.args.dataset_dir", "dataset.source"),
        ("train.args.output_dir", "storage.root"),
        ("train.args.resume_from_checkpoint", "train.max_failures"),
        ("infer.engine_kwargs.model", "model.source"),
        ("infer.engine_kwargs.tokenizer", "model.source"),
        ("infer.engine_kwargs.enable_lora", "publish"),
        ("infer.engine_kwargs.trust_remote_code", "model.trust_remote_code"),
        ("serve.engine_kwargs.served_model_name", "serve.model_id"),
        ("serve.engine_kwargs.host", "serve.host"),
        ("serve.deployment.autoscaling_config", "serve.autoscaling"),
        ("serve.deployment.num_replicas", "serve.autoscaling"),
    ],
)
def test_what_the_runner_sets_is_refused_with_the_recipes_key_for_it(key: str, instead: str) -> None:
    found = problems({key: "x"})
    assert list(found) == [key]
    assert instead in found[key].hint


def test_an_argument_with_a_key_of_its_own_in_the_wrong_place_is_sent_to_that_key() -> None:
    assert problems({"infer.engine_kwargs.learning_rate": 1})["infer.engine_kwargs.learning_rate"].hint == (
        "Set train.learning_rate."
    )


def test_every_reserved_argument_is_one_of_the_library() -> None:
    for mapped in mappings():
        assert set(mapped.reserved) <= set(mapped.entries()), mapped.key


def test_a_mistake_that_serve_inherits_from_infer_is_reported_once() -> None:
    assert list(problems({"infer.engine_kwargs.max_modle_len": 1})) == ["infer.engine_kwargs.max_modle_len"]


def test_an_unquoted_no_is_explained() -> None:
    found = problems({"train.args.eval_strategy": False})
    assert 'write "no" in quotes' in found["train.args.eval_strategy"].hint


@pytest.mark.parametrize(("value", "text"), [("1e-4", "1e-4"), ("True", "True")])
def test_a_quoted_number_or_boolean_is_explained(value: str, text: str) -> None:
    key = "train.args.weight_decay" if value == "1e-4" else "train.args.packing"
    assert problems({key: value})[key].hint == f"Write {text} without quotes."
