"""Prints the table of docs/conversation.md: `python -m tests.stages.models.family_table`.

For imitated families (`families`), one row each: are the token ids that training learns, that batch inference asks and
that vLLM's own chat endpoint makes of a client's request the same, or is the row refused before training? All three are
computed by what a run uses.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import warnings
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from runner.errors import RunnerError
from stages.data.example import Example
from stages.engines.vllm.serving.server import chat_kwargs
from stages.infer.prompts import prompt_of
from stages.ingest.parity import check
from stages.models.chat_template import ChatTemplate
from stages.models.learned import learned
from stages.query.stage import request_of
from stages.sections.recipe import Recipe
from tests.stages.engines.endpoint_renderer import endpoint_renderer
from tests.stages.models.families import save_model

BEGIN, END = "<!-- made by python -m tests.stages.models.family_table -->", "<!-- end -->"
_ASKED: list[dict[str, Any]] = [
    {"role": "user", "content": " Open on Sunday? "},
    {"role": "assistant", "content": " At eight. "},
]
_SYSTEM: list[dict[str, Any]] = [{"role": "system", "content": "Be brief."}, *_ASKED]
_TURNS: list[dict[str, Any]] = [
    *_ASKED,
    {"role": "user", "content": "Sure?"},
    {"role": "assistant", "content": " Yes. "},
]
_THOUGHT = [_ASKED[0], {**_ASKED[1], "reasoning_content": "Bakers rise early."}]
_TOOLS = [{"type": "function", "function": {"name": "stock", "parameters": {"type": "object"}}}]
_CALL = {"id": "c1", "type": "function", "function": {"name": "stock", "arguments": {"item": "rye"}}}
_CALLED: list[dict[str, Any]] = [
    {"role": "user", "content": "Any rye left?"},
    {"role": "assistant", "content": None, "tool_calls": [_CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "2"},
    {"role": "assistant", "content": "Two loaves."},
]
_OWN = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


@dataclass(frozen=True)
class Case:
    """family: of `families`. model: keys of the recipe's section. messages, tools: of the row."""

    family: str
    rows: str
    messages: list[dict[str, Any]]
    model: dict[str, Any] = field(default_factory=dict)
    tools: list[dict[str, Any]] | None = None
    shown: str = ""

    @property
    def keys(self) -> str:
        """The keys of `model` as a recipe has them."""
        return self.shown or ", ".join(f"`{key}: {_yaml(value)}`" for key, value in self.model.items()) or "none"


def _yaml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_yaml(each)}" for key, each in value.items()) + "}"
    return str(value).lower() if isinstance(value, bool) else str(value)


_FIXED = {"chat_template_kwargs": {"date_string": "26 Jul 2024"}}
_OFF = {"chat_template_kwargs": {"enable_thinking": False}}
CASES = (
    Case("llama3.1", "question and answer", _ASKED),
    Case("llama3.1", "system message, two turns", [_SYSTEM[0], *_TURNS], _FIXED),
    Case("qwen3", "reasoning", _THOUGHT, {"reasoning_parser": "qwen3"}),
    Case("qwen3", "no reasoning", _ASKED),
    Case("qwen3", "no reasoning, two turns", _TURNS, _OFF),
    Case("qwen3", "tools, call and result", _CALLED, {**_OFF, "tool_parser": "hermes"}, _TOOLS),
    Case("gemma", "two turns", _TURNS),
    Case("gemma", "system message", _SYSTEM),
    Case("mistral", "two turns", _TURNS),
    Case("mistral", "two questions in a row", [_ASKED[0], *_ASKED]),
    Case("phi", "system message, two turns", [_SYSTEM[0], *_TURNS]),
    Case("deepseek-r1", "reasoning", _THOUGHT, {"reasoning_parser": "deepseek_r1"}),
    Case("deepseek-r1", "no reasoning", _ASKED),
    Case("parts", "system message, two turns", [_SYSTEM[0], *_TURNS]),
    Case("parts", "tools, call and result", _CALLED, {"tool_parser": "hermes"}, _TOOLS),
    Case("hermes", "tools, call and result", _CALLED, {"tool_parser": "hermes"}, _TOOLS),
    Case("qwen3-coder", "tools, call and result", _CALLED, {"tool_parser": "qwen3_coder"}, _TOOLS),
    Case("gemma3", "system message, two turns", [_SYSTEM[0], *_TURNS]),
    Case("qwen3-thinking", "reasoning", _THOUGHT, {"reasoning_parser": "deepseek_r1"}),
    Case("qwen3-thinking", "no reasoning", _ASKED),
    Case("deepseek-v3.1", "system message, two turns", [_SYSTEM[0], *_TURNS]),
    Case("base", "question and answer", _ASKED),
    Case("base", "system message, two turns", [_SYSTEM[0], *_TURNS], {"chat_template": "chatml"}),
    Case("base", "reasoning", _THOUGHT, {"chat_template": "chatml", "reasoning_parser": "deepseek_r1"}),
    Case("base", "tools, call and result", _CALLED, {"chat_template": "chatml", "tool_parser": "hermes"}, _TOOLS),
    Case("mistral", "two turns", _TURNS, {"chat_template": _OWN}, shown="`chat_template: own.jinja`"),
    Case("chatml", "tools, call and result", _CALLED, {"tool_parser": "hermes"}, _TOOLS),
)


def outcome(case: Case, folder: Path) -> str:
    """What the table says of the case. folder: the family's model."""
    recipe = _recipe(case, folder)
    example = Example("1", case.messages, tools=case.tools)  # type: ignore[arg-type]
    try:
        template = ChatTemplate.of(recipe, folder)
        check(recipe, template, [example])
        sample = learned(template, example.messages, example.tools, last_only=True)[-1]
    except RunnerError as error:
        return f"refused: {error.message.splitlines()[0].removeprefix('1: ')}"
    trained = sample.ids[: sample.answer_at]
    batch = prompt_of(example.to_json(), ChatTemplate.of(recipe, folder), recipe.train.reasoning)["tokenized_prompt"]
    client = asyncio.run(_client(recipe, folder, example))
    if trained == batch == client:
        trimmed = "; the answer is trimmed, and the run says so" if sample.trimmed else ""
        return f"equal, {len(trained)} tokens{trimmed}"
    return f"DIFFERENT: {len(trained)}, {len(batch)} and {len(client)} tokens"


def _recipe(case: Case, folder: Path) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "pipeline": ["ingest", "train", "publish", "infer", "evaluate", "serve"],
            "model": {"source": str(folder), **case.model},
            "dataset": {"source": "data", "prompt": {"conversations": "messages"}},
            "serve": {"model_id": "base"},
            "cluster": {"accelerator": "cpu"},
        }
    )


async def _client(recipe: Recipe, folder: Path, example: Example) -> list[int]:
    """Token ids that vLLM's chat endpoint makes of a client's request."""
    from vllm.config import ModelConfig
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.renderers.online_renderer import OnlineRenderer

    kwargs = chat_kwargs(recipe, folder)
    model = ModelConfig(model=str(folder), tokenizer=str(folder), dtype="float32", max_model_len=2048)
    endpoint = OnlineRenderer(
        model,
        endpoint_renderer(model),
        request_logger=None,
        chat_template=kwargs.get("chat_template"),
        chat_template_content_format=kwargs["chat_template_content_format"],
        default_chat_template_kwargs=kwargs.get("default_chat_template_kwargs"),
        enable_auto_tools=kwargs.get("enable_auto_tool_choice", False),
        tool_parser=kwargs.get("tool_call_parser"),
        reasoning_parser=kwargs.get("reasoning_parser"),
    )
    sent = {key: value for key, value in request_of(recipe, example).items() if key not in ("timeout", "extra_body")}
    made = await endpoint.render_chat(ChatCompletionRequest(model="base", **sent))
    assert isinstance(made, tuple), made
    return list(made[1][0]["prompt_token_ids"])


def table() -> str:
    """The table in Markdown."""
    logging.disable(logging.WARNING)
    lines = ["| Template like | Keys of `model` | Rows | Training, batch and endpoint |", "|---|---|---|---|"]
    with TemporaryDirectory() as root, warnings.catch_warnings(), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        folders = {name: save_model(name, Path(root) / name) for name in {case.family for case in CASES}}
        for case in CASES:
            lines.append(f"| {case.family} | {case.keys} | {case.rows} | {outcome(case, folders[case.family])} |")
    logging.disable(logging.NOTSET)
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(f"{table()}\n")
