"""The chat template: whose it is, what it may do, and how long it may take."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from runner.errors import RunnerError
from stages.models.chat.lasting import require_lasting
from stages.models.chat_template import ChatTemplate, built_in_names, template_text
from stages.models.endpoint_form import RefusedRowError, strip_thought, template_tools
from stages.models.time_limit import within
from stages.models.vision import processor_template
from tests.stages.models.families import LOOP, ONE_CALL, tokenizer_of

pytestmark = pytest.mark.environment("llamafactory")

ASKED = [{"role": "user", "content": "Open?"}]


def test_a_model_without_a_template_is_refused_with_the_key_that_gives_it_one() -> None:
    with pytest.raises(RunnerError, match="has no chat template") as caught:
        ChatTemplate(tokenizer_of("base")).prompt_ids(ASKED)
    assert "model.chat_template" in caught.value.hint
    assert ChatTemplate(tokenizer_of("base"), "chatml").prompt_ids(ASKED)


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize("file", ["tokenizer_config.json", "config.json", "preprocessor_config.json"])
def test_code_that_a_model_carries_runs_where_it_is_trusted_alone(file: str, trusted: bool, tmp_path: Path) -> None:
    # transformers keeps modules of models by name: each case has one of its own, which no other has imported.
    code = f"odd_{uuid4().hex}"
    model, ran = tmp_path / code, tmp_path / "ran"
    tokenizer_of("chatml").save_pretrained(model)
    held = json.loads((model / file).read_text()) if (model / file).is_file() else {}
    held |= {"tokenizer_class": "Odd", "image_processor_type": "Odd", "model_type": "odd"}
    names = ("AutoConfig", "AutoProcessor", "AutoImageProcessor", "AutoModelForCausalLM")
    held["auto_map"] = {"AutoTokenizer": [f"{code}.Odd", f"{code}.Odd"], **dict.fromkeys(names, f"{code}.Odd")}
    (model / file).write_text(json.dumps(held))
    (model / f"{code}.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    with suppress(RunnerError):
        ChatTemplate.load(model, None, {}, trust_remote_code=trusted)
    assert ran.exists() is (trusted and file != "preprocessor_config.json")  # read for a model that sees


def test_a_template_is_a_name_a_file_or_its_text(tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text("{{ messages[0].content }}", encoding="utf-8")
    assert template_text(str(tmp_path / "mine.jinja")) == "{{ messages[0].content }}"
    assert template_text("{{ messages }}") == "{{ messages }}"
    assert template_text(None) is None
    assert "<|im_start|>" in str(template_text("chatml"))
    with pytest.raises(RunnerError, match=r"model\.chat_template=no-such cannot be read") as caught:
        template_text("no-such")
    assert all(name in caught.value.hint for name in built_in_names())


def test_a_template_that_reads_what_it_may_not_is_refused() -> None:
    template = ChatTemplate(tokenizer_of("base"), "{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(RefusedRowError):
        template.prompt_ids(ASKED)


def test_a_template_that_is_not_valid_is_told_with_its_line() -> None:
    with pytest.raises(RunnerError, match=r"not valid Jinja: .*line 1"):
        ChatTemplate(tokenizer_of("base"), "{% for m in messages %}").prompt_ids(ASKED)


@pytest.mark.parametrize("endless", [LOOP, ONE_CALL])
def test_a_template_that_does_not_end_is_stopped(endless: str) -> None:
    template = ChatTemplate(tokenizer_of("base"), endless)
    begin = time.monotonic()
    with pytest.raises(RunnerError, match=r"the chat template did not end within 0\.3 s"):
        within(0.3, "the chat template", lambda: template.prompt_ids(ASKED))
    assert time.monotonic() - begin < 5


DATED = (
    "{% if messages[0].role != 'system' %}Today: {{ strftime_now('%d %b %Y') }}{% endif %}"
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}</s>{% endfor %}"
)
DATED_WITH_TOOLS = "{% if tools %}{{ strftime_now('%d') }}{{ tools | tojson }}{% endif %}{{ messages[0].content }}"


@pytest.mark.parametrize(
    ("family", "chosen", "kwargs", "messages", "tools", "hint"),
    [
        ("llama3.1", None, {}, ASKED, None, "date_string"),
        ("base", DATED, {}, ASKED, None, "dataset.prompt.system"),
        ("base", DATED_WITH_TOOLS, {}, ASKED, [{"name": "stock"}], "to a template without the date"),
    ],
)
def test_a_request_that_has_todays_date_is_refused(
    family: str, chosen: str | None, kwargs: dict[str, Any], messages: Any, tools: Any, hint: str
) -> None:
    with pytest.raises(RefusedRowError, match="writes today's date") as caught:
        require_lasting(ChatTemplate(tokenizer_of(family), chosen, kwargs), messages, tools)
    assert hint in caught.value.hint


def test_a_date_that_the_rows_own_requests_do_not_have_is_none_of_theirs() -> None:
    system = {"role": "system", "content": "Be brief."}
    require_lasting(ChatTemplate(tokenizer_of("llama3.1"), None, {"date_string": "26 Jul 2024"}), ASKED, None)
    require_lasting(ChatTemplate(tokenizer_of("base"), DATED), [system, *ASKED], None)
    require_lasting(ChatTemplate(tokenizer_of("base"), DATED_WITH_TOOLS), ASKED, None)


def test_a_prompt_that_is_drawn_at_random_is_refused() -> None:
    drawn = "{{ range(99999) | random }}{{ range(99999) | random }}{{ messages[0].content }}"
    with pytest.raises(RefusedRowError, match="at random"):
        require_lasting(ChatTemplate(tokenizer_of("base"), drawn), ASKED, None)


@pytest.mark.parametrize(
    ("template", "words"), [("{{ 'a' + oes_token }}", "oes_token"), ("{% set x = [].append(1) %}", "append")]
)
def test_a_template_that_fails_is_not_told_as_one_that_refuses_the_turns(template: str, words: str) -> None:
    with pytest.raises(RefusedRowError, match=f"the chat template fails: .*{words}") as caught:
        ChatTemplate(tokenizer_of("base"), template).prompt_ids(ASKED)
    assert "turns" not in caught.value.hint


def test_templates_by_other_names_are_told_where_none_is_the_default() -> None:
    tokenizer = tokenizer_of("base")
    tokenizer.chat_template = {"rag": "a", "tool_use": "b"}
    with pytest.raises(RunnerError, match=r"no chat template without a name \(it has rag, tool_use\)"):
        ChatTemplate(tokenizer).source()


def test_a_template_that_only_the_processor_has_is_the_models_where_it_takes_images(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llava", "vision_config": {}}')
    (tmp_path / "chat_template.json").write_text('{"chat_template": "{{ messages }}"}')
    assert processor_template(tmp_path) == "{{ messages }}"
    (tmp_path / "chat_template.jinja").write_text("{{ of_both }}")
    assert processor_template(tmp_path) is None
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert processor_template(tmp_path) is None


@pytest.mark.parametrize("content", ["", "no template"])
def test_a_file_without_a_template_in_it_is_refused(content: str, tmp_path: Path) -> None:
    (path := tmp_path / "own.jinja").write_text(content)
    with pytest.raises(RunnerError, match="there is no Jinja template in it"):
        template_text(str(path))


def test_a_mark_of_byte_order_is_not_part_of_a_template(tmp_path: Path) -> None:
    (path := tmp_path / "own.jinja").write_text("\ufeff{{ messages }}", encoding="utf-8")
    assert template_text(str(path)) == "{{ messages }}"


def test_tools_have_the_form_in_which_the_endpoint_gives_them() -> None:
    made = template_tools([{"type": "function", "function": {"name": "stock"}}])
    assert made == [{"type": "function", "function": {"name": "stock", "description": None, "parameters": None}}]
    assert template_tools([{"name": "stock", "description": "d", "parameters": {}}]) == [
        {"type": "function", "function": {"name": "stock", "description": "d", "parameters": {}}}
    ]
    assert template_tools([]) is None
    with pytest.raises(RefusedRowError, match="'cost'"):
        template_tools([{"type": "function", "function": {"name": "stock", "cost": 1}}])


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<think>\na\n</think>\n\nb", "b"),
        ("a\n</think>\n\nb", "b"),
        ("b", "b"),
        ("<think>never ends", "<think>never ends"),
        ("x <think>a</think> b", "x <think>a</think> b"),
    ],
)
def test_an_answer_is_scored_without_its_reasoning(text: str, left: str) -> None:
    assert strip_thought(text) == left


def test_tokens_are_shown_with_the_spaces_that_they_stand_for(tmp_path: Path) -> None:
    tokenizer_of("chatml").save_pretrained(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"clean_up_tokenization_spaces": True}))  # as many do
    template = ChatTemplate.load(tmp_path, None, {})
    text = "Mail 1 ! It 's late , really ?"
    assert template.tokenizer.decode(template.ids(text)) == text
