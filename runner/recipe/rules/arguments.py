"""The pass-through mappings: does the library know the argument, and may the value be given for it?

The tables are `runner.recipe.arguments`. Arguments that the runner sets from other keys of the recipe are
refused, so that training, batch inference and the endpoint cannot come to use different models, prompts or adapters.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from runner.errors import Problem, nearest
from runner.recipe.arguments import Entry, accepts, allowed, library, table
from runner.recipe.load import section_fields
from runner.recipe.schema import Recipe
from stages.trainers.llamafactory.arguments import RESERVED_ARGS

# What PEFT, Transformers, TRL and command lines call the same thing.
_OTHER_NAMES = {
    "batch_size": ("per_device_train_batch_size",),
    "epochs": ("num_train_epochs",),
    "lr": ("learning_rate",),
    "r": ("lora_rank",),
    "rank": ("lora_rank", "max_lora_rank"),
    "alpha": ("lora_alpha",),
    "dropout": ("lora_dropout",),
    "target_modules": ("lora_target",),
    "modules_to_save": ("additional_target",),
    "load_in_4bit": ("quantization_bit",),
    "load_in_8bit": ("quantization_bit",),
    "max_length": ("cutoff_len", "max_tokens"),
    "max_seq_length": ("cutoff_len", "max_model_len"),
    "max_seq_len": ("cutoff_len", "max_model_len"),
    "evaluation_strategy": ("eval_strategy",),
    "attn_implementation": ("flash_attn",),
    "max_new_tokens": ("max_tokens",),
    "do_sample": ("temperature",),
    "num_return_sequences": ("n",),
    "tp": ("tensor_parallel_size",),
    "tp_size": ("tensor_parallel_size",),
    "num_gpus": ("tensor_parallel_size",),
    "gpu_util": ("gpu_memory_utilization",),
    "context_length": ("max_model_len",),
    "ctx_len": ("max_model_len",),
    "torch_dtype": ("dtype",),
    "max_batch_size": ("max_num_seqs",),
    "max_concurrent_queries": ("max_ongoing_requests",),
    "target_num_ongoing_requests_per_replica": ("target_ongoing_requests",),
    "env": ("env_vars",),
    # What vLLM called it before, and what OpenAI's requests call it.
    **dict.fromkeys(("guided_json", "guided_regex", "guided_choice", "guided_grammar"), ("structured_outputs",)),
    "guided_decoding": ("structured_outputs",),
    "response_format": ("structured_outputs",),
    "guided_decoding_backend": ("structured_outputs_config",),
    "json_schema": ("json",),
    "choices": ("choice",),
    "ebnf": ("grammar",),
}

_ENGINE_RESERVED = {
    "model": "set model.source",
    "model_weights": "set model.source",
    "tokenizer": "set model.source",
    "hf_config_path": "set model.source",
    "served_model_name": "set serve.model_id",
    "trust_remote_code": "set model.trust_remote_code",
    "revision": "set model.revision",
    "code_revision": "set model.revision",
    "tokenizer_revision": "set model.revision",
    "download_dir": "set storage.cache",
    "enable_lora": "it is on when the pipeline has publish",
}
# Options of vLLM's own web server.
_WEB_SERVER = (
    *("uds", "root_path", "middleware", "allow_credentials", "allowed_headers", "allowed_methods", "allowed_origins"),
    *("ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "ssl_cert_reqs", "ssl_ciphers", "enable_ssl_refresh"),
)
_FRONTEND_RESERVED = {
    "host": "set serve.host",
    "port": "set serve.port",
    "lora_modules": "the published adapter is served",
    **dict.fromkeys(_WEB_SERVER, "the endpoint is Ray Serve's and does not read it"),
}


@dataclass(frozen=True)
class Mapped:
    """A pass-through mapping. `read` takes it out of the recipe; `tables` say what may be in it.

    reserved: argument -> what to do instead. null_drops: a null there means that the argument is not given.
    """

    key: str
    what: str
    read: Callable[[Recipe], Mapping[str, Any]]
    tables: tuple[str, ...]
    reserved: Mapping[str, str] = field(default_factory=dict)
    null_drops: bool = False

    def entries(self) -> dict[str, Entry]:
        return {name: entry for each in reversed(self.tables) for name, entry in table(each).items()}

    def library(self) -> str:
        """The library with its version: `vLLM 0.27.1`."""
        name = self.tables[0].partition(".")[0]
        return f"{_NAMES[name]} {library(name)['versions'][name]}"


_NAMES = {"vllm": "vLLM", "llamafactory": "LLaMA-Factory", "ray": "Ray"}

MAPPINGS = (
    Mapped(
        "train.args",
        "argument",
        lambda recipe: recipe.train.args,
        ("llamafactory.arguments",),
        {
            **{name: f"set {key}" for name, key in RESERVED_ARGS.items()},
            "template": "set model.template",
            "stage": "set train.stage",
            "dataset": "set dataset.source",
            "default_system": "set dataset.prompt.system",
            "model_revision": "set model.revision",
        },
        null_drops=True,
    ),
    Mapped(
        "infer.engine_kwargs",
        "engine argument",
        lambda recipe: recipe.infer.engine_kwargs,
        ("vllm.engine",),
        _ENGINE_RESERVED,
    ),
    Mapped(
        "serve.engine_kwargs",
        "engine argument",
        lambda recipe: _not_from_infer(recipe),
        ("vllm.engine", "vllm.frontend"),
        _ENGINE_RESERVED | _FRONTEND_RESERVED,
        null_drops=True,
    ),
    Mapped("infer.sampling", "sampling parameter", lambda recipe: recipe.infer.sampling, ("vllm.sampling",)),
    Mapped(
        "infer.sampling.structured_outputs",
        "structured output option",
        lambda recipe: _inner(recipe.infer.sampling, "structured_outputs"),
        ("vllm.structured_outputs",),
    ),
    Mapped(
        "infer.engine_kwargs.structured_outputs_config",
        "structured output setting",
        lambda recipe: _inner(recipe.infer.engine_kwargs, "structured_outputs_config"),
        ("vllm.structured_outputs_config",),
    ),
    Mapped(
        "serve.engine_kwargs.structured_outputs_config",
        "structured output setting",
        lambda recipe: _inner(_not_from_infer(recipe), "structured_outputs_config"),
        ("vllm.structured_outputs_config",),
    ),
    Mapped("serve.autoscaling", "autoscaling option", lambda recipe: recipe.serve.autoscaling, ("ray.autoscaling",)),
    Mapped(
        "serve.deployment",
        "deployment option",
        lambda recipe: recipe.serve.deployment,
        ("ray.deployment",),
        {
            "autoscaling_config": "set serve.autoscaling",
            "num_replicas": "set serve.autoscaling.min_replicas and max_replicas",
            "placement_group_bundles": "set resources.serve",
            "placement_group_strategy": "set resources.serve.placement_strategy",
            "placement_group_bundle_label_selector": "set resources.serve.custom",
        },
    ),
)
RUNTIME_ENV = Mapped("resources.*.runtime_env", "runtime_env field", lambda recipe: {}, ("ray.runtime_env",))


def _inner(given: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A mapping within a mapping; empty where there is none, or another kind of value, which is judged above it."""
    value = given.get(name)
    return value if isinstance(value, Mapping) else {}


def _not_from_infer(recipe: Recipe) -> dict[str, Any]:
    """What the endpoint's engine is given besides what it takes over from batch inference, which is checked there."""
    infer = recipe.infer.engine_kwargs
    given = recipe.serve.engine_kwargs.items()
    return {name: value for name, value in given if name not in infer or infer[name] != value}


def arguments_are_known(mapped: Mapped, recipe: Recipe) -> Iterator[Problem]:
    yield from _check(mapped, mapped.key, mapped.read(recipe))


def runtime_envs_are_known(recipe: Recipe) -> Iterator[Problem]:
    for stage, wanted in recipe.resources.items():
        yield from _check(RUNTIME_ENV, f"resources.{stage}.runtime_env", wanted.runtime_env)


def _check(mapped: Mapped, key: str, given: Mapping[str, Any]) -> Iterator[Problem]:
    entries = mapped.entries() if given else {}
    for name, value in given.items():
        dotted = f"{key}.{name}"
        if name in mapped.reserved:
            instead = mapped.reserved[name]
            yield Problem(dotted, value, "is not for a recipe to set: the runner does", f"Remove it; {instead}.")
        elif name not in entries:
            message = f"is no {mapped.what} of {mapped.library()}"
            yield Problem(dotted, value, message, _hint_for_name(name, key, entries))
        elif not accepts(entries[name], value) and not (value is None and mapped.null_drops):
            yield Problem(dotted, value, f"must be {allowed(entries[name])}", _hint_for_value(entries[name], value))


def _hint_for_name(name: str, key: str, entries: Mapping[str, Entry]) -> str:
    section = key.partition(".")[0]
    if name in section_fields(Recipe, section):
        return f"Did you mean {section}.{name}?"
    others = [mapped for mapped in MAPPINGS if mapped.key != key]
    relatives = [mapped for mapped in others if (mapped.key == "train.args") == (key == "train.args")]
    near, far = _guesses(name, entries)
    return (
        _home(name, relatives)
        or (f"Did you mean {key}.{near}?" if near else "")
        or _home(name, others)
        or (f"Did you mean {key}.{far}?" if far else "")
        or "Remove it, or correct its name."
    )


def _guesses(name: str, legal: Collection[str]) -> tuple[str, str]:
    """The legal name that is surely meant (spelled almost so, or another library's word for it), and one like it."""
    said = name.lower().replace("-", "_")
    translated = [each for each in _OTHER_NAMES.get(said, ()) if each in legal]
    spelled = difflib.get_close_matches(said, legal, n=1, cutoff=0.8)
    alike = difflib.get_close_matches(said, legal, n=1, cutoff=0.7)
    return next(iter(translated + spelled), ""), next(iter(alike), "")


def _home(name: str, candidates: Iterable[Mapped]) -> str:
    """Where an argument of that name belongs, if one of the mappings takes it."""
    for mapped in candidates:
        if name in mapped.entries() and name not in mapped.reserved:
            return f"It is a {mapped.library()} {mapped.what}: put it under {mapped.key}."
    return ""


def _hint_for_value(entry: Entry, value: Any) -> str:
    if value is False and "no" in entry.get("choices", []):
        return 'YAML reads an unquoted no as false: write "no" in quotes.'
    if isinstance(value, str):
        for meant in (_number(value), {"true": True, "false": False}.get(value.lower())):
            if meant is not None and accepts(entry, meant):
                return f"Write {value} without quotes."
        if guess := nearest(value, [choice for choice in entry.get("choices", []) if isinstance(choice, str)]):
            return f"Did you mean {guess}?"
    return f"If it is not given, it is {entry['default']}." if entry.get("default") is not None else ""


def _number(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def improve_hint(problem: Problem) -> Problem:
    """A schema's problem about an unknown key, told which mapping takes it, or which key has its words."""
    section, _, name = problem.key.rpartition(".")
    if not problem.message.startswith("is not a known key"):
        return problem
    if home := _home(name, [mapped for mapped in MAPPINGS if mapped.key.rpartition(".")[0] == section]):
        return replace(problem, hint=home)
    words = set(name.split("_"))
    longer = [each for each in section_fields(Recipe, section) if words <= set(each.split("_"))]
    if longer and not problem.hint.startswith("Did you mean"):
        meant = f"{section}.{longer[0]}".removeprefix(".")
        return replace(problem, hint=f"Did you mean {meant}?")
    return problem


RULES: tuple[Callable[[Recipe], Iterator[Problem]], ...] = (
    *(partial(arguments_are_known, mapped) for mapped in MAPPINGS),
    runtime_envs_are_known,
)
