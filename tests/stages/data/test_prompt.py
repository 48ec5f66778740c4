from __future__ import annotations

import pytest

from runner.errors import RunnerError
from runner.recipe.schema import Prompt
from stages.data.prompt import columns, prompt_columns, reference, render, request_messages

ROW = {"instruction": "Say it.", "input": "A {game} here", "output": "inform(name[X])", "n": 3}


def test_replaces_columns_and_keeps_escaped_braces() -> None:
    assert render("{instruction}\n{input} {{n={n}}}", ROW) == "Say it.\nA {game} here {n=3}"


def test_braces_in_a_value_are_not_interpreted() -> None:
    assert render("{input}", {"input": "{output} {{", "output": "secret"}) == "{output} {{"


def test_format_specifiers_and_attributes_are_plain_column_names() -> None:
    assert columns("{a.__class__} {b!r} {c:>9}") == {"a.__class__", "b!r", "c:>9"}
    with pytest.raises(RunnerError, match=r"a\.__class__"):
        render("{a.__class__}", {"a": "x"})


def test_missing_column_is_named_with_those_there_are() -> None:
    with pytest.raises(RunnerError, match=r"'question'.*'instruction', 'input'"):
        render("{question}", ROW)


@pytest.mark.parametrize("template", ["{", "a } b", "{}", "{a{b}}", "{{{"])
def test_stray_brace_is_refused(template: str) -> None:
    with pytest.raises(RunnerError, match="stray"):
        columns(template)


def test_triple_braces_are_a_column_in_braces() -> None:
    assert render("{{{n}}}", ROW) == "{3}"


def test_messages_leave_out_a_null_system() -> None:
    prompt = Prompt(system=None, user="{instruction}\n{input}", assistant="{output}")
    assert request_messages(prompt, ROW) == [{"role": "user", "content": "Say it.\nA {game} here"}]
    assert reference(prompt, ROW) == "inform(name[X])"


def test_messages_put_the_system_first() -> None:
    prompt = Prompt(system="You know {n}.", user="{input}", assistant="{output}")
    assert [m["role"] for m in request_messages(prompt, ROW)] == ["system", "user"]
    assert request_messages(prompt, ROW)[0]["content"] == "You know 3."
    assert prompt_columns(prompt) == {"n", "input", "output"}


TALK = [
    {"role": "user", "content": "Is it old?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "And good?"},
    {"role": "assistant", "content": "Very {so}."},
]
SHAREGPT = [{"from": {"user": "human", "assistant": "gpt"}[m["role"]], "value": m["content"]} for m in TALK]


@pytest.mark.parametrize("cell", [TALK, SHAREGPT], ids=["openai", "sharegpt"])
def test_a_column_of_messages_is_the_conversation_and_its_last_answer_the_reference(cell: list[dict[str, str]]) -> None:
    prompt = Prompt(conversations="talk")
    assert request_messages(prompt, {"talk": cell}) == TALK[:3]
    assert reference(prompt, {"talk": cell}) == "Very {so}."
    assert prompt_columns(prompt) == {"talk"}


def test_the_system_template_stands_in_where_a_conversation_has_none() -> None:
    prompt = Prompt(conversations="talk", system="Be {mood}.")
    own = [{"role": "system", "content": "Own."}, *TALK]
    assert request_messages(prompt, {"talk": TALK, "mood": "kind"})[0] == {"role": "system", "content": "Be kind."}
    assert request_messages(prompt, {"talk": own, "mood": "kind"})[0]["content"] == "Own."


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("text", "its turns are none"),
        ([], "its turns are none"),
        (TALK[:3], "its turns are user, assistant, user"),
        (TALK[1:], "its turns are assistant, user, assistant"),
        ([*TALK, {"role": "tool", "content": "x"}], "message 5 of column 'talk'"),
        ([{"role": "user", "content": None}], "message 1 of column 'talk'"),
        (["hello"], "message 1 of column 'talk'"),
    ],
)
def test_what_is_no_conversation_is_refused(cell: object, words: str) -> None:
    with pytest.raises(RunnerError, match=words):
        request_messages(Prompt(conversations="talk"), {"talk": cell})
