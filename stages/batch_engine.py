"""The actor of batch inference: `ray.data.llm`'s, which asks the engine for whole answers instead of each token's.

Ray's own takes every answer as it grows and looks at its last state alone. 256 answers that grow by a token each are
256 objects a step, made in the process that feeds the engine: an eighth of the rows per second of a 7B model on an H100
(`benchmarks/RESULTS.md`). vLLM's `stream_interval` would not help: it thins out only what is sent in differences.
"""

from __future__ import annotations

from typing import Any

from ray.llm._internal.batch.stages.vllm_engine_stage import vLLMEngineStageUDF, vLLMEngineWrapper


class _WholeAnswers(vLLMEngineWrapper):  # type: ignore[misc]
    async def _prepare_llm_request(self, row: dict[str, Any]) -> Any:
        from vllm.sampling_params import RequestOutputKind

        request = await super()._prepare_llm_request(row)
        request.params.output_kind = RequestOutputKind.FINAL_ONLY
        return request


class BatchEngine(vLLMEngineStageUDF):  # type: ignore[misc]
    """Takes the arguments of Ray's own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.llm.__class__ = _WholeAnswers  # Ray's own makes its wrapper within its constructor


def ask_for_whole_answers(processor: Any) -> None:
    """Have the processor's engine run in `BatchEngine`.

    The stage is replaced by a copy: to assign to a field of it computes its resources anew, from what is no longer
    there, and it would ask for a GPU.
    """
    name = "vLLMEngineStage"
    processor.stages[name] = processor.get_stage_by_name(name).model_copy(update={"fn": BatchEngine})
