"""Which of vLLM's parsers read the tool calls and the reasoning of which chat templates.

A template is told by what it writes. Where it is not on this machine, the model's name tells its family. A template
that is none of these is allowed here: ingest reads the rows' own answers with the parser, and compares.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Syntax:
    """A way to write calls or reasoning. marks: texts that its templates have, all of them. models: a pattern of the
    names of models that write so. parsers: of vLLM, the usual one first."""

    marks: tuple[str, ...]
    models: str
    parsers: tuple[str, ...]


# The first that fits counts.
TOOLS = (
    Syntax(("<tool_call>", "<arg_key>"), r"glm-4\.[5-9]", ("glm45", "glm47")),
    Syntax(("<tool_call>", "<function="), r"qwen3-coder|qwen3\.5", ("qwen3_coder", "qwen3_xml")),
    Syntax(("<tool_call>",), r"qwen2\.5|qwen3|qwq|hermes|smollm3", ("hermes",)),
    Syntax(("<|python_start|>",), r"llama-4", ("llama4_pythonic", "llama4_json")),
    Syntax(("<|start_header_id|>", '"parameters"'), r"llama-3\.[1-3]", ("llama3_json",)),
    Syntax(("[TOOL_CALLS]",), r"mi[sx]tral|ministral|devstral", ("mistral",)),
    Syntax(("tool▁calls▁begin", "```json"), r"deepseek-(v3|r1)-0[0-9]{3}|deepseek-v3$", ("deepseek_v3",)),
    Syntax(("tool▁calls▁begin",), r"deepseek-v3\.1", ("deepseek_v31",)),
    Syntax(("<|tool_call|>", "<|start_of_role|>"), r"granite-3", ("granite",)),
    Syntax(("<|tool_call|>", "<|tool|>"), r"phi-4-mini", ("phi4_mini_json",)),
    Syntax(("<function_calls>",), r"olmo-?3", ("olmo3",)),
)
REASONING = (
    Syntax(("<think>", "<arg_key>"), r"glm-4\.[5-9]", ("glm45", "glm47")),
    Syntax(("<think>", "enable_thinking"), r"qwen3|qwq", ("qwen3",)),
    Syntax(("<think>",), r"deepseek-r1", ("deepseek_r1", "qwen3", "olmo3")),
    Syntax(("[THINK]",), r"magistral|ministral-3.*reasoning", ("mistral",)),
)
_LEARNS = re.compile(r"smollm2|qwen2")
"""Names of models with ChatML that reason only where rows teach it: `<think>` is text to them, and no token."""
_OF_ROWS = {"reasoning_parser": "olmo3", "chat_template": "chatml"}


def parsers_for(table: tuple[Syntax, ...], template: str | None, model: str) -> tuple[str, ...]:
    """The parsers that fit; none where neither template nor name is known.

    template: its text, None where it is not at hand. model: `model.source`.
    """
    if template is not None:
        fitting = (each for each in table if all(mark in template for mark in each.marks))
    else:
        name = model.rstrip("/").rpartition("/")[2].lower()
        fitting = (each for each in table if re.search(each.models, name))
    return next((each.parsers for each in fitting), ())


def usual_parsers(model: str) -> dict[str, str]:
    """Keys of `model` for a family by `model.source`; none for a family that is not known."""
    tables = {"tool_parser": TOOLS, "reasoning_parser": REASONING}
    found = {key: fitting[0] for key, table in tables.items() if (fitting := parsers_for(table, None, model))}
    learns = "reasoning_parser" not in found and _LEARNS.search(model.rstrip("/").rpartition("/")[2].lower())
    return found | _OF_ROWS if learns else found
