"""Rules about when training stops, and what it starts from."""

from __future__ import annotations

from collections.abc import Iterator

from runner.errors import Problem, nearest
from stages.sections.recipe import Recipe
from stages.trainers.llamafactory.values import argument


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


def best_model_has_a_known_metric(recipe: Recipe) -> Iterator[Problem]:
    """Transformers looks the metric up at the first evaluation, and ends the training without it."""
    name = argument(recipe, "metric_for_best_model")
    if name is None or argument(recipe, "eval_on_each_dataset") or not isinstance(name, str):
        return
    key, short, known = "train.args.metric_for_best_model", name.removeprefix("eval_"), _metrics(recipe)
    if short not in known:
        guess = nearest(short, known)
        hint = f"Did you mean {guess}?" if guess else f"Set {key}=loss."
        message = f"is not measured during training by train.stage={recipe.train.stage}; there are: {', '.join(known)}"
        yield Problem(key, name, message, hint)
    elif short == "loss" and argument(recipe, "greater_is_better"):
        message = "keeps the model with the greatest loss"
        yield Problem("train.args.greater_is_better", True, message, "Remove it, or set it to false.")


def _metrics(recipe: Recipe) -> list[str]:
    """Metrics of the trainers of LLaMA-Factory (`compute_metrics` and logs of their evaluations)."""
    stage = recipe.train.stage
    found = ["loss"]
    if stage == "rm" or (stage == "sft" and argument(recipe, "compute_accuracy")):
        found.append("accuracy")
    if stage == "sft" and argument(recipe, "predict_with_generate"):
        found += ["rouge-1", "rouge-2", "rouge-l", "bleu-4"]
    if stage in ("dpo", "kto"):
        found += [f"{what}/{of}" for what in ("rewards", "logps", "logits") for of in ("chosen", "rejected")]
        found += ["rewards/margins", *(["rewards/accuracies"] if stage == "dpo" else [])]
    return found


def training_starts_from_the_base_model(recipe: Recipe) -> Iterator[Problem]:
    """The engine loads the new adapter on the base model, not on the base model with another adapter in it."""
    named, fresh = argument(recipe, "adapter_name_or_path"), argument(recipe, "create_new_adapter")
    names = named.split(",") if isinstance(named, str) else named if isinstance(named, list) else []
    if fresh or len(names) > 1:
        why = "trains on the base model with another adapter merged in, but vLLM loads the new one on the base alone"
    else:
        why = "replaces train.lora_rank by that adapter's rank, and no record of the run would hold what it starts from"
    hint = "Remove it. train.start_from=RUN continues the adapter of another run."
    if names:
        yield Problem("train.args.adapter_name_or_path", named, why, hint)
    if fresh:
        yield Problem("train.args.create_new_adapter", fresh, why if names else "needs adapter_name_or_path", hint)


def bits_are_those_of_the_method(recipe: Recipe) -> Iterator[Problem]:
    bits, method = argument(recipe, "quantization_bit"), argument(recipe, "quantization_method")
    allowed = {"bnb": (4, 8), "hqq": (1, 2, 3, 4, 5, 6, 8), "eetq": (8,)}.get(str(method))
    if bits is not None and allowed is None:
        message = f"does not go with quantization_method={method}, which needs a model that is quantized already"
        yield Problem("train.args.quantization_bit", bits, message, "Remove it, or set quantization_method=bnb.")
    elif bits is not None and allowed and bits not in allowed:
        words = " or ".join(map(str, allowed))
        message = f"must be {words} with quantization_method={method}"
        yield Problem("train.args.quantization_bit", bits, message, f"Set train.args.quantization_bit={allowed[0]}.")


RULES = (
    early_stopping_has_a_measure,
    best_model_has_a_known_metric,
    training_starts_from_the_base_model,
    bits_are_those_of_the_method,
)
