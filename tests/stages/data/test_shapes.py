from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.data.example import BadRowError, Example, one_line
from stages.data.shapes.convert import conversation_fields, make_example
from stages.data.shapes.quick import quick_line, quick_messages
from stages.data.shapes.recognise import recognise
from stages.ingest.rows.collect import prompt_text
from stages.sections.dataset import Dataset

USER, SAYS = {"role": "user", "content": "Open?"}, {"role": "assistant", "content": "At eight."}
NO = {"role": "assistant", "content": "No idea."}
TALK = [USER, SAYS, {"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes {so}."}]


def example(row: dict[str, Any], stage: str = "sft", split: str = "train", **dataset: Any) -> Example:
    """The example of a row. dataset: keys of the section; keys of the prompt may stand among them."""
    keys = {key: dataset.pop(key) for key in list(dataset) if key not in Dataset.model_fields}
    section = Dataset.model_validate({"source": "data", "prompt": keys, **dataset})
    return make_example(section, stage, split)(row, "train-000000", "train.jsonl:1")


SHARES_GPT = [{"from": {"user": "human", "assistant": "gpt"}[m["role"]], "value": m["content"]} for m in TALK]


@pytest.mark.parametrize("cell", [TALK, SHARES_GPT, __import__("json").dumps(TALK)], ids=["openai", "sharegpt", "text"])
def test_a_column_of_messages_is_the_conversation_and_its_last_answer_the_reference(cell: Any) -> None:
    made = example({"talk": cell}, conversations="talk")
    assert (made.prompt, made.reference) == (TALK[:3], "Yes {so}.")


def test_templates_make_a_prompt_and_an_answer() -> None:
    made = example({"q": "Open?", "a": 8, "n": 1}, user="{q}", assistant="{a}", system="Know {n}.")
    assert made.prompt == [{"role": "system", "content": "Know 1."}, USER]
    assert made.reference == "8"
    assert (made.columns["n"], made.source) == (1, "train.jsonl:1")


def test_messages_may_say_speaker_and_utterance() -> None:
    talk = [{"speaker": each["role"], "utterance": each["content"]} for each in TALK]
    assert recognise({"dialog": talk}) == ("messages", "{conversations: dialog}")
    assert example({"dialog": talk}, conversations="dialog").messages == TALK
    for key in ("author", "text"):
        with pytest.raises(BadRowError, match="unknown key"):
            example({"dialog": [{**talk[0], key: "x"}, *talk[1:]]}, conversations="dialog")


def test_a_pair_of_answers_has_other_names_too() -> None:
    row = {"question": "Open?", "better": "At eight.", "worse": "No idea.", "annotator": "a"}
    kind, prompt = recognise(row)
    assert kind == "preference"
    made = example(row, "dpo", **__import__("yaml").safe_load(prompt))
    assert (made.messages, made.chosen, made.rejected) == ([USER], [SAYS], [NO])
    assert example(row, "dpo", "test", **__import__("yaml").safe_load(prompt)).messages == [USER]
    assert recognise({"better": "x", "worse": "y"}) == ("", "")


TURNS = [["Open?", "At eight."], ["Sure?", "Yes {so}."]]


@pytest.mark.parametrize("cell", [TURNS, __import__("json").dumps(TURNS), TALK], ids=["pairs", "text", "messages"])
def test_alpacas_history_is_turns_before_the_question(cell: Any) -> None:
    row = {"instruction": "And?", "output": "So.", "history": cell}
    kind, prompt = recognise(row | {"history": TURNS})
    assert kind == "alpaca"
    made = example(row, system="Be {history.0.0}." if cell is TURNS else None, **__import__("yaml").safe_load(prompt))
    assert made.prompt[-len(TALK) - 1 :] == [*TALK, {"role": "user", "content": "And?"}]
    assert made.reference == "So."
    pair = example({"q": "And?", "chosen": "So.", "rejected": "No.", "history": cell}, "dpo", user="{q}",
                   history="{history}")  # fmt: skip
    assert pair.messages == made.messages[-len(TALK) - 2 : -1]


def test_a_history_may_be_empty_and_is_refused_where_it_is_none() -> None:
    given = {"user": "{q}", "assistant": "{a}", "history": "{h|}"}
    for cell in ([], None, ""):
        assert example({"q": "Open?", "a": "x", "h": cell}, **given).prompt == [USER]
    assert example({"q": "Open?", "a": "x"}, **given).prompt == [USER]
    for cell, why in (
        ("since 1990", "is text"),
        ([["a"]], "is a list of 1"),
        ([["a", None]], "that is null"),
        (7, "is"),
    ):
        with pytest.raises(BadRowError, match=f"'h'.* {why}"):
            example({"q": "Open?", "a": "x", "h": cell}, **given)
    with pytest.raises(BadRowError, match="lacks the column 'h'"):
        example({"q": "Open?", "a": "x"}, **given | {"history": "{h}"})
    assert "history" not in recognise({"instruction": "a", "output": "b", "history": "of Rome"})[1]


def test_templates_of_one_column_may_hold_messages() -> None:
    assert example({"p": [USER], "c": [SAYS]}, user="{p}", assistant="{c}").messages == [USER, SAYS]


def test_the_system_template_stands_in_where_a_conversation_has_none() -> None:
    own = {"role": "developer", "content": "Own."}
    given = {"conversations": "talk", "system": "Be {mood}."}
    assert example({"talk": TALK, "mood": "kind"}, **given).messages[0]["content"] == "Be kind."
    assert example({"talk": [own, *TALK], "mood": "kind"}, **given).messages[0]["content"] == "Own."
    assert example({"talk": TALK, "system": "Row's."}, conversations="talk").messages[0]["content"] == "Row's."


@pytest.mark.parametrize(
    "value", ["Be brief.", [{"text": "Be brief."}], {"role": "system", "parts": [{"text": "Be brief."}]}]
)
@pytest.mark.parametrize("column", ["system", "systemInstruction"])
def test_a_column_of_the_system_message_is_used_in_any_form(column: str, value: Any) -> None:
    made = example({"t": TALK, column: value}, conversations="t")
    assert made.messages == [{"role": "system", "content": "Be brief."}, *TALK]


def test_a_system_message_and_another_one_in_the_rows_column_are_refused() -> None:
    own = [{"role": "system", "content": "Own."}, *TALK]
    assert example({"talk": own, "system": "Own.\n"}, conversations="talk").messages == own
    with pytest.raises(BadRowError, match="another one in its column 'system'"):
        example({"talk": own, "system": "Row's."}, conversations="talk")


@pytest.mark.parametrize("text", ["\u200b", "\ufeff\n", " \u2060\u00ad", "\u3000"])
def test_a_text_that_shows_nothing_is_empty(text: str) -> None:
    for row in ({"q": "Open?", "a": text}, {"q": text, "a": "x"}):
        with pytest.raises(BadRowError, match="message is empty"):
            example(row, user="{q}", assistant="{a}")
    assert example({"q": "Open?", "more": text, "a": "x"}, user="{q}\n{more|}", assistant="{a}").prompt == [USER]
    with pytest.raises(BadRowError, match="rejected answer is empty"):
        example({"q": "Open?", "chosen": "x", "rejected": text}, "dpo", user="{q}", assistant="{chosen}")


@pytest.mark.parametrize("value", ["", None])
def test_an_empty_system_message_is_none(value: str | None) -> None:
    assert example({"s": value, "q": "Open?", "a": "x"}, user="{q}", assistant="{a}", system="{s}").prompt == [USER]
    for empty in ("", " \n", []):
        assert example({"talk": [{"role": "system", "content": empty}, *TALK]}, conversations="talk").messages == TALK


def test_a_conversation_of_which_nothing_is_to_be_learned_is_refused_and_may_be_asked() -> None:
    talk = [{**each, "train": False} if each["role"] == "assistant" else each for each in TALK]
    with pytest.raises(BadRowError, match="says of each answer that it is not to be learned"):
        example({"talk": talk}, conversations="talk")
    assert len(example({"talk": talk}, split="test", conversations="talk").messages) == 4
    assert example({"talk": [*talk[:-1], TALK[-1]]}, conversations="talk").messages[1]["train"] is False


@pytest.mark.parametrize(
    ("talk", "words", "fix"),
    [
        ([], "without a turn", ""),
        (TALK[:3], "the last is the user's", "unanswered=drop"),
        (TALK[1:], "the first is the assistant's", "assistant_first=drop"),
        ([USER, *TALK], "two of the user in a row", "consecutive=join"),
        ([*TALK[:2], {"role": "system", "content": "x"}, *TALK[2:]], "several system messages", "systems=join"),
        ("text", "is text, not a list", ""),
        (5, "is a number, not a list", ""),
        ([{"role": "user", "content": " "}, SAYS], "its user message is empty", ""),
    ],
)
def test_what_is_not_a_conversation_is_refused_with_the_rule_that_would_accept_it(
    talk: Any, words: str, fix: str
) -> None:
    with pytest.raises(BadRowError, match=words) as caught:
        example({"talk": talk}, conversations="talk")
    assert fix in caught.value.fix


def test_each_rule_accepts_what_it_names() -> None:
    assert example({"t": TALK[1:]}, conversations="t", assistant_first="drop").messages == TALK[2:]
    assert example({"t": TALK[:3]}, conversations="t", unanswered="drop").messages == TALK[:2]
    joined = example({"t": [USER, USER, SAYS]}, conversations="t", consecutive="join").messages
    assert joined == [{"role": "user", "content": "Open?\n\nOpen?"}, SAYS]
    system = [{"role": "system", "content": each} for each in "ab"]
    made = example({"t": [system[0], USER, SAYS, system[1], *TALK[2:]]}, conversations="t", systems="join").messages
    assert made == [{"role": "system", "content": "a\n\nb"}, USER, SAYS, *TALK[2:]]


PAIRS = {
    "alpaca": ({"instruction": "Open?", "chosen": "At eight.", "rejected": "No idea."}, {"user": "{instruction}"}),
    "own names": ({"q": "Open?", "good": "At eight.", "bad": "No idea."},
                  {"user": "{q}", "chosen": "{good}", "rejected": "{bad}"}),
    "TRL, implicit": ({"chosen": [USER, SAYS], "rejected": [USER, NO]}, {"conversations": "chosen"}),
    "TRL, without keys": ({"chosen": [USER, SAYS], "rejected": [USER, NO]}, {}),
    "TRL, explicit": ({"prompt": [USER], "chosen": [SAYS], "rejected": [NO]}, {"user": "{prompt}"}),
    "TRL, text and messages": ({"prompt": "Open?", "chosen": [USER, SAYS], "rejected": [USER, NO]},
                               {"user": "{prompt}"}),
    "OpenAI": ({"input": {"messages": [USER]}, "preferred_output": [SAYS], "non_preferred_output": [NO]},
               {"conversations": "input.messages"}),
    "LLaMA-Factory": ({"conversations": [{"from": "human", "value": "Open?"}],
                       "chosen": {"from": "gpt", "value": "At eight."},
                       "rejected": {"from": "gpt", "value": "No idea."}},
                      {"conversations": "conversations"}),
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_preference_pairs_are_read_in_every_spelling_with_the_recipes_system_message(name: str) -> None:
    row, prompt = PAIRS[name]
    made = example(row, "dpo", system="Be brief.", **prompt)
    assert made.messages == [{"role": "system", "content": "Be brief."}, USER]
    assert (made.chosen, made.rejected) == ([SAYS], [NO])


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"chosen": "", "rejected": "x"}, "its chosen answer is empty"),
        ({"chosen": "x", "rejected": " "}, "its rejected answer is empty"),
        ({"chosen": "x"}, "lacks the column 'rejected'"),
        ({"chosen": "a", "rejected": "b", "a": "Yes.", "b": "No."}, "the names of its columns 'a' and 'b'"),
        ({"chosen": 0, "rejected": 1, "answers": ["Yes.", "No."]}, "numbers of two entries of its column 'answers'"),
        (
            {
                "chosen": "\n\nHuman: Open?\n\nAssistant: At eight.",
                "rejected": "\n\nHuman: Open?\n\nAssistant: No idea.",
            },
            "its answers are whole dialogues as texts",
        ),
        ({"chosen": {"messages": [USER, SAYS]}, "rejected": "x"}, "'chosen' is an object that has messages"),
        ({"chosen": '{"messages": []}', "rejected": "x"}, "'chosen' is an object that has messages"),
        ({"chosen": [USER, SAYS], "rejected": [TALK[2], NO]}, "follows other messages than its prompt"),
        ({"chosen": [USER, SAYS, USER], "rejected": [USER, NO]}, "ends with a message of the user"),
        (
            {"chosen": [USER, {**SAYS, "weight": 0}], "rejected": [USER, NO]},
            "of its chosen answer that it is not to be",
        ),
    ],
)
def test_what_is_not_a_pair_is_refused(row: dict[str, Any], words: str) -> None:
    given = {"user": "{q}"} if isinstance(row["chosen"], str) else {}
    with pytest.raises(BadRowError, match=words):
        example({"q": "Open?", **row}, "dpo", **given)


def test_test_rows_of_a_preference_recipe_may_be_plain_questions() -> None:
    made = example({"q": "Open?", "a": "At eight."}, "dpo", "test", user="{q}", assistant="{a}")
    assert (made.prompt, made.reference, made.chosen) == ([USER], "At eight.", None)


@pytest.mark.parametrize(
    ("value", "label"), [(True, True), (0, False), (1.0, True), ("true", True), ("False", False), ("0", False),
                       ("1.0", True), ("n", False), ("Good", True), ("undesirable", False)]
)  # fmt: skip
def test_a_kto_label_is_a_boolean_or_zero_and_one_also_as_text(value: Any, label: bool) -> None:
    given = {"user": "{q}", "assistant": "{a}"}
    assert example({"q": "Open?", "a": "x", "kto_tag": value}, "kto", **given).label is label
    assert example({"q": "Open?", "a": "x", "good": value}, "kto", label="{good}", **given).label is label


@pytest.mark.parametrize("value", [2, "maybe", None, [True]])
def test_another_kto_label_is_refused(value: Any) -> None:
    with pytest.raises(BadRowError, match="kto_tag"):
        example({"q": "Open?", "a": "x", "kto_tag": value}, "kto", user="{q}", assistant="{a}")


def test_pretraining_learns_a_column_or_a_template() -> None:
    assert example({"text": "Once."}, "pt").text == "Once."
    assert example({"t": "A", "b": "B"}, "pt", text="{t}\n\n{b}").text == "A\n\nB"
    with pytest.raises(BadRowError, match="'text' is missing"):
        example({"body": "Once."}, "pt")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"m": [USER, SAYS], "images": ["a.png"]}, "image 'a.png' cannot be read"),
        ({"m": [USER, SAYS], "videos": ["a.mp4"]}, "audio and video"),
        (
            {"m": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, SAYS]},
            "image 'x' cannot",
        ),
        ({"m": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, SAYS]}, "input_audio"),
    ],
)
def test_what_no_stage_uses_is_refused_by_name(row: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRowError, match=words):
        example(row, conversations="m")


@pytest.mark.parametrize(
    ("row", "shape", "prompt"),
    [
        ({"instruction": "", "input": "", "output": ""}, "alpaca", '{user: "{instruction}\\n{input|}"'),
        ({"messages": TALK}, "messages", "{conversations: messages}"),
        ({"conversations": SHARES_GPT}, "ShareGPT", "{conversations: conversations}"),
        ({"chosen": [USER, SAYS], "rejected": [USER, NO]}, "preference (TRL)", "{conversations: chosen}"),
        ({"prompt": "x", "chosen": "a", "rejected": "b"}, "preference", '{user: "{prompt}", assistant: "{chosen}"}'),
        (
            {"input": {"messages": []}, "preferred_output": [], "non_preferred_output": []},
            "preference (OpenAI)",
            "input.m",
        ),
        ({"instruction": "", "output": "", "kto_tag": True}, "KTO (alpaca)", "{output}"),
        ({"question": "", "answer": ""}, "prompt and completion", '{user: "{question}", assistant: "{answer}"}'),
        (
            {"prompt": "x", "chosen": [USER, SAYS], "rejected": [USER, NO], "messages": [USER, SAYS]},
            "preference (TRL)",
            "{conversations: chosen}",
        ),
        (
            {"conversation": [{"input": "x", "output": "y"}], "chosen": [USER, SAYS], "rejected": [USER, NO]},
            "preference (TRL)",
            "{conversations: chosen}",
        ),
        (
            {"messages": [USER], "chosen": [SAYS], "rejected": [NO]},
            "preference (messages)",
            "{conversations: messages}",
        ),
        (
            {"messages": TALK, "rejected_response": "b"},
            "preference (messages)",
            '{conversations: messages, chosen: "{messages}", rejected: "{rejected_response}"}',
        ),
        (
            {"system": "s", "question": "x", "chosen": "a", "rejected": "b"},
            "preference",
            '{user: "{question}", assistant: "{chosen}", system: "{system|}"}',
        ),
        (
            {"dialogue": "A: hi", "summary": "s"},
            "prompt and completion",
            '{user: "{dialogue}", assistant: "{summary}"}',
        ),
        (
            {"instruction": "x", "context": "", "response": "y"},
            "prompt and completion",
            '{user: "{context|}\\n{instruction}", assistant: "{response}"}',
        ),
        ({"contents": [{"role": "user", "parts": []}]}, "messages", "{conversations: contents}"),
        ({"conversations": ["a", "b"]}, "", ""),
        ({"text": "Once."}, "text", '{text: "{text}"}'),
        ({"a": 1}, "", ""),
    ],
)
def test_shapes_are_recognised_with_the_prompt_that_fits(row: dict[str, Any], shape: str, prompt: str) -> None:
    found, suggested = recognise(row)
    assert found == shape
    assert prompt in suggested


def test_the_recipe_says_which_role_an_unusual_name_means() -> None:
    talk = [{"role": "customer", "content": "Open?"}, {"role": "agent", "content": "At eight."}]
    roles = {"customer": "user", "agent": "assistant"}
    assert example({"t": talk}, conversations="t", roles=roles).messages == [USER, SAYS]
    shouted = [{**each, "role": each["role"].upper()} for each in talk]
    assert example({"t": shouted}, conversations="t", roles=roles).messages == [USER, SAYS]
    with pytest.raises(BadRowError, match="has the role 'customer'") as caught:
        example({"t": talk}, conversations="t")
    assert "dataset.roles={customer: user}" in caught.value.fix


TALKS: dict[str, Any] = {
    "lists by key": {"role": ["user", "assistant"], "content": ["Open?", "At eight."]},
    "empty keys of other tools": [USER, {**SAYS, "refusal": None, "annotations": [], "audio": None}],
    "Gemini's parts": [
        {"role": "user", "parts": [{"text": "Open?"}]},
        {"role": "model", "parts": [{"text": "At eight."}]},
    ],
    "Bedrock's parts": [{"role": "user", "content": [{"text": "Open?"}]}, SAYS],
    "both spellings alike": [{**USER, "from": "user", "value": "Open?"}, SAYS],
}


@pytest.mark.parametrize("kind", TALKS)
def test_messages_are_read_as_tools_write_them(kind: str) -> None:
    assert example({"t": TALKS[kind], "tools": "null"}, conversations="t").messages == [USER, SAYS]


def test_a_call_in_openais_old_form_is_a_tool_call() -> None:
    call = {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"x": 1}'}}
    made = example({"t": [USER, call, {"role": "function", "name": "f", "content": "2"}, SAYS]}, conversations="t")
    assert made.messages[1].get("tool_calls") == [
        {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    ]


BAD_MESSAGES: dict[str, tuple[Any, str, str]] = {
    "two roles": (
        [{"role": "user", "from": "gpt", "content": "a"}],
        "has both role and from, and they differ",
        "Remove",
    ),
    "two contents": ([{"role": "user", "content": "a", "value": "b"}], "has both content and value", "Remove"),
    "pairs": ([["user", "a"]], "is a list, not an object", "Write each message as"),
    "Python's list": ("[{'role': 'user'}]", "is text, not a list of messages", "Write the list as JSON"),
    "null": (None, "column 't' is null, not a list of messages", "Remove the row"),
    "none": ([], "holds a conversation without a turn", "Remove the row"),
    "an object around them": (
        {"id": 1, "messages": [USER]},
        "whose messages are under 'messages'",
        "a dot and messages",
    ),
    "a part of another kind": ([{"role": "user", "content": [{"call": 1}]}], "has no type; it has: call", "tool_calls"),
}


@pytest.mark.parametrize("kind", BAD_MESSAGES)
def test_messages_that_contradict_or_are_none_are_refused_with_what_to_write(kind: str) -> None:
    talk, words, fix = BAD_MESSAGES[kind]
    with pytest.raises(BadRowError, match=words) as caught:
        example({"t": talk}, conversations="t")
    assert fix in caught.value.fix


def test_images_that_a_text_has_a_place_for_are_not_left_out() -> None:
    prompt = {"user": "{q}", "assistant": "{a}"}
    with pytest.raises(BadRowError, match=r"image 'roll\.png' cannot be read"):
        example({"q": "<image>What?", "a": "A roll.", "images": ["roll.png"]}, **prompt)
    assert example({"q": "What?", "a": "A roll.", "image": "roll.png"}, **prompt).reference == "A roll."


def test_an_empty_list_of_answers_is_told_with_how_to_name_it() -> None:
    with pytest.raises(BadRowError, match="its list of answers is empty") as caught:
        example({"q": "Open?", "a": []}, user="{q}", assistant="{a|join}")
    assert "|default:none" in caught.value.fix
    assert example({"q": "Open?", "a": []}, user="{q}", assistant="{a|join|default:none}").reference == "none"


def test_answers_alone_need_a_question() -> None:
    row = {"prompt": [USER], "chosen": [SAYS], "rejected": [NO]}
    with pytest.raises(BadRowError, match="does not end with a message of the user") as caught:
        example(row, "dpo")
    assert caught.value.fix == "Name what was asked: dataset.prompt.user='{prompt}'."


@pytest.mark.parametrize("stage", ["sft", "kto"])
def test_messages_as_json_text_are_messages_in_columns_of_their_own_too(stage: str) -> None:
    asked, answer = json.dumps([USER]), json.dumps(SAYS)
    made = example({"p": asked, "c": answer, "label": True}, stage, user="{p}", assistant="{c}")
    assert made.messages == [USER, SAYS]


@pytest.mark.parametrize(
    "text", ['{"from": "Ulm", "to": "Bonn"}', '[{"from": "Ulm"}]', json.dumps(TALK), '{"role": "cook", "content": "x"}']
)
def test_an_answer_in_json_is_a_text(text: str) -> None:
    assert example({"q": "Open?", "a": text}, user="{q}", assistant="{a}").messages == [
        USER, {"role": "assistant", "content": text},
    ]  # fmt: skip
    if text != json.dumps(TALK):
        made = example({"q": "Open?", "chosen": text, "rejected": "{}"}, "dpo", user="{q}")
        assert made.chosen == [{"role": "assistant", "content": text}]


def test_a_missing_answer_is_not_to_be_left_out() -> None:
    for row in ({"q": "Open?", "a": ""}, {"q": "Open?", "a": None}, {"q": "Open?"}):
        with pytest.raises(BadRowError) as caught:
            example(row, user="{q}", assistant="{a}")
        assert "|}" not in caught.value.fix


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(max_size=3), st.sampled_from(["", " ", "%s", "{a}", "\n"])
)
TEMPLATES = ("{a}", "{a}\n{b|}", "100 % {a}: {b}", "{{{a}}}", "{a|strip}", "Say\n{b|default:x}\n{a}", "{a.b}")


@settings(max_examples=150, deadline=None)
@given(
    row=st.dictionaries(st.sampled_from(["a", "b", "image"]), VALUES),
    user=st.sampled_from(TEMPLATES),
    system=st.sampled_from([None, "Be brief.", "{b}", "{b|}"]),
)
def test_the_quick_way_makes_what_the_whole_way_makes(row: dict[str, Any], user: str, system: str | None) -> None:
    section = Dataset.model_validate({"source": "data", "prompt": {"user": user, "assistant": "{a}", "system": system}})
    quick = quick_messages(section.prompt)
    assert quick is not None
    lines = quick_line(section.prompt, keep_columns=True)
    assert lines is not None
    if (found := quick(row)) is not None:
        whole = make_example(section, "sft", "test")(row, "test-000001", "a\u2028b.csv:1")
        wanted = (whole.to_json().encode() + b"\n", prompt_text(whole), whole.reference)
        assert lines(row, "test-000001", "a\u2028b.csv:1") == wanted
        assert found == conversation_fields(section, row)["messages"]
        assert Example("x", found).to_json() == one_line({"id": "x", "messages": found, "columns": {}, "source": ""})


def test_messages_as_json_text_may_not_give_a_key_twice_or_be_nested_without_end() -> None:
    for cell, words in (
        ('[{"role": "user", "content": "a", "content": "b"}]', "the key 'content' is given twice"),
        ("[" * 99999, "nested deeper"),
        ("no", "is text, not a list of messages$"),
    ):
        with pytest.raises(BadRowError, match=words):
            example({"talk": cell}, conversations="talk")


def test_tools_of_a_pair_are_used_and_its_images_are_refused() -> None:
    tools = [{"type": "function", "function": {"name": "stock", "parameters": {}}}]
    row = {"talk": [USER], "chosen": SAYS, "rejected": NO, "tools": tools}
    assert example(row, "dpo", conversations="talk").tools == tools
    called = {"role": "assistant", "tool_calls": [{"name": "other", "arguments": {}}]}
    with pytest.raises(BadRowError, match="calls 'other', which is none of its tools"):
        example({**row, "rejected": called}, "dpo", conversations="talk")
    with pytest.raises(BadRowError, match=r"has images, and train\.stage=dpo takes none"):
        example({**row, "images": ["a.png"]}, "dpo", conversations="talk")
    with pytest.raises(BadRowError, match=r"has images, and train\.stage=dpo takes none"):
        example({"q": "<image>Open?", "chosen": "a", "rejected": "b", "images": ["a.png"]}, "dpo", user="{q}")
