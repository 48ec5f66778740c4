"""LoRA on CPUs: each token gets its own adapter's part, and rows of the base model none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.environment("engine")]

# One process with a tiny random model: greedy answers of the base model alone, of the adapter alone, and of a batch
# that has a row of each in turn.
ENGINE = """
import json, sys
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest

model, adapter = sys.argv[1:]
llm = LLM(
    model=model, skip_tokenizer_init=True, dtype="float32", max_model_len=64, max_num_seqs=16, enable_lora=True,
    max_lora_rank=8, max_loras=1, distributed_executor_backend="stages.patches.vllm_cpu_lora.CpuExecutor",
    enforce_eager=True, enable_prefix_caching=False, disable_log_stats=True,
)
sampling = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True, detokenize=False)
lora = LoRARequest("adapter", 1, adapter)
prompts = [{"prompt_token_ids": [start + offset for offset in range(20)]} for start in (3, 40, 77)]

def answers(prompts, loras):
    done = llm.generate(prompts, sampling, lora_request=loras, use_tqdm=False)
    return [list(each.outputs[0].token_ids) for each in done]

base, tuned = answers(prompts, None), answers(prompts, [lora] * 3)
mixed = answers([prompt for prompt in prompts for _ in range(2)], [lora, None] * 3)
print("ANSWERS", json.dumps({"base": base, "tuned": tuned, "mixed_tuned": mixed[::2], "mixed_base": mixed[1::2]}))
"""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("indices", [[0, -1, 2, 2, -1, 0, 1], [1] * 7, [-1] * 7])
def test_each_token_gets_its_own_adapters_part(indices: list[int], dtype: str) -> None:
    """Two outputs of one input, of different widths, as queries and keys."""
    import torch

    from stages.patches.vllm_cpu_lora import add_adapters, tokens_by_adapter

    torch.manual_seed(0)
    kind = getattr(torch, dtype)
    x, before = torch.randn(7, 6).to(kind), torch.randn(7, 8)
    lora_a = [torch.randn(3, 1, 4, 6).to(kind) for _ in range(2)]
    lora_b = [torch.randn(3, 1, width, 4).to(kind) for width in (5, 3)]
    expected = before.clone()
    for token, slot in enumerate(indices):
        for start, a, b in zip((0, 5), lora_a, lora_b, strict=True):
            if slot >= 0:
                part = 0.5 * b[slot, 0].float() @ (a[slot, 0].float() @ x[token].float())
                expected[token, start : start + len(part)] += part
    for y in (before.clone(), before.to(kind)):  # logits may be of another type than the adapter
        add_adapters(y.split((5, 3), dim=1), x, lora_a, lora_b, 0.5, tokens_by_adapter(torch.tensor(indices)))
        close = {} if dtype == "float32" else {"rtol": 0.05, "atol": 0.1}
        torch.testing.assert_close(y.float(), expected, **close)


@pytest.mark.filterwarnings("ignore")
def test_base_rows_among_adapter_rows_are_answered_by_the_base_model(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path / "model")
    weights = {}
    for name, layer in model.model.named_modules():  # an adapter as PEFT saves it
        if isinstance(layer, torch.nn.Linear):
            weights[f"base_model.model.model.{name}.lora_A.weight"] = torch.randn(4, layer.in_features) / 8
            weights[f"base_model.model.model.{name}.lora_B.weight"] = torch.randn(layer.out_features, 4) * 0.3
    (tmp_path / "adapter").mkdir()
    save_file(weights, tmp_path / "adapter" / "adapter_model.safetensors", metadata={"format": "pt"})
    names = sorted({name.split(".")[-3] for name in weights})
    adapter = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8, "target_modules": names}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(adapter))
    environment = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}
    command = [sys.executable, "-c", ENGINE, str(tmp_path / "model"), str(tmp_path / "adapter")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWERS ")]
    assert lines, done.stderr[-3000:]
    answers = json.loads(lines[-1].removeprefix("ANSWERS "))
    assert answers["tuned"] != answers["base"]
    assert answers["mixed_base"] == answers["base"]
    assert answers["mixed_tuned"] == answers["tuned"]
