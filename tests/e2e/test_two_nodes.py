"""A Ray cluster of two nodes on this machine, joined through `cluster.address`: one training worker on each.

Its adapter has seen too few rows to know the form of an answer, so the recipe forces it, in batch and at the endpoint.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
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


@pytest.fixture
def two_nodes(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A head and a second node, each with one CPU and a resource of its own; gives the environment that joins them."""
    before = processes()
    port = free_port()
    env = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "a-token-of-this-test-only-0123456789",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",  # a Ray that a test before started in this process has set it to 0
        "PYTHONPATH": str(ROOT),
    }
    start = [RAY, "start", "--num-cpus=1", "--disable-usage-stats", "--node-ip-address=127.0.0.1"]
    head = [*start, "--head", f"--port={port}", "--include-dashboard=false", '--resources={"head_node": 1}']
    second = [*start, f"--address=127.0.0.1:{port}", '--resources={"second_node": 1}']
    for command in (head, second):
        subprocess.run(command, env={**os.environ, **env}, check=True, stdout=subprocess.DEVNULL, timeout=120)
    try:
        yield {**env, "address": f"127.0.0.1:{port}"}
    finally:
        for pid in processes() - before:
            with_kill = subprocess.run(["kill", "-9", str(pid)], check=False, stderr=subprocess.DEVNULL)
            assert with_kill.returncode in (0, 1)


def test_training_runs_on_two_nodes(two_nodes: dict[str, str], quickstart_run: Done, workspace: Path) -> None:
    """Ingest is reused from the quickstart; training with two workers is not, since it is another training."""
    address = two_nodes.pop("address")
    done = run_recipe(
        f"cluster.address={address}",
        "resources.train.num_workers=2",
        "resources.train.cpus_per_worker=1",
        "resources.train.placement_strategy=STRICT_SPREAD",
        "resources.infer.cpus_per_worker=1",
        "resources.serve.cpus_per_worker=1",
        "resources.serve.custom={head_node: 0.1}",
        "train.max_samples=32",
        "dataset.max_rows.test=4",
        f"+infer.sampling.structured_outputs.regex='{FORM}'",
        "infer.sampling.max_tokens=128",
        "query.num_rows=4",
        "serve.port=0",
        root=workspace,
        env=two_nodes,
    )
    assert done.code == 0, done.shown
    train = next(stage for stage in done.summary["stages"] if stage["name"] == "train")
    assert train["status"] == "done"
    assert train["metrics"]["num_workers"] == 2
    assert json.loads((done.folder / "recipe.json").read_text())["cluster"]["address"] == address
    assert done.summary["query"]["matches_batch"] is True
    predictions = Path(done.artifact("predictions")["uri"])
    lines = [line for part in predictions.glob("*.json*") for line in part.read_text().splitlines()]
    texts = [json.loads(line)["prediction"] for line in lines]
    assert len(texts) == 8
    assert all(re.fullmatch(FORM, text) for text in texts), texts
    assert all(row["base"]["matches_batch"] for row in done.summary["query"]["rows"])
