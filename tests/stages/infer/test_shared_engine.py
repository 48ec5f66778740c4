"""Batch inference on the endpoint's engine: what the engine is asked for, and what becomes of its answers."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from runner.errors import RunnerError
from runner.recipe.load import compose, to_recipe
from runner.storage.artifact import Artifact, FileEntry
from stages.data.example import Example, Message, write_examples
from stages.data.prediction import BASE, TUNED
from stages.engines.vllm.serving.pieces import answer_piece
from stages.evaluate import stage as evaluate
from stages.infer import requests as batch_requests
from stages.infer import shared as shared_engine
from stages.infer.prompts import Prompts
from stages.infer.requests import Engine, PredictionWork, RowFile
from stages.models.adapter import CONFIG
from stages.models.chat.end_of_turn import Stop
from stages.models.weights import Adapter, WholeModel
from stages.sections.recipe import Recipe
from stages.serve.config import replica_version

pytestmark = pytest.mark.environment("engine")
LORA = "the adapter's LoRARequest"


def recipe_of(*overrides: str) -> Recipe:
    return to_recipe(compose(["recipe=viggo_quickstart", "infer.sampling.max_tokens=7", *overrides]))[0]


def adapter_of(*files: str) -> Artifact:
    entries = [FileEntry(path=name, sha256="0" * 64, size_bytes=1) for name in files]
    weights = Adapter("one", "/a", "a", 8, "org/model") if CONFIG in files else WholeModel("/a", "a", "org/model")
    return Artifact(name="adapter", uri="/a", sha256="a", files=entries, meta=weights.meta())


class FakeClient:
    """vLLM's engine client: answers with the number of tokens of the prompt, and refuses prompts of three."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[int], Any, Any]] = []

    async def generate(self, prompt: Any, params: Any, request_id: str, lora_request: Any) -> AsyncIterator[Any]:
        tokens = prompt["prompt_token_ids"]
        self.asked.append((tokens, params, lora_request))
        if len(tokens) == 3:
            raise ValueError("The prompt is too long")
        made = SimpleNamespace(text=f"{len(tokens)} tokens", token_ids=[1, 2])
        yield SimpleNamespace(outputs=[made], prompt_token_ids=tokens)


def example(size: int) -> Example:
    """A row whose question has that many characters."""
    asked: Message = {"role": "user", "content": "x" * size}
    columns = {"input": "x" * size, "output": "y"}
    return Example(f"test-{size}", [asked, {"role": "assistant", "content": "y"}], columns=columns)


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RowFile:
    """Three rows, whose prompts have 2, 3 and 4 tokens."""
    template: Any = SimpleNamespace(
        lead="", prompt_ids=lambda messages, tools: list(range(len(messages[-1]["content"]))), stop=Stop(), vision=None
    )
    prompts = Prompts(template, "learn")
    monkeypatch.setattr(batch_requests, "_template", lambda *args: template)
    monkeypatch.setattr(batch_requests, "_prompts", lambda *args: prompts)
    path = tmp_path / "test.jsonl"
    write_examples(path, map(example, (2, 3, 4)))
    return RowFile.scan(path, 10)


def predicted(rows: RowFile, client: FakeClient, recipe: Recipe, adapter: Artifact | None) -> list[dict[str, Any]]:
    engine = shared_engine.shared_models(recipe, Path("/model"), adapter)
    (piece,) = rows.missing(list(engine.models), lambda index, variant: False)

    async def lora(name: str) -> str:
        assert name == "SmolLM2-135M-Instruct.Q4_1:one"
        return LORA

    return asyncio.run(answer_piece(client, lora, piece, PredictionWork(rows.path, recipe, engine)))


def test_every_row_is_asked_of_adapter_and_base(rows: RowFile) -> None:
    client = FakeClient()
    answers = predicted(rows, client, recipe_of("evaluate.compare_base=true"), adapter_of("adapter_config.json"))
    assert [(row["index"], row["variant"]) for row in answers] == [
        (index, variant) for index in range(3) for variant in (TUNED, BASE)
    ]
    assert {len(tokens): lora for tokens, _, lora in client.asked[::2]} == {2: LORA, 3: LORA, 4: LORA}
    assert {lora for _, _, lora in client.asked[1::2]} == {None}
    assert {params.max_tokens for _, params, _ in client.asked} == {7}
    assert json.loads(answers[0]["line"]) == {
        "id": "test-2", "variant": TUNED, "prediction": "2 tokens", "reference": "y", "num_input_tokens": 2,
        "num_generated_tokens": 2, "error": None, "row": {"input": "xx", "output": "y"},
        "messages": [{"role": "user", "content": "xx"}],
    }  # fmt: skip


def test_a_refused_row_is_a_row_with_an_error(rows: RowFile) -> None:
    answers = predicted(rows, FakeClient(), recipe_of(), None)
    lines = [json.loads(row["line"]) for row in answers]
    assert [line["error"] for line in lines] == [None, "ValueError: The prompt is too long", None]
    assert [row["num_tokens"] for row in answers] == [2, 0, 2]


def test_a_dead_engine_is_not_taken_for_an_answer(rows: RowFile, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.engine.exceptions import EngineDeadError

    async def dead(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        raise EngineDeadError
        yield

    client = FakeClient()
    monkeypatch.setattr(client, "generate", dead)
    with pytest.raises(EngineDeadError):
        predicted(rows, client, recipe_of(), None)


def test_a_whole_model_needs_an_engine_of_its_own() -> None:
    with pytest.raises(RunnerError, match=r"infer\.engine=shared needs a LoRA adapter"):
        shared_engine.shared_models(recipe_of(), Path("/model"), adapter_of("model.safetensors", "config.json"))


@pytest.mark.parametrize(
    ("overrides", "shared"),
    [
        ([], True),
        (["infer.engine=own"], False),
        (["pipeline=[ingest,train,publish,infer,evaluate]"], False),
        (["serve.redeploy=true"], False),
        (["infer.engine=auto"], True),
        (["infer.engine=auto", "cluster=local_gpu"], True),
        (["infer.engine=auto", "infer.concurrency=2"], False),
        (["infer.engine=auto", "infer.concurrency=2", "serve.autoscaling.min_replicas=2"], True),
        (["infer.engine=auto", "+serve.engine_kwargs.max_num_seqs=4"], False),
        (["infer.engine=auto", "+serve.engine_kwargs.max_loras=4"], True),
        (["infer.engine=auto", "cluster=local_gpu", "resources.serve.accelerator_type=L4"], False),
        (["infer.engine=auto", "+train.args.finetuning_type=full"], False),
    ],
)
def test_an_engine_is_shared_with_an_endpoint_that_this_run_starts(overrides: list[str], shared: bool) -> None:
    assert shared_engine.is_shared(recipe_of(*overrides)) == shared


@pytest.fixture
def warm_up(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, list[Any]]]:
    """Calls `shared_engine.warm_up` during training, on a machine of so many CPUs and GiB; gives what was deployed."""

    def call(
        *overrides: str,
        num_cpus: float = 4,
        num_gpus: float = 0,
        memory_gib: float = 16,
        inputs: Sequence[str] = ("model",),
        running_stage: str = "train",
    ) -> tuple[str, list[Any]]:
        deployed: list[Any] = []
        node = {"Alive": True, "Resources": {"CPU": num_cpus, "GPU": num_gpus}}
        monkeypatch.setattr("ray.nodes", lambda: [node])
        monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=memory_gib * 2**30))
        monkeypatch.setattr(shared_engine, "deploy", lambda ctx, config: deployed.append(config))
        model = Artifact(name="model", uri="/m", sha256="m", files=[FileEntry(path="f", sha256="0", size_bytes=2**28)])
        ctx = SimpleNamespace(
            recipe=recipe_of("storage.artifacts=/store", *overrides),
            inputs=dict.fromkeys(inputs, model),
            input=lambda name: model,
            ray=SimpleNamespace(start=lambda: None),
        )
        return shared_engine.warm_up(ctx, running_stage), deployed  # type: ignore[arg-type]

    return call


def test_the_engine_starts_during_training_as_the_infer_stage_will_want_it(warm_up: Any) -> None:
    from stages.engines.vllm.serving.server import engine_env, llm_config

    started, (config,) = warm_up()
    recipe = recipe_of("storage.artifacts=/store")
    adapters = f"/store/adapters/{recipe.serve.model_id}"
    expected = llm_config(recipe, "/m", adapters, engine_env(recipe, "engine"), "engine")
    assert started == "the engine"
    assert replica_version(config) == replica_version(expected)


def test_without_an_adapter_to_come_the_engine_that_starts_early_has_none(warm_up: Any) -> None:
    _, (config,) = warm_up("pipeline=[ingest,infer,evaluate,serve]", running_stage="ingest")
    assert "lora_config" not in config


@pytest.mark.parametrize(
    "machine",
    [
        {"num_cpus": 3},
        {"memory_gib": 12},
        {"inputs": ()},
    ],
)
def test_no_engine_starts_early_where_memory_or_the_model_is_missing(warm_up: Any, machine: dict[str, Any]) -> None:
    assert warm_up(**machine) == ("", [])


def test_no_engine_starts_early_that_would_keep_a_stage_in_between_from_its_cpus(warm_up: Any) -> None:
    assert warm_up("+resources.publish.cpus_per_worker=3") == ("", [])


def test_no_engine_waits_on_a_cluster_that_others_use(warm_up: Any) -> None:
    assert warm_up("cluster.address=auto") == ("", [])


@pytest.mark.parametrize(("num_gpus", "starts"), [(1, False), (2, True)])
def test_on_gpus_an_engine_starts_early_when_training_leaves_one(warm_up: Any, num_gpus: int, starts: bool) -> None:
    started, _ = warm_up("cluster=local_gpu", num_cpus=16, num_gpus=num_gpus, memory_gib=1)
    assert bool(started) == starts


def test_evaluate_asks_for_no_cpu_next_to_the_engine_unless_the_recipe_does() -> None:
    assert evaluate.resources(recipe_of()).cpus_per_worker == 0
    assert evaluate.resources(recipe_of("infer.engine=own")).cpus_per_worker == 1
    assert evaluate.resources(recipe_of("+resources.evaluate.cpus_per_worker=2")).cpus_per_worker == 2


class FakeEndpoint:
    """A handle of Ray Serve whose answers come only once so many are expected at the same time."""

    def __init__(self, together: int, dies: int = 0) -> None:
        self.together, self.dies = threading.Barrier(together, timeout=20), dies
        self.cancelled = 0
        self.answer_piece = SimpleNamespace(remote=self._remote)

    def _remote(self, piece: dict[str, Any], work: PredictionWork) -> Any:
        dies, self.dies = self.dies > 0, self.dies - 1

        def result() -> list[dict[str, Any]]:
            self.together.wait()
            if dies:
                raise ray.exceptions.RayActorError
            return [piece]

        def cancel() -> None:
            self.cancelled += 1

        return SimpleNamespace(result=result, cancel=cancel)


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeEndpoint], Iterator[list[dict[str, Any]]]]:
    """Asks six pieces of an endpoint."""
    monkeypatch.setattr(shared_engine, "wait_until_running", lambda *args, **how: None)
    monkeypatch.setattr(shared_engine.ray_serve, "by_reference", lambda handle: handle)

    def ask(endpoint: FakeEndpoint) -> Iterator[list[dict[str, Any]]]:
        serve = SimpleNamespace(get_deployment_handle=lambda *args: endpoint)
        monkeypatch.setattr(ray, "serve", serve, raising=False)
        pieces = [{"index": index} for index in range(6)]
        return shared_engine.ask(recipe_of(), Path("rows"), pieces, Engine("/model", {}), print)

    return ask


def test_pieces_are_answered_at_the_same_time(
    deployed: Callable[[FakeEndpoint], Iterator[list[dict[str, Any]]]],
) -> None:
    answered = [row["index"] for rows in deployed(FakeEndpoint(together=6)) for row in rows]

    assert sorted(answered) == list(range(6))


def test_a_piece_whose_replica_died_is_asked_again(
    deployed: Callable[[FakeEndpoint], Iterator[list[dict[str, Any]]]],
) -> None:
    answered = [row["index"] for rows in deployed(FakeEndpoint(together=1, dies=2)) for row in rows]

    assert sorted(answered) == list(range(6))


def test_what_is_still_expected_is_cancelled_when_nobody_wants_it(
    deployed: Callable[[FakeEndpoint], Iterator[list[dict[str, Any]]]],
) -> None:
    endpoint = FakeEndpoint(together=1)
    answers = deployed(endpoint)

    next(answers)
    answers.close()  # type: ignore[attr-defined]

    assert endpoint.cancelled == 5
