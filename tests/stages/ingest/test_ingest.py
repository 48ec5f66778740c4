from __future__ import annotations

import json
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from runner.errors import RunnerError
from runner.recipe.load import compose, to_recipe
from runner.recipe.schema import Recipe
from runner.storage.artifact import Artifact
from runner.testing import assert_golden
from stages.data.generated.grammar import generate, parse_uri
from stages.data.prompt import reference, request_messages
from stages.data.rows import make_training_row
from stages.ingest import stage as ingest
from stages.ingest.stage import DataParts, Ingest, dataset_info, prepare_data, with_absolute_paths
from tests.paths import GOLDEN

pytest_plugins = ["tests.moto_s3"]


ROW = {"instruction": "Say it.", "input": "A {game}", "output": "inform(name[X])", "n": 3}


@cache
def base(*overrides: str) -> str:
    return to_recipe(compose(["recipe=viggo_quickstart", *overrides]))[0].model_dump_json()


def recipe_of(dataset: str = "viggo_generated", **changes: Any) -> Recipe:
    """The quickstart with another dataset group, and changes by dotted key (written with __ for the dot)."""
    values = json.loads(base(f"dataset={dataset}"))
    for key, value in changes.items():
        *sections, last = key.split("__")
        where = values
        for section in sections:
            where = where[section]
        where[last] = value
    return Recipe.model_validate(values)


def viggo(corpus: Path | str, **changes: Any) -> Recipe:
    return recipe_of("viggo", dataset__source=str(corpus), **changes)


def write_lines(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().split("\n") if line]


def ingested(folder: Path, recipe: Recipe) -> DataParts:
    return prepare_data(recipe, folder, lambda *args, **figures: None)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A local dataset of three rows a split."""
    for split in ("train", "val", "test"):
        write_lines(tmp_path / "ds" / f"{split}.jsonl", *({**ROW, "n": n, "split": split} for n in range(3)))
    return tmp_path / "ds"


INFO_CASES: dict[str, dict[str, str]] = {
    "alpaca": {},
    "alpaca_system": {"dataset__prompt__system": "You know games."},
    "sharegpt": {"dataset__format": "sharegpt"},
    "pt": {"train__stage": "pt"},
    "dpo": {"train__stage": "dpo"},
    "rm_sharegpt": {"train__stage": "rm", "dataset__format": "sharegpt"},
    "kto": {"train__stage": "kto"},
    "kto_sharegpt": {"train__stage": "kto", "dataset__format": "sharegpt"},
    "ppo": {"train__stage": "ppo"},
}


def test_dataset_info_is_what_it_was() -> None:
    made = {name: dataset_info(recipe_of(**changes)) for name, changes in INFO_CASES.items()}
    assert_golden(made, GOLDEN / "dataset_info.json")


def test_dataset_info_leaves_out_a_split_that_is_not_there() -> None:
    assert list(dataset_info(recipe_of("viggo", dataset__files__val=None))) == ["train"]
    assert list(dataset_info(recipe_of(dataset__source="generated://viggo?val=0"))) == ["train"]


def test_alpaca_rows_hold_the_rendered_prompt(tmp_path: Path, corpus: Path) -> None:
    recipe = viggo(corpus, dataset__prompt__system="Know {n}.", dataset__prompt__user="{instruction}|{input}")
    ingested(tmp_path, recipe)
    assert read(tmp_path / "train_set" / "train.jsonl")[1] == {
        "id": "train-000001", "instruction": "Say it.|A {game}", "input": "", "output": "inform(name[X])",
        "system": "Know 1.",
    }  # fmt: skip
    assert read(tmp_path / "train_set" / "val.jsonl")[0]["id"] == "val-000000"
    assert json.loads((tmp_path / "train_set" / "dataset_info.json").read_text()) == dataset_info(recipe)


def test_sharegpt_rows_are_the_messages_that_a_client_sends_and_the_answer(tmp_path: Path, corpus: Path) -> None:
    recipe = viggo(corpus, dataset__format="sharegpt")
    ingested(tmp_path, recipe)
    prompt = recipe.dataset.prompt
    answer = {"role": "assistant", "content": reference(prompt, ROW)}
    assert read(tmp_path / "train_set" / "train.jsonl")[0] == {
        "id": "train-000000", "messages": [*request_messages(prompt, ROW), answer],
    }  # fmt: skip


def test_test_rows_keep_their_columns_with_those_of_the_prompt_as_text(tmp_path: Path, corpus: Path) -> None:
    write_lines(corpus / "test.jsonl", {"id": "own", "input": 1, "output": 2.5, "x": [1], "instruction": "a"})
    ingested(tmp_path, viggo(corpus))
    assert read(tmp_path / "test_set" / "test.jsonl") == [
        {"id": "test-000000", "source_id": "own", "input": "1", "output": "2.5", "x": [1], "instruction": "a"}
    ]


def test_artifacts_and_metrics_say_what_was_made(tmp_path: Path, corpus: Path) -> None:
    parts = ingested(tmp_path, viggo(corpus, dataset__max_rows__train=2))
    assert {a.name: [entry.path for entry in a.files] for a in parts.artifacts} == {
        "train_set": ["dataset_info.json", "train.jsonl", "val.jsonl"], "test_set": ["test.jsonl"],
    }  # fmt: skip
    assert parts.metrics["rows"] == {"train": 2, "val": 3, "test": 3}
    assert parts.metrics["skipped"] == {"train": 0, "val": 0, "test": 0}
    assert parts.metrics["bytes"] == sum(artifact.size_bytes for artifact in parts.artifacts)
    assert set(parts.metrics["source_sha256"]) == {"train", "val", "test"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ds", "test_set", "train_set"]


def test_the_same_recipe_gives_the_same_digests(tmp_path: Path) -> None:
    recipe = recipe_of(dataset__source="generated://viggo?train=30&val=5&test=5&seed=1")
    first, again = ingested(tmp_path / "a", recipe), ingested(tmp_path / "a", recipe)
    other = ingested(tmp_path / "b", recipe)
    assert [a.sha256 for a in first.artifacts] == [a.sha256 for a in again.artifacts]
    assert [a.sha256 for a in first.artifacts] == [a.sha256 for a in other.artifacts]


def test_the_recipes_seed_serves_a_grammar_that_names_none(tmp_path: Path) -> None:
    source = "generated://viggo?train=5&val=0&test=5"
    one, two = (ingested(tmp_path / str(seed), recipe_of(dataset__source=source, seed=seed)) for seed in (1, 2))
    assert one.artifacts[0].sha256 != two.artifacts[0].sha256


BAD_ROWS = [
    ("{", "not JSON: Expecting property name enclosed in double quotes at character 2"),
    ("[1]", "not a JSON object"),
    ('{"input": NaN}', "NaN is no JSON number"),
    ('{"input": "a", "instruction": "b"}', "lacks the column 'output'; it has: input, instruction"),
    ('{"input": null, "instruction": "b", "output": "c"}', "column 'input' is NoneType, not text or a number"),
    ('{"input": true, "instruction": "b", "output": "c"}', "column 'input' is bool"),
    ('{"input": "a", "instruction": "b", "output": " "}', "its assistant message is empty"),
    ('{"input": "a", "instruction": "b", "output": "\\ud800"}', "surrogates not allowed"),
    ("[" * 100_000, "not JSON"),
]


@pytest.mark.parametrize(("line", "why"), BAD_ROWS)
def test_a_bad_row_is_reported_with_file_and_line(tmp_path: Path, corpus: Path, line: str, why: str) -> None:
    write_lines(corpus / "val.jsonl", ROW, "", line, ROW)
    with pytest.raises(RunnerError) as caught:
        ingested(tmp_path, viggo(corpus))
    assert "1 bad row in dataset.source" in caught.value.message
    assert "val.jsonl:3: " in caught.value.message
    assert why in caught.value.message
    assert "dataset.on_bad_row: skip" in caught.value.hint


def test_bad_rows_can_be_left_out_and_are_counted(tmp_path: Path, corpus: Path) -> None:
    write_lines(corpus / "train.jsonl", *(line for line, _ in BAD_ROWS), ROW, ROW)
    parts = ingested(tmp_path, viggo(corpus, dataset__on_bad_row="skip"))
    assert parts.metrics["rows"]["train"] == 2
    assert parts.metrics["skipped"]["train"] == len(BAD_ROWS)
    assert [row["id"] for row in read(tmp_path / "train_set" / "train.jsonl")] == ["train-000000", "train-000001"]
    assert f"left out {len(BAD_ROWS)} bad rows" in parts.remarks[0]
    assert "train.jsonl:2: not a JSON object" in (tmp_path / "skipped_rows.txt").read_text()


def test_of_many_bad_rows_the_first_twenty_are_shown(tmp_path: Path, corpus: Path) -> None:
    write_lines(corpus / "train.jsonl", *["{"] * 1500)
    with pytest.raises(RunnerError, match="1,500 bad rows") as caught:
        ingested(tmp_path, viggo(corpus))
    assert caught.value.message.count("train.jsonl:") == 20
    assert "and 1,480 more" in caught.value.message


def test_a_split_without_a_usable_row_is_refused(tmp_path: Path, corpus: Path) -> None:
    write_lines(corpus / "val.jsonl", "", "{")
    with pytest.raises(RunnerError, match=r"no usable row in its val split: val\.jsonl:2"):
        ingested(tmp_path, viggo(corpus, dataset__on_bad_row="skip"))


def test_a_prompt_cannot_take_the_runners_own_id(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="'id'"):
        ingested(tmp_path, recipe_of(dataset__prompt__user="{id} {input}"))


def test_a_dataset_without_a_test_split_gives_an_empty_test_set(tmp_path: Path, corpus: Path) -> None:
    ingested(tmp_path, viggo(corpus, dataset__files__test=None))
    assert (tmp_path / "test_set" / "test.jsonl").read_bytes() == b""


def test_rows_come_from_a_bucket(tmp_path: Path, s3_client: Any, bucket: str, corpus: Path) -> None:
    for path in corpus.iterdir():
        s3_client.put_object(Bucket=bucket, Key=f"viggo/{path.name}", Body=path.read_bytes())
    recipe = viggo(f"s3://{bucket}/viggo", dataset__anonymous=False)
    from_bucket = ingested(tmp_path / "a", recipe)
    from_folder = ingested(tmp_path / "b", viggo(corpus))
    assert [a.sha256 for a in from_bucket.artifacts] == [a.sha256 for a in from_folder.artifacts]


@pytest.mark.parametrize(
    ("changes", "row"),
    [
        ({"train__stage": "pt"}, {"text": "Once."}),
        ({"train__stage": "dpo"}, {"instruction": "Hi", "input": "", "chosen": "a", "rejected": "b", "more": 1}),
        ({"train__stage": "kto"}, {"instruction": "Hi", "input": "x", "output": "a", "kto_tag": False}),
        (
            {"train__stage": "rm", "dataset__format": "sharegpt"},
            {"conversations": [{"from": "human", "value": "Hi"}], "chosen": {"value": "a"}, "rejected": {"value": "b"}},
        ),
    ],
)
def test_other_stages_train_on_the_rows_own_columns(changes: dict[str, str], row: dict[str, Any]) -> None:
    recipe = recipe_of(**changes)
    convert = make_training_row(recipe.dataset, recipe.train.stage)
    assert convert(row, "train-000000") == {"id": "train-000000", **row}
    missing = next(name for name in row if name != "input")
    with pytest.raises(Exception, match=f"lacks the column '{missing}' that train.stage"):
        convert({name: value for name, value in row.items() if name != missing}, "train-000000")


def test_other_stages_may_leave_out_the_input() -> None:
    recipe = recipe_of(train__stage="dpo")
    row = make_training_row(recipe.dataset, "dpo")(
        {"instruction": "Hi", "chosen": "a", "rejected": "b"}, "train-000000"
    )
    assert row["input"] == ""


def test_local_sources_do_not_depend_on_a_tasks_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = with_absolute_paths(recipe_of(dataset__source="data", model__source="./m"))
    assert (made.dataset.source, made.model.source) == (str(tmp_path / "data"), str(tmp_path / "m"))
    kept = recipe_of("viggo", model__source="Qwen/Qwen2.5-7B-Instruct")
    assert with_absolute_paths(kept) == kept


def test_progress_is_told_at_most_twice_a_second() -> None:
    told: list[int] = []
    update = ingest._throttled(lambda done, total, unit: told.append(done))
    for done in range(1000):
        update(done, None, "rows")
    assert 1 <= len(told) < 10


class FakeRay:
    def call_each(self, function: Any, resources: Any, calls: list[tuple[Any, ...]]) -> list[Any]:
        return [pickle.loads(pickle.dumps(function))(*pickle.loads(pickle.dumps(call))) for call in calls]


class FakeProgress:
    def update(self, done: float, total: float | None, unit: str) -> None:
        pass


class FakeContext:
    resources = None
    ray = FakeRay()

    def __init__(self, recipe: Recipe, stage_dir: Path) -> None:
        self.recipe, self.stage_dir, self.said = recipe, stage_dir, []

    def progress(self) -> FakeProgress:
        return FakeProgress()

    def say(self, line: str) -> None:
        self.said.append(line)


def test_the_stage_gives_data_and_model(tmp_path: Path) -> None:
    model = tmp_path / "tiny"
    model.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (model / name).write_text("{}")
    recipe = recipe_of(
        dataset__source="generated://viggo?train=4&val=2&test=3", model__source=str(model),
        storage__cache=f"{tmp_path}/cache",
    )  # fmt: skip
    result = Ingest().run(FakeContext(recipe, tmp_path / "stage"))  # type: ignore[arg-type]
    by_name = {artifact.name: artifact for artifact in result.artifacts}
    assert tuple(by_name) == Ingest.provides
    assert isinstance(by_name["model"], Artifact)
    assert by_name["model"].path == model
    assert result.metrics["rows"] == {"train": 4, "val": 2, "test": 3}
    assert result.note.startswith("4 train + 2 val + 3 test rows; ")


@pytest.mark.e2e
@pytest.mark.parametrize(
    "changes", [{}, {"dataset__format": "sharegpt"}, {"dataset__prompt__system": "You know {input}."}]
)
def test_llamafactory_reads_the_messages_that_a_client_sends(tmp_path: Path, changes: dict[str, str]) -> None:
    from stages.trainers.llamafactory.arguments import torchaudio_stand_in

    with torchaudio_stand_in():
        from llamafactory.data.converter import get_dataset_converter
        from llamafactory.data.parser import get_dataset_list

    recipe = recipe_of(dataset__source="generated://viggo?train=5&val=1&test=1", **changes)
    ingested(tmp_path, recipe)
    [attributes] = get_dataset_list(["train"], str(tmp_path / "train_set"))
    convert = get_dataset_converter(attributes.formatting, attributes, None)
    rows = read(tmp_path / "train_set" / "train.jsonl")
    source = generate(parse_uri(recipe.dataset.source, recipe.seed), "train")
    for made, row in zip(rows, source, strict=True):
        read_back = convert(made)
        system = [{"role": "system", "content": read_back["_system"]}] if read_back["_system"] else []
        assert [*system, *read_back["_prompt"]] == request_messages(recipe.dataset.prompt, row)
        assert read_back["_response"] == [{"role": "assistant", "content": row["output"]}]


def test_conversations_are_written_as_messages_and_kept_in_test_rows(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    for split in ("train", "test"):
        write_lines(tmp_path / "ds" / f"{split}.jsonl", {"talk": talk, "n": 1})
    recipe = viggo(tmp_path / "ds", dataset__files__val=None, dataset__prompt={"conversations": "talk"})
    made = ingested(tmp_path / "made", recipe)
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    assert read(tmp_path / "made/train_set/train.jsonl") == [{"id": "train-000000", "messages": messages}]
    assert read(tmp_path / "made/test_set/test.jsonl") == [{"id": "test-000000", "talk": talk, "n": 1}]
    info = json.loads((tmp_path / "made/train_set/dataset_info.json").read_text())["train"]
    assert (info["formatting"], info["columns"]) == ("sharegpt", {"messages": "messages"})
    assert made.metrics["rows"] == {"train": 1, "test": 1}


def test_a_row_that_holds_no_conversation_is_a_bad_row(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_lines(tmp_path / "ds" / f"{split}.jsonl", {"talk": [{"role": "user", "content": "Hi"}]})
    recipe = viggo(tmp_path / "ds", dataset__files__val=None, dataset__prompt={"conversations": "talk"})
    with pytest.raises(RunnerError, match=r"train.jsonl:1: column 'talk' holds no conversation: its turns are user"):
        ingested(tmp_path / "made", recipe)
