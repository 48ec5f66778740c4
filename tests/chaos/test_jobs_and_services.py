"""A recipe as a job and as a service on a Ray cluster of two nodes, reached through its dashboard alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from runner.errors import EXIT_DONE, EXIT_STAGE_FAILED
from runner.pipeline.manifest import Manifest
from tests.e2e.test_two_nodes import RAY, free_port
from tests.load import Load
from tests.paths import ROOT
from tests.tiny_model import write_tiny_model

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.timeout(1500), pytest.mark.filterwarnings("ignore")]

STARTUP_S = 300


class Cluster:
    """A head and a second node; commands of the runner that know the dashboard's address and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.model = folder, folder / "runs", folder / "model"
        self.http_port, port, dashboard = free_port(), free_port(), free_port()
        self.address = f"http://127.0.0.1:{dashboard}"
        self.env = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "a-token-of-this-test-only-0123456789",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": str(ROOT),
        }
        self.env.pop("RAY_ADDRESS", None)
        self.nodes: list[subprocess.Popen[bytes]] = []
        node = [RAY, "start", "--block", "--num-cpus=2", "--disable-usage-stats", "--node-ip-address=127.0.0.1"]
        head = [*node, "--head", f"--port={port}", "--include-dashboard=true", '--resources={"head_node": 1}']
        head += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"]
        self.temporary: list[Path] = []
        for command in (head, [*node, f"--address=127.0.0.1:{port}", '--resources={"second_node": 1}']):
            # As on a machine of its own: an agent that takes jobs, and a folder where a job's code is unpacked, which
            # another node would replace under the running job. The folder is short, since it holds sockets.
            self.temporary.append(Path(tempfile.mkdtemp(prefix="node-")))
            own = [f"--dashboard-agent-listen-port={free_port()}", f"--temp-dir={self.temporary[-1]}"]
            self.start([*command, *own])

    def start(self, command: list[str]) -> None:
        """Start a node and wait until it says that it runs."""
        log = self.folder / f"node-{len(self.nodes)}.log"
        with log.open("wb") as output:
            self.nodes.append(subprocess.Popen(command, env=self.env, stdout=output, stderr=subprocess.STDOUT))
        end = time.monotonic() + 120
        while "Ray runtime started" not in log.read_text():
            assert self.nodes[-1].poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.5)

    def stop(self) -> None:
        """End the nodes and every process below them."""
        below = [child for node in self.nodes for child in psutil.Process(node.pid).children(recursive=True)]
        for node in self.nodes:
            node.terminate()
        for node in self.nodes:
            with suppress(subprocess.TimeoutExpired):
                node.wait(timeout=30)
        for process in below:
            with suppress(psutil.Error):
                process.kill()
        for folder in self.temporary:
            shutil.rmtree(folder, ignore_errors=True)

    def command(self, action: str, *overrides: str) -> list[str]:
        """A small recipe that trains a random model for a few steps."""
        return [
            sys.executable, "-m", "runner", "recipe=viggo_quickstart", "name=small", f"action={action}",
            f"cluster.address={self.address}", f"submit.python={sys.executable}",
            "pipeline=[ingest,train,publish,serve]", f"storage.root={self.root}", f"model.source={self.model}",
            'dataset.source="generated://viggo?train=64&val=4&test=4&seed=7"',
            "train.args.max_steps=60", "+train.args.save_steps=20", "train.args.per_device_train_batch_size=2",
            "train.args.cutoff_len=496", "infer.sampling.max_tokens=8", "infer.engine_kwargs.max_model_len=512",
            "serve.model_id=base", f"serve.port={self.http_port}", f"serve.startup_timeout_s={STARTUP_S}",
            "resources.train.cpus_per_worker=1", "resources.serve.cpus_per_worker=1",
            "resources.serve.custom={head_node: 0.1}", *overrides,
        ]  # fmt: skip

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.folder, env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=600,
        )  # fmt: skip

    def job(self, action: str, job: str, *options: str) -> subprocess.CompletedProcess[str]:
        address = f"cluster.address={self.address}"
        return self.run(sys.executable, "-m", "runner", f"action={action}", f"job={job}", address, *options)

    def manifest(self) -> Manifest:
        return Manifest.load((self.root / "latest").resolve())

    def details(self) -> dict[str, Any]:
        from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

        details: dict[str, Any] = ServeSubmissionClient(self.address).get_serve_details()
        return details

    def replicas(self) -> dict[str, list[str]]:
        deployments = self.details()["applications"]["recipe-small"]["deployments"]
        return {name: sorted(each["actor_id"] for each in found["replicas"]) for name, found in deployments.items()}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("jobs"))
    write_tiny_model(made.model)
    with pytest.MonkeyPatch.context() as patch:  # clients in this process
        for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
            patch.setenv(name, made.env[name])
        try:
            yield made
        finally:
            made.stop()


def test_a_job_outlives_its_terminal_is_stopped_and_continues_from_its_cache(cluster: Cluster) -> None:
    screen = cluster.folder / "screen.log"
    with screen.open("wb") as output:
        client = subprocess.Popen(
            cluster.command("submit", "submit.env=[CANARY]"), cwd=cluster.folder, stdout=output,
            stderr=subprocess.STDOUT, env={**cluster.env, "CANARY": "a-canary-0123456789"},
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # also where the tests run under nohup
        )  # fmt: skip
    job = wait_for(lambda: next(iter(screen.read_text().split("submitted ")[1:]), "").partition("\n")[0], client)
    wait_for(lambda: "✔ ingest" in screen.read_text(), client)  # it shows the log
    client.send_signal(signal.SIGHUP)
    client.wait()
    shown = json.loads(cluster.job("status", job, "format=json").stdout)
    assert shown["status"] == "RUNNING", cluster.job("logs", job).stdout
    assert shown["recipe"] == "small"
    assert "a-canary" not in json.dumps(shown)
    stopped = cluster.job("stop", job)
    assert stopped.returncode == EXIT_DONE, stopped.stdout
    shown = cluster.job("logs", job)
    assert "✔ ingest" in shown.stdout
    assert shown.returncode == 130
    assert cluster.manifest().status == "interrupted"  # in order: it was given the time to write that
    assert "a-canary" not in shown.stdout + screen.read_text()

    again = cluster.run(*cluster.command("submit", "stop_after=publish"))
    assert again.returncode == EXIT_DONE, again.stdout
    found = {record.name: record.status for record in cluster.manifest().stages}
    assert found.keys() == {"ingest", "train", "publish"}
    assert found["ingest"] == "skipped"


def wait_for(moment: Any, client: subprocess.Popen[bytes]) -> Any:
    end = time.monotonic() + 200
    while not (found := moment()):
        assert client.poll() is None
        assert time.monotonic() < end
        time.sleep(0.2)
    return found


def test_deploys_lose_no_request_and_a_broken_one_is_rolled_back(cluster: Cluster) -> None:
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    ServeSubmissionClient(cluster.address).deploy_applications(
        {
            "proxy_location": "HeadOnly",
            "http_options": {"host": "127.0.0.1", "port": cluster.http_port, "request_timeout_s": 200},
            "applications": [{"name": "other", "route_prefix": "/other", "import_path": "tests.hello_app:build"}],
        }
    )
    first = cluster.run(*cluster.command("deploy"))
    assert first.returncode == EXIT_DONE, first.stdout
    replicas, one = cluster.replicas(), adapter_of(cluster)
    load = Load(f"http://127.0.0.1:{cluster.http_port}/v1", ["base", f"base:{one}"])
    load.begin()
    try:
        load.wait_for_ok("steady", 20)
        trained = cluster.run(*cluster.command("submit", "stop_after=publish", "train.learning_rate=1e-2"))
        assert trained.returncode == EXIT_DONE, trained.stdout
        load.enter("v2")
        second = cluster.run(*cluster.command("deploy", "train.learning_rate=1e-2"))
        assert second.returncode == EXIT_DONE, second.stdout
        two = adapter_of(cluster)
        assert two != one
        load.models.append(f"base:{two}")
        load.wait_for_ok("v2", 20)
        assert cluster.replicas() == replicas, "a new adapter replaced a replica"
        load.enter("broken v3")
        broken = cluster.command("deploy", "train.learning_rate=1e-2", "+serve.engine_kwargs.quantization=awq")
        third = cluster.run(*broken)
        assert third.returncode == EXIT_STAGE_FAILED, third.stdout
        assert "the previous version serves" in " ".join(third.stdout.split())
        load.wait_for_ok("broken v3", 20)
        assert cluster.replicas() == replicas
    finally:
        load.end()
    print(json.dumps(load.counts()))
    assert [load.failed(phase) for phase in ("steady", "v2", "broken v3")] == [0, 0, 0], load.counts()
    assert set(cluster.details()["applications"]) == {"recipe-small", "other"}
    (config, *_) = sorted(cluster.root.glob("small/*/deploy/*/serve_config.yaml"))
    readable_by_serve_deploy(config)
    gone = cluster.run(*cluster.command("undeploy"))
    assert gone.returncode == EXIT_DONE, gone.stdout
    applications = cluster.details()["applications"]
    assert {name: each["status"] for name, each in applications.items()} == {"other": "RUNNING"}


def adapter_of(cluster: Cluster) -> str:
    adapter = cluster.manifest().artifact("adapter")
    assert adapter is not None
    name: str = adapter.meta["adapter_id"]
    return name


def readable_by_serve_deploy(config: Path) -> None:
    import yaml
    from ray.serve.schema import ServeDeploySchema

    found = ServeDeploySchema.model_validate(yaml.safe_load(config.read_text()))
    assert [each.name for each in found.applications] == ["recipe-small"]
