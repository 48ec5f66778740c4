"""Rules about training: which arguments exclude each other, and what the hardware can compute.

LLaMA-Factory's own rules (`hparams/parser.py`, version 0.9.5) would say most of these after the workers have started.
"""

from __future__ import annotations

from collections.abc import Iterator

from runner.errors import Problem, nearest
from stages.sections.recipe import Recipe
from stages.trainers.fit import training_fits
from stages.trainers.llamafactory import packages, schedule_rules, sharding_rules
from stages.trainers.llamafactory.effects import EFFECTS
from stages.trainers.llamafactory.images import PLUGINS
from stages.trainers.llamafactory.mappings import LLAMAFACTORY
from stages.trainers.llamafactory.setup import setup_of
from stages.trainers.llamafactory.values import argument
from stages.trainers.rules import schedule, spread, template
from stages.trainers.rules.conflicts import (
    COMMON,
    HISTORY_OR_PROMPT,
    Conflict,
    agreement,
    only_with_lora,
    schedulers,
)
from stages.trainers.rules.effect import arguments_have_an_effect
from stages.trainers.rules.elastic import number_of_workers_may_change
from stages.trainers.rules.hardware import ON_GPU_BACKENDS, hardware_can_train
from stages.trainers.rules.images import learns_images


def _never_with_lora(name: str) -> Conflict:
    return Conflict(
        name,
        lambda get: get(name) and get("finetuning_type") == "lora",
        "does not go with finetuning_type=lora",
        "Remove it, or set train.args.finetuning_type=full.",
    )


_ADAPTERS_ONLY = ("lora", "oft")

_SHARDS = ("full_shard", "shard_grad_op", "hybrid_shard", "no_shard", "offload", "auto_wrap")
_OWN_REFERENCE = ("orpo", "simpo")

CONFLICTS = (
    *COMMON,
    *schedulers("lr_scheduler_type"),
    *spread.CONFLICTS,
    Conflict(
        "do_eval",
        lambda get: get("do_eval") and not get("eval_dataset") and not get("val_size"),
        "evaluates, but there is nothing to evaluate on",
        "Remove it, or set train.args.eval_dataset=val and train.args.eval_strategy.",
    ),
    Conflict(
        "do_predict",
        lambda get: get("do_predict"),
        "predicts with LLaMA-Factory, and here the stage infer does",
        "Remove it.",
    ),
    Conflict(
        "compute_accuracy",
        lambda get: get("compute_accuracy") and get("predict_with_generate"),
        "and predict_with_generate exclude each other",
        "Remove one of them.",
    ),
    Conflict(
        "use_llama_pro",
        lambda get: get("use_llama_pro") and get("finetuning_type") == "full",
        "goes with finetuning_type=lora or freeze only",
        "Remove it.",
    ),
    Conflict(
        "quantization_device_map",
        lambda get: get("quantization_device_map") == "auto" and get("quantization_bit") is not None,
        "does not go with training",
        "Remove it.",
    ),
    Conflict(
        "shift_attn",
        lambda get: get("shift_attn"),
        "needs a transformers before 4.48, and the environment llamafactory has a newer one",
        "Remove it.",
    ),
    Conflict(
        "fsdp",
        lambda get: isinstance(get("fsdp"), str) and not set(get("fsdp").split()) <= {*_SHARDS},
        f"must be of {', '.join(_SHARDS)}",
        "Set train.args.fsdp='full_shard auto_wrap'.",
    ),
    *(
        Conflict(
            name,
            lambda get, name=name: get(name) is not None and get(name) not in (4, 8),  # type: ignore[misc]
            "must be 4 or 8",
            f"Set train.args.{name}=4, or remove it.",
        )
        for name in ("ref_model_quantization_bit", "reward_model_quantization_bit")
    ),
    Conflict(
        "streaming",
        lambda get: get("streaming") and get("max_steps") == -1,
        "needs max_steps, because the number of rows is not known",
        "Set train.args.max_steps.",
    ),
    Conflict(
        "quantization_bit",
        lambda get: get("quantization_bit") is not None and get("finetuning_type") not in _ADAPTERS_ONLY,
        "goes with finetuning_type=lora or oft only",
        "Remove it, or set train.args.finetuning_type=lora.",
    ),
    Conflict(
        "resize_vocab",
        lambda get: get("quantization_bit") is not None and get("resize_vocab"),
        "is not possible for a quantized model",
        "Remove it, or remove quantization_bit.",
    ),
    Conflict(
        "flash_attn",
        lambda get: get("flash_attn") == "fa3",
        "is not implemented by LLaMA-Factory 0.9.5",
        "Set train.args.flash_attn=fa2, or auto.",
    ),
    *map(only_with_lora, ("use_dora", "use_rslora", "pissa_init", "loraplus_lr_ratio")),
    *map(_never_with_lora, ("use_galore", "use_apollo", "use_badam")),
    HISTORY_OR_PROMPT,
)
# Arguments that need a GPU, the values that do and what to do. tf32 and fp8 are modes of its cores, the rest kernels.
_ON_GPU = {
    **{name: ((), f"Set train.args.{name}=false; bf16 works on CPUs.") for name in ("fp16", "fp16_full_eval")},
    "pure_bf16": ((), "Set train.args.pure_bf16=false; bf16 works on CPUs."),
    **{
        name: ((), f"Set train.args.{name}=false.")
        for name in ("tf32", "fp8", "use_unsloth", "enable_liger_kernel", "use_liger_kernel")
    },
    "flash_attn": (("fa2", "fa3"), "Set train.args.flash_attn=auto."),
    "quantization_bit": ((), "Remove it."),
    "ddp_backend": ON_GPU_BACKENDS,
    "fsdp": ((), "Remove it, or set train.trainer=accelerate, which spreads a model over CPUs, too."),
}


def stage_has_what_it_needs(recipe: Recipe) -> Iterator[Problem]:
    stage = recipe.train.stage
    if stage == "ppo" and argument(recipe, "reward_model") is None:
        yield Problem("train.stage", stage, "needs a reward model", "Set train.args.reward_model.")
    if stage != "sft":
        for name in ("neat_packing", "train_on_prompt", "mask_history", "predict_with_generate"):
            if argument(recipe, name):
                hint = "Remove it, or set train.stage=sft."
                yield Problem(f"train.args.{name}", True, f"goes with train.stage=sft only, not {stage}", hint)
    if stage in ("rm", "ppo") and argument(recipe, "load_best_model_at_end"):
        message = f"does not go with train.stage={stage}"
        yield Problem("train.args.load_best_model_at_end", True, message, "Remove it.")
    smoothing, loss = argument(recipe, "dpo_label_smoothing"), argument(recipe, "pref_loss")
    if stage == "dpo" and smoothing and loss != "sigmoid":
        hint = "Remove it, or set train.args.pref_loss=sigmoid."
        yield Problem("train.args.dpo_label_smoothing", smoothing, f"does not go with pref_loss={loss}", hint)
    compared = stage in ("ppo", "kto") or (stage == "dpo" and loss not in _OWN_REFERENCE)
    if compared and argument(recipe, "pissa_init"):
        message = f"does not go with train.stage={stage}, whose reference is the model without the adapter"
        yield Problem("train.args.pissa_init", True, message, "Remove it.")
    if recipe.train.max_samples is not None and argument(recipe, "streaming"):
        hint = "Set train.max_samples=null, and train.args.max_steps for the length of training."
        yield Problem("train.max_samples", recipe.train.max_samples, "does not go with train.args.streaming", hint)


def named_template_is_known(recipe: Recipe) -> Iterator[Problem]:
    name, known = recipe.model.template, LLAMAFACTORY.content["templates"]
    if name is None or name in known:
        return
    guess = nearest(name, known)
    message = f"is none of the {len(known)} templates of {LLAMAFACTORY.versioned}"
    hint = f"Did you mean {guess}?" if guess else f"There are: {', '.join(known)}."
    yield Problem("model.template", name, message, hint)


RULES = (
    agreement(CONFLICTS, argument),
    stage_has_what_it_needs,
    arguments_have_an_effect(LLAMAFACTORY, argument, EFFECTS),
    number_of_workers_may_change(LLAMAFACTORY, setup_of, argument, ("deepspeed", "fsdp")),
    hardware_can_train(argument, _ON_GPU, ("bf16", "pure_bf16")),
    training_fits(LLAMAFACTORY, setup_of),
    *sharding_rules.RULES,
    named_template_is_known,
    *template.RULES,
    *schedule_rules.RULES,
    *schedule.schedule_rules(argument),
    *packages.RULES,
    learns_images(PLUGINS),
)
