"""Rules about when training logs, evaluates, saves and stops, and what it starts from.

Transformers and LLaMA-Factory state most of these after the workers have started, or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runner.errors import Problem
from runner.recipe.schema import Recipe
from stages.trainers.llamafactory.values import argument

_STEPS = ("logging_steps", "eval_steps", "save_steps", "warmup_steps")


def steps_are_whole_or_a_share(recipe: Recipe) -> Iterator[Problem]:
    """Below 1 a number of steps is a share of all steps."""
    for name in _STEPS:
        value = argument(recipe, name)
        if _is_number(value) and value > 1 and value != int(value):
            message = "must be a whole number of steps, or a share of all steps below 1"
            yield Problem(f"train.args.{name}", value, message, f"Set train.args.{name}={int(value)}.")


def validation_size_is_rows_or_a_share(recipe: Recipe) -> Iterator[Problem]:
    value = argument(recipe, "val_size")
    if not _is_number(value) or value < 0:
        return
    if (value > 1 and value != int(value)) or (value == 1 and isinstance(value, float)):
        message = "must be a share of the training rows >= 0 and < 1, or a whole number of rows"
        yield Problem("train.args.val_size", value, message, "Set train.args.val_size=0.1 to hold out 10 %.")
    elif 0 < value < 1 and argument(recipe, "streaming"):
        message = "must be a whole number of rows with streaming, because the number of all rows is not known"
        yield Problem("train.args.val_size", value, message, "Set train.args.val_size=100.")


def evaluation_has_a_strategy(recipe: Recipe) -> Iterator[Problem]:
    strategy = argument(recipe, "eval_strategy")
    given: Any = recipe.train.args.get("eval_steps")
    if _is_number(given) and given > 0 and strategy != "steps":
        hint = "Set train.args.eval_strategy=steps, or remove it."
        yield Problem("train.args.eval_steps", given, f"has no effect: eval_strategy is {strategy}", hint)


def best_model_was_saved(recipe: Recipe) -> Iterator[Problem]:
    """What is evaluated must be what is saved, or the best model is nowhere. Transformers wants the same."""
    if not argument(recipe, "load_best_model_at_end") or argument(recipe, "save_strategy") != "steps":
        return
    save, every = argument(recipe, "save_steps"), argument(recipe, "eval_steps") or argument(recipe, "logging_steps")
    if argument(recipe, "eval_strategy") != "steps" or not (_is_number(save) and _is_number(every)) or every <= 0:
        return
    key = "train.args.save_steps"
    if (save < 1) != (every < 1):
        message = f"and eval_steps={every:g} must both be numbers of steps, or both shares of all steps"
        yield Problem(key, save, f"{message}, with load_best_model_at_end", f"Set {key} to a multiple of eval_steps.")
    elif abs(save / every - round(save / every)) > 1e-6 or save < every:
        message = f"must be a multiple of eval_steps={every:g} with load_best_model_at_end"
        yield Problem(key, save, message, f"Set {key}={max(1, round(save / every)) * every:g}.")


def early_stopping_has_a_measure(recipe: Recipe) -> Iterator[Problem]:
    """Transformers compares the best model's metric (the loss by default), which it keeps for that purpose alone."""
    value = argument(recipe, "early_stopping_steps")
    if value is None:
        return
    missing = [] if argument(recipe, "load_best_model_at_end") else ["train.args.load_best_model_at_end=true"]
    if argument(recipe, "eval_strategy") not in ("steps", "epoch"):
        missing += ["train.args.eval_strategy=steps", "train.args.eval_steps=50", "train.args.save_steps=50"]
        if not argument(recipe, "eval_dataset") and not argument(recipe, "val_size"):
            missing.append("train.args.val_size=0.1")
    if missing:
        message = "needs load_best_model_at_end, eval_strategy and metric_for_best_model (by default the loss)"
        yield Problem("train.args.early_stopping_steps", value, message, f"Add {' '.join(missing)}.")


def training_starts_from_the_base_model(recipe: Recipe) -> Iterator[Problem]:
    """The engine loads the new adapter on the base model, not on the base model with another adapter in it."""
    named, fresh = argument(recipe, "adapter_name_or_path"), argument(recipe, "create_new_adapter")
    names = named.split(",") if isinstance(named, str) else named or []
    if fresh or len(names) > 1:
        why = "trains on the base model with another adapter merged in, but vLLM loads the new one on the base alone"
    else:
        why = "replaces train.lora_rank by that adapter's rank, and no record of the run would hold what it starts from"
    hint = "Remove it. To build on an adapter, merge it into the model first, and set model.source to the result."
    if names:
        yield Problem("train.args.adapter_name_or_path", named, why, hint)
    if fresh:
        yield Problem("train.args.create_new_adapter", fresh, why if names else "needs adapter_name_or_path", hint)


def targets_are_modules(recipe: Recipe) -> Iterator[Problem]:
    names = [name.strip() for name in recipe.train.lora_target.split(",")]
    key, value = "train.lora_target", recipe.train.lora_target
    if "" in names:
        yield Problem(key, value, "has an empty name in it", "Write train.lora_target=[q_proj,v_proj], or all.")
    elif "all" in names and len(names) > 1:
        yield Problem(key, value, "names all linear modules and others besides", "Set it to all, or remove all.")


def bits_are_those_of_the_method(recipe: Recipe) -> Iterator[Problem]:
    bits, method = argument(recipe, "quantization_bit"), argument(recipe, "quantization_method")
    allowed = {"bnb": (4, 8), "hqq": (1, 2, 3, 4, 5, 6, 8), "eetq": (8,)}.get(method)
    if bits is not None and allowed is None:
        message = f"does not go with quantization_method={method}, which needs a model that is quantized already"
        yield Problem("train.args.quantization_bit", bits, message, "Remove it, or set quantization_method=bnb.")
    elif bits is not None and allowed and bits not in allowed:
        words = " or ".join(map(str, allowed))
        message = f"must be {words} with quantization_method={method}"
        yield Problem("train.args.quantization_bit", bits, message, f"Set train.args.quantization_bit={allowed[0]}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


RULES = (
    steps_are_whole_or_a_share,
    validation_size_is_rows_or_a_share,
    evaluation_has_a_strategy,
    best_model_was_saved,
    early_stopping_has_a_measure,
    training_starts_from_the_base_model,
    targets_are_modules,
    bits_are_those_of_the_method,
)
