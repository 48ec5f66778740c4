"""Images in LLaMA-Factory: its plugin for the kind of model, without the changes of size that it makes by itself.

Requests have the images as the model's own processor takes them, and so has training.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from stages.models.chat_template import ChatTemplate
from stages.models.endpoint_form import RefusedRowError
from stages.models.vision import decoded, model_type_of_vision
from stages.trainers.llamafactory.arguments import torchaudio_stand_in

PLUGINS = {
    "llava": ("llava", "<image>"),
    "llava_next": ("llava_next", "<image>"),
    "qwen2_vl": ("qwen2_vl", "<|image_pad|>"),
    "qwen2_5_vl": ("qwen2_vl", "<|image_pad|>"),
    "qwen3_vl": ("qwen3_vl", "<|image_pad|>"),
    "gemma3": ("gemma3", "<image_soft_token>"),
}
"""model_type -> (LLaMA-Factory's plugin, the token of an image)."""
UNCHANGED = {"image_max_pixels": 1 << 40, "image_min_pixels": 1}
"""Arguments with which no image is made smaller or larger before the model's processor."""


def image_args(folder: str) -> dict[str, Any]:
    """Arguments for a model that takes images, none for others. Registers the template that they name."""
    kind = model_type_of_vision(folder)
    if kind not in PLUGINS:
        return {}
    name = f"tokens and images of {kind}"
    from llamafactory.data.formatter import StringFormatter
    from llamafactory.data.template import TEMPLATES, register_template

    if name not in TEMPLATES:
        register_template(name=name, format_assistant=StringFormatter(slots=["{{content}}"]), mm_plugin=plugin_of(kind))
    return {"template": name, **UNCHANGED}


@lru_cache(maxsize=1)
def plugin_of(kind: str) -> Any:
    """LLaMA-Factory's plugin for the model's kind."""
    with torchaudio_stand_in():
        from llamafactory.data.mm_plugin import get_mm_plugin
    name, token = PLUGINS[kind]
    return get_mm_plugin(name=name, image_token=token)


def compare(template: ChatTemplate, images: Sequence[str]) -> None:
    """Raise RefusedRowError where training would have other image tokens or inputs than a request."""
    vision = template.seeing(images).vision
    assert vision is not None, "`seeing` refuses images for other models"
    kind = model_type_of_vision(template.tokenizer.name_or_path)
    if kind not in PLUGINS:
        raise RefusedRowError(
            f"it has images, and those of a model of the type {kind} are not learned here",
            f"Take a model of one of these: {', '.join(PLUGINS)}.",
        )
    plugin, processor = plugin_of(kind), vision.processor
    for name, value in UNCHANGED.items():
        setattr(processor, name, value)
    seen, token = decoded(images), PLUGINS[kind][1]
    made = plugin.get_mm_inputs(seen, [], [], [len(seen)], [0], [0], [[]], processor)
    own = vision.pixel_shapes(images)
    learned = {name: tuple(made[name].shape) for name in own if hasattr(made.get(name), "shape")}
    if learned != own:
        raise RefusedRowError(
            f"training would see its images as {learned}, and requests as {own}", "Take other images."
        )
    (message,) = plugin.process_messages([{"role": "user", "content": "<image>" * len(seen)}], seen, [], [], processor)
    wanted = template.tokenizer.convert_tokens_to_ids(token)
    count = template.ids(message["content"]).count(wanted)
    asked = vision.ids(vision.place * len(seen), images).count(wanted)
    if count != asked:
        raise RefusedRowError(
            f"training would have {count} tokens for its images, and requests {asked}", "Take other images."
        )
