"""The actor of batch inference is Ray's own, but for how it asks the engine."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from types import SimpleNamespace

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore")]


def processor():
    from ray.data.llm import vLLMEngineProcessorConfig
    from ray.llm._internal.batch.stages.vllm_engine_stage import vLLMEngineStage

    fields = vLLMEngineProcessorConfig(model_source="/model", engine_kwargs={}, concurrency=1)
    stage = vLLMEngineStage(
        fn_constructor_kwargs={
            "model": fields.model_source,
            "engine_kwargs": {},
            "placement_group_config": {"bundle_per_worker": {"CPU": 2}, "strategy": "PACK"},
        },
        map_batches_kwargs={},
    )
    stages = OrderedDict({"vLLMEngineStage": stage})
    return SimpleNamespace(stages=stages, get_stage_by_name=stages.__getitem__)


def test_the_engine_keeps_the_resources_of_the_recipe():
    from stages.batch_engine import BatchEngine, ask_for_whole_answers

    made = processor()
    assert made.stages["vLLMEngineStage"].map_batches_kwargs == {"num_cpus": 2}
    ask_for_whole_answers(made)
    stage = made.stages["vLLMEngineStage"]
    assert stage.fn is BatchEngine
    assert stage.map_batches_kwargs == {"num_cpus": 2}
    stage.map_batches_kwargs.update(max_restarts=2)
    assert made.get_stage_by_name("vLLMEngineStage").map_batches_kwargs == {"num_cpus": 2, "max_restarts": 2}


def test_the_engine_is_asked_for_the_whole_answer_alone():
    from ray.llm._internal.batch.stages.vllm_engine_stage import vLLMTaskType
    from vllm.sampling_params import RequestOutputKind

    from stages.batch_engine import _WholeAnswers

    async def no_adapter(row):
        return None

    wrapper = _WholeAnswers.__new__(_WholeAnswers)
    vars(wrapper).update(
        task_type=vLLMTaskType.GENERATE, request_id=0, idx_in_batch_column="i", _maybe_get_lora_request=no_adapter
    )
    row = {"i": 3, "tokenized_prompt": [1, 2], "sampling_params": {"max_tokens": 5, "temperature": 0.0}}
    request = asyncio.run(wrapper._prepare_llm_request(row))
    assert request.params.output_kind is RequestOutputKind.FINAL_ONLY
    assert (request.params.max_tokens, request.prompt_token_ids, request.idx_in_batch) == (5, [1, 2], 3)
