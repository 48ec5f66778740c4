"""The endpoint, its keys and its limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from runner.recipe.schema import PassThrough, PositiveInt, Seconds, Section


class ApiKeys(Section):
    """Where the endpoint's API keys are: in a file, an environment variable, or both. Never in the recipe itself."""

    file: str | None = Field(
        None,
        description="File with one key a line (16 characters or more; # begins a comment). The endpoint reads it again "
        "when it has changed, so that keys are added and withdrawn without a restart. Every node that may run the "
        "endpoint's replicas must have it at this path, and the node of the runner.",
        examples=["/etc/recipe-runner/keys"],
    )
    env: str | None = Field(
        None,
        description="Environment variable of the runner with one or more keys, separated by commas. The endpoint gets "
        "their digests when it is deployed; other keys need another deploy.",
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        json_schema_extra={"patternErrorMessage": "the name of a variable: letters, digits and '_', no digit first"},
        examples=["SERVE_API_KEYS"],
    )


class Limits(Section):
    """What one request to the endpoint may ask for, and how many there may be."""

    max_body_bytes: PositiveInt = Field(
        10_485_760, description="The largest body of a request, in bytes; a larger one is answered with 413."
    )
    max_tokens: PositiveInt | None = Field(
        None,
        description="The most that a request may give as max_tokens or max_completion_tokens (more is answered with "
        "400), and what one that gives neither gets; null leaves it to engine_kwargs.max_model_len.",
        examples=[1024],
    )
    max_n: PositiveInt = Field(
        16, description="The most answers to a prompt, n or best_of; a request for more is answered with 400."
    )
    max_answers: PositiveInt = Field(
        128,
        description="The most answers that one request may ask for: its prompts times n; more is answered with 400.",
    )
    max_grammar_bytes: PositiveInt = Field(
        32_768,
        description="The most bytes that the JSON schemas, regular expressions and grammars of a request may have "
        "together; more, or more than 64 levels, is answered with 400.",
    )
    grammar_timeout_s: Seconds = Field(
        5.0,
        description="Seconds that the compilation of a JSON schema, regular expression or grammar may take; it is "
        "tried in a process of its own, and one that takes longer is answered with 400.",
    )
    template_timeout_s: Seconds = Field(
        5.0,
        description="Seconds that the chat template may take for the messages of a request; it is rendered in a "
        "process of its own, and a request that takes longer is answered with 400.",
    )
    requests_per_minute: PositiveInt | None = Field(
        None,
        description="Requests of one key in any 60 s (of all clients together, without keys); one of several prompts "
        "or answers counts as prompts times n. One more is answered "
        "with 429 and Retry-After. Every replica counts its own. null: no limit.",
        examples=[600],
    )


class Serve(Section):
    """An OpenAI-compatible endpoint by ray.serve.llm, with the adapter loaded on demand."""

    other_names: ClassVar[Mapping[str, str]] = {
        "replicas": "autoscaling.min_replicas",
        "num_replicas": "autoscaling.min_replicas",
        "address": "host",
        "name": "model_id",
    }

    model_id: str = Field(
        "",
        description="Name of the base model at the endpoint; the adapter is `<model_id>:<adapter_id>`. Where it is "
        "left out, the last part of `model.source`.",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
        json_schema_extra={
            "patternErrorMessage": "1 to 128 letters (a to z), digits, '.', '-' and '_', the first a letter or digit"
        },
        examples=["base"],
    )
    engine_kwargs: PassThrough = Field(
        default_factory=dict,
        description="vLLM engine arguments, by vLLM's own names; what is not given is taken from infer.engine_kwargs, "
        "and a null drops it.",
        examples=[{"max_num_seqs": 64}],
    )
    autoscaling: PassThrough = Field(
        default_factory=lambda: {"min_replicas": 1, "max_replicas": 1},
        description="Ray Serve's autoscaling_config, by its own names.",
    )
    deployment: PassThrough = Field(
        default_factory=dict,
        description="Other Ray Serve deployment options, by their own names.",
        examples=[{"max_ongoing_requests": 64}],
    )
    max_adapters_per_replica: PositiveInt = Field(
        1, description="LoRA adapters that a replica holds: the endpoint's max_loras."
    )
    runs: list[str] = Field(
        default_factory=list,
        description="Ids of other runs whose evaluated adapters are served with this one's, each by its name; the "
        "endpoint then knows just these. On one base model, in one store; their ranks may differ.",
    )
    host: str = Field(
        "127.0.0.1",
        description="Address the endpoint binds; one that others can reach needs `api_keys`.",
    )
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8000, description="Port of the endpoint; 0 takes a free one.")
    api_keys: ApiKeys | None = Field(
        None,
        description="Keys that clients must send one of (`Authorization: Bearer KEY`); null asks for none.",
    )
    limits: Limits = Limits()
    startup_timeout_s: Annotated[int, Field(gt=0, le=2_000_000)] = Field(
        900, description="Seconds to wait for a healthy endpoint."
    )
    request_timeout_s: Seconds = Field(
        300.0,
        description="Seconds a request may take, to its last token; one that hangs ends with an error. A replica that "
        "is taken down has as long to finish the requests that it has.",
    )
    redeploy: bool = Field(
        False,
        description="When the cluster already serves an application of this recipe's name: update it in place, without "
        "losing a request, instead of refusing. The run that started it takes it down.",
    )
    keep_alive: bool = Field(False, description="Stay in the foreground with the service up until Ctrl-C.")
