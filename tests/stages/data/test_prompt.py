from __future__ import annotations

from typing import Any

import pytest

from runner.errors import RunnerError
from stages.data.example import BadRowError
from stages.data.prompt import columns, only_column, prompt_columns, render
from stages.data.readers.json_values import DECODER
from stages.sections.prompt import Prompt

ROW = {"instruction": "Say it.", "input": "A {game} here", "output": "inform(name[X])", "n": 3}


def test_replaces_columns_and_keeps_escaped_braces() -> None:
    assert render("{instruction}\n{input} {{n={n}}}", ROW) == "Say it.\nA {game} here {n=3}"


def test_braces_in_a_value_are_not_interpreted() -> None:
    assert render("{input}", {"input": "{output} {{", "output": "secret"}) == "{output} {{"


def test_format_specifiers_and_attributes_are_plain_column_names() -> None:
    assert columns("{a.__class__} {b!r} {c:>9}") == {"a.__class__", "b!r", "c:>9"}
    with pytest.raises(BadRowError, match=r"a\.__class__"):
        render("{a.__class__}", {"a": "x"})


def test_missing_column_is_named_with_those_there_are() -> None:
    with pytest.raises(BadRowError, match=r"'question'; it has: instruction, input"):
        render("{question}", ROW)


@pytest.mark.parametrize("template", ["{", "a } b", "{}", "{a{b}}", "{{{"])
def test_stray_brace_is_refused(template: str) -> None:
    with pytest.raises(RunnerError, match="stray"):
        columns(template)


def test_triple_braces_are_a_column_in_braces() -> None:
    assert render("{{{n}}}", ROW) == "{3}"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{data.question}", "Open?"),
        ("{answers.text.0}", "At eight."),
        ("{a.b}", "whole name"),
        ("{answers.text|join}", "At eight., At nine."),
        ("{answers.text|lines}", "At eight.\nAt nine."),
        ("{data|json}", '{"question": "Open?"}'),
        ("{cell.question}, {cell.parts.1}, {cell.parts|join}", "Open?, b, a, b"),
        ("{list|join}", "a, 4.50"),
        ("{numbers|json}", '{"price": 4.50, "much": 1E5, "none": null}'),
        ("{flag} {n} {x}", "true 4.50 0.1"),
        ("{spaced|strip|lower}", "ab"),
    ],
)
def test_a_template_names_parts_of_nested_columns_and_filters(template: str, text: str) -> None:
    row = DECODER.decode(
        '{"data": {"question": "Open?"}, "answers": {"text": ["At eight.", "At nine."]}, "a.b": "whole name",'
        ' "flag": true, "n": 4.50, "x": 0.1, "spaced": " AB ", "list": "[\\"a\\", 4.50]",'
        ' "cell": "{\\"question\\": \\"Open?\\", \\"parts\\": [\\"a\\", \\"b\\"]}",'
        ' "numbers": {"price": 4.50, "much": 1E5, "none": null}}'
    )
    assert render(template, row) == text


@pytest.mark.parametrize("row", [{"a": "x"}, {"a": "x", "b": ""}, {"a": "x", "b": None}])
def test_the_line_of_an_optional_column_is_left_out_where_it_is_empty(row: dict[str, Any]) -> None:
    assert render("{a}\n{b|}", row) == "x"
    assert render("{a}\nInput: {b|}\nEnd", row) == "x\nEnd"
    assert render("{a} ({b|default:none})", row) == "x (none)"
    assert render("{a}\n{b|}", {"a": "x", "b": "y"}) == "x\ny"


@pytest.mark.parametrize(
    ("template", "row", "words", "fix"),
    [
        ("{a}", {"a": ""}, "column 'a' is empty", "{a|}"),
        ("{a}", {"a": None}, "column 'a' is null", "{a|}"),
        ("{a}", {}, "lacks the column 'a'", "{a|}"),
        ("{a}", {"a": {"text": ["x"]}}, "column 'a' is an object", "{a.text.0}"),
        ("{a}", {"a": ["x"]}, "column 'a' is a list", "{a|join}"),
        ("{a|join}", {"a": "x"}, "only a list can be joined", "in tables as JSON"),
        ("{a}", {"a": b"x"}, "is binary data", "as text"),
    ],
)
def test_what_cannot_be_text_is_refused_with_how_to_write_it(
    template: str, row: dict[str, Any], words: str, fix: str
) -> None:
    with pytest.raises(BadRowError, match=words) as caught:
        render(template, row)
    assert fix in caught.value.fix


def test_an_unknown_filter_is_refused_with_the_nearest() -> None:
    with pytest.raises(RunnerError, match="unknown filter 'jsn'") as caught:
        columns("{a|jsn}")
    assert caught.value.hint == "Did you mean {a|json}?"


def test_the_columns_of_the_whole_prompt() -> None:
    prompt = Prompt(system="You know {n}.", user="{input|}", chosen="{better.text}")
    assert prompt_columns(prompt) == {"n", "input", "better.text"}
    assert prompt_columns(Prompt(conversations="talk")) == {"talk"}
    assert [only_column(each) for each in ("{a}", "{a} ", "{a|json}", "x")] == ["a", None, None, None]
