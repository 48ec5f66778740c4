"""What vLLM's engines can load, and what fits into them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner.cluster import environments
from stages.engines.vllm import rules
from tests.runner.recipes import QWEN, problems

pytestmark = pytest.mark.usefixtures("fake_stages")


def test_a_plain_checkout_is_refused_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM finds this package's plug-in by what pip wrote when it was installed."""
    monkeypatch.setattr(rules, "has_plugin", lambda: False)
    found = problems({})
    assert list(found) == ["infer.backend"]
    assert f"pip install --python {environments.python('engine')} --no-deps -e " in found["infer.backend"].hint
    assert problems({"pipeline": ["ingest", "train"]}) == {}
    assert "infer.backend" not in problems({"cluster.address": "10.0.0.1:6379"})  # whose packages are others


def test_the_adapters_rank_fits_the_engine() -> None:
    found = problems({"train.lora_rank": 12, "infer.engine_kwargs.max_lora_rank": 8})
    assert list(found) == ["infer.engine_kwargs.max_lora_rank"]
    assert found["infer.engine_kwargs.max_lora_rank"].hint == "Set infer.engine_kwargs.max_lora_rank=16."


def test_a_rank_that_is_not_given_is_made_to_fit() -> None:
    ranks = {"infer.engine_kwargs": {}, "serve.engine_kwargs": {}}
    assert problems({"train.lora_rank": 32, **ranks}) == {}


def test_an_endpoint_of_its_own_rank_is_looked_at_too() -> None:
    ranks = {"infer.engine_kwargs.max_lora_rank": 32, "serve.engine_kwargs": {"max_lora_rank": 16}}
    assert list(problems({"train.lora_rank": 32, **ranks})) == ["serve.engine_kwargs.max_lora_rank"]


def test_a_rank_that_no_engine_takes_is_refused() -> None:
    found = problems({"train.lora_rank": 1024})
    assert list(found) == ["train.lora_rank"]
    assert "512" in found["train.lora_rank"].message


def test_without_publish_no_rank_matters() -> None:
    assert problems({"pipeline": ["ingest", "train"], "train.lora_rank": 1024}) == {}


def test_adapters_of_a_replica_are_not_those_of_batch_inference() -> None:
    assert problems({"serve.max_adapters_per_replica": 4}) == {}
    found = problems({"serve.max_adapters_per_replica": 4, "serve.engine_kwargs": {"max_loras": 2}})
    assert list(found) == ["serve.max_adapters_per_replica"]
    assert problems({"serve.max_adapters_per_replica": 4, "serve.engine_kwargs": {"max_loras": 4}}) == {}


def test_adapters_in_memory_are_at_least_those_in_use() -> None:
    found = problems({"infer.engine_kwargs.max_loras": 4, "infer.engine_kwargs.max_cpu_loras": 2,
                      "serve.max_adapters_per_replica": 4})  # fmt: skip
    assert list(found) == ["infer.engine_kwargs.max_cpu_loras", "serve.engine_kwargs.max_cpu_loras"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("additional_target", "embed_tokens"), ("resize_vocab", True), ("use_dora", True), ("pissa_init", True)],
)
def test_an_adapter_that_vllm_cannot_load_is_refused(name: str, value: Any) -> None:
    assert list(problems({f"train.args.{name}": value})) == [f"train.args.{name}"]
    assert problems({f"train.args.{name}": value, "pipeline": ["ingest", "train"]}) == {}


@pytest.mark.parametrize("kind", ["full", "freeze", "oft"])
def test_only_lora_makes_an_adapter_to_serve(kind: str) -> None:
    assert list(problems({"train.args.finetuning_type": kind})) == ["train.args.finetuning_type"]
    assert problems({"train.args.finetuning_type": kind, "pipeline": ["ingest", "train"]}) == {}


def test_prompt_and_answer_fit_the_model_length() -> None:
    lengths = {"train.args.cutoff_len": 2048, "infer.engine_kwargs.max_model_len": 2048}
    found = problems({**lengths, "infer.sampling.max_tokens": 250})
    assert list(found) == ["infer.engine_kwargs.max_model_len"]
    assert "2298 or more" in found["infer.engine_kwargs.max_model_len"].hint
    assert problems({**lengths, "infer.engine_kwargs.max_model_len": 2298}) == {}


@pytest.mark.parametrize("name", ["packing", "neat_packing"])
def test_a_pack_of_rows_need_not_fit_as_a_prompt(name: str) -> None:
    lengths = {"train.args.cutoff_len": 2048, "infer.engine_kwargs.max_model_len": 2048}
    assert problems({**lengths, f"train.args.{name}": True}) == {}


def test_an_answer_leaves_tokens_for_a_prompt() -> None:
    found = problems({"infer.engine_kwargs.max_model_len": 256, "infer.sampling.max_tokens": 256})
    assert list(found) == ["infer.sampling.max_tokens"]


def test_an_engine_is_not_longer_than_its_model() -> None:
    key = "infer.engine_kwargs.max_model_len"
    found = problems({key: 8193, "serve.engine_kwargs.max_model_len": 8193})
    assert (list(found), found[key].hint) == ([key], "Set it to 8192 or less.")
    assert problems({key: 8192, "train.args.cutoff_len": 8000}) == {}
    assert problems({key: 9000, "infer.engine_kwargs.hf_overrides": {"max_position_embeddings": 9000}}) == {}


@pytest.mark.parametrize(
    ("scaling", "refused"), [({"rope_type": "llama3", "factor": 8.0}, True), ({"type": "yarn"}, False)]
)
def test_a_model_that_stretches_its_positions_says_its_length_itself(
    scaling: dict[str, Any], refused: bool, tmp_path: Path
) -> None:
    config = {
        "model_type": "llama", "vocab_size": 9, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 1, "max_position_embeddings": 512, "rope_scaling": scaling,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "model.safetensors"):
        (tmp_path / name).touch()
    found = problems(
        {"model.source": str(tmp_path), "model.architecture": None, "infer.engine_kwargs.max_model_len": 600}
    )
    assert ("infer.engine_kwargs.max_model_len" in found) is refused


def test_an_automatic_model_length_fits_everything() -> None:
    assert problems({"train.args.cutoff_len": 9999, "infer.engine_kwargs.max_model_len": -1}) == {}


def test_batches_hold_a_whole_prompt_when_it_is_not_split() -> None:
    key = "infer.engine_kwargs.max_num_batched_tokens"
    lengths = {key: 1024, "infer.engine_kwargs.max_model_len": 2048}
    found = problems({**lengths, "infer.engine_kwargs.enable_chunked_prefill": False})
    assert list(found) == [key]
    assert problems({**lengths, "infer.engine_kwargs.enable_chunked_prefill": True}) == {}


def test_batches_hold_a_token_of_each_sequence() -> None:
    key = "infer.engine_kwargs.max_num_batched_tokens"
    assert list(problems({key: 128, "infer.engine_kwargs.max_num_seqs": 256})) == [key]


def test_bfloat16_needs_hardware_that_computes_it() -> None:
    found = problems({"resources.infer.accelerator_type": "T4", "resources.serve.accelerator_type": "V100"}, QWEN)
    # The endpoint's engine is the batch's own, so it is reported once.
    assert set(found) == {"infer.engine_kwargs.dtype"}


@pytest.mark.parametrize(("method", "hint"), [("awqq", "Did you mean awq?"), ("bitsandbytes", "Remove it")])
def test_a_quantization_that_vllm_does_not_have_is_refused(method: str, hint: str) -> None:
    found = problems({"infer.engine_kwargs.quantization": method}, QWEN)
    assert list(found) == ["infer.engine_kwargs.quantization"]
    assert hint in found["infer.engine_kwargs.quantization"].hint
    assert problems({"infer.engine_kwargs.quantization": "awq"}, QWEN) == {}


@pytest.mark.parametrize("name", ["max_model_len", "max_num_seqs", "max_num_batched_tokens", "block_size"])
def test_an_engine_of_nothing_is_refused(name: str) -> None:
    assert list(problems({f"infer.engine_kwargs.{name}": 0})) == [f"infer.engine_kwargs.{name}"]


def test_a_shared_engine_has_the_same_arguments_for_batch_and_endpoint() -> None:
    changes = {"infer.engine": "shared", "serve.engine_kwargs": {"max_num_seqs": 4, "max_loras": 1}}
    found = problems(changes)
    assert list(found) == ["serve.engine_kwargs.max_num_seqs"]
    assert found["serve.engine_kwargs.max_num_seqs"].hint == (
        "Move it to infer.engine_kwargs.max_num_seqs, or set infer.engine=own."
    )
    assert problems({**changes, "infer.engine": "own"}) == {}
