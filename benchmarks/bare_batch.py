"""vLLM's own engine alone (`vllm.LLM`), given all prompts at once, as fast as it takes them."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Generate for the job's `prompts` (lists of token ids). Returns when the engine was ready, and what it took."""
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    engine = LLM(model=job["model"], **job["engine_kwargs"])
    ready_at = time.time()
    lora = LoRARequest("tuned", 1, job["adapter"]) if job["adapter"] else None
    prompts: Any = [{"prompt_token_ids": tokens} for tokens in job["prompts"]]
    begin = time.perf_counter()
    outputs = engine.generate(prompts, SamplingParams(**job["sampling"]), lora_request=lora, use_tqdm=False)
    generate_s = time.perf_counter() - begin
    return {
        "ready_at": ready_at,
        "generate_s": generate_s,
        "output_tokens": sum(len(output.outputs[0].token_ids) for output in outputs),
        "texts": [output.outputs[0].text for output in outputs],
    }


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
