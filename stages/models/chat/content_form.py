"""Whether a model's chat template is given content as a list of parts, found without transformers: for the endpoint,
whose engine is told so where its configuration is made."""

from __future__ import annotations

from pathlib import Path

from runner.errors import RunnerError
from stages.models.chat.light_tokenizer import LightTokenizer
from stages.models.chat_template import ChatTemplate
from stages.models.time_limit import MAKERS_CODE, SECONDS, within
from stages.models.vision import model_type_of_vision, processor_template
from stages.sections.recipe import Recipe


def requests_in_parts(recipe: Recipe, folder: Path | str) -> bool:
    """`ChatTemplate.in_parts` of the recipe's template with the tokenizer in the folder.

    Raises RunnerError where the template takes too long.
    """
    sees, model = model_type_of_vision(folder) is not None, recipe.model
    chosen = processor_template(folder) if model.chat_template is None else model.chat_template
    template = ChatTemplate(LightTokenizer(Path(folder)), chosen, model.chat_template_kwargs)
    try:
        template.source()
    except (RunnerError, OSError, ValueError):  # there is none that can be read
        return sees
    return bool(within(SECONDS, MAKERS_CODE, lambda: template.reads_parts(sees=sees)))
