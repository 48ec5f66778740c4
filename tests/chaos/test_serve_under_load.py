"""An endpoint under load: a killed replica, redeploys, a hung engine, and the end. Every failed request is counted."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from runner.errors import EXIT_DONE
from runner.patches import ray_haproxy as haproxy
from tests.chaos.conftest import Reference
from tests.chaos.harness import Running, command, continue_from, manifest, start
from tests.e2e.test_two_nodes import RAY, free_port
from tests.load import NUM_CLIENTS, Load, ask
from tests.paths import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.timeout(1500)]
TIMEOUT_S = 45
_CORE = "VLLM::EngineCore"
_TWO = ("serve.autoscaling.min_replicas=2", "serve.autoscaling.max_replicas=2")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A cluster of one node that outlives the runs on it; gives the environment that joins it, and its address."""
    port = free_port()
    env = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "a-token-of-this-test-only-0123456789",
        "PYTHONPATH": str(ROOT),
        **haproxy.environment(),
    }
    line = [RAY, "start", "--head", "--num-cpus=8", "--disable-usage-stats", "--node-ip-address=127.0.0.1"]
    line += [f"--port={port}", "--include-dashboard=false", "--block"]
    with (tmp_path / "ray.log").open("wb") as log:
        head = subprocess.Popen(line, env={**os.environ, **env}, stdout=log, stderr=subprocess.STDOUT)
    time.sleep(10)
    assert head.poll() is None, (tmp_path / "ray.log").read_text()
    family = Running(head, tmp_path, tmp_path / "ray.log")
    family.watch()
    yield {**env, "address": f"127.0.0.1:{port}"}
    head.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        head.wait(timeout=30)
    for process in family.alive():
        with suppress(psutil.Error):
            process.kill()


def engines() -> list[psutil.Process]:
    """The engines' processes, which descend from this one by way of the cluster."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if _CORE in " ".join(process.cmdline()):
                found.append(process)
    return found


def test_requests_continue(
    cluster: dict[str, str], reference: Callable[[str], Reference], chaos_dir: Path, tmp_path: Path
) -> None:
    expected = reference("publish")
    env = {**cluster, "RAY_ADDRESS": cluster["address"]}
    common = [
        "pipeline=[ingest,train,publish,serve]",
        f"cluster.address={cluster['address']}",
        "resources.serve.cpus_per_worker=1",
        f"serve.request_timeout_s={TIMEOUT_S}",
        f"storage.cache={tmp_path}/cache",  # where replicas find adapters: another folder, other replicas
    ]

    def line(root: Path, *overrides: str) -> list[str]:
        continue_from(expected.root, root, before="infer")
        return command(root, expected.model, expected.store, *common, *overrides)

    def redeploy(name: str, *overrides: str) -> Running:
        root = tmp_path / name
        running = start(root, line(root, "serve.redeploy=true", "force=[serve]", *overrides), env)
        assert running.wait() == 0, running.shown()
        return running

    first = start(tmp_path / "first", line(tmp_path / "first", "serve.keep_alive=true"), env)
    first.wait_for("the endpoint", lambda: "Press Ctrl-C" in first.shown())
    found = re.search(r"^URL +(\S+)\nmodels +(\S+), (\S+)$", first.shown(), re.MULTILINE)
    assert found, first.shown()
    load = Load(found[1], [found[2], found[3]])
    load.begin()
    try:
        scenario(load, first, redeploy, chaos_dir)
    finally:
        load.end()
        first.process.kill()


def scenario(load: Load, first: Running, redeploy: Callable[..., Running], chaos_dir: Path) -> None:
    load.wait_for_ok("steady", 20)
    (old,) = engines()
    load.enter("redeploy with two replicas")
    redeploy("second", *_TWO)
    load.wait_for_ok(load.phase, 20)
    both = engines()
    assert old in both, "the replica that was there was replaced"
    assert len(both) == 2
    load.enter("replica killed")
    load.wait_for_ok(load.phase, 4)  # requests are under way
    killed_at = time.monotonic()
    old.kill()
    load.wait_for_ok(load.phase, 20)
    while len(engines()) < 2:
        assert time.monotonic() < killed_at + 300, "the killed replica was not replaced"
        time.sleep(0.5)
    replaced_s = time.monotonic() - killed_at
    load.enter("redeploy with a new adapter")
    new = redeploy(
        "third", "train.learning_rate=1e-2", "serve.autoscaling.min_replicas=2", "serve.autoscaling.max_replicas=2"
    )
    adapter = manifest(new.root).artifact("adapter")
    assert adapter is not None
    name = f"{load.models[0]}:{adapter.meta['adapter_id']}"
    assert name not in load.models
    load.models.append(name)
    load.wait_for_ok(load.phase, 20)
    load.enter("replicas replaced")
    redeploy(
        "fourth",
        "serve.autoscaling.min_replicas=2",
        "serve.autoscaling.max_replicas=2",
        "+serve.engine_kwargs.max_num_seqs=8",
    )
    load.wait_for_ok(load.phase, 20)
    hung_s, hung = hang(load)
    drained, code = take_down(load, first)
    table = {
        "phases": load.counts(), "killed_replica_replaced_s": round(replaced_s, 1), "hung_request": hung,
        "hung_request_s": round(hung_s, 1), "request_at_shutdown": drained, "exit_code": code,
    }  # fmt: skip
    (chaos_dir / "serve_under_load.json").write_text(json.dumps(table, indent=2))
    print(json.dumps(table, indent=2))
    for phase in ("steady", "redeploy with two replicas", "redeploy with a new adapter", "replicas replaced"):
        assert load.failed(phase) == 0, table
    assert load.failed("replica killed") <= NUM_CLIENTS, table
    assert hung != "ok"
    assert hung_s < 2 * TIMEOUT_S
    assert drained == "ok"
    assert code == EXIT_DONE  # keep_alive ends so


def hang(load: Load) -> tuple[float, str]:
    """Stop the engines, ask, and let them continue. Returns how long the request took, and its outcome."""
    load.enter("hung")
    stopped = engines()
    for process in stopped:
        process.suspend()
    begin = time.monotonic()
    try:
        outcome = ask(load.url, load.models[0], max_tokens=20)
    finally:
        for process in stopped:
            process.resume()
    hung_s = time.monotonic() - begin
    load.enter("after the hang")
    load.wait_for_ok(load.phase, 10)
    return hung_s, outcome


def take_down(load: Load, first: Running) -> tuple[str, int]:
    """End the run with a long request on its way. Returns the request's outcome and the run's exit code."""
    load.enter("shutdown")
    load.end()
    outcome: list[str] = []
    long = threading.Thread(target=lambda: outcome.append(ask(load.url, load.models[0], max_tokens=400)))
    long.start()
    time.sleep(0.3)
    assert not outcome, "the request is too short to be under way when the endpoint ends"
    first.process.send_signal(signal.SIGTERM)
    long.join()
    return outcome[0], first.wait()
