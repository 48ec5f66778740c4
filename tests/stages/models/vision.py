"""A tiny LLaVA: a random language model that sees drawn pictures by a random CLIP."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from tests.in_environment import with_torch
from tests.stages.models.families import tokenizer_of

IMAGE = "<image>"
SIZE, PATCH = 56, 14
TOKENS = (SIZE // PATCH) ** 2
"""Tokens of an image."""
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for p in m.content %}{% if p.type == 'image' %}<image>{% else %}{{ p.text }}{% endif %}{% endfor %}{% endif %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def picture(colour: str, shape: str = "square", form: str = "PNG") -> bytes:
    """A drawn picture as the bytes of a file."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (SIZE, SIZE), "white")
    draw = ImageDraw.Draw(image)
    (draw.ellipse if shape == "circle" else draw.rectangle)((8, 8, SIZE - 8, SIZE - 8), fill=colour)
    made = BytesIO()
    image.save(made, form)
    return made.getvalue()


def processor_of(tokenizer: Any) -> Any:
    """LLaVA's processor, with CLIP's own processing by PIL."""
    from transformers import CLIPImageProcessorPil, LlavaProcessor

    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    size = {"height": SIZE, "width": SIZE}
    images = CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=size)
    return LlavaProcessor(
        images, tokenizer, patch_size=PATCH, vision_feature_select_strategy="default", image_token=IMAGE,
        num_additional_image_tokens=1, chat_template=tokenizer.chat_template,
    )  # fmt: skip


@with_torch
def save_llava(folder: Path, *, spread: float = 0.2) -> Path:
    """The model in the folder. spread: of the random weights."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, set_seed

    tokenizer = tokenizer_of("chatml")
    tokenizer.chat_template = TEMPLATE
    processor = processor_of(tokenizer)
    processor.save_pretrained(folder)
    set_seed(0)
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=2048, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, initializer_range=spread,
    )  # fmt: skip
    sees = CLIPVisionConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=SIZE,
        patch_size=PATCH, projection_dim=64,
    )  # fmt: skip
    image_id = tokenizer.convert_tokens_to_ids(IMAGE)
    config = LlavaConfig(vision_config=sees, text_config=text, image_token_id=image_id, image_seq_length=TOKENS)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    as_published(folder / "model.safetensors")
    return folder


def as_published(path: Path) -> None:
    """Give the vision tower's weights the names that published checkpoints have, which vLLM reads."""
    from safetensors.torch import load_file, save_file

    weights = load_file(path)
    named = {name.replace("vision_tower.", "vision_tower.vision_model."): value for name, value in weights.items()}
    save_file(named, path, {"format": "pt"})
