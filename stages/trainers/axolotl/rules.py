"""Rules about training by axolotl: which arguments go together, and with the method and the hardware."""

from __future__ import annotations

from collections.abc import Iterator

from runner.errors import Problem
from stages.models.chat.template_here import tokenizer_folder
from stages.models.vision import model_type_of_vision
from stages.sections.recipe import Recipe
from stages.trainers.axolotl import packages
from stages.trainers.axolotl.mappings import AXOLOTL
from stages.trainers.axolotl.setup import setup_of
from stages.trainers.axolotl.values import METHODS, SAME, argument
from stages.trainers.fit import training_fits
from stages.trainers.other_names import not_doubled
from stages.trainers.rules import effect, schedule, template
from stages.trainers.rules.conflicts import COMMON, Conflict, agreement, only_with_lora, schedulers
from stages.trainers.rules.effect import arguments_have_an_effect, with_value
from stages.trainers.rules.elastic import number_of_workers_is_fixed
from stages.trainers.rules.hardware import hardware_can_train
from stages.trainers.rules.images import learns_images

_LORA_ONLY = ("peft_use_dora", "peft_use_rslora", "lora_modules_to_save", "loraplus_lr_ratio")
_COSINE_ONLY = ("lr_quadratic_warmup", "cosine_min_lr_ratio", "cosine_constant_lr_ratio")


def _with_cosine(name: str) -> Conflict:
    return Conflict(
        name,
        lambda get: get(name) and get("lr_scheduler") != "cosine",
        "goes with lr_scheduler=cosine only",
        "Remove it, or set train.args.lr_scheduler=cosine.",
    )


EFFECTS = (*effect.common("lr_scheduler"), with_value("finetuning_type", ("lora",), "lora_alpha", "lora_dropout"))
CONFLICTS = (
    *COMMON,
    *schedulers("lr_scheduler"),
    *map(only_with_lora, _LORA_ONLY),
    *map(_with_cosine, _COSINE_ONLY),
    Conflict(
        "cosine_constant_lr_ratio",
        lambda get: get("cosine_constant_lr_ratio") and not get("cosine_min_lr_ratio"),
        "goes with cosine_min_lr_ratio only",
        "Set train.args.cosine_min_lr_ratio.",
    ),
    Conflict(
        "cosine_min_lr_ratio",
        lambda get: get("cosine_min_lr_ratio") and get("lr_quadratic_warmup"),
        "and lr_quadratic_warmup exclude each other",
        "Remove one of them.",
    ),
    Conflict(
        "mask_history",
        lambda get: get("mask_history") and get("train_on_inputs"),
        "and train_on_inputs exclude each other",
        "Set one of them to false.",
    ),
    Conflict(
        "warmup_steps",
        lambda get: get("warmup_steps") == 1,
        "is 2 to axolotl",
        "Set it to 0 or 2.",
    ),
    Conflict(
        "save_steps",
        lambda get: get("save_steps") and get("save_strategy") != "steps",
        "goes with save_strategy=steps only",
        "Remove it, or set train.args.save_strategy=steps.",
    ),
)
_METHODS_ELSEWHERE = {"dpo": "accelerate", "kto": "accelerate"}


def method_is_trained(recipe: Recipe) -> Iterator[Problem]:
    """axolotl renders and tokenizes preferences by itself, so that they would not be the tokens of requests."""
    stage = recipe.train.stage
    if stage not in METHODS:
        why = "; it would make other tokens of preferences than requests have" if stage in _METHODS_ELSEWHERE else ""
        message = f"is not trained by train.trainer=axolotl, which has {', '.join(METHODS)}{why}"
        yield Problem(
            "train.stage", stage, message, f"Set train.trainer={_METHODS_ELSEWHERE.get(stage, 'llamafactory')}."
        )
    if (name := recipe.model.template) is not None:
        message = "is a template of LLaMA-Factory, and train.trainer=axolotl uses the model's chat template"
        yield Problem("model.template", name, message, "Set model.template=null.")


def model_takes_only_text(recipe: Recipe) -> Iterator[Problem]:
    """axolotl would put adapters on the part that sees, which the engine does not load."""
    folder = tokenizer_folder(recipe) if "train" in recipe.pipeline else None
    kind = model_type_of_vision(folder) if folder is not None else None
    if kind is not None:
        message = f"is of the type {kind}, which takes images, and train.trainer=axolotl trains models of text alone"
        yield Problem("model.source", recipe.model.source, message, "Set train.trainer=llamafactory.")


RULES = (
    method_is_trained,
    not_doubled(SAME),
    model_takes_only_text,
    agreement(CONFLICTS, argument),
    arguments_have_an_effect(AXOLOTL, argument, EFFECTS),
    hardware_can_train(argument, packages.ON_GPU, ("bf16",)),
    number_of_workers_is_fixed("axolotl"),
    training_fits(AXOLOTL, setup_of),
    *template.RULES,
    *schedule.schedule_rules(argument),
    *packages.RULES,
    learns_images(()),
)
