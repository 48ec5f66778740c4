"""What ray.data.llm is given, how rows become requests and predictions, and the error when an engine fails."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from runner.cluster.forked import Step
from runner.cluster.session import RaySession
from runner.errors import RunnerError
from runner.pipeline.context import RunContext
from runner.recipe.load import compose, to_recipe
from runner.testing import assert_golden
from stages.data.example import Example, write_examples
from stages.engines.vllm import batch
from stages.engines.vllm import failure as engine_failure
from stages.engines.vllm.batch import engine_kwargs, engine_runtime_env, engine_settings, vllm_processor_config
from stages.engines.vllm.failure import batch_failure
from stages.infer import requests as batch_requests
from stages.infer.prompts import Prompts, prompt_of
from stages.infer.requests import Engine, PredictionWork, RowFile, answer, read_chunk, request, rows_per_chunk
from stages.infer.stage import Infer, plan_engines
from stages.models.chat_template import ChatTemplate
from stages.sections.recipe import Recipe
from tests.paths import GOLDEN
from tests.stages.models.families import tokenizer_of

ENV = {"VLLM_CPU_OMP_THREADS_BIND": "0,1"}
WITH_ADAPTER = Engine("/models/base", {"tuned": "/adapters/a", "base": "/models/base"}, lora_rank=8)


def recipe_of(name: str, *overrides: str) -> Recipe:
    return to_recipe(compose([f"recipe={name}", *overrides]))[0]


@pytest.fixture
def recipes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Recipe]:
    monkeypatch.setenv("ARTIFACT_URI", "s3://bucket/store")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(batch, "cpu_engine_env", lambda cluster, num_cpus, environment: dict(ENV))
    return {name: recipe_of(name) for name in ("viggo_quickstart", "viggo_qwen7b")}


def adapter_folder(folder: Path, **config: Any) -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"r": 8, **config}))
    return folder


@pytest.mark.usefixtures("one_kind_of_cpu")
@pytest.mark.parametrize("name", ["viggo_quickstart", "viggo_qwen7b"])
def test_processor_config_is_the_golden_one(name: str, recipes: dict[str, Recipe]) -> None:
    settings = engine_settings(recipes[name])
    config = vllm_processor_config(recipes[name], WITH_ADAPTER.source, WITH_ADAPTER.lora_rank, settings)
    assert_golden(config, GOLDEN / f"vllm_processor_config_{name}.json")


def test_engine_arguments_pass_through_untouched_without_an_adapter(recipes: dict[str, Recipe]) -> None:
    recipe = recipes["viggo_qwen7b"]
    assert engine_kwargs(recipe, None) == recipe.infer.engine_kwargs


def test_lora_is_on_with_slots_of_the_adapters_rank(recipes: dict[str, Recipe]) -> None:
    recipe = with_engine(recipes["viggo_qwen7b"], {"dtype": "bfloat16"})
    assert engine_kwargs(recipe, 12) == {"dtype": "bfloat16", "enable_lora": True, "max_lora_rank": 16}


def test_rank_above_the_recipes_is_refused_before_an_engine_starts(recipes: dict[str, Recipe]) -> None:
    with pytest.raises(RunnerError, match="max_lora_rank=8 is below the adapter's rank 16"):
        engine_kwargs(recipes["viggo_qwen7b"], 16)


def test_the_recipes_own_executor_and_parallel_engines_are_left_alone(recipes: dict[str, Recipe]) -> None:
    recipe = recipes["viggo_quickstart"]
    assert engine_kwargs(with_engine(recipe, {"distributed_executor_backend": "mp"}), None) == {
        "distributed_executor_backend": "mp"
    }
    assert engine_kwargs(with_engine(recipe, {"tensor_parallel_size": 2}), None) == {"tensor_parallel_size": 2}


def test_the_recipes_environment_wins_over_the_cpu_engines(recipes: dict[str, Recipe]) -> None:
    recipe = recipes["viggo_quickstart"]
    resources = recipe.resources_of("infer").model_copy(
        update={"runtime_env": {"pip": ["x"], "env_vars": {"VLLM_CPU_OMP_THREADS_BIND": "0", "OTHER": "1"}}}
    )
    recipe = recipe.model_copy(update={"resources": {"infer": resources}})
    found = engine_settings(recipe)
    assert found["pip"] == ["x"]
    assert found["env_vars"].items() >= {"VLLM_CPU_OMP_THREADS_BIND": "0", "OTHER": "1"}.items()


@pytest.mark.parametrize(
    ("kwargs", "ahead"),
    [({}, True), ({"distributed_executor_backend": "uni"}, True), ({"tensor_parallel_size": 2}, False),
     ({"distributed_executor_backend": "mp"}, False)],
)  # fmt: skip
def test_engines_of_one_rank_are_forked_from_a_process_that_has_imported_vllm(
    kwargs: dict[str, Any], ahead: bool, recipes: dict[str, Recipe]
) -> None:
    asked: list[Any] = []

    def imported(environment: str | None, imports: Sequence[str], given: Mapping[str, Any]) -> dict[str, Any]:
        asked.append((environment, *imports))
        return dict(given)

    engine_runtime_env(with_engine(recipes["viggo_quickstart"], kwargs), "engine", imported)
    assert asked == ([("engine", "stages.patches.vllm_forkserver:import_vllm")] if ahead else [])


@pytest.mark.parametrize(
    ("running", "cpus", "begins"), [("train", 16, True), ("train", 2, False), ("ingest", 16, False)]
)
def test_an_engine_of_the_stages_own_is_imported_during_training_where_cpus_are_idle(
    running: str, cpus: int, begins: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    recipe = recipe_of("viggo_quickstart", "infer.engine=own")
    session, asked = RaySession(recipe.cluster), []
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(cpus)))
    monkeypatch.setattr(session, "start", lambda: None)
    monkeypatch.setattr(session, "import_ahead", lambda *given: asked.append(given) or {})
    ctx = RunContext(recipe, "infer", "r", tmp_path, tmp_path, "f", {}, session)
    assert bool(Infer().warm_up(ctx, running)) is bool(asked) is begins


def test_base_and_adapter_share_an_engine(recipes: dict[str, Recipe], tmp_path: Path) -> None:
    adapter = adapter_folder(tmp_path / "a", rank_pattern={"q_proj": 32})
    engines = list(plan_engines(recipes["viggo_quickstart"], Path("/model"), adapter))
    assert engines == [Engine("/model", {"tuned": str(adapter), "base": "/model"}, 32)]


def test_base_is_left_out_unless_it_is_compared(tmp_path: Path) -> None:
    recipe = recipe_of("viggo_quickstart", "evaluate.compare_base=false")
    adapter = adapter_folder(tmp_path / "a")
    assert [engine.models for engine in plan_engines(recipe, Path("/model"), adapter)] == [{"tuned": str(adapter)}]


def test_without_a_published_adapter_there_is_only_base() -> None:
    recipe = recipe_of("viggo_quickstart", "pipeline=[ingest,infer]", "evaluate.compare_base=false")
    assert Infer().needs(recipe) == ("test_set", "model")
    assert list(plan_engines(recipe, Path("/model"), None)) == [Engine("/model", {"base": "/model"})]


def test_a_fully_tuned_model_has_an_engine_of_its_own(recipes: dict[str, Recipe], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    engines = list(plan_engines(recipes["viggo_quickstart"], Path("/model"), tmp_path))
    assert engines == [Engine(str(tmp_path), {"tuned": str(tmp_path)}), Engine("/model", {"base": "/model"})]


def test_a_folder_that_is_neither_is_refused(recipes: dict[str, Recipe], tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="neither a LoRA adapter"):
        list(plan_engines(recipes["viggo_quickstart"], Path("/model"), tmp_path))


def test_every_row_is_read_once_for_each_variant_in_order(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    texts = [json.dumps({"id": f"test-{index}", "input": "é" * index}, ensure_ascii=False) for index in range(7)]
    path.write_text("\n".join([*texts[:3], "", *texts[3:]]), encoding="utf-8")
    rows = RowFile.scan(path, 3)
    assert rows.num_rows == 7
    assert [chunk["num_rows"] for chunk in rows.chunks] == [3, 3, 1]
    pieces = rows.missing(["tuned", "base"], lambda index, variant: False)
    read = [row for piece in pieces for row in read_chunk(piece, path=path, variants=["tuned", "base"])]
    assert [(row["index"], row["variant"]) for row in read] == [
        (index, variant) for index in range(7) for variant in ("tuned", "base")
    ]
    assert [row["text"].strip() for row in read[::2]] == texts


def test_only_what_has_no_prediction_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "test.jsonl"
    path.write_text("".join(json.dumps({"id": index}) + "\n" for index in range(9)))
    done = {(index, variant) for index in range(4) for variant in ("tuned", "base")} | {(4, "tuned"), (7, "base")}
    pieces = RowFile.scan(path, 3).missing(["tuned", "base"], lambda index, variant: (index, variant) in done)
    assert [piece["index"] for piece in pieces] == [3, 6]
    read = [row for piece in pieces for row in read_chunk(piece, path=path, variants=["tuned", "base"])]
    assert [(row["index"], row["variant"]) for row in read] == [
        (index, variant) for index in range(9) for variant in ("tuned", "base") if (index, variant) not in done
    ]
    assert [json.loads(row["text"])["id"] for row in read] == [row["index"] for row in read]


def test_a_test_set_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text("\n")
    with pytest.raises(RunnerError, match="has no rows to predict"):
        RowFile.scan(tmp_path / "test.jsonl", 3)


def test_a_piece_brings_one_batch_of_requests(recipes: dict[str, Recipe]) -> None:
    assert rows_per_chunk(recipes["viggo_qwen7b"]) == 8
    assert rows_per_chunk(recipe_of("viggo_quickstart", "evaluate.compare_base=false", "infer.batch_size=16")) == 16
    assert rows_per_chunk(recipe_of("viggo_quickstart", "infer.batch_size=1")) == 1


@pytest.mark.environment("llamafactory")
def test_a_request_is_the_chat_templates_tokens_for_the_rows_model(
    recipes: dict[str, Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    template = ChatTemplate(tokenizer_of("chatml"))
    given(template, monkeypatch)
    recipe = recipes["viggo_qwen7b"]
    row = {"variant": "tuned", "text": EXAMPLE.to_json(), **prompt_of(EXAMPLE.to_json(), template, "learn")}
    made = request(row, recipe=recipe, engine=WITH_ADAPTER)
    assert template.tokenizer.decode(made.pop("tokenized_prompt")) == (
        "<|im_start|>user\nDo.\nIt<|im_end|>\n<|im_start|>assistant\n"
    )
    assert made == {
        "model": "/adapters/a",
        "sampling_params": {"temperature": 0.0, "max_tokens": 250},
        "__inference_error__": "",
    }


def given(template: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have rows rendered by the template."""
    prompts = Prompts(template, "learn")
    monkeypatch.setattr(batch_requests, "_template", lambda *args: template)
    monkeypatch.setattr(batch_requests, "_prompts", lambda *args: prompts)


EXAMPLE = Example(
    "test-000004",
    [{"role": "user", "content": "Do.\nIt"}, {"role": "assistant", "content": "f()"}],
    columns={"instruction": "Do.", "input": "It", "output": "f()"},
)


def output_row(**changes: Any) -> dict[str, Any]:
    return {
        "index": 4,
        "variant": "base",
        "text": EXAMPLE.to_json(),
        "generated_text": "g()",
        "num_input_tokens": 9,
        "num_generated_tokens": 2,
        "time_taken_llm": 3.0,
        "__inference_error__": "",
        **changes,
    }


def test_an_answer_is_a_line_and_when_the_engine_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_requests, "time", SimpleNamespace(time=lambda: 1000.0))
    made = answer(output_row())
    assert (made["index"], made["variant"], made["num_tokens"]) == (4, "base", 2)
    assert made["started_at"] == 997.0
    line = json.loads(made["line"])
    assert (line["id"], line["prediction"], line["reference"]) == ("test-000004", "g()", "f()")


def test_white_space_of_the_chat_template_is_not_part_of_an_answer() -> None:
    read = []
    made = answer(output_row(generated_text=" g()"), lambda text, example: read.append(text), lead=" ")
    assert (json.loads(made["line"])["prediction"], read) == ("g()", ["g()"])
    assert json.loads(answer(output_row(generated_text="  g()"), lead=" ")["line"])["prediction"] == " g()"


def test_a_row_that_the_engine_refuses_becomes_a_line_with_the_reason() -> None:
    row = output_row(__inference_error__="ValueError: too long", generated_text="", time_taken_llm=-1)
    made = answer(row)
    assert made["num_tokens"] == 0
    assert json.loads(made["line"])["error"] == "ValueError: too long"


@pytest.mark.environment("llamafactory")
def test_a_row_that_the_template_does_not_take_is_not_given_to_the_engine(
    recipes: dict[str, Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    template = ChatTemplate(tokenizer_of("base"), "{{ raise_exception('no such role') }}")
    given(template, monkeypatch)
    row = {"index": 4, "variant": "tuned", **prompt_of(EXAMPLE.to_json(), template, "learn")}
    row["text"] = EXAMPLE.to_json()
    made = request(row, recipe=recipes["viggo_qwen7b"], engine=WITH_ADAPTER)
    assert made["__inference_error__"] == "the chat template refuses the conversation: 'no such role'"
    line = answer({**row, **made})["line"]
    assert json.loads(line)["error"] == made["__inference_error__"]


@pytest.mark.environment("llamafactory")
def test_a_row_that_the_template_does_not_end_with_ends_the_job_and_one_that_needs_much_memory_is_refused(
    recipes: dict[str, Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    source = f"{{% set row = messages[0]['content'] %}}{{% if row == 'row 2' %}}{hangs}{{% endif %}}"
    source += "{% if row == 'row 1' %}{{ 'x' * 99999999999 }}{% endif %}{{ row }}"
    given(ChatTemplate(tokenizer_of("base"), source), monkeypatch)
    monkeypatch.setattr("stages.models.chat_template.USED", Step(0.5, 1 << 30))
    rows = [Example(f"test-{n}", [{"role": "user", "content": f"row {n}"}]) for n in range(4)]
    write_examples(tmp_path / "test.jsonl", rows)
    work = PredictionWork(tmp_path / "test.jsonl", recipes["viggo_qwen7b"], WITH_ADAPTER)
    first, second = RowFile.scan(work.path, 2).missing(list(WITH_ADAPTER.models), lambda index, variant: False)
    wrong = "the chat template fails on the row: MemoryError: "
    assert [work.ask(row)["__inference_error__"] for row in work.read(first)] == ["", "", wrong, wrong]
    with pytest.raises(RunnerError, match=r"on rows 3 to 4 of the test set did not end within 0\.5 s"):
        list(work.read(second))


def test_an_error_of_ours_inside_a_ray_task_is_told_as_it_is() -> None:
    error = RuntimeError("ray: task failed")
    error.__cause__ = RunnerError("the prompt takes the column 'x'", "Name a column.")
    assert batch_failure(error, 0.0) is error.__cause__


CREATION = "The actor died because of an error raised in its creation task"
DEAD = "The actor is dead because its worker process has died."
DEAD_ENGINE = "EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause."
LOGGED = "(EngineCore pid=7) ERROR 11-23 15:38:00 [core.py:9] "


@pytest.mark.parametrize(
    ("kind", "text", "log", "message", "hint"),
    [
        (
            "ActorDiedError",
            f"{CREATION}\nTypeError: AsyncEngineArgs.__init__() got an unexpected keyword argument 'max_length'",
            "",
            "the engine did not start: TypeError: .* unexpected keyword argument 'max_length'",
            "vLLM's engine arguments",
        ),
        (
            "ActorDiedError",
            f"{CREATION}\nRuntimeError: Engine core initialization failed. See root cause above.",
            f"{LOGGED}ValueError: No memory for the KV cache",
            "the engine did not start: ValueError: No memory for the KV cache",
            "max_model_len",
        ),
        (  # a GPU with gpu_memory_utilization=0.15 and a model of 7B
            "ActorDiedError",
            f"{CREATION}\nRuntimeError: Engine core initialization failed. See root cause above.",
            f"{LOGGED}ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`.",
            "the engine did not start: ValueError: No available memory for the cache blocks",
            "on a GPU raise infer.engine_kwargs.gpu_memory_utilization",
        ),
        (
            "ActorDiedError",
            DEAD,
            f"{LOGGED}safetensors.SafetensorError: header too small in adapter",
            "the engine died, again after each restart: safetensors.SafetensorError: header too small",
            "max_lora_rank",
        ),
        ("ActorDiedError", DEAD, "", "as when memory runs out", "max_num_seqs"),
        (
            "ActorDiedError",
            "The actor died unexpectedly before finishing this task.\n\tclass_name: ProxyActor\n\tkilled by its owner",
            "",
            "the endpoint's proxy ended: killed by its owner",
            "under heavy load",
        ),
        (
            "RayTaskError",
            f"vllm.v1.engine.exceptions.{DEAD_ENGINE}",
            f"{LOGGED}ValueError: No memory for the KV cache",
            "batch inference failed: ValueError: No memory for the KV cache",
            "max_model_len",
        ),
        (
            "RayTaskError",
            f"vllm.v1.engine.exceptions.{DEAD_ENGINE}",
            "",
            "batch inference failed: vllm.v1.engine.exceptions.EngineDeadError: EngineCore",
            "Look into the log",
        ),
        ("RayTaskError", "ValueError: a template is missing", "", "failed: ValueError: a template is", "log"),
    ],
)
def test_a_failed_engine_is_told_by_its_root_cause(
    kind: str, text: str, log: str, message: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_failure, "engine_log", lambda since: log)
    failure = batch_failure(type(kind, (Exception,), {})(text), 0.0)
    assert re.search(message, failure.message)
    assert hint in failure.hint


def with_engine(recipe: Recipe, kwargs: dict[str, Any]) -> Recipe:
    return recipe.model_copy(update={"infer": recipe.infer.model_copy(update={"engine_kwargs": kwargs})})


def test_building_the_processor_leaves_the_handler_of_sigterm(monkeypatch: pytest.MonkeyPatch) -> None:
    def build_processor(config: Any, **options: Any) -> str:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as `ray.init` does
        return f"{config} {options}"

    for name in ("ray", "ray.data"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "ray.data.llm", SimpleNamespace(build_processor=build_processor))
    before = signal.getsignal(signal.SIGTERM)
    assert batch.build("config", a=1) == "config {'a': 1}"
    assert signal.getsignal(signal.SIGTERM) is before
