"""`validate` compares training and requests where the tokenizer and a row are on this machine, without transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stages.engines.vllm.serving.server import chat_kwargs
from stages.models.chat.light_tokenizer import LightTokenizer
from stages.models.chat.template_here import tokenizer_folder
from stages.models.chat_template import ChatTemplate
from stages.models.learned import learned
from tests.runner.recipes import problems
from tests.stages.ingest.test_parity import recipe_of
from tests.stages.models.families import FAMILIES, LOOP, ONE_CALL, tokenizer_of

pytestmark = pytest.mark.environment("llamafactory")

ASKED = [{"role": "user", "content": "Open é 你好?"}, {"role": "assistant", "content": "At eight.", "name": None}]


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in ("base", "deepseek-r1", "qwen3-thinking")])
def test_the_light_tokenizer_makes_the_tokens_of_transformers(family: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of(family)
    tokenizer.save_pretrained(tmp_path)
    kwargs = {"enable_thinking": False, "date_string": "1 May 2024"}
    own, light = (ChatTemplate(each, None, kwargs) for each in (tokenizer, LightTokenizer(tmp_path)))
    assert learned(light, ASKED) == learned(own, ASKED)
    assert light.stop == own.stop
    assert light.tokenizer.decode(learned(own, ASKED)[0].ids) == tokenizer.decode(learned(own, ASKED)[0].ids)


@pytest.mark.parametrize(("family", "form"), [("parts", "openai"), ("chatml", "string"), ("base", "string")])
def test_the_endpoint_is_given_content_in_the_form_that_the_template_reads(
    family: str, form: str, tmp_path: Path
) -> None:
    tokenizer = tokenizer_of(family)
    tokenizer.save_pretrained(tmp_path)
    assert ChatTemplate(tokenizer).in_parts == (form == "openai")
    assert chat_kwargs(recipe_of(), tmp_path)["chat_template_content_format"] == form


def keys_of(folder: Path, family: str, system: str | None = None, **model: Any) -> dict[str, Any]:
    tokenizer_of(family).save_pretrained(folder / "model")
    (folder / "model" / "config.json").write_text("{}")
    for name in ("train", "test"):
        (folder / f"{name}.jsonl").write_text(json.dumps({"messages": [dict(each) for each in ASKED]}) + "\n")
    prompt = {"conversations": "messages", "user": None, "assistant": None, "system": system}
    keys = {"model.source": str(folder / "model"), "dataset.source": str(folder), "dataset.prompt": prompt}
    return {**keys, "dataset.files.val": None, **{f"model.{name}": value for name, value in model.items()}}


@pytest.mark.parametrize(
    ("family", "extra", "message"),
    [
        ("gemma", {"system": "Be brief."}, "takes no system message"),
        ("llama3.1", {}, "today's date"),
        ("qwen3", {}, "writes '<think>"),
        ("base", {}, "has no chat template"),
    ],
)
def test_what_ingest_would_refuse_is_told_before_a_run(
    family: str, extra: dict[str, Any], message: str, tmp_path: Path
) -> None:
    assert message in problems(keys_of(tmp_path, family, **extra))["model.chat_template"].message


@pytest.mark.parametrize(
    ("family", "extra"),
    [
        ("chatml", {}),
        ("llama3.1", {"chat_template_kwargs": {"date_string": "1 May 2024"}}),
        ("qwen3", {"chat_template_kwargs": {"enable_thinking": False}}),
        ("base", {"chat_template": "chatml"}),
    ],
)
def test_rows_that_are_learned_as_they_are_asked_pass(family: str, extra: dict[str, Any], tmp_path: Path) -> None:
    assert "model.chat_template" not in problems(keys_of(tmp_path, family, **extra))


def test_a_tokenizer_that_cannot_be_read_here_is_left_to_ingest(tmp_path: Path) -> None:
    keys = keys_of(tmp_path, "gemma", system="Be brief.")
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    assert "model.chat_template" not in problems(keys)


def test_a_model_of_the_hub_is_found_in_the_cache(tmp_path: Path) -> None:
    recipe = recipe_of(source="org/tiny")
    recipe = recipe.model_copy(update={"storage": recipe.storage.model_copy(update={"cache": str(tmp_path)})})
    assert tokenizer_folder(recipe) is None
    repository = tmp_path / "hub" / "models--org--tiny"
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots" / "abc" / "tokenizer_config.json").write_text("{}")
    assert tokenizer_folder(recipe) == repository / "snapshots" / "abc"


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("template", "message"),
    [
        (LOOP, "did not end within 0.5 s"),
        (ONE_CALL, "did not end within 0.5 s"),
        ("{{ 'a' * 4000000000 }}", "MemoryError"),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "RecursionError"),
    ],
)
@pytest.mark.parametrize("pipeline", [["ingest", "infer"], ["ingest", "train"]])
def test_a_template_without_end_does_not_hold_validate(
    template: str, message: str, pipeline: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.ingest.rules.SECONDS", 0.5)
    found = problems({**keys_of(tmp_path, "chatml", chat_template=template), "pipeline": pipeline})
    assert message in found["model.chat_template"].message


def test_a_variable_that_the_template_does_not_read_is_refused(tmp_path: Path) -> None:
    keys = keys_of(tmp_path, "qwen3", chat_template_kwargs={"enable_thinking": False, "enable_thinkin": False})
    found = problems(keys)["model.chat_template"]
    assert "chat_template_kwargs.enable_thinkin is not a variable" in found.message
    assert "enable_thinking" in found.hint


def of_tokenizer(folder: Path, **config: Any) -> None:
    """Change what the folder's tokenizer_config.json says; None removes a key."""
    path = folder / "model" / "tokenizer_config.json"
    values = {**json.loads(path.read_text()), **config}
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


def test_the_template_for_tools_is_found_where_transformers_finds_it(tmp_path: Path) -> None:
    keys_of(tmp_path, "chatml")
    folder = tmp_path / "model"
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools }}")
    light = LightTokenizer(folder)
    assert light.get_chat_template(None, tools=[{}]) == "{{ tools }}"
    assert light.get_chat_template(None) == FAMILIES["chatml"][3]


def test_special_tokens_of_an_older_tokenizer_are_those_that_transformers_has(tmp_path: Path) -> None:
    keys = keys_of(
        tmp_path, "chatml", chat_template="{{ messages[0].content + eos_token }}{{ messages[1].content }}</s>"
    )
    of_tokenizer(tmp_path, eos_token=None, added_tokens_decoder=None)
    (tmp_path / "model" / "special_tokens_map.json").write_text('{"eos_token": {"content": "<|im_end|>"}}')
    assert LightTokenizer(tmp_path / "model").special_tokens["eos_token"] == "<|im_end|>"
    assert "undefined" not in str(problems(keys).get("model.chat_template"))


@pytest.mark.parametrize(("chosen", "words"), [("ChatML", "Did you mean chatml?"), ("tokenizer_default", "or null")])
def test_a_name_without_a_template_is_told_once(chosen: str, words: str, tmp_path: Path) -> None:
    problem = problems(keys_of(tmp_path, "chatml", chat_template=chosen))["model.chat_template"]
    assert problem.message.startswith("cannot be read: ")
    assert problem.message.count("cannot be read") == problem.hint.count("Give a file") == 1
    assert words in problem.hint


def test_false_as_a_text_is_refused_as_a_variable(tmp_path: Path) -> None:
    found = problems(keys_of(tmp_path, "qwen3", chat_template_kwargs={"enable_thinking": "False"}))
    assert found["model.chat_template_kwargs.enable_thinking"].hint == "Write false without quotes."
