"""Batch inference."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from runner.recipe.schema import PassThrough, PositiveInt, Section


class Infer(Section):
    """Batch inference over the test set by ray.data.llm and vLLM."""

    backend: str = Field("vllm", description="The engine of batch inference and the endpoint.")
    engine_kwargs: PassThrough = Field(
        default_factory=dict,
        description="vLLM engine arguments, by vLLM's own names.",
        examples=[{"max_model_len": 4096, "max_lora_rank": 8}],
    )
    sampling: PassThrough = Field(
        default_factory=dict,
        description="vLLM sampling parameters, by vLLM's own names, for batch inference and the query stage.",
        examples=[
            {"temperature": 0.0, "max_tokens": 250},
            {"temperature": 0.0, "structured_outputs": {"choice": ["yes", "no"]}},
        ],
    )
    batch_size: PositiveInt = Field(64, description="Rows handed to an engine at a time.")
    concurrency: PositiveInt = Field(1, description="Number of engines (replicas) that work side by side.")
    engine: Literal["auto", "own", "shared"] = Field(
        "auto",
        description="own: engines of ray.data.llm, which end with the stage. shared: where there is a serve stage, the "
        "endpoint's replicas, which it then opens to clients, so that the engine starts once; serve.* says how many. "
        "On a cluster that the run starts itself it starts while earlier stages run, where there is capacity for both. "
        "auto: shared where batch inference and the endpoint's first replicas have the same arguments, GPUs and "
        "number, and an adapter is trained; own otherwise.",
    )
