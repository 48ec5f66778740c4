"""What Ray Serve LLM is given, which adapters are served, and the error when the endpoint does not start."""

from __future__ import annotations

import json
import shlex
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner.errors import GateError, RunnerError
from runner.pipeline.context import RunContext
from runner.recipe.load import compose, to_recipe
from runner.recipe.show import shown_values
from runner.storage.artifact import Artifact, FileEntry, digest_files, scan_folder
from runner.storage.atomic import write_state
from runner.storage.store import Store, open_store
from runner.testing import assert_golden
from stages.data.example import Example, Message, write_examples
from stages.engines.root_cause import root_cause
from stages.engines.vllm.failure import server_hint
from stages.engines.vllm.serving.server import engine_env, engine_kwargs, llm_config, num_bundles
from stages.evaluate.scores import Scores, Verdict
from stages.models.adapter import (
    AdapterNotFoundError,
    Catalogue,
    Recent,
    checked_adapter_id,
    fetch_adapter,
    find_adapter,
)
from stages.models.weights import Adapter
from stages.patches.vllm_forkserver import ENGINE_IN_REPLICA
from stages.sections.recipe import Recipe
from stages.serve.config import api_settings, replica_version
from stages.serve.endpoint import Endpoint
from stages.serve.guard.keys import digest
from stages.serve.health import error_message, free_port, holder_of, wait_until_running
from stages.serve.other_runs import ServedRun
from stages.serve.stage import Serve, own_adapter, with_capacity
from stages.serve.usage import HELLO
from tests.paths import GOLDEN

ENV = {"VLLM_CPU_OMP_THREADS_BIND": "0,1"}

LARGE = ServedRun("other", "base:other", Adapter("other", "/store/adapters/base/other", "a", 64, "org/model"))
PASSED = Verdict(True)


def recipe_of(name: str, *overrides: str) -> Recipe:
    return to_recipe(compose([f"recipe={name}", *overrides]))[0]


@pytest.fixture
def qwen(monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setenv("ARTIFACT_URI", "s3://bucket/store")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RUNS_DIR", raising=False)
    return recipe_of("viggo_qwen7b")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store of adapters: `good` is complete, `half` lacks its manifest, `other` is not an adapter."""
    made = tmp_path / "made"
    made.mkdir()
    (made / "adapter_model.safetensors").write_bytes(b"weights")
    (made / "adapter_config.json").write_text("{}")
    store = open_store(str(tmp_path / "artifacts" / "adapters" / "base"))
    store.publish(scan_folder("checkpoint", made), "good", "adapter")
    store.publish(scan_folder("checkpoint", made), "half", "adapter")
    (Path(store.uri) / "half" / "_manifest.json").unlink()
    (made / "adapter_config.json").unlink()
    store.publish(scan_folder("checkpoint", made), "other", "adapter")
    return store


def context(recipe: Recipe, inputs: dict[str, Artifact], folder: Path) -> RunContext:
    return RunContext(
        recipe=recipe, stage="serve", run_id="r", run_dir=folder, stage_dir=folder / "serve", fingerprint="f",
        inputs=inputs, ray=None,  # type: ignore[arg-type]
    )  # fmt: skip


def scores_of(sha256: str | None, folder: Path, verdict: Verdict = PASSED) -> Artifact:
    folder.mkdir()
    made = Scores({"tuned": {}}, ["exact_match"], 0.95, adapter_sha256=sha256, verdict=verdict)
    (folder / "scores.json").write_text(json.dumps(made.as_dict()))
    return scan_folder("scores", folder)


def published(store: Store) -> Artifact:
    return find_adapter(store, "good").model_copy(
        update={"name": "adapter", "meta": Adapter("good", "", "", 8, "org/model").meta()}
    )


@pytest.mark.usefixtures("one_kind_of_cpu")
def test_quickstart_config_is_the_golden_one(quickstart: Recipe) -> None:
    config = llm_config(quickstart, "/models/smollm2", "/store/adapters/base", ENV)
    assert_golden(config, GOLDEN / "llm_config_viggo_quickstart.json")


def test_qwen_config_is_the_golden_one(qwen: Recipe) -> None:
    config = llm_config(qwen, "/models/qwen", "s3://bucket/store/adapters/base", {})
    assert_golden(config, GOLDEN / "llm_config_viggo_qwen7b.json")


def test_more_replicas_and_longer_draining_do_not_replace_a_replica() -> None:
    def version(*overrides: str) -> str:
        recipe = to_recipe(compose(["recipe=viggo_quickstart", *overrides]))[0]
        return replica_version(llm_config(recipe, "/models/smollm2", "/store/adapters/base", ENV))

    first = version()
    assert version("serve.autoscaling.max_replicas=2", "serve.request_timeout_s=5") == first
    assert version("+serve.engine_kwargs.max_model_len=256") != first
    assert version("resources.serve.cpus_per_worker=1") != first


@pytest.mark.e2e
@pytest.mark.environment("engine")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["viggo_quickstart", "viggo_qwen7b"])
def test_ray_serve_llm_accepts_the_golden_config(name: str) -> None:
    from ray.serve.llm import LLMConfig

    config = LLMConfig(**json.loads((GOLDEN / f"llm_config_{name}.json").read_text()))
    assert config.get_engine_config().engine_kwargs["enable_lora"] is True


def test_a_folder_store_needs_no_object_store_uri(quickstart: Recipe) -> None:
    config = llm_config(quickstart, "/m", "/store/adapters/base", {})
    assert "dynamic_lora_loading_path" not in config["lora_config"]
    assert config["experimental_configs"]["adapter_store"]["uri"] == "/store/adapters/base"


def test_without_an_adapter_the_engine_runs_without_lora(quickstart: Recipe) -> None:
    config = llm_config(quickstart, "/m", None, {})
    assert "lora_config" not in config
    assert not {"enable_lora", "max_loras", "max_lora_rank"} & set(config["engine_kwargs"])


def test_serve_engine_arguments_win_over_those_of_infer() -> None:
    recipe = recipe_of("viggo_quickstart", "+infer.engine_kwargs.max_num_seqs=8", "+serve.engine_kwargs.max_num_seqs=2")
    assert engine_kwargs(recipe, with_adapters=True)["max_num_seqs"] == 2


def test_max_loras_follows_the_adapters_per_replica() -> None:
    kwargs = engine_kwargs(recipe_of("viggo_quickstart", "serve.max_adapters_per_replica=4"), with_adapters=True)
    assert (kwargs["enable_lora"], kwargs["max_loras"]) == (True, 4)


@pytest.mark.parametrize("text", ["enable_prefix_caching", "max_model_len"])
def test_an_argument_that_the_endpoint_drops_does_not_reach_its_engine(text: str) -> None:
    assert text in recipe_of("viggo_quickstart").infer.engine_kwargs
    recipe = recipe_of("viggo_quickstart", f"serve.engine_kwargs.{text}=null")
    assert text not in llm_config(recipe, "/m", "/store/adapters/base", {})["engine_kwargs"]
    assert text not in llm_config(with_capacity(recipe, [LARGE]), "/m", "/store/adapters/base", {})["engine_kwargs"]
    assert shown_values(recipe)["serve"]["engine_kwargs"][text] is None


@pytest.mark.parametrize(("rank", "expected"), [(4, 8), (8, 8), (12, 16), (64, 64)])
def test_lora_rank_is_rounded_up_to_one_that_vllm_has(rank: int, expected: int) -> None:
    recipe = recipe_of("viggo_quickstart", f"train.lora_rank={rank}")
    assert engine_kwargs(recipe, with_adapters=True)["max_lora_rank"] == expected


def test_storage_endpoint_reaches_the_replicas(quickstart: Recipe) -> None:
    recipe = recipe_of("viggo_quickstart", "storage.endpoint_url=http://127.0.0.1:9000")
    assert engine_env(recipe)["AWS_ENDPOINT_URL"] == "http://127.0.0.1:9000"
    assert "AWS_ENDPOINT_URL" not in engine_env(quickstart)


def test_runtime_env_of_the_recipe_wins(quickstart: Recipe) -> None:
    recipe = recipe_of("viggo_quickstart", "+resources.serve.runtime_env={env_vars: {A: mine}, pip: [x]}")
    assert llm_config(recipe, "/m", None, {"A": "ours", "B": "ours"})["runtime_env"] == {
        "env_vars": {"A": "mine", "B": "ours"},
        "pip": ["x"],
    }


def test_bundles_count_replicas_and_ranks() -> None:
    recipe = recipe_of(
        "viggo_quickstart", "serve.autoscaling.min_replicas=2", "+serve.engine_kwargs.tensor_parallel_size=4"
    )
    assert num_bundles(recipe) == 8


@pytest.mark.usefixtures("one_kind_of_cpu")
def test_an_engine_on_cpus_decodes_one_image_at_a_time_and_leaves_cores_to_other_requests(
    quickstart: Recipe, qwen: Recipe
) -> None:
    assert engine_env(quickstart)["VLLM_MEDIA_LOADING_THREAD_COUNT"] == "1"
    assert "VLLM_MEDIA_LOADING_THREAD_COUNT" not in engine_env(qwen)


def test_needs_the_scores_only_when_the_pipeline_evaluates() -> None:
    assert Serve().needs(recipe_of("viggo_quickstart")) == ("model", "adapter", "scores")
    assert Serve().needs(recipe_of("viggo_quickstart", "pipeline=[ingest,serve]")) == ("model",)


def test_lists_complete_adapters_only(store: Store) -> None:
    assert Catalogue(store).ids() == ["good"]


def test_what_comes_to_the_store_and_what_leaves_it_is_in_the_next_list(store: Store, tmp_path: Path) -> None:
    (tmp_path / "made" / "adapter_config.json").write_text("{}")
    catalogue, artifact = Catalogue(store), scan_folder("checkpoint", tmp_path / "made")
    assert catalogue.ids() == ["good"]
    store.publish(artifact, "later", "adapter")
    assert catalogue.ids() == ["good", "later"]
    (Path(store.uri) / "good" / "_manifest.json").write_text("{}")
    assert catalogue.ids() == ["later"]
    store.delete_set(find_adapter(store, "later"))
    assert catalogue.ids() == []


def test_a_manifest_that_has_not_changed_is_read_once_for_all_lists(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = Catalogue(store)
    catalogue.ids()
    monkeypatch.setattr("stages.models.adapter.find_adapter", None)
    assert catalogue.ids() == ["good"]


@pytest.mark.parametrize("harm", ["link", "path", "cut"])
def test_a_set_that_cannot_be_read_leaves_the_list_of_others_as_it_is(harm: str, store: Store, tmp_path: Path) -> None:
    manifest = Path(store.uri) / "other" / "_manifest.json"
    if harm == "link":
        manifest.rename(tmp_path / "outside.json")
        manifest.symlink_to(tmp_path / "outside.json")
    elif harm == "path":
        values = {name: value for name, value in json.loads(manifest.read_text()).items() if name != "self_sha256"}
        files = [FileEntry.model_validate({**values["files"][0], "path": "../x"})]
        write_state(manifest, {**values, "files": [files[0].model_dump()], "sha256": digest_files(files)})
    else:
        manifest.write_text("{")
    assert Catalogue(store).ids() == ["good"]


@pytest.mark.parametrize("name", ["../good", "..", ".", "a/b", "", "good/", "a\\b", "-x", "a:b", "x" * 200])
def test_refuses_adapter_ids_that_are_not_a_plain_name(store: Store, name: str) -> None:
    with pytest.raises(AdapterNotFoundError):
        checked_adapter_id(name)
    with pytest.raises(AdapterNotFoundError):
        find_adapter(store, name)


def test_an_adapter_that_leaves_the_store_is_served_no_more(store: Store) -> None:
    artifact = find_adapter(store, "good")
    store.delete_set(artifact)
    assert Catalogue(store).ids() == []
    with pytest.raises(AdapterNotFoundError):
        find_adapter(store, "good")


@pytest.mark.parametrize("name", ["half", "other", "missing"])
def test_refuses_adapters_that_are_not_complete(store: Store, name: str) -> None:
    with pytest.raises(AdapterNotFoundError):
        find_adapter(store, name)


def test_an_adapter_of_another_base_model_of_the_same_name_is_not_served(store: Store, tmp_path: Path) -> None:
    (tmp_path / "made" / "adapter_config.json").write_text("{}")
    meta = Adapter("of-a", "", "", 8, "a/m").meta()
    made = scan_folder("adapter", tmp_path / "made").model_copy(update={"meta": meta})
    store.publish(made, "of-a", "adapter")
    assert find_adapter(store, "of-a", "a/m").sha256 == made.sha256
    with pytest.raises(AdapterNotFoundError, match="was trained on a/m, and this is b/m"):
        find_adapter(store, "of-a", "b/m")
    with pytest.raises(AdapterNotFoundError, match="was trained on a/m"):
        fetch_adapter(store, "of-a", tmp_path / "cache", "b/m")


def test_fetches_an_adapter_into_a_folder_named_after_its_digest(store: Store, tmp_path: Path) -> None:
    folder = fetch_adapter(store, "good", tmp_path / "cache")
    assert folder.name == find_adapter(store, "good").sha256
    assert (folder / "adapter_model.safetensors").read_bytes() == b"weights"
    assert fetch_adapter(store, "good", tmp_path / "cache") == folder


def test_an_adapter_that_was_damaged_on_the_node_is_fetched_again(store: Store, tmp_path: Path) -> None:
    weights = fetch_adapter(store, "good", tmp_path / "cache") / "adapter_model.safetensors"
    weights.write_bytes(b"weight")
    fetch_adapter(store, "good", tmp_path / "cache")
    assert weights.read_bytes() == b"weights"


def test_a_damaged_adapter_is_not_loaded(store: Store, tmp_path: Path) -> None:
    (Path(store.uri) / "good" / "adapter_model.safetensors").write_bytes(b"WEIGHTS")
    with pytest.raises(RunnerError, match=r"adapter_model\.safetensors"):
        fetch_adapter(store, "good", tmp_path / "cache")


def test_serves_the_adapter_that_was_evaluated(quickstart: Recipe, store: Store, tmp_path: Path) -> None:
    adapter = published(store)
    inputs = {"adapter": adapter, "scores": scores_of(adapter.sha256, tmp_path / "scores")}
    found = own_adapter(context(quickstart, inputs, tmp_path))
    assert found == Adapter.of(adapter)
    assert found.store == store.uri


@pytest.mark.parametrize("scored", ["0" * 64, None])
def test_refuses_an_adapter_that_was_not_evaluated(
    quickstart: Recipe, store: Store, tmp_path: Path, scored: str | None
) -> None:
    inputs = {"adapter": published(store), "scores": scores_of(scored, tmp_path / "scores")}
    with pytest.raises(RunnerError, match="is not the one that it evaluated"):
        own_adapter(context(quickstart, inputs, tmp_path))


def test_refuses_a_store_that_holds_another_adapter(quickstart: Recipe, store: Store, tmp_path: Path) -> None:
    adapter = published(store).model_copy(update={"sha256": "f" * 64})
    with pytest.raises(RunnerError, match="holds another adapter"):
        own_adapter(context(quickstart, {"adapter": adapter}, tmp_path))


def test_what_the_gate_refused_is_not_served(quickstart: Recipe, store: Store, tmp_path: Path) -> None:
    adapter, refused = published(store), Verdict(False, ("exact_match is 0.1; >= 0.5 is required",))
    for inputs in ({"adapter": adapter}, {}):
        scores = scores_of(adapter.sha256, tmp_path / f"scores-{len(inputs)}", refused)
        with pytest.raises(GateError, match=r"exact_match is 0\.1"):
            own_adapter(context(quickstart, {**inputs, "scores": scores}, tmp_path))


def test_banner_has_url_names_and_a_curl_line_that_a_shell_can_read() -> None:
    endpoint = Endpoint("http://127.0.0.1:8000/v1", "base", "base:a-1", sampling={"temperature": 0.0})
    assert Endpoint.of(endpoint.artifact("x")) == endpoint
    lines = endpoint.usage({"messages": [{"role": "user", "content": "it's {a}"}]}).splitlines()
    assert "http://127.0.0.1:8000/v1" in lines[0]
    assert "base, base:a-1" in lines[1]
    words = shlex.split(lines[2])
    assert words[:3] == ["curl", "-s", "http://127.0.0.1:8000/v1/chat/completions"]
    assert json.loads(words[-1]) == {
        "model": "base:a-1", "messages": [{"role": "user", "content": "it's {a}"}], "temperature": 0.0,
    }  # fmt: skip


def test_the_curl_line_asks_a_row_as_training_learns_it(quickstart: Recipe, tmp_path: Path) -> None:
    asked: list[Message] = [{"role": "system", "content": "Answer with one label."}, {"role": "user", "content": "Ü?"}]
    long: list[Message] = [{"role": "user", "content": "x" * 5000}]
    tools = [{"type": "function", "function": {"name": "stock"}}]
    answer: Message = {"role": "assistant", "content": "billing"}
    rows = [Example("a", [*long, answer]), Example("b", [*asked, answer], tools=tools)]
    (tmp_path / "test_set").mkdir()
    write_examples(tmp_path / "test_set" / "test.jsonl", [*rows, Example("c", [*asked[1:], answer], images=["data:"])])
    test_set = scan_folder("test_set", tmp_path / "test_set")
    endpoint = Endpoint("http://127.0.0.1:8000/v1", "base").artifact("x")
    line = Serve().usage(quickstart, {"endpoint": endpoint, "test_set": test_set}).splitlines()[2]
    assert json.loads(shlex.split(line)[-1]) == {"model": "base", "messages": asked, "tools": tools}
    only = Serve().usage(quickstart, {"endpoint": endpoint, "test_set": test_set.model_copy(update={"uri": "s3://b"})})
    assert "Hello" in only


def test_banner_of_an_endpoint_with_keys_has_a_place_for_one() -> None:
    endpoint = Endpoint("http://127.0.0.1:8000/v1", "base", asks_for_key=True)
    words = shlex.split(endpoint.usage(HELLO).splitlines()[2])
    assert words[3:5] == ["-H", "Authorization: Bearer $API_KEY"]


def test_replicas_are_told_of_keys_without_any(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYS", "a-good-key-0123456789")
    overrides = [f"serve.api_keys.file={tmp_path}/keys", "serve.api_keys.env=KEYS", "serve.limits.max_n=5"]
    guard = api_settings(recipe_of("viggo_quickstart", *overrides), None)["guard"]
    assert guard["keys"] == {"file": f"{tmp_path}/keys", "digests": [digest("a-good-key-0123456789")]}
    assert guard["limits"]["max_n"] == 5
    assert api_settings(recipe_of("viggo_quickstart"), None)["guard"]["keys"] is None


def test_a_taken_port_is_named_with_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "process" in holder_of(port)
        with pytest.raises(RunnerError, match=rf"serve\.port={port} .*held by .*\(process \d+\)") as caught:
            free_port("127.0.0.1", port)
    assert "serve.port" in caught.value.hint


def test_port_zero_takes_a_free_one() -> None:
    assert free_port("127.0.0.1", 0) > 0


class Clock:
    """A progress handle that keeps what it was told."""

    def __init__(self) -> None:
        self.states: list[str] = []

    def update(self, done: float, total: float | None, unit: str, **figures: Any) -> None:
        self.states.append(figures["state"])


def app(status: str, message: str = "", deployment_status: str = "UPDATING") -> SimpleNamespace:
    each = SimpleNamespace(status=deployment_status, message=message)
    return SimpleNamespace(status=status, message="", deployments={"AdapterServer:base": each})


def test_waits_until_the_application_runs() -> None:
    answers = iter([None, app("DEPLOYING"), app("RUNNING", deployment_status="HEALTHY")])
    clock = Clock()
    wait_until_running(lambda: next(answers), 10, clock, server_hint, poll_s=0)  # type: ignore[arg-type]
    assert clock.states == ["deploying", "starting the engine"]


def test_what_the_engine_does_while_it_starts_is_shown() -> None:
    answers = iter([app("DEPLOYING"), app("DEPLOYING"), app("RUNNING", deployment_status="HEALTHY")])
    does, clock = iter(["", "loading the weights"]), Clock()
    wait_until_running(lambda: next(answers), 10, clock, server_hint, poll_s=0, engine=lambda: next(does))  # type: ignore[arg-type]
    assert clock.states == ["starting the engine", "starting the engine: loading the weights"]


def test_failure_gives_the_root_cause_of_the_traceback() -> None:
    message = (
        "The deployment failed to start 1 times in a row. Error:\n\x1b[36mray::ServeReplica()\x1b[39m\n"
        "Traceback (most recent call last):\n  File \"x.py\", line 1, in f\n    raise ValueError('x')\n"
        "ValueError: Unknown engine argument: max_modellen"
    )
    with pytest.raises(RunnerError, match=r"did not start: ValueError: Unknown engine argument: max_modellen$"):
        wait_until_running(lambda: app("DEPLOY_FAILED", message), 10, Clock(), server_hint)  # type: ignore[arg-type]


def test_timeout_says_what_resources_are_lacking() -> None:
    message = (
        "Deployment has 1 replicas that have taken more than 30s to be scheduled. Resources required for each "
        "replica: [{'GPU': 1.0}], total resources available: {'CPU': 2.0}. Use `ray status` for more details."
    )
    with pytest.raises(RunnerError, match=r"waiting to be placed; resources required .*'GPU': 1.0.*'CPU': 2.0}$"):
        wait_until_running(lambda: app("DEPLOYING", message), 0, Clock(), server_hint)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("Traceback\n  File\nRuntimeError: Engine died", "RuntimeError: Engine died"),
        ("a.b.OutOfMemoryError: CUDA out of memory", "a.b.OutOfMemoryError: CUDA out of memory"),
        (
            "x.ValidationError: 1 validation error for ModelConfig\n  Value error, long\n    For further information",
            "x.ValidationError: 1 validation error for ModelConfig Value error, long",
        ),
        (
            "(EngineCore pid=7) ERROR 11-23 14:35:33 [core.py:9] ValueError: Available memory\n"
            "\x1b[36m(EngineCore pid=7) RuntimeError: Engine core initialization failed. See root cause above.",
            "ValueError: Available memory",
        ),
        ("RuntimeError: Engine core initialization failed.", "RuntimeError: Engine core initialization failed."),
        ("nothing of the kind: at all", ""),
        ("", ""),
    ],
)
def test_root_cause(text: str, cause: str) -> None:
    assert root_cause(text) == cause


def test_error_message_of_an_openai_body() -> None:
    assert error_message(b'{"error": {"message": "no such model"}}') == "no such model"
    assert error_message(b"<html>") == "<html>"


def test_an_adapter_that_was_found_is_not_looked_for_again_for_a_moment() -> None:
    clock = [100.0]
    recent = Recent(2.0, lambda: clock[0])
    assert "good" not in recent
    recent.add("good")
    clock[0] += 1.9
    assert "good" in recent
    assert "other" not in recent
    clock[0] += 0.2
    assert "good" not in recent


@pytest.mark.parametrize(
    ("overrides", "itself"),
    [
        ((), True),
        (("+serve.engine_kwargs.tensor_parallel_size=2",), False),
        (("resources.serve.gpus_per_worker=0.5",), True),
        (("+serve.deployment.ray_actor_options={num_cpus: 1}",), False),
        (("cluster=local_cpu",), False),
    ],
)
def test_a_replica_with_one_gpu_or_less_takes_it_itself_and_any_other_leaves_it_to_its_engines_workers(
    overrides: tuple[str, ...], itself: bool
) -> None:
    recipe, _ = to_recipe(compose(["recipe=viggo_qwen7b", "storage=local", *overrides]))
    config = llm_config(recipe, "/model", None, {})
    bundle = config["placement_group_config"]["bundle_per_worker"]
    share = recipe.resources_of("serve").gpus_per_worker
    assert config["deployment_config"]["ray_actor_options"].get("num_gpus", 0) == (share if itself else 0)
    assert bundle.get("GPU", 0) == (0 if itself else share)
    in_replica = "cpu" if recipe.cluster.accelerator == "cpu" else "gpu" if itself else None
    assert engine_env(recipe).get(ENGINE_IN_REPLICA) == in_replica


def test_an_engine_of_several_ranks_on_cpus_is_not_forked() -> None:
    recipe, _ = to_recipe(compose(["recipe=viggo_quickstart", "+serve.engine_kwargs.tensor_parallel_size=2"]))
    assert ENGINE_IN_REPLICA not in engine_env(recipe)
