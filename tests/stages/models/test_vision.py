"""One image, three readers: what training, batch inference and vLLM's endpoint make of a row with a picture."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stages.data.example import Example
from stages.data.images import data_uri
from stages.engines.vllm.serving.server import chat_kwargs
from stages.infer.prompts import prompt_of
from stages.infer.requests import Engine, request
from stages.ingest.parity import check
from stages.models.chat_template import ChatTemplate
from stages.models.endpoint_form import RefusedRowError
from stages.models.learned import learned
from stages.patches.vllm_process import prepare
from stages.query.stage import request_of
from stages.sections.recipe import Recipe
from tests.stages.engines.endpoint_renderer import endpoint_renderer
from tests.stages.models.vision import TOKENS, picture, save_llava

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.filterwarnings("default")]
IMAGE = {"type": "image"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    logging.disable(logging.WARNING)
    yield save_llava(tmp_path_factory.mktemp("llava") / "model")
    logging.disable(logging.NOTSET)


def recipe_of(folder: Path, **model: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny", "pipeline": ["ingest", "train", "publish", "infer", "evaluate", "serve"],
            "model": {"source": str(folder), **model}, "serve": {"model_id": "base"},
            "dataset": {"source": "data", "prompt": {"conversations": "messages"}}, "cluster": {"accelerator": "cpu"},
        }
    )  # fmt: skip


def shown() -> Example:
    """Two pictures in two turns."""
    asked = [{"type": "text", "text": "Of this "}, IMAGE, {"type": "text", "text": " say the colour."}]
    messages: list[Any] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": asked},
        {"role": "assistant", "content": "red"},
        {"role": "user", "content": [{"type": "text", "text": "And this? "}, IMAGE]},
        {"role": "assistant", "content": "blue"},
    ]
    images = [data_uri(picture("red"), ""), data_uri(picture("blue", form="JPEG"), "")]
    return Example("1", messages, images=images)


@pytest.mark.environment("engine")
def test_training_batch_and_endpoint_have_the_same_tokens_and_the_images_in_the_same_places(folder: Path) -> None:
    prepare()  # as vLLM has its processes call it
    recipe, example = recipe_of(folder), shown()
    template = ChatTemplate.of(recipe, folder)
    (sample,) = learned(template.seeing(example.images), example.messages)
    trained = sample.ids[: sample.answer_at]
    line = {"text": example.to_json(), "variant": "base", **prompt_of(example.to_json(), template, "learn")}
    batch = request(line, recipe=recipe, engine=Engine(str(folder), {"base": str(folder)}))
    assert sample.num_images == 2
    assert batch["num_learned_tokens"] == len(trained) == len(batch["tokenized_prompt"]) + 2 * (TOKENS - 1)
    given, asked = asyncio.run(_read(recipe, folder, example, batch))
    assert given["prompt_token_ids"] == asked["prompt_token_ids"] == trained
    own = template.vision.pixel_shapes(example.images)["pixel_values"]  # type: ignore[union-attr,arg-type]
    for engine in (given, asked):
        shapes = [tuple(item["pixel_values"].data.shape) for item in engine["mm_kwargs"]["image"]]
        assert (len(shapes), *shapes[0]) == own


async def _read(recipe: Recipe, folder: Path, example: Example, batch: dict[str, Any]) -> tuple[Any, Any]:
    """What vLLM makes of batch inference's request, and of a client's."""
    from vllm.config import ModelConfig
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.renderers.online_renderer import OnlineRenderer

    model = ModelConfig(model=str(folder), tokenizer=str(folder), dtype="float32", max_model_len=2048)
    renderer = endpoint_renderer(model)
    kwargs = chat_kwargs(recipe, folder)
    endpoint = OnlineRenderer(
        model, renderer, request_logger=None, chat_template=None,
        chat_template_content_format=kwargs["chat_template_content_format"],
    )  # fmt: skip
    prompt = {"prompt_token_ids": batch["tokenized_prompt"], "multi_modal_data": batch["multimodal_data"]}
    (given,) = await renderer.render_cmpl_async([prompt])
    sent = {key: value for key, value in request_of(recipe, example).items() if key not in ("timeout", "extra_body")}
    made = await endpoint.render_chat(ChatCompletionRequest(model="base", **sent))
    assert isinstance(made, tuple), made
    return given, made[1][0]


@pytest.mark.environment("llamafactory")
def test_a_text_with_the_token_of_an_image_and_a_template_that_drops_images_are_refused(folder: Path) -> None:
    example = shown()
    with pytest.raises(RefusedRowError, match="has the model's token of an image, '<image>'"):
        learned(ChatTemplate.load(folder, None, {}), [{"role": "user", "content": "<image>"}, example.messages[2]])
    dropping = "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}</s>{% endfor %}"
    with pytest.raises(RefusedRowError, match="writes '<image>' 0 times for 1 image"):
        learned(ChatTemplate.load(folder, dropping, {}).seeing(example.images), example.messages)


@pytest.mark.environment("llamafactory")
def test_a_template_of_texts_alone_takes_the_texts_of_a_model_that_sees(folder: Path) -> None:
    texts = "{% for m in messages %}{{ m.content + eos_token }}{% endfor %}"
    template = ChatTemplate.load(folder, texts, {})
    assert not template.in_parts
    assert ChatTemplate.load(folder, None, {}).in_parts
    plain: list[Any] = [{"role": "user", "content": "Red?"}, {"role": "assistant", "content": "Yes."}]
    assert learned(template, plain)
    with pytest.raises(RefusedRowError, match="writes '<image>' 0 times for 1 image"):
        learned(template.seeing(shown().images), shown().messages)


@pytest.mark.environment("llamafactory")
def test_rows_with_and_without_images_are_learned_as_they_are_asked(folder: Path) -> None:
    recipe = recipe_of(folder)
    plain = Example("1", [{"role": "user", "content": "Red?"}, {"role": "assistant", "content": "Yes."}])
    assert check(recipe, ChatTemplate.of(recipe, folder), [shown(), plain]) == 2
