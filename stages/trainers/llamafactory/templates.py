"""The rule about LLaMA-Factory's prompt templates."""

from __future__ import annotations

import re
from collections.abc import Iterator

from runner.errors import Problem, nearest
from runner.recipe.schema import Recipe
from stages.trainers.llamafactory.mappings import LLAMAFACTORY

# Endings that say in which form the same model is packed: .q4_k_m, -awq, -gptq-int4, -bnb-4bit.
_PACKING = re.compile(r"[.-](i?q\d\w*|b?f16|f32|gguf|awq|gptq|int[48]|fp8|[48]bit|bnb)$")


def template_fits_model(recipe: Recipe) -> Iterator[Problem]:
    template, known = recipe.model.template, LLAMAFACTORY.content["templates"]
    if template not in known:
        guess = nearest(template, known)
        message = f"is none of the {len(known)} templates of {LLAMAFACTORY.versioned}"
        hint = f"Did you mean {guess}?" if guess else f"There are: {', '.join(known)}."
        yield Problem("model.template", template, message, hint)
        return
    right = _template_of(recipe.model.source)
    if right and template.removesuffix("_nothink") != right.removesuffix("_nothink"):
        yield Problem(
            "model.template",
            template,
            f"is not the template of {recipe.model.source}, so it would be trained on other prompts than it is asked",
            f"Set model.template={right}.",
        )


def _template_of(source: str) -> str:
    """Template of a model that LLaMA-Factory lists, known by the last part of its address; "" for any other."""
    models: dict[str, str] = LLAMAFACTORY.content["models"]
    name = source.rstrip("/").rpartition("/")[2].lower()
    while True:
        for known in (name, f"meta-{name}"):  # Llama 3's repositories lost their prefix
            if known in models:
                return models[known]
        shorter = _PACKING.sub("", name)
        if shorter == name:
            return ""
        name = shorter
