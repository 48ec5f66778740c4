from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from runner.errors import RunnerError
from runner.recipe.load import compose, to_recipe
from runner.recipe.schema import StageResources
from runner.storage.artifact import Artifact
from stages.data.example import read_examples
from stages.ingest.data import DataParts, prepare_data
from stages.ingest.model import throttled
from stages.ingest.stage import Ingest, with_absolute_paths
from stages.models import gguf
from stages.sections.recipe import Recipe
from tests.stages.models.families import save_model

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


def test_rows_become_examples_and_test_rows_keep_their_columns(tmp_path: Path, corpus: Path) -> None:
    write_lines(corpus / "test.jsonl", {"id": "own", "input": 1, "output": 2.5, "x": [1], "instruction": "a"})
    ingested(tmp_path, viggo(corpus, dataset__prompt__system="Know {input}."))
    messages = [
        {"role": "system", "content": "Know 1."}, {"role": "user", "content": "a\n1"},
        {"role": "assistant", "content": "2.5"},
    ]  # fmt: skip
    assert read(tmp_path / "test_set" / "test.jsonl") == [
        {"id": "test-000000", "messages": messages, "source": "test.jsonl:1",
         "columns": {"id": "own", "input": 1, "output": 2.5, "x": [1], "instruction": "a"}}
    ]  # fmt: skip
    second = list(read_examples(tmp_path / "train_set" / "train.jsonl"))[1]
    assert (second.id, second.source, second.columns) == ("train-000001", "train.jsonl:2", {})


def test_artifacts_and_metrics_say_what_was_made(tmp_path: Path, corpus: Path) -> None:
    parts = ingested(tmp_path, viggo(corpus, dataset__max_rows__train=2))
    assert {a.name: [entry.path for entry in a.files] for a in parts.artifacts} == {
        "train_set": ["train.jsonl", "val.jsonl"], "test_set": ["test.jsonl"],
    }  # fmt: skip
    assert parts.metrics["rows"] == {"train": 2, "val": 3, "test": 3}
    assert parts.metrics["skipped"] == {"train": 0, "val": 0, "test": 0}
    assert parts.metrics["bytes"] == sum(artifact.size_bytes for artifact in parts.artifacts)
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
    ('{"input": NaN, "instruction": "b", "output": "c"}', "column 'input' is null, not text or a number"),
    ('{"input": "a", "instruction": "b"}', "lacks the column 'output'; it has: input, instruction"),
    ('{"input": null, "instruction": "b", "output": "c"}', "column 'input' is null, not text or a number"),
    ('{"input": "", "instruction": "b", "output": "c"}', "column 'input' is empty"),
    ('{"input": "a", "instruction": "b", "output": " "}', "its assistant message is empty"),
    ('{"input": "a", "instruction": "b", "output": "\\ud800"}', "half a surrogate pair"),
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
    assert "on_bad_row" not in caught.value.hint


def test_skipping_is_named_where_few_rows_are_bad(tmp_path: Path, corpus: Path) -> None:
    write_lines(corpus / "train.jsonl", *[ROW] * 200, {"instruction": "a"})
    with pytest.raises(RunnerError, match=r"train\.jsonl:201: lacks the column 'input'") as caught:
        ingested(tmp_path, viggo(corpus))
    assert "Or leave them out with dataset.on_bad_row=skip." in caught.value.hint


def test_bad_rows_can_be_left_out_and_are_counted_by_kind(tmp_path: Path, corpus: Path) -> None:
    write_lines(corpus / "train.jsonl", ROW, *(line for line, _ in BAD_ROWS[1:]), ROW)
    parts = ingested(tmp_path, viggo(corpus, dataset__on_bad_row="skip", dataset__max_bad_share=0.9))
    assert parts.metrics["rows"]["train"] == 2
    assert parts.metrics["skipped"]["train"] == len(BAD_ROWS) - 1
    assert [row["id"] for row in read(tmp_path / "train_set" / "train.jsonl")] == ["train-000000", "train-000001"]
    assert f"left out {len(BAD_ROWS) - 1} bad rows" in parts.remarks[0]
    assert "train.jsonl:2: not a JSON object" in (tmp_path / "skipped_rows.txt").read_text()


def test_more_bad_rows_than_their_share_are_not_left_out(tmp_path: Path, corpus: Path) -> None:
    write_lines(corpus / "train.jsonl", *[ROW] * 97, *[{"instruction": "a"}] * 3)
    with pytest.raises(RunnerError, match=r"3 bad rows are 3\.0% of the train split") as caught:
        ingested(tmp_path, viggo(corpus, dataset__on_bad_row="skip"))
    assert "skip" not in caught.value.hint


def test_bad_rows_are_told_in_a_line_a_kind_with_the_first_places(tmp_path: Path, corpus: Path) -> None:
    write_lines(corpus / "train.jsonl", ROW, *["{"] * 1500, *[{"input": "a", "instruction": "b"}] * 20)
    with pytest.raises(RunnerError, match="1,520 bad rows") as caught:
        ingested(tmp_path, viggo(corpus))
    first, second = caught.value.message.splitlines()[1:]
    assert first.startswith("  1,500 rows (train.jsonl:2, train.jsonl:3, train.jsonl:4, ...): not JSON")
    assert second.startswith("  20 rows (train.jsonl:1502, train.jsonl:1503, train.jsonl:1504, ...): lacks the column")


def test_a_split_without_a_usable_row_is_refused(tmp_path: Path, corpus: Path) -> None:
    write_lines(corpus / "val.jsonl", "", '{"a')
    with pytest.raises(RunnerError, match=r"no usable row in its val split, of 1:\n  val\.jsonl:2"):
        ingested(tmp_path, viggo(corpus, dataset__on_bad_row="skip"))


def test_an_id_of_the_rows_own_can_be_named(tmp_path: Path, corpus: Path) -> None:
    write_lines(corpus / "test.jsonl", {**ROW, "id": "own"})
    ingested(tmp_path, viggo(corpus, dataset__prompt__user="{id|} {input}"))
    assert read(tmp_path / "test_set" / "test.jsonl")[0]["messages"][0]["content"] == "own A {game}"


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


def test_local_sources_do_not_depend_on_a_tasks_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = with_absolute_paths(recipe_of(dataset__source="data", model__source="./m"))
    assert (made.dataset.source, made.model.source) == (str(tmp_path / "data"), str(tmp_path / "m"))
    kept = recipe_of("viggo", model__source="Qwen/Qwen2.5-7B-Instruct")
    assert with_absolute_paths(kept) == kept


def test_progress_is_reported_at_most_twice_a_second() -> None:
    reported: list[int] = []
    update = throttled(lambda done, total, unit: reported.append(done))
    for done in range(1000):
        update(done, None, "rows")
    assert 1 <= len(reported) < 10


class FakeRay:
    def import_ahead(self, environment: str, modules: Sequence[str], given: Mapping[str, Any]) -> dict[str, Any]:
        return dict(given)

    def call_each(self, function: Any, resources: Any, calls: list[tuple[Any, ...]]) -> list[Any]:
        return [pickle.loads(pickle.dumps(function))(*pickle.loads(pickle.dumps(call))) for call in calls]

    def call(self, function: Any, resources: Any, *args: Any) -> Any:
        return self.call_each(function, resources, [args])[0]

    def call_together(self, *calls: tuple[Any, Any, tuple[Any, ...]]) -> list[Any]:
        return [self.call(function, resources, *args) for function, resources, args in calls]


class FakeProgress:
    def update(self, done: float, total: float | None, unit: str, state: str = "") -> None:
        pass


class FakeContext:
    resources = StageResources()
    ray = FakeRay()

    def __init__(self, recipe: Recipe, stage_dir: Path) -> None:
        self.recipe, self.stage_dir, self.lines = recipe, stage_dir, []

    def progress(self) -> FakeProgress:
        return FakeProgress()

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.environment("llamafactory")
def test_the_stage_gives_data_and_model(tmp_path: Path) -> None:
    model = save_model("chatml", tmp_path / "tiny")
    recipe = recipe_of(
        dataset__source="generated://viggo?train=4&val=2&test=3", model__source=str(model),
        storage__cache=f"{tmp_path}/cache", train__args__cutoff_len=2048,
    )  # fmt: skip
    result = Ingest().run(FakeContext(recipe, tmp_path / "stage"))  # type: ignore[arg-type]
    by_name = {artifact.name: artifact for artifact in result.artifacts}
    assert tuple(by_name) == Ingest.provides
    assert isinstance(by_name["model"], Artifact)
    assert by_name["model"].path == model
    assert result.metrics["rows"] == {"train": 4, "val": 2, "test": 3}
    assert result.metrics["compared"] == 4
    assert result.note.startswith("4 train + 2 val + 3 test rows; ")


def test_conversations_are_written_as_messages(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    for split in ("train", "test"):
        write_lines(tmp_path / "ds" / f"{split}.jsonl", {"talk": talk, "n": 1})
    recipe = viggo(tmp_path / "ds", dataset__files__val=None, dataset__prompt={"conversations": "talk"})
    made = ingested(tmp_path / "made", recipe)
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    (example,) = read_examples(tmp_path / "made/train_set/train.jsonl")
    assert example.messages == messages
    assert made.metrics["rows"] == {"train": 1, "test": 1}


def test_a_row_that_holds_no_conversation_is_a_bad_row(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_lines(tmp_path / "ds" / f"{split}.jsonl", {"talk": [{"role": "user", "content": "Hi"}]})
    recipe = viggo(tmp_path / "ds", dataset__files__val=None, dataset__prompt={"conversations": "talk"})
    with pytest.raises(RunnerError, match=r"train.jsonl:1: its turns are user: the last is the user's"):
        ingested(tmp_path / "made", recipe)


def test_another_version_of_the_models_package_is_another_result(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = to_recipe(compose(["recipe=viggo_quickstart"]))[0]
    seen = []
    for version in ("0.1.2", "0.1.3"):
        monkeypatch.setattr(gguf, "installed_version", lambda *_, version=version: version)
        seen.append(Ingest().canonical(recipe)["model.source"])
    assert seen[0] != seen[1]
