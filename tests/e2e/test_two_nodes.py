"""A Ray cluster of two nodes on this machine: an exported job trains there, one worker on each node; then a run joins
the cluster through `cluster.address` and reuses the adapter.

The adapter has seen too few rows to know the form of an answer, so the recipe forces it, in batch and at the endpoint.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import Done, processes, run_recipe
from tests.paths import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]
FORM = r"(inform|request_attribute)\([a-z_]{1,12}\[[^\[\]]{1,16}\](, [a-z_]{1,12}\[[^\[\]]{1,16}\]){0,2}\)"
RAY = str(Path(sys.executable).with_name("ray"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# What both the job and the run that joins the cluster say of the recipe.
RECIPE = (
    "resources.train.num_workers=2",
    "resources.train.cpus_per_worker=1",
    "resources.train.placement_strategy=STRICT_SPREAD",
    "train.max_samples=32",
    "dataset.max_rows.test=4",
)


@dataclass(frozen=True)
class Nodes:
    """The address that drivers join, the dashboard's URL that takes jobs, and the environment that both need."""

    address: str
    dashboard: str
    env: dict[str, str]


@pytest.fixture(scope="module")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """A head and a second node, each with one CPU and a resource of its own."""
    before = processes()
    port, dashboard = free_port(), free_port()
    env = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "a-token-of-this-test-only-0123456789",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",  # a Ray that a test before started in this process has set it to 0
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",  # a job's command is `python`
    }
    start = [RAY, "start", "--num-cpus=1", "--disable-usage-stats", "--node-ip-address=127.0.0.1"]
    head = [*start, "--head", f"--port={port}", '--resources={"head_node": 1}', "--include-dashboard=true"]
    head += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
    second = [*start, f"--address=127.0.0.1:{port}", '--resources={"second_node": 1}']
    for command in (head, second):
        own = f"--dashboard-agent-listen-port={free_port()}"
        folder = tmp_path_factory.mktemp("node")
        where = {**os.environ, **env}
        subprocess.run([*command, own], env=where, cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=120)
    try:
        yield Nodes(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", env)
    finally:
        for pid in processes() - before:
            with_kill = subprocess.run(["kill", "-9", str(pid)], check=False, stderr=subprocess.DEVNULL)
            assert with_kill.returncode in (0, 1)


@pytest.mark.chaos  # its training is one more; without it the test after it trains
def test_the_exported_job_trains_on_two_nodes(
    two_nodes: Nodes, quickstart_run: Done, workspace: Path, tmp_path: Path
) -> None:
    # Exported from another machine, for which the workspace is a folder of the cluster and not its own.
    away = tmp_path / "exporting"
    (away / "tmp").mkdir(parents=True)
    env = {**os.environ, **two_nodes.env, "TMPDIR": str(away / "tmp"), "RAY_ADDRESS": two_nodes.dashboard}
    export = [sys.executable, "-m", "runner", "export", "target=ray-job", "export_to=out", "recipe=viggo_quickstart"]
    export += [f"storage.root={workspace}", "stop_after=publish", *RECIPE]
    for command in (export, ["sh", "out/ray-job.sh"]):
        done = subprocess.run(command, cwd=away, env=env, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    folder = (workspace / "latest").resolve()
    summary = json.loads((folder / "summary.json").read_text())
    stages = {stage["name"]: stage for stage in summary["stages"]}
    assert {name: stage["status"] for name, stage in stages.items()} | {"ingest": "done"} == {
        "ingest": "done",
        "train": "done",
        "publish": "done",
    }
    assert stages["train"]["metrics"]["num_workers"] == 2
    assert json.loads((folder / "recipe.json").read_text())["cluster"]["address"] == "auto"


def test_a_run_that_joins_the_cluster_uses_what_the_job_made(
    two_nodes: Nodes, quickstart_run: Done, workspace: Path
) -> None:
    """Without the job it trains itself. In bfloat16 a row has other near ties among others than by itself."""
    done = run_recipe(
        f"cluster.address={two_nodes.address}",
        *RECIPE,
        "infer.engine_kwargs.dtype=float32",
        "resources.infer.cpus_per_worker=1",
        "resources.serve.cpus_per_worker=1",
        "resources.serve.custom={head_node: 0.1}",
        f"+infer.sampling.structured_outputs.regex='{FORM}'",
        "infer.sampling.max_tokens=128",
        "query.num_rows=4",
        "serve.port=0",
        root=workspace,
        env=two_nodes.env,
    )
    assert done.code == 0, done.shown
    train = next(stage for stage in done.summary["stages"] if stage["name"] == "train")
    assert train["metrics"]["num_workers"] == 2
    assert json.loads((done.folder / "recipe.json").read_text())["cluster"]["address"] == two_nodes.address
    assert done.summary["query"]["matches_batch"] is True
    predictions = Path(done.artifact("predictions")["uri"])
    lines = [line for part in predictions.glob("*.json*") for line in part.read_text().splitlines()]
    texts = [json.loads(line)["prediction"] for line in lines]
    assert len(texts) == 8
    assert all(re.fullmatch(FORM, text) for text in texts), texts
    assert all(row["base"]["matches_batch"] for row in done.summary["query"]["rows"])
