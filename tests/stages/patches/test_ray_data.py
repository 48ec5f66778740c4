"""The actor of batch inference is Ray's own, but for how it asks the engine."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.environment("engine"), pytest.mark.filterwarnings("ignore")]


def processor() -> Any:
    from ray.llm._internal.batch.stages.vllm_engine_stage import vLLMEngineStage

    group = {"bundle_per_worker": {"CPU": 2}, "strategy": "PACK"}
    stage = vLLMEngineStage(
        fn_constructor_kwargs={"model": "/model", "engine_kwargs": {}, "placement_group_config": group},
        map_batches_kwargs={},
    )
    stages = OrderedDict({"vLLMEngineStage": stage})
    return SimpleNamespace(stages=stages, get_stage_by_name=stages.__getitem__)


def test_the_engine_keeps_the_resources_of_the_recipe() -> None:
    from stages.patches.ray_data import ask_for_whole_answers

    made = processor()
    assert made.stages["vLLMEngineStage"].map_batches_kwargs == {"num_cpus": 2}
    ask_for_whole_answers(made)
    stage = made.stages["vLLMEngineStage"]
    assert stage.fn.__name__ == "BatchEngine"
    assert stage.map_batches_kwargs == {"num_cpus": 2}


def test_the_engine_is_asked_for_the_whole_answer_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.llm._internal.batch.stages import vllm_engine_stage
    from vllm.sampling_params import RequestOutputKind

    from stages.patches.ray_data import ask_for_whole_answers

    async def no_adapter(row: dict[str, Any]) -> None:
        return None

    def without_engine(self: Any, *args: Any, **kwargs: Any) -> None:
        self.llm = vllm_engine_stage.vLLMEngineWrapper.__new__(vllm_engine_stage.vLLMEngineWrapper)
        task = vllm_engine_stage.vLLMTaskType.GENERATE
        vars(self.llm).update(task_type=task, request_id=0, idx_in_batch_column="i", _maybe_get_lora_request=no_adapter)
        self.llm.shutdown = lambda: None

    monkeypatch.setattr(vllm_engine_stage.vLLMEngineStageUDF, "__init__", without_engine)
    made = processor()
    ask_for_whole_answers(made)
    actor = made.stages["vLLMEngineStage"].fn()
    row = {"i": 3, "tokenized_prompt": [1, 2], "sampling_params": {"max_tokens": 5, "temperature": 0.0}}
    request = asyncio.run(actor.llm._prepare_llm_request(row))
    assert request.params.output_kind is RequestOutputKind.FINAL_ONLY
    assert (request.params.max_tokens, request.prompt_token_ids, request.idx_in_batch) == (5, [1, 2], 3)
