"""Engines stop where the chat template ends a turn."""

from __future__ import annotations

import pytest

from stages.models.chat.end_of_turn import Stop, has_end, with_stop
from stages.models.chat_template import ChatTemplate
from tests.stages.models.families import FAMILIES, sentencepiece_like, tokenizer_of

pytestmark = pytest.mark.environment("llamafactory")


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in ("base", "phi", "gemma", "gemma3")])
def test_a_template_that_ends_turns_as_its_tokenizer_does_adds_no_stop(family: str) -> None:
    assert ChatTemplate(tokenizer_of(family), None, {"date_string": "1 May 2024"}).stop == Stop()


@pytest.mark.parametrize(
    ("family", "chosen", "end"),
    [("base", "chatml", "<|im_end|>"), ("phi", None, "<|end|>"), ("gemma", None, "<end_of_turn>")],
)
def test_the_templates_end_of_turn_stops_the_answer_where_the_tokenizers_own_end_is_another(
    family: str, chosen: str | None, end: str
) -> None:
    tokenizer = tokenizer_of(family)
    assert ChatTemplate(tokenizer, chosen).stop == Stop(token_ids=(tokenizer.convert_tokens_to_ids(end),))


def test_an_end_that_is_not_a_token_is_a_text_to_stop_at() -> None:
    assert ChatTemplate(tokenizer_of("mistral"), "chatml").stop == Stop(texts=("<|im_end|>",))


def test_a_template_without_an_end_adds_none() -> None:
    assert ChatTemplate(tokenizer_of("base"), "{% for m in messages %}{{ m.content }}\n{% endfor %}").stop == Stop()


def test_a_template_that_writes_nothing_after_an_answer_has_no_end() -> None:
    assert not has_end(ChatTemplate(tokenizer_of("base"), "{% for m in messages %}{{ m.content }}\n{% endfor %}"))
    assert has_end(ChatTemplate(tokenizer_of("chatml")))


@pytest.mark.parametrize(("family", "lead"), [("mistral", " "), ("chatml", ""), ("gemma", "")])
def test_white_space_that_a_template_writes_before_an_answer_is_known(family: str, lead: str) -> None:
    assert ChatTemplate(tokenizer_of(family)).lead == lead


@pytest.mark.parametrize(("older", "lead"), [(True, "  "), (False, " ")])
def test_white_space_is_that_of_the_engines_text(older: bool, lead: str) -> None:
    text = "{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]{% else %} {{ m.content }}</s>"
    template = ChatTemplate(sentencepiece_like(text + "{% endif %}{% endfor %}", older=older))
    assert template.lead == lead


def test_stops_are_added_to_those_of_the_recipe() -> None:
    assert with_stop({"stop": "a", "stop_token_ids": [1]}, Stop((2, 1), ("b",))) == {
        "stop": ["a", "b"],
        "stop_token_ids": [1, 2],
    }
    assert with_stop({"max_tokens": 5}, Stop()) == {"max_tokens": 5}
