"""Training on nodes that come and go: one is taken away after a notice, and returns."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from runner.errors import EXIT_DONE
from tests.chaos.harness import Running, command, manifest, start
from tests.e2e.test_two_nodes import RAY, free_port
from tests.paths import ROOT
from tests.tiny_model import write_tiny_model

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.timeout(900)]

NUM_STEPS, SAVE_STEPS = 1200, 100
ALONE = re.compile(r"train: (\d+)/1,200 steps.*workers 1 of 2")
TOGETHER = re.compile(r"train: (\d[\d,]*)/1,200 steps(?!.*workers)")
LISTED = "checkpoint_results"
NODES = """
import ray
ray.init(address="{address}", logging_level="error")
print([node["NodeID"] for node in ray.nodes() if node["Alive"] and "second_node" in node["Resources"]][0])
"""


class Nodes:
    """A head, and a second node that comes and goes; each has one CPU for a worker."""

    def __init__(self, folder: Path) -> None:
        self.folder, port = folder, free_port()
        self.address = f"127.0.0.1:{port}"
        self.env = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "a-token-of-this-test-only-0123456789",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
            "PYTHONPATH": str(ROOT),
        }
        self.env.pop("RAY_ADDRESS", None)
        self.started: list[psutil.Popen] = []
        self.start("--head", f"--port={port}", "--include-dashboard=false", '--resources={"head_node": 1}')

    def start(self, *options: str) -> psutil.Popen:
        line = [RAY, "start", "--block", "--num-cpus=1", "--disable-usage-stats", "--node-ip-address=127.0.0.1"]
        line += [*options, f"--dashboard-agent-listen-port={free_port()}"]
        log = self.folder / f"node-{len(self.started)}.log"
        with log.open("wb") as output:
            node = psutil.Popen(line, env=self.env, stdout=output, stderr=subprocess.STDOUT)
        self.started.append(node)
        end = time.monotonic() + 120
        while "Ray runtime started" not in log.read_text():
            assert node.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.5)
        return node

    def join(self) -> psutil.Popen:
        return self.start(f"--address={self.address}", '--resources={"second_node": 1}')

    def tell(self) -> None:
        """Have Ray tell the second node that it is taken away in a minute, as a cloud does."""
        asked = [sys.executable, "-c", NODES.format(address=self.address)]
        node_id = subprocess.check_output(asked, env=self.env, text=True, timeout=120).split()[-1]
        line = [RAY, "drain-node", f"--address={self.address}", f"--node-id={node_id}", "--reason-message=taken"]
        line += ["--reason=DRAIN_NODE_REASON_PREEMPTION", "--deadline-remaining-seconds=60"]
        subprocess.run(line, env=self.env, check=True, capture_output=True, timeout=120)

    def end(self) -> None:
        for node in self.started:
            kill(node)


def kill(node: psutil.Popen) -> None:
    """End a node as a power cut would."""
    with suppress(psutil.Error):
        for process in [*node.children(recursive=True), node]:
            with suppress(psutil.Error):
                process.kill()
        node.wait(timeout=30)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    made = Nodes(tmp_path)
    try:
        yield made
    finally:
        made.end()


def saved(running: Running) -> list[int]:
    """Steps of the checkpoints that are stored, by Ray Train's list, which each comes into when it is whole."""
    lists = running.stage_folder("train").glob("checkpoints/*/checkpoint_manager_snapshot.json")
    with suppress(ValueError):  # it is being written
        return sorted(each["metrics"].get("step", 0) for file in lists for each in json.loads(file.read_text())[LISTED])
    return []


def test_training_continues_with_the_nodes_that_are_left_and_grows_again(nodes: Nodes, tmp_path: Path) -> None:
    second, root, model = nodes.join(), tmp_path / "runs", tmp_path / "model"
    write_tiny_model(model)
    line = command(
        root, model, root / "artifacts", "stop_after=train", f"cluster.address={nodes.address}",
        "resources.train={num_workers: {min: 1, max: 2, check_every_s: 5}, cpus_per_worker: 1}",
        f"train.args.max_steps={NUM_STEPS}", f"train.args.save_steps={SAVE_STEPS}",
    )  # fmt: skip
    running = start(root, line, nodes.env)
    try:
        running.wait_for("a checkpoint", lambda: saved(running))
        nodes.tell()
        noticed = running.wait_for("its notice", lambda: [step for step in saved(running) if step % SAVE_STEPS])
        kill(second)
        alone = running.wait_for("one worker", lambda: ALONE.search(running.shown()))
        assert int(alone[1]) >= noticed[0]
        nodes.join()
        running.wait_for("two workers again", lambda: TOGETHER.search(running.shown()[alone.end() :]))
        assert running.wait() == EXIT_DONE, running.shown()
    finally:
        with suppress(psutil.Error):
            running.process.kill()
    (record,) = (record for record in manifest(root).stages if record.name == "train")
    assert record.metrics["num_steps"] == NUM_STEPS
    assert record.metrics["num_workers"] == 2
    assert record.metrics["resumed_at_step"] >= noticed[0]
    assert not running.left_over()
