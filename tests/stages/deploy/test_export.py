"""Exported files: each is what its tool takes, names no secret, and is never put in the place of an edited one."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from runner.cli.main import main
from runner.errors import EXIT_DONE, EXIT_INVALID_RECIPE, RunnerError
from runner.recipe.load import compose, to_recipe
from stages.deploy.export import TARGETS, files_of, write_files
from stages.deploy.export.facts import Facts, task_overrides
from stages.deploy.export.own_paths import portable_env
from stages.serve.config import serve_config
from tests.paths import TESTS

CANARY = "canary-7f3a91c2d4e5b6a7988f0123456789ab"
SCHEMAS = TESTS / "schemas"
QWEN = ("recipe=viggo_qwen7b", "storage.artifacts=s3://bucket/prefix", "train.lora_rank=16")
# JobConfig and ServiceConfig of the package anyscale 0.26.112.
ANYSCALE_COMMON = {
    "name", "image_uri", "containerfile", "compute_config", "working_dir", "excludes", "requirements", "env_vars",
    "py_modules", "py_executable", "cloud", "project", "registry_login_secret", "ray_version", "connections",
}  # fmt: skip
ANYSCALE = {
    "job.yaml": ANYSCALE_COMMON | {"entrypoint", "max_retries", "job_queue_config", "timeout_s", "tags", "priority"},
    "service.yaml": ANYSCALE_COMMON
    | {"applications", "version_name", "query_auth_token_enabled", "http_options", "grpc_options", "logging_config",
       "proxy_location", "ray_gcs_external_storage_config", "tracing_config", "tags"},
}  # fmt: skip


def facts_of(*overrides: str, serve: bool = True) -> Facts:
    recipe = to_recipe(compose([*overrides]))[0]
    config = serve_config(recipe, "/runs/m", "s3://b/adapters/m", served=["a-1"], env={"A": "1"}) if serve else None
    return Facts(recipe, task_overrides(overrides), "registry/recipe-runner:1", config)


@pytest.fixture(scope="module")
def qwen() -> Iterator[Facts]:
    """With a secret in the environment under every name that the runner or its libraries read."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "RAY_AUTH_TOKEN", "KEYS"):
            patch.setenv(name, CANARY)
        yield facts_of(*QWEN, "serve.host=0.0.0.0", "serve.api_keys.env=KEYS")


def closed(node: Any) -> Any:
    """The schema as the API server's strict validation reads it: no field that it does not name."""
    if isinstance(node, list):
        return [closed(each) for each in node]
    if not isinstance(node, dict):
        return node
    open_ = node.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in node
    found = {key: closed(value) for key, value in node.items()}
    if isinstance(node.get("properties"), dict) and node.get("type") == "object" and not open_:
        found["additionalProperties"] = False
    return found


def files(target: str, facts: Facts) -> dict[str, Any]:
    return {name: yaml.safe_load(text) for name, text in TARGETS[target](facts).items()}


@pytest.mark.parametrize("name", ["rayjobs", "rayservices"])
def test_kuberay_takes_the_job_and_the_service(qwen: Facts, name: str) -> None:
    schemas = json.loads((SCHEMAS / "kuberay.json").read_text())
    made = files("kuberay", qwen)[f"{name.removesuffix('s')}.yaml"]
    schema = closed({**schemas[name], "$defs": schemas["$defs"]})
    schema["properties"]["metadata"] = {"type": "object"}
    jsonschema.validate(made, schema)
    made["spec"]["misspelled"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(made, schema)


def test_the_job_runs_the_same_recipe_on_as_many_gpus(qwen: Facts) -> None:
    spec = files("kuberay", qwen)["rayjob.yaml"]["spec"]
    assert shlex.split(spec["entrypoint"])[3:] == [
        *QWEN,
        "serve.host=0.0.0.0",
        "serve.api_keys.env=KEYS",
        "cluster.address=auto",
    ]
    group = spec["rayClusterSpec"]["workerGroupSpecs"][0]
    container = group["template"]["spec"]["containers"][0]
    assert (group["replicas"], container["resources"]["limits"]) == (4, {"cpu": "4", "nvidia.com/gpu": "1"})
    assert container["envFrom"] == [{"secretRef": {"name": "recipe-runner", "optional": True}}]


def test_the_command_is_as_it_was_given_with_the_folder_of_the_users_recipes() -> None:
    given = task_overrides(["recipe=a", "++train.lora_rank=4", "++export_to=x", "action=export", "target=ci"])
    facts = Facts(facts_of(*QWEN, serve=False).recipe, given, "image", config_dir="mine")
    (text,) = TARGETS["ray-job"](facts).values()
    assert "-- python -m runner --config-dir mine recipe=a train.lora_rank=4 cluster.address=auto\n" in text


@pytest.mark.parametrize("target", ["ray-job", "ci"])
def test_a_job_whose_results_go_with_its_folder_says_so(target: str) -> None:
    def text(*overrides: str) -> str:
        recipe = to_recipe(compose(["recipe=viggo_quickstart", *overrides]))[0]
        (made,) = TARGETS[target](Facts(recipe, overrides, "image")).values()
        return made

    assert "# storage.artifacts=runs/artifacts is below the job's temporary folder" in text()
    assert "temporary folder" not in text("storage.root=/shared/runs")
    assert "temporary folder" not in text("storage.artifacts=s3://bucket/store")


def test_a_service_on_loopback_is_refused() -> None:
    with pytest.raises(RunnerError, match=r"127\.0\.0\.1 cannot be reached"):
        TARGETS["kuberay"](facts_of(*QWEN))


@pytest.mark.parametrize("target", ["serve-config", "kuberay", "anyscale"])
def test_ray_serve_reads_the_config(qwen: Facts, target: str) -> None:
    made = files(target, qwen)
    config = {
        "serve-config": lambda: made["serve.yaml"],
        "kuberay": lambda: yaml.safe_load(made["rayservice.yaml"]["spec"]["serveConfigV2"]),
        "anyscale": lambda: {"applications": made["service.yaml"]["applications"]},
    }[target]()
    assert config["applications"] == qwen.serve["applications"]  # type: ignore[index]


@pytest.mark.e2e
@pytest.mark.filterwarnings("ignore")
def test_ray_serves_own_schema_takes_the_config(qwen: Facts) -> None:
    from ray.serve.schema import ServeDeploySchema

    ServeDeploySchema.model_validate(files("serve-config", qwen)["serve.yaml"])
    ServeDeploySchema.model_validate(yaml.safe_load(files("kuberay", qwen)["rayservice.yaml"]["spec"]["serveConfigV2"]))


def test_anyscale_knows_every_field(qwen: Facts) -> None:
    for name, values in files("anyscale", qwen).items():
        assert set(values) <= ANYSCALE[name]


@pytest.mark.parametrize(("target", "schema"), [("compose", "compose-spec"), ("ci", "github-workflows")])
@pytest.mark.parametrize("recipe", ["recipe=viggo_quickstart", "recipe=viggo_qwen7b"])
def test_compose_and_workflow_are_valid(target: str, schema: str, recipe: str) -> None:
    facts = facts_of(recipe, "storage.artifacts=s3://bucket/prefix", serve=False)
    for name, text in TARGETS[target](facts).items():
        values = (
            yaml.load(text, yaml.BaseLoader) if target == "ci" else yaml.safe_load(text)
        )  # YAML 1.1 reads on as true
        if target == "ci":
            assert name == f".github/workflows/{facts.name}.yml"
            for job in values["jobs"].values():
                job["timeout-minutes"] = int(job["timeout-minutes"])
            values["jobs"]["run"]["concurrency"]["cancel-in-progress"] = False
        jsonschema.validate(values, json.loads((SCHEMAS / f"{schema}.json").read_text()))


def test_the_shell_reads_the_job_script(qwen: Facts) -> None:
    (text,) = TARGETS["ray-job"](qwen).values()
    code = text.replace("exec ray", "printf '%s\\n'")
    done = subprocess.run(["sh", "-c", code], capture_output=True, text=True, env={"RAY_ADDRESS": "http://h:8265"})
    words = done.stdout.splitlines()
    assert words[:4] == ["job", "submit", "--address", "http://h:8265"]
    assert words[words.index("--") + 1 :][:4] == ["python", "-m", "runner", "recipe=viggo_qwen7b"]
    assert subprocess.run(["sh", "-c", code], capture_output=True, env={}).returncode != 0


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_no_secret_of_the_environment_is_written(qwen: Facts, target: str) -> None:
    text = "".join(TARGETS[target](qwen).values())
    assert "viggo" in text
    assert CANARY not in text


def test_an_edited_file_is_never_overwritten(tmp_path: Path) -> None:
    first = write_files({"a/x.yaml": "a: 1\n", "b.yaml": "b: 1\n"}, tmp_path)
    assert first == [f"wrote {tmp_path}/a/x.yaml", f"wrote {tmp_path}/b.yaml"]
    second = write_files({"a/x.yaml": "a: 2\n", "b.yaml": "b: 1\n"}, tmp_path)
    assert second == [f"replaced {tmp_path}/a/x.yaml", f"same {tmp_path}/b.yaml"]
    (tmp_path / "b.yaml").write_text((tmp_path / "b.yaml").read_text().replace("b: 1", "b: 3"))
    with pytest.raises(RunnerError, match="was edited"):
        write_files({"a/x.yaml": "a: 4\n", "b.yaml": "b: 2\n"}, tmp_path)
    assert yaml.safe_load((tmp_path / "a/x.yaml").read_text()) == {"a": 2}


def test_the_verb_writes_files_and_says_which(
    fake_stages: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = ["recipe=viggo_quickstart", "action=export"]
    assert main([*wanted, "target=ci", f"export_to={tmp_path}/out"]) == EXIT_DONE
    assert capsys.readouterr().out == f"wrote {tmp_path}/out/.github/workflows/viggo-quickstart.yml\n"
    assert main([*wanted, "target=serve-config", f"export_to={tmp_path}/out"]) == EXIT_INVALID_RECIPE
    assert "no finished run of viggo_quickstart has made its model and adapter" in capsys.readouterr().err
    assert main(wanted) != EXIT_DONE
    assert "Add target=NAME: ray-job, serve-config" in capsys.readouterr().err


def machine_paths(target: str, *overrides: str, model: str = "/runs/m", config_dir: str | None = None) -> Facts:
    recipe = to_recipe(compose([*QWEN, "serve.host=0.0.0.0", "serve.api_keys.env=KEYS", *overrides]))[0]
    config = serve_config(recipe, model, "s3://b/adapters/m", served=["a-1"])
    return Facts(recipe, task_overrides([*QWEN, *overrides]), "image", config, config_dir)


@pytest.mark.parametrize("target", ["kuberay", "serve-config", "anyscale"])
def test_a_model_below_the_home_of_this_machine_is_refused_with_what_to_do(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYS", CANARY)
    with pytest.raises(RunnerError, match="names a path of this machine") as raised:
        files_of(target, machine_paths(target, model=str(Path.home() / ".cache/models/m")))
    assert "storage.root=" in raised.value.hint


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_no_file_holds_a_path_of_this_machine(target: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KEYS", CANARY)
    text = "".join(files_of(target, machine_paths(target, config_dir="mine")).values())
    for folder in (Path.home(), Path.cwd(), Path(sys.prefix), tmp_path):
        assert f"{folder}/" not in text
    for override in (f"dataset.source={tmp_path}/rows", f"storage.root={Path.cwd()}/runs"):
        with pytest.raises(RunnerError, match="the command line names a path of this machine"):
            files_of(target, machine_paths(target, override))
    with pytest.raises(RunnerError, match="--config-dir names a path"):
        files_of(target, machine_paths(target, config_dir=str(tmp_path)))


def test_variables_that_name_files_of_this_environment_are_not_exported() -> None:
    env = {"LD_PRELOAD": f"{sys.prefix}/lib/libiomp5.so", "OMP_NUM_THREADS": "2"}
    assert portable_env(env) == {"OMP_NUM_THREADS": "2"}


def test_the_workflows_steps_run_in_a_repository_of_recipes_alone(tmp_path: Path) -> None:
    """Every step of the job that validates, by a shell; pip finds what it installs to be there already."""
    for name in ("one", "two"):
        (tmp_path / "mine/recipe").mkdir(parents=True, exist_ok=True)
        text = f"# @package _global_\ndefaults: [viggo_quickstart]\nname: {name}\n"
        (tmp_path / f"mine/recipe/{name}.yaml").write_text(text)
    facts = Facts(facts_of(*QWEN, serve=False).recipe, ("recipe=one",), "image", config_dir="mine")
    (text,) = TARGETS["ci"](facts).values()
    steps = [each["run"] for each in yaml.safe_load(text)["jobs"]["validate"]["steps"] if "run" in each]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {
        **os.environ,
        "PATH": path,
        "RECIPE_RUNNER": "recipe-runner",
        "PIP_NO_INDEX": "1",
        "PYTHONPATH": str(TESTS.parent),
    }
    for step in steps:
        done = subprocess.run(["sh", "-ec", step], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert len(steps) == 3
    (tmp_path / "mine/recipe/two.yaml").write_text("# @package _global_\ndefaults: [viggo_quickstart]\nsseed: 1\n")
    broken = subprocess.run(["sh", "-ec", steps[2]], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert broken.returncode == 1
    assert "sseed" in broken.stderr


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("data/tickets.csv", ["data/tickets.csv"]),
        ("data", ["data/**"]),
        ("data/*.jsonl", ["data/*.jsonl"]),
        ("s3://bucket/rows", []),
        ("/elsewhere/rows.csv", []),
        ("../rows.csv", []),
    ],
)
def test_the_workflow_runs_when_the_data_of_the_repository_changes(
    source: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    recipe = facts_of(*QWEN, serve=False).recipe
    changed = recipe.model_copy(update={"dataset": recipe.dataset.model_copy(update={"source": source})})
    (text,) = TARGETS["ci"](Facts(changed, QWEN, "image", config_dir="mine")).values()
    events = yaml.safe_load(text)["on"]
    for event in ("pull_request", "push"):
        assert events[event]["paths"][1:-1] == ["tests/**", "**/test_*.py", *expected]


@pytest.mark.parametrize("target", ["kuberay", "anyscale"])
def test_a_file_of_keys_that_no_container_has_is_refused(target: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(CANARY)
    recipe = to_recipe(compose([*QWEN, f"serve.api_keys.file={keys}"]))[0]
    config = serve_config(recipe, "/runs/m", "s3://b/adapters/m", served=["a-1"])
    with pytest.raises(RunnerError, match="is a file that no container") as raised:
        files_of(target, Facts(recipe, QWEN, "image", config))
    assert "serve.api_keys.env" in raised.value.hint


@pytest.mark.parametrize(
    ("name", "shown"), [("__", "recipe"), ("1.5", "recipe-1-5"), ("A_b", "a-b"), (f"{'a' * 39}-b", "a" * 39)]
)
def test_a_name_that_a_service_cannot_have_is_changed_to_one_that_it_can(name: str, shown: str) -> None:
    assert facts_of("recipe=viggo_quickstart", f"name='{name}'", serve=False).name == shown


@pytest.mark.parametrize("config_dir", ["/opt/recipes", "../recipes", "mine/../../recipes"])
def test_a_workflow_names_nothing_outside_its_repository(config_dir: str) -> None:
    facts = facts_of("recipe=viggo_quickstart", serve=False)
    with pytest.raises(RunnerError, match="is not in the repository that the workflow checks out"):
        TARGETS["ci"](replace(facts, config_dir=config_dir))
    with pytest.raises(RunnerError, match="is not in the repository that the workflow checks out"):
        TARGETS["ci"](replace(facts, overrides=(f"recipe={config_dir}/recipe/a.yaml",)))


def test_a_workflow_of_recipes_at_the_top_of_a_repository_watches_its_files() -> None:
    """GitHub matches no file with a pattern that begins with `./`."""
    (text,) = TARGETS["ci"](replace(facts_of("recipe=viggo_quickstart", serve=False), config_dir=".")).values()
    assert yaml.safe_load(text)["on"]["push"]["paths"][0] == "**"


def test_a_folder_that_cannot_be_written_is_reported_by_its_own_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    words = ["export", "recipe=viggo_quickstart", "target=ci", f"export_to={tmp_path}/file"]
    assert main(words) == EXIT_INVALID_RECIPE
    shown = capsys.readouterr().err
    assert f"{tmp_path}/file" in shown
    assert "export_to=FOLDER" in shown
    assert "storage.root" not in shown
