"""Ray's job command line, a Serve config, Anyscale, compose, and a CI workflow."""

from __future__ import annotations

import shlex
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

from runner.errors import UsageError
from stages.data.sources import scheme_of
from stages.deploy.export.facts import Facts
from stages.deploy.export.text import document
from stages.sections.recipe import Recipe

_RAY_TOKEN = "${RAY_AUTH_TOKEN:?openssl rand -hex 32}"  # noqa: S105 - compose reads the value from the environment
_STORE = "docker.io/minio/minio:RELEASE.2025-09-07T16-13-09Z"


def ray_job(facts: Facts) -> dict[str, str]:
    """ray-job.sh: `ray job submit`, to the cluster of RAY_ADDRESS."""
    command = facts.command("cluster.address=auto")
    return {
        "ray-job.sh": "#!/bin/sh\n# RAY_ADDRESS=http://head:8265 sh ray-job.sh\n"
        "# The cluster's nodes have the environments of containerfile, or those of requirements.\n"
        + "".join(f"# {line}\n" for line in gone_with_the_job(facts.recipe))
        + 'exec ray job submit --address "${RAY_ADDRESS:?http://head:8265}" '
        f'--metadata-json \'{{"recipe": "{facts.recipe.name}"}}\' -- {command}\n'
    }


def gone_with_the_job(recipe: Recipe) -> list[str]:
    """What the head of a job's file says where its results would go with its temporary folder; nothing elsewhere."""
    artifacts = recipe.storage.artifacts
    if "://" in artifacts or artifacts.startswith(("/", "~")):
        return []
    return [
        f"storage.artifacts={artifacts} is below the job's temporary folder, and goes with it. To keep it, export with",
        "storage.artifacts=s3://BUCKET/PREFIX and storage.root=/a/folder/that/all/nodes/see.",
    ]


def serve_config_file(facts: Facts) -> dict[str, str]:
    """serve.yaml, for `serve deploy`."""
    return {"serve.yaml": document("serve deploy serve.yaml", facts.serve)}


def anyscale(facts: Facts) -> dict[str, str]:
    """job.yaml and service.yaml; credentials come from the cloud's own role, so none are named."""
    assert facts.serve is not None
    job: dict[str, Any] = {
        "name": facts.name,
        "image_uri": facts.image,
        "entrypoint": facts.command("cluster.address=auto"),
        "max_retries": 2,
    }
    service = {
        "name": facts.name,
        "image_uri": facts.image,
        "query_auth_token_enabled": True,
        "applications": facts.serve["applications"],
    }
    note = "compute_config is the cloud's default unless it is added here; storage.root must be a folder all nodes see"
    return {
        "job.yaml": document(f"anyscale job submit --config-file job.yaml\n{note}", job),
        "service.yaml": document(f"anyscale service deploy --config-file service.yaml\n{note}", service),
    }


def compose(facts: Facts) -> dict[str, str]:
    """compose.yaml: head, workers, an S3 store, and the run as a job. Its keys come from the environment."""
    count, cpus, gpus = facts.workers()
    environment = _environment()
    node: dict[str, Any] = {
        "image": facts.image, "environment": environment, "volumes": [f"runs:{facts.root}"], "shm_size": "10gb",
    }  # fmt: skip
    worker = {
        **node,
        "entrypoint": ["ray", "start", "--block", "--address=head:6379", f"--num-cpus={cpus:g}"],
        "depends_on": ["head"],
        "deploy": {"replicas": count},
    }
    if gpus:
        device = {"driver": "nvidia", "count": max(1, int(gpus)), "capabilities": ["gpu"]}
        worker["deploy"]["resources"] = {"reservations": {"devices": [device]}}
    services = {
        "store": {
            "image": _STORE,
            "entrypoint": ["sh", "-c", "mkdir -p /data/artifacts && exec minio server /data"],
            "environment": {
                "MINIO_ROOT_USER": environment["AWS_ACCESS_KEY_ID"],
                "MINIO_ROOT_PASSWORD": environment["AWS_SECRET_ACCESS_KEY"],
            },
            "volumes": ["store:/data"],
        },
        "head": {
            **node,
            "entrypoint": ["ray", "start", "--head", "--block", "--num-cpus=2", "--port=6379"],
            "depends_on": ["store"],
        },
        "worker": worker,
        "run": {
            **node,
            "command": facts.arguments("cluster.address=head:6379"),
            "depends_on": ["head", "worker"],
            "network_mode": "service:head",  # a driver is a process of a node
            "pid": "service:head",
            "ipc": "service:head",
            "profiles": ["run"],
        },
    }
    del services["run"]["shm_size"]
    services["head"]["ipc"] = "shareable"
    services["run"]["volumes"] = [f"runs:{facts.root}", "session:/tmp/ray"]
    services["head"]["volumes"] = services["run"]["volumes"]
    values = {"name": facts.name, "services": services, "volumes": {"runs": {}, "store": {}, "session": {}}}
    how = (
        "STORE_USER=... STORE_PASSWORD=... RAY_AUTH_TOKEN=$(openssl rand -hex 32) docker compose up -d\n"
        "docker compose run --rm run        (the same three variables; they may be in a file .env)\n"
        "Nothing is published to the host. The recipe uses the store with storage=s3."
    )
    return {"compose.yaml": document(how, values)}


def _environment() -> dict[str, str]:
    """Of every node: the cluster's token and the store, from the environment of compose."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": _RAY_TOKEN,
        "AWS_ENDPOINT_URL": "http://store:9000",
        "AWS_ACCESS_KEY_ID": "${STORE_USER:?a name}",
        "AWS_SECRET_ACCESS_KEY": "${STORE_PASSWORD:?8 characters or more}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "ARTIFACT_URI": "s3://artifacts/recipes",
        "HF_TOKEN": "${HF_TOKEN:-}",
    }


def _data_paths(source: str) -> list[str]:
    """The data of a repository of its own, as path filters take it; nothing for data that is elsewhere."""
    path = PurePosixPath(source)
    if scheme_of(source) or path.is_absolute() or ".." in path.parts:
        return []
    return [f"{path}/**" if Path(source).is_dir() else str(path)]


def workflow(facts: Facts) -> dict[str, str]:
    """.github/workflows of a repository of recipes: all are tested and validated on pull requests that change them and
    every night, and the recipe runs as a Ray job when they are merged."""
    _in_the_repository(facts)
    folder = PurePosixPath(facts.config_dir) if facts.config_dir else None
    below = "**" if folder == PurePosixPath() else f"{folder}/**"
    paths = [below if folder else "**.yaml", "tests/**", "**/test_*.py", *_data_paths(facts.recipe.dataset.source)]
    paths.append(f".github/workflows/{facts.name}.yml")
    setup = [
        {"uses": "actions/checkout@v5"},
        {"uses": "actions/setup-python@v6", "with": {"python-version": "3.12"}},
        {"run": 'python -m pip install "${RECIPE_RUNNER:?a wheel or git+https://... of recipe-runner}" pytest'},
    ]
    submit = facts.command("cluster.address=auto")
    values = {
        "name": facts.name,
        "on": {
            "pull_request": {"paths": paths},
            "push": {"branches": ["main"], "paths": paths},
            "schedule": [{"cron": "17 3 * * *"}],
        },
        "permissions": {"contents": "read"},
        "env": {"RECIPE_RUNNER": "${{ vars.RECIPE_RUNNER }}", "ARTIFACT_URI": "s3://bucket/prefix"},
        "jobs": {
            "validate": {
                "runs-on": "ubuntu-latest",
                "timeout-minutes": 10,
                "steps": [*setup, {"run": _TESTS}, {"run": _validate_all(facts)}],
            },
            "run": {
                "if": "github.event_name == 'push'",
                "needs": "validate",
                "runs-on": "ubuntu-latest",
                "timeout-minutes": 360,
                "concurrency": {"group": facts.name, "cancel-in-progress": False},
                "env": {name: f"${{{{ secrets.{name} }}}}" for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN")},
                "steps": [
                    *setup[:2],
                    {"run": f"python -m pip install 'ray[default]=={version('ray')}'"},
                    {"run": f'RAY_AUTH_MODE=token ray job submit --address "$RAY_ADDRESS" --working-dir . -- {submit}'},
                ],
            },
        },
    }
    how = (
        "Variable of the repository: RECIPE_RUNNER, what pip installs (the URL of a wheel, or git+https://...).\n"
        "Secrets: RAY_ADDRESS and RAY_AUTH_TOKEN. The cluster has its own credentials for the store."
    )
    head = "\n".join([how, *gone_with_the_job(facts.recipe)])
    return {f".github/workflows/{facts.name}.yml": document(head, values)}


def _in_the_repository(facts: Facts) -> None:
    """Raise UsageError for a folder or a recipe file that a checkout of the repository does not have."""
    named = [("--config-dir", facts.config_dir or "")]
    named += [("recipe", text[7:]) for text in facts.overrides if text.startswith("recipe=") and "/" in text]
    for key, value in named:
        path = PurePosixPath(value.strip("'\""))
        if path.is_absolute() or ".." in path.parts:
            hint = "Give the command in the repository's top folder, with a path below it."
            raise UsageError(f"{key}={value} is not in the repository that the workflow checks out", hint)


# pytest ends with 5 where there are no tests.
_TESTS = "python -m pytest -q || [ $? -eq 5 ]"


def _validate_all(facts: Facts) -> str:
    """Validates every recipe of the folder; without a folder the named one."""
    if not facts.config_dir:
        return facts.command("action=validate")
    folder = shlex.quote(facts.config_dir)
    command = f'python -m runner --config-dir {folder} recipe="$(basename "$file" .yaml)" action=validate'
    return f"failed=0\nfor file in {folder}/recipe/*.yaml; do\n  {command} || failed=1\ndone\nexit $failed\n"
