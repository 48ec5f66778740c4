"""Rules about vLLM's engines, in batch inference and at the endpoint: what they can load, and what fits into them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from shlex import quote
from typing import Any

from runner.cluster import environments
from runner.cluster.accelerators import WITHOUT_BFLOAT16
from runner.cluster.reach import is_this_machine
from runner.errors import Problem, nearest
from runner.storage.small import read_small
from runner.text import count_text
from stages.engines.vllm.environment import ENVIRONMENT
from stages.engines.vllm.fit import weights_fit
from stages.engines.vllm.mappings import VLLM
from stages.models.facts import model_facts
from stages.models.trained import LongestRow, Trained, TraitName
from stages.sections.recipe import Recipe

_DISTRIBUTION, _PLUGINS = "recipe-runner", "vllm.general_plugins"
_ROOT = Path(__file__).parents[3]
# Engine arguments that change where it runs or what it prints, and no answer.
WITHOUT_EFFECT = ("gpu_memory_utilization", "disable_log_stats")
# The endpoint may hold more adapters than batch inference needs; its name is refused by another rule.
_MAY_DIFFER = (
    *WITHOUT_EFFECT,
    "enable_lora",
    "max_loras",
    "max_lora_rank",
    "max_cpu_loras",
    "served_model_name",
)


def _engines(recipe: Recipe) -> Iterator[tuple[str, dict[str, Any]]]:
    """(section, engine arguments) of each engine in the pipeline; of serve only where they are others than infer's."""
    infer: dict[str, Any] = {}
    if "infer" in recipe.pipeline:
        infer = recipe.infer.engine_kwargs
        yield "infer", infer
    if "serve" in recipe.pipeline and _without_loras(recipe.serve.engine_kwargs) != _without_loras(infer):
        yield "serve", recipe.serve.engine_kwargs


def _without_loras(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name != "max_loras"}


def _whole(kwargs: dict[str, Any], name: str) -> int | None:
    value = kwargs.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def adapter_fits_engine(recipe: Recipe) -> Iterator[Problem]:
    if "publish" not in recipe.pipeline:
        return
    rank, ranks = recipe.train.lora_rank, VLLM.table("engine")["max_lora_rank"]["choices"]
    fitting = next((each for each in ranks if each >= rank), None)
    reported = set()
    for section, kwargs in _engines(recipe):
        if fitting is None:
            yield Problem(
                "train.lora_rank",
                rank,
                f"is more than vLLM can load; its ranks are {ranks}",
                f"Set at most {ranks[-1]}.",
            )
            return
        most = _whole(kwargs, "max_lora_rank")  # if it is not given, the runner makes it fit
        if most is not None and most in ranks and rank > most and most not in reported:
            reported.add(most)
            yield Problem(
                f"{section}.engine_kwargs.max_lora_rank",
                most,
                f"is below the adapter's rank, train.lora_rank={rank}",
                f"Set {section}.engine_kwargs.max_lora_rank={fitting}.",
            )


def replica_holds_its_adapters(recipe: Recipe) -> Iterator[Problem]:
    if "serve" not in recipe.pipeline:
        return
    wanted, loras = recipe.serve.max_adapters_per_replica, _whole(recipe.serve.engine_kwargs, "max_loras")
    if loras is not None and loras != wanted:
        hint = f"Remove serve.engine_kwargs.max_loras, or set serve.max_adapters_per_replica={loras}."
        yield Problem(
            "serve.max_adapters_per_replica", wanted, f"must equal serve.engine_kwargs.max_loras={loras}", hint
        )


def adapters_fit_in_memory(recipe: Recipe) -> Iterator[Problem]:
    active = {
        "infer": ("max_loras", _whole(recipe.infer.engine_kwargs, "max_loras") or 1),
        "serve": ("serve.max_adapters_per_replica", recipe.serve.max_adapters_per_replica),
    }
    for section, kwargs in (("infer", recipe.infer.engine_kwargs), ("serve", recipe.serve.engine_kwargs)):
        (what, least), held = active[section], _whole(kwargs, "max_cpu_loras")
        if section in recipe.pipeline and held is not None and held < least:
            message = f"must be at least {what}={least}"
            yield Problem(f"{section}.engine_kwargs.max_cpu_loras", held, message, "Raise it, or leave it out.")


_REFUSED: dict[TraitName, str] = {
    "whole modules": "saves whole modules with the adapter (modules_to_save), which vLLM cannot load",
    "new embeddings": "trains new embeddings with the adapter (modules_to_save), which vLLM cannot load",
    "dora": "makes a DoRA adapter, which vLLM cannot load",
    "sight": "has an adapter learn to see as well, of which vLLM loads the language model's part alone",
    "changed base": "changes the base model, so the adapter does not fit the model that vLLM loads",
}


def refused(trained: Trained) -> Iterator[Problem]:
    """What vLLM's `PEFTHelper` refuses (`vllm/lora/peft_helper.py`), and adapters that mean another base model."""
    if trained.kind != "adapter":
        hint = "Set it to lora, or end the pipeline with train."
        yield Problem(trained.key, trained.value, "makes no LoRA adapter, which infer and serve load", hint)
        return
    for trait in trained.traits:
        yield Problem(trait.key, trait.value, _REFUSED[trait.name], "Remove it, or end the pipeline with train.")


def requests_fit(recipe: Recipe, prompt: LongestRow | None) -> Iterator[Problem]:
    """prompt: as long as it may have been in training. An answer has up to max_tokens."""
    answer = _whole(recipe.infer.sampling, "max_tokens")
    reported = set()
    for section, kwargs in _engines(recipe):
        length = _whole(kwargs, "max_model_len")
        if length is None or answer is None or length in reported:
            continue
        reported.add(length)
        if answer >= length:
            message = f"leaves no tokens for a prompt in {section}.engine_kwargs.max_model_len={length}"
            yield Problem("infer.sampling.max_tokens", answer, message, "Lower it, or raise max_model_len.")
        elif prompt is not None and prompt.tokens + answer > length:
            yield Problem(
                f"{section}.engine_kwargs.max_model_len",
                length,
                f"is too short for a prompt of {prompt.key}={count_text(prompt.tokens, 'token')} and an answer of "
                f"infer.sampling.max_tokens={answer}",
                f"Set it to {prompt.tokens + answer} or more, or lower {prompt.key} to {length - answer}.",
            )


_ROPE_AS_IT_IS = ("default", "llama3", "longrope", "su")


def length_is_the_models(recipe: Recipe) -> Iterator[Problem]:
    """vLLM refuses a longer one when the engine starts, which is after training. A model's own scaling of positions
    may make it longer than config.json says."""
    facts, reported = model_facts(recipe, None), set()
    published = recipe.model.architecture
    model = published if published is not None and published.of == recipe.model.source else facts.architecture
    if model is None or model.max_position_embeddings is None or _is_scaled(facts.folder):
        return
    for section, kwargs in _engines(recipe):
        length, most = _whole(kwargs, "max_model_len"), model.max_position_embeddings
        if length is not None and length > most and "hf_overrides" not in kwargs and length not in reported:
            reported.add(length)
            message = f"is more than the model's {most} (max_position_embeddings)"
            yield Problem(f"{section}.engine_kwargs.max_model_len", length, message, f"Set it to {most} or less.")


def _is_scaled(folder: Path | None) -> bool:
    """Whether the model's config.json stretches its positions."""
    try:
        config = json.loads(read_small(folder / "config.json")) if folder is not None else {}
        scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
        kind = scaling.get("rope_type") or scaling.get("type") or "default"
        return kind not in _ROPE_AS_IT_IS
    except (OSError, ValueError, AttributeError):
        return True


def batches_fit(recipe: Recipe) -> Iterator[Problem]:
    """vLLM's `SchedulerConfig.verify_max_model_len`."""
    reported = set()
    for section, kwargs in _engines(recipe):
        batched, length = _whole(kwargs, "max_num_batched_tokens"), _whole(kwargs, "max_model_len")
        key = f"{section}.engine_kwargs.max_num_batched_tokens"
        if batched is None or (batched, length) in reported:
            continue
        reported.add((batched, length))
        if kwargs.get("enable_chunked_prefill") is False and length is not None and batched < length:
            message = f"is below max_model_len={length}, and enable_chunked_prefill is false"
            yield Problem(key, batched, message, f"Set it to {length}, or set enable_chunked_prefill=true.")
        sequences = _whole(kwargs, "max_num_seqs")
        if sequences is not None and batched < sequences:
            yield Problem(key, batched, f"is below max_num_seqs={sequences}", "Raise it, or lower max_num_seqs.")


def hardware_can_infer(recipe: Recipe) -> Iterator[Problem]:
    for section, kwargs in _engines(recipe):
        gpu = recipe.resources_of(section).accelerator_type
        on_gpu = recipe.cluster.accelerator != "cpu"
        if on_gpu and gpu in WITHOUT_BFLOAT16 and kwargs.get("dtype") == "bfloat16":
            message = f"is not possible on {gpu}, which computes no bfloat16"
            yield Problem(f"{section}.engine_kwargs.dtype", "bfloat16", message, "Set it to float16.")


def quantization_is_known(recipe: Recipe) -> Iterator[Problem]:
    """vLLM looks a method up when the engine starts, after training."""
    known = VLLM.content["quantization_methods"]
    for section, kwargs in _engines(recipe):
        method = kwargs.get("quantization")
        if isinstance(method, str) and method not in known:
            guess = nearest(method, known)
            message = f"is not a quantization of {VLLM.versioned}; there are: {', '.join(known)}"
            hint = f"Did you mean {guess}?" if guess else "Remove it: a quantized model says its own in config.json."
            yield Problem(f"{section}.engine_kwargs.quantization", method, message, hint)


def differing(recipe: Recipe) -> Iterator[tuple[str, Any]]:
    """Name and the endpoint's value of each argument for which batch inference would need another engine."""
    own, known = recipe.infer.engine_kwargs, VLLM.table("engine")  # of the endpoint's server others are
    for name, value in recipe.serve.engine_kwargs.items():
        if name in known and name not in _MAY_DIFFER and value != own.get(name):
            yield name, value


def shared_engine_is_one(recipe: Recipe) -> Iterator[Problem]:
    """What differs between batch and endpoint would be another engine."""
    if recipe.infer.engine != "shared" or not {"infer", "serve"} <= set(recipe.pipeline):
        return
    for name, value in differing(recipe):
        hint = f"Move it to infer.engine_kwargs.{name}, or set infer.engine=own."
        yield Problem(f"serve.engine_kwargs.{name}", value, "differs from infer's, and infer.engine=shared", hint)


def plugin_is_found(recipe: Recipe) -> Iterator[Problem]:
    """vLLM finds this package's plug-in by the metadata that pip writes; without it half an answer may pass for one."""
    uses = {"infer", "serve"} & set(recipe.pipeline)
    if uses and is_this_machine(recipe.cluster.address) and has_engine() and not has_plugin():
        message = "needs this package's plug-in, which vLLM finds only where the package is installed"
        hint = f"uv pip install --python {environments.python(ENVIRONMENT)} --no-deps -e {quote(str(_ROOT))}"
        yield Problem("infer.backend", recipe.infer.backend, message, hint)


def has_engine() -> bool:
    """Whether vLLM is in its environment on this machine."""
    return any(Path(place, "vllm").is_dir() for place in environments.packages(ENVIRONMENT))


def has_plugin() -> bool:
    """Whether the installed metadata of this package names its plug-in of vLLM."""
    found = distributions(name=_DISTRIBUTION, path=environments.packages(ENVIRONMENT))
    return any(point.group == _PLUGINS for each in found for point in each.entry_points)


RULES = (
    plugin_is_found,
    weights_fit,
    shared_engine_is_one,
    adapter_fits_engine,
    replica_holds_its_adapters,
    adapters_fit_in_memory,
    batches_fit,
    length_is_the_models,
    quantization_is_known,
    hardware_can_infer,
)
