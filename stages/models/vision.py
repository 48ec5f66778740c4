"""Models that see images: how they are told, and an image as the tokens that a prompt holds for it.

A chat template writes one place for an image; the model's own processor puts as many tokens there as the image has.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

from runner.errors import RunnerError
from runner.storage.small import read_small
from runner.text import count_text
from stages.models.endpoint_form import IMAGE, RefusedRowError


def model_type_of_vision(folder: Path | str) -> str | None:
    """The `model_type` of a model that takes images; None of any other, and where config.json is not to be read."""
    try:
        values = json.loads(read_small(Path(folder, "config.json")))
        return str(values["model_type"]) if isinstance(values.get("vision_config"), dict) else None
    except (OSError, ValueError, KeyError, AttributeError):
        return None


def processor_template(folder: Path | str) -> str | None:
    """The chat template that only the processor of a model that takes images reads, and engines prefer to the
    tokenizer's: in chat_template.json, or in processor_config.json. None where a file serves both, or there is none."""
    if model_type_of_vision(folder) is None or Path(folder, "chat_template.jinja").is_file():
        return None
    for name in ("chat_template.json", "processor_config.json"):
        with suppress(OSError, ValueError, AttributeError):
            text = json.loads(read_small(Path(folder, name))).get("chat_template")
            if isinstance(text, str):
                return text
    return None


def image_bytes(uri: str) -> bytes:
    """The content of an Example's image, which is a data URI."""
    return base64.b64decode(uri.partition(",")[2])


def decoded(images: Sequence[str]) -> list[Any]:
    """Data URIs as images of PIL."""
    from PIL import Image

    return [Image.open(BytesIO(image_bytes(each))) for each in images]


class Vision:
    """A model's processor of prompts with images."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.place: str = getattr(processor, "boi_token", None) or processor.image_token
        """What a chat template writes for an image."""

    @classmethod
    def load(cls, folder: Path | str, *, trust_remote_code: bool = False) -> Vision:
        """The processor in the folder. Raises RunnerError when it does not load."""
        from transformers import AutoProcessor

        try:
            processor = AutoProcessor.from_pretrained(folder, trust_remote_code=trust_remote_code)
            processor.image_processor  # noqa: B018 (a tokenizer has none)
            return cls(processor)
        except Exception as error:
            raise RunnerError(
                f"the image processor in {folder} does not load: {error}",
                "The model's folder needs its processor's files, such as preprocessor_config.json.",
            ) from error

    def check_places(self, messages: Sequence[Mapping[str, Any]], text: str) -> None:
        """Raise RefusedRowError where a text has the token of an image, or the rendered text has not one for each."""
        for number, message in enumerate(messages, 1):
            if self.place in message["content"]:
                raise RefusedRowError(
                    f"message {number} has the model's token of an image, {self.place!r}, in its text",
                    "Remove it from the rows, or give them a column images.",
                )
        wanted = sum(part == IMAGE for message in messages for part in message.get("parts", ()))
        if (found := text.count(self.place)) != wanted:
            raise RefusedRowError(
                f"the chat template writes {self.place!r} {count_text(found, 'time')} for "
                f"{count_text(wanted, 'image')}",
                "Set model.chat_template to the template of the vision-language model.",
            )

    def ids(self, text: str, images: Sequence[str]) -> list[int]:
        """Token ids of a rendered text with the tokens of its images.

        images: as data URIs, of which the text holds the first few.
        """
        count = text.count(self.place)
        assert count <= len(images), "a row's places and images are as many"
        made = self.processor(text=[text], images=decoded(images[:count]) or None, add_special_tokens=False)
        return [int(each) for each in made["input_ids"][0]]

    def pixel_shapes(self, images: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """What the model is given of the images, by the names of its inputs."""
        made = self.processor.image_processor(decoded(images), return_tensors="pt")
        return {name: tuple(value.shape) for name, value in made.items() if hasattr(value, "shape")}
