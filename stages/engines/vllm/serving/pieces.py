"""In a replica: the answers to a piece of a batch job, by the engine that also answers requests by HTTP."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from stages.engines.work import Work

_ENGINES_OWN = ("tokenized_prompt", "sampling_params", "multimodal_data")


async def answer_piece(
    client: Any, lora: Callable[[str], Awaitable[Any]], piece: Mapping[str, Any], work: Work
) -> list[dict[str, Any]]:
    """The results of the piece's rows, as `Work.tell` gives them.

    client: vLLM's engine client. lora: gives the LoRARequest of an adapter by its name.
    A row that the engine refuses becomes a result with an error. Raises vLLM's EngineDeadError.
    """
    rows = list(work.read(piece))
    names = dict.fromkeys(name for row in rows if (name := work.adapter(row)))
    adapters: dict[str | None, Any] = {name: await lora(name) for name in names}
    return list(await asyncio.gather(*(_answer(client, row, adapters.get(work.adapter(row)), work) for row in rows)))


async def _answer(client: Any, row: dict[str, Any], adapter: Any, work: Work) -> dict[str, Any]:
    from vllm.v1.engine.exceptions import EngineDeadError

    asked, begin = work.ask(row), time.perf_counter()
    output, error = {}, asked["__inference_error__"]
    if not error:
        try:
            output = await _generate(client, asked, adapter)
        except EngineDeadError:
            raise
        except Exception as cause:
            error = f"{type(cause).__name__}: {cause}"
    taken = {"time_taken_llm": time.perf_counter() - begin, "__inference_error__": error}
    kept = {name: value for name, value in asked.items() if name not in _ENGINES_OWN}
    return work.tell({**row, **kept, **output, **taken})


async def _generate(client: Any, asked: dict[str, Any], lora: Any) -> dict[str, Any]:
    """As `ray.data.llm` asks the engine and reads its output (its vLLMEngineWrapper and vLLMOutputData)."""
    sampling, prompt = asked["sampling_params"], {"prompt_token_ids": asked["tokenized_prompt"]}
    if images := asked.get("multimodal_data"):
        prompt["multi_modal_data"] = images
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    form = sampling.pop("structured_outputs", None)
    params = SamplingParams(**sampling, structured_outputs=StructuredOutputsParams(**form) if form else None)
    params.output_kind = RequestOutputKind.FINAL_ONLY
    final: Any = None
    async for output in client.generate(prompt, params, uuid.uuid4().hex, lora_request=lora):
        final = output
    made = final.outputs[0]
    return {
        "generated_text": made.text,
        "num_input_tokens": len(final.prompt_token_ids),
        "num_generated_tokens": len(made.token_ids),
    }
