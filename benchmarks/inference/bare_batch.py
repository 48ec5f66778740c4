"""vLLM's own engine alone (`vllm.LLM`), given all prompts at once, as fast as it takes them."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Generate for the job's `prompts` (lists of token ids) with each of its `models`, `tuned` being the adapter.

    Returns when the engine was ready (Unix time, s), how long generating took, and the texts of each model.
    """
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    engine = LLM(model=job["model"], **job["engine_kwargs"])
    ready_at = time.time()
    prompts: Any = [{"prompt_token_ids": tokens} for tokens in job["prompts"]]
    sampling = SamplingParams(**job["sampling"])
    texts: dict[str, list[str]] = {}
    num_tokens, begin = 0, time.perf_counter()
    for name in job["models"]:
        lora = LoRARequest("tuned", 1, job["adapter"]) if name == "tuned" else None
        outputs = engine.generate(prompts, sampling, lora_request=lora, use_tqdm=False)
        texts[name] = [output.outputs[0].text for output in outputs]
        num_tokens += sum(len(output.outputs[0].token_ids) for output in outputs)
    generate_s = time.perf_counter() - begin
    return {"ready_at": ready_at, "generate_s": generate_s, "output_tokens": num_tokens, "texts": texts}


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
