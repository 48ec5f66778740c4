"""`init`: each shape of data becomes a valid recipe with a test that passes; nothing is overwritten unasked."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner.cli.main import main
from runner.errors import EXIT_DONE, EXIT_INVALID_RECIPE, RunnerError
from runner.testing import load_recipe
from stages.init import draft, target
from stages.init.found import find_data
from stages.init.shape import shape_of
from stages.sections.recipe import Recipe
from tests.paths import ROOT
from tests.terminal import Session

GOLDEN = ROOT / "tests" / "golden" / "init"
Rows = list[dict[str, Any]]
LABELS = ("billing", "shipping", "login")


def tickets(number: int) -> Rows:
    return [{"id": at, "text": f"Ticket {at} about {LABELS[at % 3]}", "label": LABELS[at % 3]} for at in range(number)]


def talk(*turns: tuple[str, str]) -> Rows:
    return [{"role": role, "content": f"{text} {at}"} for at, (role, text) in enumerate(turns)]


SHAPES: dict[str, Rows] = {
    "labels": tickets(60),
    "prompt_completion": [{"prompt": f"Say {at}", "completion": f"It is {at}"} for at in range(30)],
    "alpaca": [{"instruction": f"Add {at}", "input": "1" if at % 2 else "", "output": f"{at + 1}"} for at in range(30)],
    "messages": [{"messages": talk(("user", f"Hello {at}"), ("assistant", f"Good day {at}"))} for at in range(30)],
    "sharegpt": [
        {"conversations": [{"from": "gpt", "value": "Welcome"}, {"from": "human", "value": f"Hi {at}"},
                           {"from": "gpt", "value": f"Hello {at}"}]}
        for at in range(30)
    ],
    "preference": [{"prompt": f"Ask {at}", "chosen": f"Yes {at}", "rejected": f"No {at}"} for at in range(30)],
    "kto": [{"prompt": f"Ask {at}", "completion": f"Yes {at}", "label": at % 2 == 0} for at in range(30)],
    "text": [{"text": f"A page of a book, number {at}."} for at in range(30)],
}  # fmt: skip


@pytest.fixture(autouse=True)
def _small_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU and without a tokenizer, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(target, "gpu_memory_gib", lambda: 0.0)
    monkeypatch.setattr(draft, "is_here", lambda source: False)
    monkeypatch.setattr(draft, "tokenizer_of", lambda source, cache: None)


def write(name: str, rows: Rows) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def init(*words: str) -> Recipe:
    """The recipe that `init --yes` writes as the one of its `recipe=`, or as data.yaml."""
    assert main(["init", "--yes", *words]) == EXIT_DONE
    named = [word.partition("=")[2] for word in words if word.startswith("recipe=")]
    return load_recipe(named[0] if named else "data.yaml")


@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_has_its_own_recipe(shape: str) -> None:
    write("data.jsonl", SHAPES[shape])
    init("data=data.jsonl")
    file, text = GOLDEN / f"{shape}.yaml", Path("data.yaml").read_text()
    if os.environ.get("UPDATE_GOLDEN") == "1":
        file.write_text(text)
    assert text == file.read_text(), "write it again with UPDATE_GOLDEN=1 if that is meant"


@pytest.mark.parametrize("shape", SHAPES)
def test_the_rows_of_each_shape_are_those_that_ingest_makes(shape: str, tmp_path: Path) -> None:
    from stages.ingest.data import prepare_data

    write("data.jsonl", SHAPES[shape])
    recipe = init("data=data.jsonl")
    rows = prepare_data(recipe, tmp_path / "work", lambda *args, **figures: None).metrics["rows"]
    assert rows["train"] > 0
    bad_answers = 4 if shape == "kto" else 0  # of the test rows, with which nothing is compared
    assert sum(rows.values()) + bad_answers == len(SHAPES[shape])
    assert rows.get("test", 0) > 0 or shape == "text"


def calls(number: int) -> Rows:
    """Rows with a tool and a call."""
    tools = [{"type": "function", "function": {"name": "stock", "parameters": {"type": "object"}}}]

    def call(at: int) -> dict[str, Any]:
        function = {"name": "stock", "arguments": {"item": str(at)}}
        return {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": function}]}

    asked = [{"role": "user", "content": f"Stock of {at}?"} for at in range(number)]
    return [{"messages": [each, call(at)], "tools": tools} for at, each in enumerate(asked)]


def test_rows_with_tools_get_the_parser_of_the_models_family() -> None:
    write("data.jsonl", calls(30))
    recipe = init("data=data.jsonl", "model=qwen2_5_7b_instruct", "cluster=local_gpu")
    assert (recipe.model.tool_parser, recipe.model.reasoning_parser) == ("hermes", None)
    assert recipe.evaluate.metrics == ["calls_match", "exact_match"]


def test_rows_with_tools_and_a_model_of_no_known_family_are_refused_with_the_key(
    capsys: pytest.CaptureFixture[str],
) -> None:
    write("data.jsonl", calls(30))
    assert main(["init", "--yes", "data=data.jsonl"]) == EXIT_INVALID_RECIPE
    assert "model.tool_parser" in capsys.readouterr().err
    assert not Path("data.yaml").exists()


def test_a_model_whose_conversations_are_chatml_gets_a_template_with_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    class Words:
        """A tokenizer whose tokens are words."""

        def encode(self, text: str, *, add_special_tokens: bool) -> Any:
            return SimpleNamespace(ids=text.split())

        def token_to_id(self, token: str) -> int | None:
            return 1 if token == "<|im_start|>" else None

    monkeypatch.setattr(draft, "tokenizer_of", lambda source, cache: Words())
    write("data.jsonl", calls(30))
    recipe = init("data=data.jsonl")
    assert (recipe.model.chat_template, recipe.model.tool_parser) == ("chatml", "hermes")
    assert recipe.evaluate.metrics == ["calls_match", "exact_match"]


def test_calls_are_not_what_is_scored_first_where_no_scored_answer_calls() -> None:
    answer = {"role": "assistant", "content": "There are two."}
    result = {"role": "tool", "content": "2"}
    write("data.jsonl", [{**row, "messages": [*row["messages"], result, answer]} for row in calls(30)])
    recipe = init("data=data.jsonl", "model=qwen2_5_7b_instruct", "cluster=local_gpu")
    assert (recipe.model.tool_parser, recipe.evaluate.metrics) == ("hermes", ["exact_match", "calls_match"])


def test_limits_count_tools_and_calls() -> None:
    long = {"type": "function", "function": {"name": "stock", "description": "x" * 3000, "parameters": {}}}
    rows = calls(30)
    write("short.jsonl", rows)
    write("data.jsonl", [{**row, "tools": [long]} for row in rows])
    family = ("model=qwen2_5_7b_instruct", "cluster=local_gpu")
    short = init("data=short.jsonl", "recipe=short.yaml", *family)
    given = init("data=data.jsonl", *family)
    assert given.train.args["cutoff_len"] - short.train.args["cutoff_len"] >= 900
    assert short.infer.sampling["max_tokens"] >= 32


def test_the_loss_on_val_rows_becomes_a_curve_of_several_points_in_one_epoch() -> None:
    write("data.jsonl", tickets(60))
    args = init("data=data.jsonl").train.args
    assert (args["eval_dataset"], args["eval_strategy"], args["eval_steps"]) == ("val", "steps", 0.2)


def thoughts(form: str, thought: str = "2 + 2") -> Rows:
    """Rows whose answers have reasoning, in a key of its own or as text."""
    key = {"role": "assistant", "content": "4", "reasoning_content": thought}
    answer = key if form == "key" else {"role": "assistant", "content": f"<think>\n{thought}\n</think>\n\n4"}
    return [{"messages": [{"role": "user", "content": f"Sum {at}?"}, answer]} for at in range(30)]


def test_reasoning_gets_the_parser_of_the_models_family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target.Target, "source", "Qwen/Qwen3-8B")
    write("data.jsonl", thoughts("key"))
    recipe = init("data=data.jsonl")
    assert (recipe.model.tool_parser, recipe.model.reasoning_parser) == (None, "qwen3")
    assert recipe.model.chat_template is None


@pytest.mark.parametrize(("form", "template"), [("key", "chatml"), ("text", None)])
def test_a_model_that_rows_teach_to_reason_gets_a_parser_of_text_and_a_template_that_writes_it(
    form: str, template: str | None
) -> None:
    write("data.jsonl", thoughts(form))
    recipe = init("data=data.jsonl")
    assert (recipe.model.reasoning_parser, recipe.model.chat_template) == ("olmo3", template)
    assert (recipe.train.reasoning, recipe.evaluate.reasoning) == ("learn", "strip")


@pytest.mark.parametrize(
    ("form", "keys", "sentence"),
    [("key", ("strip", "strip"), "it is not learned; set model.reasoning_parser, and a model.chat_template"),
     ("text", ("learn", "keep"), "it is scored with the answers; set model.reasoning_parser")],
)  # fmt: skip
def test_reasoning_without_a_known_parser_is_proposed_so_that_it_runs_and_the_missing_key_is_named(
    form: str, keys: tuple[str, str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from stages.data.shapes.convert import make_example
    from stages.ingest.parsers_needed import check_needed

    rows = thoughts(form)
    write("data.jsonl", rows)
    recipe = init("data=data.jsonl", "model=gemma_3_4b_it", "cluster=local_gpu")
    assert recipe.model.reasoning_parser is None
    assert (recipe.train.reasoning, recipe.evaluate.reasoning) == keys
    assert f"no reasoning parser is known for google/gemma-3-4b-it: {sentence}" in capsys.readouterr().out
    check_needed(recipe, make_example(recipe.dataset, "sft", "train")(rows[0], "train-0", "data.jsonl:1"))


def test_limits_hold_the_reasoning_calls_and_tools_of_rows() -> None:
    write("data.jsonl", thoughts("key", thought="word " * 300))
    recipe = init("data=data.jsonl")
    assert recipe.infer.sampling["max_tokens"] >= 500
    write("data.jsonl", calls(30))
    recipe = init("data=data.jsonl", "model=qwen2_5_7b_instruct", "cluster=local_gpu")
    assert recipe.infer.sampling["max_tokens"] >= 24
    assert recipe.train.args["cutoff_len"] >= 256


def test_the_written_pytest_passes_from_any_folder(tmp_path: Path) -> None:
    write("rows/data.jsonl", tickets(30))
    init("data=rows/data.jsonl", "recipe=deep/er/my-tickets.yaml")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        str(tmp_path / "deep/er/test_my_tickets.py"),
    ]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd="/", env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_a_column_that_names_splits_is_proposed_and_the_rows_are_where_it_says(tmp_path: Path) -> None:
    from stages.ingest.data import prepare_data

    names = ["train"] * 4 + ["dev", "test"]
    write("data.jsonl", [{**row, "split": names[at % 6]} for at, row in enumerate(tickets(60))])
    recipe = init("data=data.jsonl")
    assert recipe.dataset.split is not None
    assert recipe.dataset.split.column == "split"
    assert recipe.train.args["eval_dataset"] == "val"
    rows = prepare_data(recipe, tmp_path / "work", lambda *args, **figures: None).metrics["rows"]
    assert rows == {"train": 40, "val": 10, "test": 10}


NESTED: dict[str, tuple[dict[str, Any], str, str]] = {
    "a list of tags": ({"headline": "News", "tags": ["eu", "tax"]}, "{headline}", "{tags|join}"),
    "an object": ({"input": "Invoice 7", "output": {"total": 4.5}}, "{input}", "{output|json}"),
    "squad": (
        {"title": "T", "context": "c", "question": "q?", "answers": {"text": ["a"], "answer_start": [1]}},
        "{context|}\n{question}", "{answers.text.0}",
    ),
    "choices": ({"question": "q?", "choices": ["x", "y"], "answer": 1}, "{question}\n{choices|lines}", "{answer}"),
}  # fmt: skip


@pytest.mark.parametrize("name", NESTED)
def test_columns_of_lists_and_objects_are_written_as_texts(name: str) -> None:
    row, user, answer = NESTED[name]
    shape = shape_of([row] * 3)
    assert (shape.prompt["user"], shape.prompt["assistant"]) == (user, answer)


def test_parts_of_objects_are_named_where_nothing_tells_question_and_answer() -> None:
    with pytest.raises(RunnerError, match=r"they have: translation\.en, translation\.de"):
        shape_of([{"translation": {"en": "Good day", "de": "Guten Tag"}}])
    shape = shape_of([{"translation": {"en": "Hi", "de": "Ho"}}], "translation.en", "translation.de")
    assert shape.prompt == {"user": "{translation.en}", "assistant": "{translation.de}"}


def test_few_labels_are_listed_in_the_prompt_and_scored_by_label() -> None:
    write("data.jsonl", tickets(60))
    recipe = init("data=data.jsonl")
    assert "billing, login, shipping" in str(recipe.dataset.prompt.system)
    assert (recipe.evaluate.metrics, recipe.evaluate.slices) == (["exact_match"], ["label"])
    assert recipe.dataset.split
    assert recipe.dataset.split.stratify == "label"


def test_more_than_twenty_labels_are_not_listed_and_that_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    write("data.jsonl", [{"text": f"Text {at}", "label": f"class {at % 21}"} for at in range(210)])
    recipe = init("data=data.jsonl")
    assert "class 1" not in str(recipe.dataset.prompt.system)
    assert "21 labels, too many to list" in capsys.readouterr().out


def test_labels_with_braces_dollars_and_commas_stay_what_they_are() -> None:
    from stages.data.prompt import render

    labels = ("{x}", "${seed}", "a, b")
    write("data.jsonl", [{"text": f"Text {at}", "label": labels[at % 3]} for at in range(30)])
    system = init("data=data.jsonl").dataset.prompt.system
    assert system
    assert render(system, {}).splitlines()[1:] == sorted(labels)


def test_a_guess_is_called_one_with_the_columns(capsys: pytest.CaptureFixture[str]) -> None:
    write("data.jsonl", [{"a": f"A long text, number {at}", "b": LABELS[at % 3]} for at in range(30)])
    recipe = init("data=data.jsonl")
    assert (recipe.dataset.prompt.user, recipe.dataset.prompt.assistant) == ("{a}", "{b}")
    assert "# A guess, a has the longest texts, b a few short values: correct it" in Path("data.yaml").read_text()
    assert "Columns: a, b." in Path("data.yaml").read_text()
    assert "the prompt is a guess" in capsys.readouterr().out


def test_two_columns_that_may_be_the_answer_are_both_named() -> None:
    write("data.jsonl", [{"body": f"Text {at}", "category": LABELS[at % 3], "priority": "low"} for at in range(30)])
    recipe = init("data=data.jsonl")
    assert recipe.dataset.prompt.assistant == "{category}"
    assert "priority might be meant too" in Path("data.yaml").read_text()


def test_a_subject_comes_before_the_body() -> None:
    rows = [{"Subject": f"S{at}" if at % 2 else "", "Body": f"Text {at}", "Queue": LABELS[at % 3]} for at in range(30)]
    write("data.jsonl", rows)
    assert init("data=data.jsonl").dataset.prompt.user == "{Subject|}\n{Body}"


def test_pairs_whose_names_differ_in_a_word_are_preferences() -> None:
    write(
        "data.jsonl", [{"question": f"Q {at}", "good_answer": f"A {at}", "bad_answer": f"B {at}"} for at in range(30)]
    )
    recipe = init("data=data.jsonl")
    assert recipe.train.stage == "dpo"
    assert (recipe.dataset.prompt.chosen, recipe.dataset.prompt.rejected) == ("{good_answer}", "{bad_answer}")


def test_keys_and_roles_of_chats_of_a_service_are_proposed_with_a_remark(capsys: pytest.CaptureFixture[str]) -> None:
    write("data.jsonl", [
        {"messages": [{"from": who, "at": "2026-11-01", "text": f"{who} {at}"} for who in ("customer", "agent")]}
        for at in range(30)
    ])  # fmt: skip
    recipe = init("data=data.jsonl")
    assert recipe.dataset.ignore_keys == ["at"]
    assert recipe.dataset.roles == {"customer": "user", "agent": "assistant"}
    shown = capsys.readouterr().out
    assert "messages have the key 'at', which nothing reads: it is left out" in shown
    assert "messages of 'agent' are read as the assistant's, a guess by the name" in shown


def test_a_role_that_no_name_tells_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    write("data.jsonl", [{"messages": [{"from": "Ann", "text": f"Hello {at}"}]} for at in range(30)])
    assert "has the role 'Ann'" in refused(capsys, "data=data.jsonl")


def test_text_files_in_folders_are_told_to_be_without_labels(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("praise", "complaint"):
        Path("letters", name).mkdir(parents=True)
        Path("letters", name, "1.txt").write_text("".join(f"Dear all, {name} {at}.\n" for at in range(30)))
    init("data=letters", "recipe=data.yaml")
    shown = capsys.readouterr().out
    assert "the folders (complaint, praise) are not its label: to learn labels, write a CSV" in shown


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["init", *words]) == EXIT_INVALID_RECIPE
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    return " ".join(shown.split())


def test_verdicts_in_a_csv_are_texts() -> None:
    rows = [f"Ask {at},Yes {at},{'true' if at % 2 else 'False'}" for at in range(30)]
    Path("data.csv").write_text("\n".join(["prompt,completion,label", *rows]))
    assert init("data=data.csv").train.stage == "kto"


def test_dates_are_not_proposed_as_labels_though_they_are_few_and_short() -> None:
    kinds = ("Störung", "Rechnung", "Lob")
    rows = [{"Nr": at, "Eingang": f"{at % 9 + 1:02d}.03.2026", "Text": f"Anfrage {at} zu Gerät und Übertragung",
             "Kategorie": kinds[at % 3]} for at in range(90)]  # fmt: skip
    write("data.jsonl", rows)
    recipe = init("data=data.jsonl")
    assert (recipe.dataset.prompt.user, recipe.dataset.prompt.assistant) == ("{Text}", "{Kategorie}")
    assert "Lob, Rechnung, Störung" in str(recipe.dataset.prompt.system)


def test_other_columns_that_may_be_the_label_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    write("data.jsonl", [{"Satz": f"Ein Satz {at}", "Art": "ab"[at % 2], "Stufe": "xyz"[at % 3]} for at in range(60)])
    init("data=data.jsonl")
    assert "Art a few short values; Stufe might be meant too" in capsys.readouterr().out


def test_pairs_under_other_names_are_preferences() -> None:
    write("data.jsonl", [{"question": f"Q {at}", "better": f"good {at}", "worse": f"bad {at}", "by": "abc"[at % 3]}
                         for at in range(30)])  # fmt: skip
    recipe = init("data=data.jsonl")
    assert recipe.train.stage == "dpo"
    assert (recipe.dataset.prompt.chosen, recipe.dataset.prompt.rejected) == ("{better}", "{worse}")
    assert init("data=data.jsonl", "user=Say: {question}").dataset.prompt.user == "Say: {question}"


def test_data_that_is_not_there_or_not_text_is_a_mistake_of_the_command_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "there is no such file or folder" in refused(capsys, "data=missing.csv")
    Path("umlauts.csv").write_bytes("text;label\nGrün;gut\n".encode("cp1252"))
    assert "iconv -f WINDOWS-1252 -t UTF-8 umlauts.csv > utf8-umlauts.csv" in refused(capsys, "data=umlauts.csv")


def test_a_remark_that_the_preview_has_as_well_is_printed_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages.ingest import preview

    write("data.jsonl", tickets(60))
    remark, *_ = draft.draft(draft.Asked("data.jsonl")).made.remarks
    found = {
        "train": None,
        "test": None,
        "problems": [],
        "remarks": [remark, f"val: {remark.partition(': ')[2]}", "another of the rows that run"],
    }
    monkeypatch.setattr(draft, "is_here", lambda source: True)
    monkeypatch.setattr(preview, "preview", lambda recipe, index: found)
    init("data=data.jsonl")
    shown = capsys.readouterr().out
    assert shown.count(remark) == 1
    assert shown.count("another of the rows that run") == 1


def test_columns_that_tell_nothing_are_one_sentence_with_what_to_give(capsys: pytest.CaptureFixture[str]) -> None:
    write("data.jsonl", [{"a": f"x {at}", "b": f"y {at}", "c": f"z {at}"} for at in range(30)])
    shown = refused(capsys, "data=data.jsonl")
    assert "they have: a, b, c" in shown
    assert "user=COLUMN answer=COLUMN" in shown
    recipe = init("data=data.jsonl", "user=a", "answer={b} and {c}")
    assert (recipe.dataset.prompt.user, recipe.dataset.prompt.assistant) == ("{a}", "{b} and {c}")
    assert "Did you mean user=a?" in refused(capsys, "data=data.jsonl", "user=aa", "answer=b")


def test_dialogues_as_texts_are_refused_as_pairs_and_told_as_texts(capsys: pytest.CaptureFixture[str]) -> None:
    dialogues = ["\n\nHuman: Open?\n\nAssistant: At eight.", "\n\nHuman: Open?\n\nAssistant: No idea."]
    write("data.jsonl", [dict(zip(("chosen", "rejected"), dialogues, strict=True)) for _ in range(30)])
    assert "whole dialogues as texts" in refused(capsys, "data=data.jsonl")
    shape = shape_of([{"text": "### Human: Open?### Assistant: At eight."}], None, None)
    assert (shape.stage, shape.doubt) == ("pt", "the texts are dialogues, learned as they are")
    assert not shape_of([{"text": "Open: at eight."}], None, None).doubt


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("data=dato.jsonl", "Did you mean data.jsonl?"),
        ("data=org/name", "data=hf://org/name"),
        ("data=ftp://host/x.csv", "is not an address of rows"),
        ("data=empty", "data: empty has no file like *; it holds: nothing"),
    ],
)
def test_data_that_is_not_there_is_one_sentence(word: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    write("data.jsonl", tickets(30))
    Path("empty").mkdir()
    assert words in refused(capsys, word)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "data is needed by init"),
        (("data=data.jsonl", "train.lora_rank=8"), "train.lora_rank = '8' is not an option of init"),
        (("data=data.jsonl", "recipe=x.yml"), "recipe=x.yaml"),
        (("data=data.jsonl", "recipe=日本.yaml"), "a letter or a digit at least"),
        (("data=data.jsonl", "model=smollm"), "smollm2_135m"),
    ],
)
def test_wrong_options_are_refused(words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    write("data.jsonl", tickets(30))
    assert message in refused(capsys, *words)
    assert not list(Path().glob("*.yaml"))


def test_yes_is_an_option_of_init_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "recipe=viggo_quickstart", "--yes"]) == EXIT_INVALID_RECIPE
    assert "--yes" in capsys.readouterr().err


def folders(kind: str) -> None:
    """Data of several files."""
    names: Mapping[str, Callable[[], Rows]] = {
        "train.jsonl": lambda: tickets(40), "test.jsonl": lambda: tickets(50)[40:], "notes.txt": lambda: tickets(1),
    } if kind == "splits" else {"a.jsonl": lambda: tickets(20), "b.jsonl": lambda: tickets(40)[20:]}  # fmt: skip
    for name, rows in names.items():
        write(f"rows/{name}", rows())


def test_files_named_after_splits_are_those_splits(capsys: pytest.CaptureFixture[str]) -> None:
    folders("splits")
    recipe = init("data=rows", "recipe=r.yaml")
    assert (recipe.dataset.files.train, recipe.dataset.files.test) == ("train.jsonl", "test.jsonl")
    assert recipe.dataset.split
    assert (recipe.dataset.split.val, recipe.dataset.split.test) == (0.1, None)
    assert "left out of rows: notes.txt" in capsys.readouterr().out


def test_a_file_of_several_gives_its_name_without_its_number() -> None:
    write("tickets-00000-of-00001.jsonl", tickets(60))
    assert find_data("tickets-00000-of-00001.jsonl").name == "tickets"


@pytest.mark.parametrize(("data", "files"), [("rows", ["a.jsonl", "b.jsonl"]), ("rows/*.jsonl", "*.jsonl")])
def test_other_files_are_all_training_rows_of_which_some_are_held_out(data: str, files: Any) -> None:
    folders("parts")
    recipe = init(f"data={data}", "recipe=r.yaml")
    assert recipe.dataset.files.train == files
    assert recipe.dataset.split
    assert recipe.dataset.split.test == 0.2


def test_rows_that_cannot_be_used_are_named_and_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    rows = tickets(60)
    rows[3]["label"] = ""
    rows.append(dict(rows[5]))
    write("data.jsonl", rows)
    recipe = init("data=data.jsonl")
    assert (recipe.dataset.on_bad_row, recipe.dataset.max_bad_share) == ("skip", 0.03)
    shown = capsys.readouterr().out
    assert "cannot be used: data.jsonl:4: column 'label' is empty" in shown
    assert "1 row is a duplicate of another" in shown


def test_labels_that_differ_in_case_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    rows = tickets(60)
    rows[0]["label"] = "Billing"
    write("data.jsonl", rows)
    init("data=data.jsonl")
    shown = capsys.readouterr().out
    assert "the labels 'Billing' and 'billing' differ in case or spaces alone" in shown
    assert "fewer than 5 rows have the label 'Billing'" in shown


def test_limits_hold_the_longest_row_and_long_ones_are_cut_with_a_remark(capsys: pytest.CaptureFixture[str]) -> None:
    write("data.jsonl", [{"question": "word " * 300, "answer": f"It is {at}"} for at in range(30)])
    recipe = init("data=data.jsonl")
    cutoff = recipe.train.args["cutoff_len"]
    assert 500 <= cutoff <= 640
    assert recipe.infer.engine_kwargs["max_model_len"] >= cutoff + recipe.infer.sampling["max_tokens"]
    write("data.jsonl", [{"question": "word " * 3000, "answer": f"It is {at}"} for at in range(30)])
    assert init("data=data.jsonl").train.args["cutoff_len"] == 2048
    assert "30 rows are longer than 2,048 tokens and will be cut" in capsys.readouterr().out


def test_a_gpu_gets_the_variants_that_fit_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "gpu_memory_gib", lambda: 22.5)  # what the driver shows of 24 GB
    assert (target.target().model, target.target().cluster) == ("qwen2_5_7b_instruct", "local_gpu")
    monkeypatch.setattr(target, "gpu_memory_gib", lambda: 16.0)
    assert (target.target().model, target.target().cluster) == ("smollm2_135m", "local_gpu")
    write("data.jsonl", tickets(30))
    recipe = init("data=data.jsonl", "model=qwen2_5_7b_instruct", "cluster=local_cpu")
    assert (recipe.model.source, recipe.cluster.accelerator) == ("Qwen/Qwen2.5-7B-Instruct", "cpu")


def test_a_name_with_spaces_and_umlauts_becomes_one_of_a_recipe() -> None:
    write("Tickets für März [2].jsonl", tickets(30))
    assert main(["init", "data=Tickets für März [2].jsonl"]) == EXIT_DONE
    assert load_recipe("Tickets_fur_Marz_2.yaml").name == "Tickets_fur_Marz_2"
    assert main(["init", "data=Tickets für März [2].jsonl", "recipe=Meine Tickets (neu).yaml"]) == EXIT_DONE
    assert load_recipe('"Meine Tickets (neu).yaml"').name == "Meine_Tickets_neu"


def test_columns_called_system_user_and_assistant_are_the_prompt() -> None:
    write("data.jsonl", [{"system": "Be kind.", "user": f"Ask {at}?", "assistant": f"Say {at}"} for at in range(30)])
    prompt = init("data=data.jsonl").dataset.prompt
    assert (prompt.system, prompt.user, prompt.assistant) == ("{system|}", "{user}", "{assistant}")


def test_a_csv_without_a_header_is_remarked_on(capsys: pytest.CaptureFixture[str]) -> None:
    Path("data.csv").write_text("".join(f"My ticket number {at},{('bug', 'billing')[at % 2]}\n" for at in range(30)))
    init("data=data.csv")
    assert "the column 'bug' holds 'bug' in 14 rows: if the file has no header" in capsys.readouterr().out
    Path("data.csv").write_text("text,label\n" + Path("data.csv").read_text())
    init("data=data.csv")
    assert "no header" not in capsys.readouterr().out


def test_nothing_is_overwritten_without_a_terminal_or_yes(capsys: pytest.CaptureFixture[str]) -> None:
    write("data.jsonl", tickets(30))
    Path("data.yaml").write_text("mine")
    shown = refused(capsys, "data=data.jsonl")
    assert "data.yaml would be overwritten" in shown
    assert "--yes" in shown
    assert Path("data.yaml").read_text() == "mine"
    assert not Path("test_data.py").exists()
    init("data=data.jsonl")
    assert Path("data.yaml").read_text() != "mine"
    assert main(["init", "--yes", "data=data.jsonl"]) == EXIT_DONE


@pytest.mark.parametrize(("typed", "kept"), [("n\n", True), ("y\n", False)])
def test_a_terminal_is_asked_before_a_file_is_overwritten(typed: str, kept: bool, tmp_path: Path) -> None:
    write("data.jsonl", tickets(30))
    Path("data.yaml").write_text("mine")
    command = [sys.executable, "-m", "runner", "init", "data=data.jsonl", "model=qwen2_5_7b_instruct"]
    session = Session(["sh", "-c", f"cd {tmp_path} && exec {shlex.join(command)}"], 200, {})
    session.read_until(lambda shown: "Overwrite data.yaml? [y/N]" in shown)
    session.type(typed)
    assert session.wait() == (EXIT_INVALID_RECIPE if kept else EXIT_DONE)
    assert (Path("data.yaml").read_text() == "mine") == kept


def test_the_data_of_a_recipe_elsewhere_is_named_absolutely(tmp_path: Path, tmp_path_factory: Any) -> None:
    write("data.jsonl", tickets(30))
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    recipe = init("data=data.jsonl", f"recipe={elsewhere / 'r.yaml'}")
    assert recipe.dataset.source == str(tmp_path / "data.jsonl")
