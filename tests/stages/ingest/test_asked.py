"""Requests and answers are held to the tokenizer of the environment that the engine runs in; a model is converted in
an environment of its own."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runner.cluster import environments
from runner.cluster.environments import Chosen
from runner.errors import RunnerError
from runner.pipeline.fingerprint import fingerprint_inputs
from runner.pipeline.registry import load_stage
from runner.recipe.load import compose, to_recipe
from runner.recipe.schema import StageResources
from stages.data.example import Example, Message, write_examples
from stages.engines.vllm.engine import Vllm
from stages.ingest.asked import (
    There,
    asked_elsewhere,
    asked_in,
    compare,
    learned_in,
    look_there,
    require_alike,
    require_same_requests,
)
from stages.ingest.model import converted_in, resources_there
from stages.models import gguf, time_limit
from stages.sections.recipe import Recipe
from tests.stages.models.families import ONE_CALL, save_model

HERE = {"train: train.jsonl:1": "a", "test: test.jsonl:2": "b"}


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An environment `tool` that the engine runs in and models are converted in; the digest of its lock."""
    (tmp_path / "tool-cpu.lock").write_text("a==1\n")
    monkeypatch.setattr(environments, "LOCKS", tmp_path)
    monkeypatch.setenv(environments.HOME, str(tmp_path / "environments"))
    monkeypatch.setattr(Vllm, "environment", "tool")
    monkeypatch.setattr(gguf, "ENVIRONMENT", "tool")
    return environments.digest(tmp_path / "tool-cpu.lock")


def recipe_of(*overrides: str) -> Recipe:
    return to_recipe(compose(["recipe=viggo_quickstart", *overrides]))[0]


def test_the_same_requests_pass() -> None:
    require_same_requests("environment tool", "environment other", HERE, dict(HERE))


@pytest.mark.parametrize("there", [{**HERE, "test: test.jsonl:2": "c"}, {"train: train.jsonl:1": "a"}])
def test_a_row_of_which_the_environment_makes_another_request_ends_the_run(there: dict[str, str]) -> None:
    with pytest.raises(RunnerError, match=r"test\.jsonl:2: the tokenizer of the environment tool .* environment other"):
        require_same_requests("environment tool", "environment other", HERE, there)


def test_requests_are_compared_in_the_engines_environment_where_a_recipe_makes_some(locked: str) -> None:
    recipe = recipe_of()
    assert asked_in(recipe) == Chosen("tool", "infer.backend", "vllm")
    assert asked_in(recipe_of("pipeline=[ingest,train]")) is None


def test_rows_are_compared_in_the_trainers_environment_and_in_the_engines_where_nothing_is_trained(locked: str) -> None:
    trained, asked = recipe_of(), recipe_of("pipeline=[ingest,infer]")
    assert learned_in(trained) == Chosen("llamafactory", "train.trainer", "llamafactory")
    assert learned_in(asked) == asked_in(asked) == Chosen("tool", "infer.backend", "vllm")
    elsewhere = {"[ingest,train,infer]": True, "[ingest,infer]": False, "[ingest,train]": False, "[ingest]": False}
    assert {pipeline: asked_elsewhere(recipe_of(f"pipeline={pipeline}")) for pipeline in elsewhere} == elsewhere
    libraries = fingerprint_inputs(load_stage("ingest"), recipe_of("train.trainer=accelerate"), {})["libraries"]
    assert set(libraries) == {"environment accelerate", "environment tool"}


def test_ingest_depends_on_the_locks_of_the_environments_that_it_calls_into(locked: str) -> None:
    own = fingerprint_inputs(load_stage("ingest"), recipe_of(), {})["libraries"]
    assert own["environment tool"] == locked
    folder = "model.source=/models/own"
    without = fingerprint_inputs(load_stage("ingest"), recipe_of(folder, "pipeline=[ingest,train]"), {})["libraries"]
    assert "environment tool" not in without


def test_only_a_model_in_a_package_is_converted_and_in_its_environment(locked: str) -> None:
    chosen = converted_in(recipe_of())
    assert chosen is not None
    assert (chosen.name, chosen.key) == ("tool", "model.source")
    assert converted_in(recipe_of("model.source=/models/own")) is None


def test_a_task_in_an_environment_has_its_interpreter_and_no_other_packages(locked: str) -> None:
    own = StageResources(runtime_env={"env_vars": {"A": "1"}, "pip": ["x"]})
    there = resources_there(own, Chosen("tool", "a.b"))
    assert there.runtime_env == {"env_vars": {"A": "1"}, "py_executable": str(environments.python("tool"))}
    assert resources_there(own, None) == own


def tiny_recipe() -> Recipe:
    return Recipe.model_validate(
        {
            "name": "tiny",
            "pipeline": ["ingest", "train", "infer"],
            "model": {"source": "org/tiny"},
            "dataset": {"source": "data", "prompt": {"conversations": "messages"}},
            "serve": {"model_id": "base"},
        }
    )


@pytest.mark.environment("llamafactory")
def test_requests_that_an_environment_makes_alike_are_read_back_there(tmp_path: Path, locked: str) -> None:
    recipe = tiny_recipe()
    model, test = save_model("chatml", tmp_path / "model"), tmp_path / "test.jsonl"
    write_examples(test, [Example("1", [{"role": "user", "content": "Any rye left?"}], source="rows.jsonl:1")])
    count, asked, remarks = compare(recipe, str(model), None, str(test))
    assert (count, remarks) == (0, [])
    assert list(asked) == ["test: rows.jsonl:1"]
    there = look_there(recipe, str(model), None, str(test))
    assert there == There(asked)
    require_alike(recipe, asked, there)
    with pytest.raises(RunnerError, match=r"test: rows\.jsonl:1: the tokenizer of the environment tool"):
        require_alike(recipe, {**asked, "test: rows.jsonl:1": "other"}, there)


def test_a_wrong_answer_is_told_after_another_request(locked: str) -> None:
    recipe, wrong = recipe_of(), RunnerError("row 1: the calls of the row's answer would be read otherwise")
    with pytest.raises(RunnerError, match="would be read otherwise"):
        require_alike(recipe, HERE, There(HERE, wrong))
    with pytest.raises(RunnerError, match="the tokenizer of the environment tool"):
        require_alike(recipe, HERE, There({}, wrong))


@pytest.mark.environment("llamafactory")
def test_a_row_that_the_chat_template_refuses_is_refused_alike_in_both_environments(
    tmp_path: Path, locked: str
) -> None:
    recipe = tiny_recipe()
    model, test = save_model("gemma", tmp_path / "model"), tmp_path / "test.jsonl"
    asked: list[Message] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Any rye left?"}]
    write_examples(test, [Example("1", asked, source="rows.jsonl:1")])
    assert list(look_there(recipe, str(model), None, str(test)).asked) == ["test: rows.jsonl:1"]
    with pytest.raises(RunnerError, match="takes no system message"):
        compare(recipe, str(model), None, str(test))


@pytest.mark.environment("llamafactory")
@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("look", "template", "wrong"),
    [
        (compare, ONE_CALL, "did not end"),
        (look_there, ONE_CALL, "did not end"),
        (compare, "{{ 'a' * 3000000000 }}", "MemoryError"),  # there it is the row that is refused
    ],
)
def test_a_template_holds_no_task_and_takes_little_memory(
    look: Any, template: str, wrong: str, tmp_path: Path, locked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_limit.USED, "seconds", 1.0)
    recipe = tiny_recipe()
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"chat_template": template})})
    model, test = save_model("chatml", tmp_path / "model"), tmp_path / "test.jsonl"
    write_examples(test, [Example("1", [{"role": "user", "content": "Any rye left?"}], source="rows.jsonl:1")])
    with memory_grows_little(1 << 30), pytest.raises(RunnerError, match=wrong):
        look(recipe, str(model), None, str(test))


@contextmanager
def memory_grows_little(most: int) -> Iterator[None]:
    """This process and its children, at their most."""
    begin = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    yield
    end = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    assert (max(end) - max(begin)) * 1024 < most


def begins_badly(answer: str) -> str:
    return f"{{% if {answer} %}}{ONE_CALL}{{% endif %}}{{% for m in messages %}}{{{{ m.content }}}}{{% endfor %}}"


@pytest.mark.environment("llamafactory")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("of", ["messages[0].content == 'warmup'", "'q7Zx' in messages[-1].content"])
def test_what_an_endpoint_renders_when_it_starts_is_rendered_before(
    of: str, tmp_path: Path, locked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_limit.USED, "seconds", 1.0)
    model, test = save_model("chatml", tmp_path / "model"), tmp_path / "test.jsonl"
    write_examples(test, [Example("1", [{"role": "user", "content": "Any rye left?"}], source="rows.jsonl:1")])
    values = tiny_recipe().model_dump()
    values["model"]["chat_template"], values["pipeline"] = begins_badly(of), ["ingest", "serve"]
    with pytest.raises(RunnerError, match="did not end within 1 s"):
        compare(Recipe.model_validate(values), str(model), None, str(test))


def packaged(folder: Path) -> Any:
    package, info = folder / "tiny_model", folder / "tiny_model-1.0.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    (package / "Tiny.gguf").write_bytes(b"GGUF")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
    (info / "RECORD").write_text("tiny_model/Tiny.gguf,sha256=abc,4\n")
    (folder / "transformers-9.9.dist-info").mkdir()
    (folder / "transformers-9.9.dist-info" / "METADATA").write_text("Name: transformers\nVersion: 9.9\n")
    return package / "Tiny.gguf"


def test_a_model_of_an_environments_package_is_found_from_the_runners(locked: str) -> None:
    file = packaged(environments.folder("tool") / "lib/python3.11/site-packages")
    assert gguf.find_packaged_file("tiny-model", "Tiny.gguf", "tool") == file
    assert gguf.installed_hash("tiny-model", "Tiny.gguf", "tool") == "sha256=abc"
    assert gguf.cache_name("tiny-model", file, "tool") == "tiny-model-1.0--Tiny--4--transformers-9.9--v1"
    with pytest.raises(RunnerError, match="not installed") as caught:
        gguf.find_packaged_file("tiny-model", "Tiny.gguf")
    assert str(environments.python("tool")) in caught.value.hint
