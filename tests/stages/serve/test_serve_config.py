"""The Ray Serve config of a recipe: what replaces replicas, and what does not."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from runner.cluster import environments
from runner.errors import RunnerError
from runner.recipe.load import compose, to_recipe
from runner.testing import assert_golden
from stages.engines.vllm.serving.server import llm_config
from stages.sections.recipe import Recipe
from stages.serve.config import IMPORT_PATH, api_settings, application, build_app, serve_config
from tests.paths import GOLDEN

STORE = "/store/adapters/base"


def config_of(*overrides: str, **arguments: Any) -> dict[str, Any]:
    recipe = to_recipe(compose(["recipe=viggo_quickstart", *overrides]))[0]
    return serve_config(recipe, "/models/smollm2", STORE, **arguments)


def args_of(*overrides: str, **arguments: Any) -> Any:
    return config_of(*overrides, **arguments)["applications"][0]["args"]


def deployments_of(*overrides: str, **arguments: Any) -> list[Any]:
    listed: list[Any] = config_of(*overrides, **arguments)["applications"][0]["deployments"]
    return listed


@pytest.mark.usefixtures("one_kind_of_cpu")
def test_quickstart_config_is_the_golden_one() -> None:
    config = config_of(served=["a"], env={"OMP_NUM_THREADS": "2"})
    args = config["applications"][0]["args"]
    assert args.pop("libraries").keys() == {"ray", "recipe-runner"}
    lock = environments.digest(environments.lock_file("engine", "cpu"))
    assert args["llm_config"]["experimental_configs"]["environment"].pop("lock") == lock
    assert_golden(config, GOLDEN / "serve_config_viggo_quickstart.json")


def test_config_is_made_of_json_values() -> None:
    config = config_of(served=["a"])
    assert json.loads(json.dumps(config)) == config


def test_another_adapter_scaling_or_draining_replaces_no_replica() -> None:
    first = args_of(served=["a"])
    assert args_of("serve.autoscaling.max_replicas=3", "serve.request_timeout_s=5", served=["b", "a"]) == first
    (server,) = deployments_of("serve.autoscaling.max_replicas=3", "serve.request_timeout_s=5", served=["b", "a"])
    assert server["autoscaling_config"]["max_replicas"] == 3
    assert server["graceful_shutdown_timeout_s"] == 5
    assert server["user_config"]["only"] == ["b", "a"]


@pytest.mark.parametrize("override", ["+serve.engine_kwargs.max_model_len=256", "resources.serve.cpus_per_worker=1"])
def test_what_a_replica_is_made_of_replaces_it(override: str) -> None:
    assert args_of(override) != args_of()


def test_base_model_alone_has_no_adapter_store(quickstart: Recipe) -> None:
    app = application(quickstart, "/models/smollm2", None)
    assert "adapter_store" not in app["args"]["llm_config"]["experimental_configs"]
    assert api_settings(quickstart, None)["only"] is None


def test_code_of_the_runtime_env_is_for_the_whole_application() -> None:
    env = "+resources.serve.runtime_env={working_dir: 's3://b/code.zip', env_vars: {A: b}}"
    assert config_of(env)["applications"][0]["runtime_env"] == {"working_dir": "s3://b/code.zip"}


def test_port_must_be_named() -> None:
    with pytest.raises(RunnerError, match=r"serve\.port=0"):
        config_of("serve.port=0")


@pytest.mark.e2e
@pytest.mark.environment("engine")
@pytest.mark.filterwarnings("ignore")
def test_ray_serve_loads_the_config() -> None:
    from ray.llm._internal.serve.core.server.builder import DEFAULT_DEPLOYMENT_OPTIONS
    from ray.serve.schema import ServeDeploySchema

    found = ServeDeploySchema.model_validate(config_of(served=["a"]))
    app = found.applications[0]
    assert app.import_path == IMPORT_PATH
    scaling = app.deployments[0].autoscaling_config
    assert isinstance(scaling, dict)
    target = DEFAULT_DEPLOYMENT_OPTIONS["autoscaling_config"]["target_ongoing_requests"]
    assert scaling["target_ongoing_requests"] == target


@pytest.mark.e2e
@pytest.mark.filterwarnings("ignore")
def test_application_is_built_of_what_a_config_file_says() -> None:
    deployment = build_app(json.loads(json.dumps(args_of(served=["a"]))))._bound_deployment
    (built,) = deployments_of(served=["a"])
    assert deployment.name == built["name"]
    assert deployment._deployment_config.autoscaling_config.target_ongoing_requests == 1_000_000_000


@pytest.mark.e2e
@pytest.mark.filterwarnings("ignore")
def test_number_of_replicas_and_autoscaling_exclude_each_other(quickstart: Recipe) -> None:
    config = llm_config(quickstart, "/models/base", None, {})
    config["deployment_config"]["num_replicas"] = 2
    with pytest.raises(RunnerError, match="num_replicas is not allowed"):
        build_app({"llm_config": config})


@pytest.mark.e2e
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "overrides",
    [
        ["recipe=viggo_quickstart"],
        ["recipe=viggo_qwen7b", "cluster=local_gpu", "storage=local"],
        [
            "recipe=viggo_qwen7b", "storage=local", "+serve.engine_kwargs.tensor_parallel_size=2",
            "resources.serve.accelerator_type=A10G", "+serve.deployment.max_ongoing_requests=64",
        ],
    ],
)  # fmt: skip
@pytest.mark.environment("engine")
def test_deployment_is_as_ray_serve_llm_makes_it(overrides: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray.serve.llm import LLMConfig, build_llm_deployment

    # Theirs would start a cluster to learn that it gives no runtime_env.
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(runtime_env={}))
    config = llm_config(to_recipe(compose(overrides))[0], "/models/base", STORE, {"A": "b"})
    ours = build_app({"llm_config": config})._bound_deployment
    theirs = build_llm_deployment(LLMConfig(**config), name_prefix="AdapterServer:")._bound_deployment
    assert ours.name == theirs.name
    assert ours._deployment_config.model_dump() == theirs._deployment_config.model_dump()
    for field in ("placement_group_bundles", "placement_group_strategy", "max_replicas_per_node"):
        assert getattr(ours._replica_config, field) == getattr(theirs._replica_config, field)
    actor, other = ours._replica_config.ray_actor_options, theirs._replica_config.ray_actor_options
    other["runtime_env"].pop("worker_process_setup_hook")  # which does nothing
    assert actor == other
