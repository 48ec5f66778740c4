"""Rules about training by TRL: which arguments go together, and with the method and the hardware."""

from __future__ import annotations

from collections.abc import Iterator

from runner.errors import Problem, nearest
from runner.recipe.arguments import accepts, allowed
from stages.sections.recipe import Recipe
from stages.trainers.accelerate import packages, sharding, sharding_rules
from stages.trainers.accelerate.mappings import TRL
from stages.trainers.accelerate.setup import setup_of
from stages.trainers.accelerate.values import METHODS, SAME, argument, method_of
from stages.trainers.fit import training_fits
from stages.trainers.other_names import not_doubled
from stages.trainers.rules import effect, schedule, template
from stages.trainers.rules.conflicts import (
    COMMON,
    HISTORY_OR_PROMPT,
    Conflict,
    agreement,
    only_with_lora,
    schedulers,
)
from stages.trainers.rules.effect import arguments_have_an_effect, with_argument, with_value
from stages.trainers.rules.elastic import number_of_workers_may_change
from stages.trainers.rules.hardware import hardware_can_train
from stages.trainers.rules.images import learns_images

_LORA_ONLY = (
    "use_dora", "use_rslora", "lora_modules_to_save", "load_in_4bit", "load_in_8bit",
)  # fmt: skip

EFFECTS = (
    *effect.common("lr_scheduler_type"),
    with_argument("load_in_4bit", "bnb_4bit_quant_type", "use_bnb_nested_quant", "bnb_4bit_quant_storage"),
    with_argument("packing", "packing_strategy", "eval_packing", "shuffle_dataset"),
    with_argument("sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps"),
    with_argument("precompute_ref_log_probs", "precompute_ref_batch_size"),
    with_value("f_divergence_type", ("alpha_divergence",), "f_alpha_divergence_coef"),
    with_value("finetuning_type", ("lora",), "lora_alpha", "lora_dropout"),
)
CONFLICTS = (
    *COMMON,
    *schedulers("lr_scheduler_type"),
    Conflict(
        "metric_for_best_model",
        lambda get: get("metric_for_best_model") not in (None, "loss", "eval_loss"),
        "is not measured during training; there is: loss",
        "Set train.args.metric_for_best_model=loss.",
    ),
    Conflict(
        "greater_is_better",
        lambda get: get("greater_is_better") and get("load_best_model_at_end"),
        "keeps the model with the greatest loss",
        "Remove it, or set it to false.",
    ),
    Conflict(
        "load_in_8bit",
        lambda get: get("load_in_8bit") and get("load_in_4bit"),
        "and load_in_4bit exclude each other",
        "Set one of them to false.",
    ),
    HISTORY_OR_PROMPT,
    *map(only_with_lora, _LORA_ONLY),
    *sharding_rules.CONFLICTS,
)
_SFT_ONLY = ("mask_history", "train_on_prompt")


def method_is_trained(recipe: Recipe) -> Iterator[Problem]:
    stage = recipe.train.stage
    if stage not in METHODS:
        message = f"is not trained by train.trainer=accelerate, which has {', '.join(METHODS)}"
        yield Problem("train.stage", stage, message, "Set train.trainer=llamafactory.")
    if (name := recipe.model.template) is not None:
        message = "is a template of LLaMA-Factory, and train.trainer=accelerate uses the model's chat template"
        yield Problem("model.template", name, message, "Set model.template=null.")


def arguments_are_of_the_method(recipe: Recipe) -> Iterator[Problem]:
    """TRL's configurations of supervised training and of preferences have different arguments, or other values."""
    stage, method = recipe.train.stage, method_of(recipe)
    if stage not in METHODS:
        return
    for name, value in recipe.train.args.items():
        homes = [each for each in ("sft", "dpo", "kto") if name in TRL.content[each]]
        if name in _SFT_ONLY and stage != "sft" and value:
            hint = "Remove it, or set train.stage=sft."
            yield Problem(f"train.args.{name}", value, f"goes with train.stage=sft only, not {stage}", hint)
        elif homes and method not in homes:
            message = f"goes with train.stage={' or '.join(homes)} only, not {stage}"
            yield Problem(f"train.args.{name}", value, message, "Remove it.")
        elif homes and value is not None and not accepts(TRL.content[method][name], value):
            message = f"must be {allowed(TRL.content[method][name])} with train.stage={stage}"
            guess = nearest(str(value), [str(each) for each in TRL.content[method][name].get("choices", [])])
            yield Problem(f"train.args.{name}", value, message, f"Did you mean {guess}?" if guess else "Change it.")


def reference_model_is_its_own(recipe: Recipe) -> Iterator[Problem]:
    shared = argument(recipe, "finetuning_type") == "lora" or argument(recipe, "precompute_ref_log_probs")
    if recipe.train.stage in ("dpo", "kto") and argument(recipe, "sync_ref_model") and shared:
        message = "needs a reference model of its own, which neither LoRA nor precompute_ref_log_probs has"
        hint = "Remove it, or set train.args.finetuning_type=full and train.args.precompute_ref_log_probs=false."
        yield Problem("train.args.sync_ref_model", True, message, hint)


def divergence_has_a_batch(recipe: Recipe) -> Iterator[Problem]:
    """KTO pairs each prompt with the answer of another row of its batch, in the rows' order."""
    if recipe.train.stage != "kto" or argument(recipe, "loss_type") != "kto":
        return
    if argument(recipe, "per_device_train_batch_size") == 1:
        key = "train.args.per_device_train_batch_size"
        message = "must be 2 or more with train.stage=kto, which compares the rows of a batch"
        yield Problem(key, 1, message, f"Set {key}=2, or train.args.loss_type=apo_zero_unpaired.")
    if (order := argument(recipe, "train_sampling_strategy")) != "sequential":
        message = "must be sequential with train.stage=kto, which compares the rows of a batch"
        yield Problem("train.args.train_sampling_strategy", order, message, "Remove it.")


RULES = (
    method_is_trained,
    arguments_are_of_the_method,
    not_doubled(SAME),
    agreement(CONFLICTS, argument),
    arguments_have_an_effect(TRL, argument, EFFECTS),
    reference_model_is_its_own,
    divergence_has_a_batch,
    hardware_can_train(argument, packages.ON_GPU, ("bf16",)),
    number_of_workers_may_change(TRL, setup_of, argument, sharding.ARGUMENTS),
    *sharding_rules.RULES,
    training_fits(TRL, setup_of),
    *template.RULES,
    *schedule.schedule_rules(argument),
    *packages.RULES,
    learns_images(()),
)
