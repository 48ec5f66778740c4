"""The chat template of requests is rendered in processes that end when one request's messages take too long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from stages.engines.vllm.serving import chat_worker
from stages.engines.vllm.serving.chat_worker import Rendering
from stages.engines.vllm.serving.side_process import Worker, Workers
from stages.patches.vllm_renderer import render_by
from tests.stages.engines.model_config import OfModel
from tests.tiny_model import CHAT_TEMPLATE, write_tiny_model

pytestmark = [
    pytest.mark.environment("engine"),
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
HANGS = (
    "{% if messages[0]['content'] == 'hang' %}{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}"
    "{% endfor %}{% endif %}{% if messages[0]['content'] == 'fill' %}{{ 'x' * 99999999999 }}{% endif %}" + CHAT_TEMPLATE
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> OfModel:
    return OfModel(str(write_tiny_model(tmp_path_factory.mktemp("model"))))


@pytest.fixture(scope="module")
def worker(model: OfModel) -> Iterator[Worker]:
    made = Worker(chat_worker.run, lambda: model)
    made.start()
    yield made
    made.end()


def rendered(worker: Worker, text: Any, timeout_s: float = 60, **kwargs: Any) -> Any:
    async def render() -> Any:
        rendering = Rendering(Workers([worker]))
        rendering.timeout_s = timeout_s
        return await rendering(
            [{"role": "user", "content": text}],
            chat_template=HANGS,
            add_generation_prompt=True,
            tokenize=False,
            **kwargs,
        )

    return asyncio.run(render())


def test_a_conversation_is_rendered_as_by_vllm(worker: Worker, model: OfModel) -> None:
    from vllm.renderers.hf import safe_apply_chat_template
    from vllm.tokenizers import cached_tokenizer_from_config

    config: Any = model
    messages: Any = [{"role": "user", "content": "Hi"}]
    own = safe_apply_chat_template(
        config, cached_tokenizer_from_config(config), messages,
        chat_template=HANGS, add_generation_prompt=True, tokenize=False,
    )  # fmt: skip
    assert rendered(worker, "Hi") == own == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(("text", "why"), [("hang", "it takes longer than 1 s"), ("fill", "needs too much memory")])
def test_messages_that_the_template_does_not_end_with_are_refused_and_hold_nobody_else(
    worker: Worker, text: str, why: str
) -> None:
    from vllm.exceptions import VLLMValidationError

    begun = time.monotonic()
    with pytest.raises((VLLMValidationError, ValueError), match=why) as caught:
        rendered(worker, text, 1)
    if text == "hang":  # a 400 that names the parameter
        assert isinstance(caught.value, VLLMValidationError)
        assert caught.value.parameter == "messages"
    assert time.monotonic() - begun < 15
    assert rendered(worker, "Hi").startswith("<|im_start|>user\nHi")


def test_a_killed_process_leaves_none_behind(worker: Worker) -> None:
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(Exception, match="takes longer than"):
        rendered(worker, "hang", 0.5)
    assert len([process for process in before if process.is_running()]) < len(before)


def test_what_the_template_raises_is_its_refusal(worker: Worker) -> None:
    with pytest.raises(ValueError, match="'int' object is not iterable"):
        rendered(worker, "Hi", documents=3)


def test_a_value_nested_beyond_what_can_be_handed_over_is_refused(worker: Worker) -> None:
    from vllm.exceptions import VLLMValidationError

    deep: Any = []
    for _ in range(20_000):
        deep = [deep]
    with pytest.raises(VLLMValidationError, match="nested too deeply"):
        rendered(worker, deep)
    assert rendered(worker, "Hi")


def test_vllm_s_renderer_has_what_is_replaced() -> None:
    from vllm.renderers.hf import HfRenderer

    renderer = HfRenderer.__new__(HfRenderer)
    renderer._apply_chat_template_async = print  # type: ignore[assignment]
    asked: list[Any] = []

    async def render(conversation: Any, **kwargs: Any) -> str:
        asked.append((conversation, kwargs))
        return "made"

    assert render_by(SimpleNamespace(renderer=renderer), render)
    assert asyncio.run(renderer._apply_chat_template_async("model", "tokenizer", ["x"], tools=None)) == "made"  # type: ignore[call-arg,arg-type,func-returns-value]
    assert asked == [(["x"], {"tools": None})]
    assert not render_by(SimpleNamespace(renderer=object()), render)
