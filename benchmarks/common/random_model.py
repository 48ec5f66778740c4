"""A model of a published size with random weights, for a machine that cannot download the real one.

    python -m tests.in_environment llamafactory benchmarks.random_model qwen2_5_7b_instruct /tmp/qwen7b \\
        --tokenizer MODEL_FOLDER

Speed and memory depend on the shapes alone, so they are those of the real model; what it writes is noise, and scores
mean nothing. The tokenizer is another model's, since the real one must be downloaded too.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

# config.json of Qwen/Qwen2.5-7B-Instruct at huggingface.co.
QWEN2_5_7B = {
    "vocab_size": 152064, "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
    "num_attention_heads": 28, "num_key_value_heads": 4, "max_position_embeddings": 32768, "max_window_layers": 28,
    "sliding_window": 131072, "use_sliding_window": False, "rope_theta": 1000000.0, "rms_norm_eps": 1e-06,
    "tie_word_embeddings": False, "initializer_range": 0.02,
}  # fmt: skip
CONFIGS = {"qwen2_5_7b_instruct": QWEN2_5_7B}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("name", choices=sorted(CONFIGS))
    options.add_argument("folder", type=Path)
    options.add_argument("--tokenizer", type=Path, required=True, help="folder of a model whose tokenizer is taken")
    args = options.parse_args()
    begin = time.perf_counter()
    num_params = write(args.name, args.folder, args.tokenizer)
    print(f"{args.folder}: {num_params / 1e9:.2f}B parameters, {time.perf_counter() - begin:.0f} s")


def write(name: str, folder: Path, tokenizer_folder: Path) -> int:
    """Write the model and return its number of parameters."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    config = Qwen2Config(
        **CONFIGS[name],
        dtype=torch.bfloat16,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    # Tokens that the tokenizer does not have are never the likeliest, so that whatever is generated can be written out.
    model.lm_head.weight.data[len(tokenizer) :] = 0
    model.save_pretrained(folder, max_shard_size="4GB")
    tokenizer.save_pretrained(folder)
    num_params: int = model.num_parameters()
    return num_params


if __name__ == "__main__":
    main()
