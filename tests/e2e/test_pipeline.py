"""The quickstart on real parts: what it makes, that it learned, that it is reused, and that it runs from S3."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.pipeline.manifest import Manifest
from runner.storage.digest import digest_file
from tests.e2e.conftest import Done, run_recipe

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]
STAGES = ["ingest", "train", "publish", "infer", "evaluate", "serve", "query", "cleanup"]


def test_every_stage_is_done_in_order(quickstart_run: Done) -> None:
    assert [(stage["name"], stage["status"]) for stage in quickstart_run.summary["stages"]] == [
        (name, "done") for name in STAGES
    ]


def test_the_model_has_learned(quickstart_run: Done) -> None:
    scores = quickstart_run.summary["scores"]
    assert scores["tuned"]["n"] == 100
    assert scores["tuned"]["exact_match"] >= 0.60
    assert scores["tuned"]["exact_match"] - scores["base"]["exact_match"] >= 0.40


def test_the_endpoint_answers_as_the_batch_predicted(quickstart_run: Done) -> None:
    query = quickstart_run.summary["query"]
    assert query["matches_batch"] is True
    assert query["text"]
    assert query["first_token_s"] > 0
    assert query["tokens_per_s"] > 0


def test_every_test_row_is_predicted_once_by_each_variant(quickstart_run: Done) -> None:
    seen = []
    for part in sorted(Path(quickstart_run.artifact("predictions")["uri"]).rglob("*.json*")):
        seen += [json.loads(line) for line in part.read_text().splitlines()]
    keys = [(row["variant"], row["id"]) for row in seen]
    assert len(keys) == len(set(keys)) == 200
    assert {variant for variant, _ in keys} == {"base", "tuned"}


def test_artifacts_hold_what_their_digests_say(quickstart_run: Done) -> None:
    manifest = Manifest.load(quickstart_run.folder)
    adapter = manifest.artifact("adapter")
    assert adapter is not None
    names = {entry.path for entry in adapter.files}
    assert {"adapter_model.safetensors", "adapter_config.json"} <= names
    assert not {name for name in names if name.endswith((".bin", ".pt", ".pth", ".pkl"))}
    for entry in adapter.files:
        assert digest_file(adapter.path / entry.path) == entry.sha256


def test_training_results_are_kept(quickstart_run: Done) -> None:
    log = Path(quickstart_run.artifact("training_log")["uri"])
    assert {"trainer_log.jsonl", "all_results.json", "training_loss.png"} <= {path.name for path in log.iterdir()}
    losses = [json.loads(line).get("loss") for line in (log / "trainer_log.jsonl").read_text().splitlines()]
    known = [loss for loss in losses if loss is not None]
    assert known[-1] < known[0] / 2


def test_nothing_listens_any_more_and_the_screen_shows_the_way(quickstart_run: Done) -> None:
    for word in ("never ran", "exact match", "report:"):
        assert word in quickstart_run.shown


def test_the_same_command_again_takes_everything_over(quickstart_run: Done, workspace: Path) -> None:
    again = run_recipe("serve.port=0", root=workspace)
    assert again.code == 0, again.shown
    assert {stage["status"] for stage in again.summary["stages"]} == {"skipped"}
    assert again.artifact("adapter")["sha256"] == quickstart_run.artifact("adapter")["sha256"]
    assert again.summary["scores"] == quickstart_run.summary["scores"]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A real S3 API over HTTP on loopback with one empty bucket; gives the environment that finds it."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    env = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "ARTIFACT_URI": "s3://artifacts/viggo",
    }
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="artifacts")
    yield env
    server.stop()


def test_the_same_recipe_publishes_to_s3_and_serves_from_the_bucket(
    quickstart_run: Done, workspace: Path, bucket: dict[str, str]
) -> None:
    import boto3

    # The adapter is the same by digest, so its answers would be reused: ask again, of the bucket this time.
    done = run_recipe("storage=s3", "serve.port=0", "force=[query]", root=workspace, env=bucket)
    assert done.code == 0, done.shown
    assert (done.status("train"), done.status("publish"), done.status("serve")) == ("skipped", "done", "done")
    adapter = done.artifact("adapter")
    assert adapter["uri"].startswith("s3://artifacts/viggo/adapters/")
    assert adapter["sha256"] == quickstart_run.artifact("adapter")["sha256"]
    keys = {item["Key"] for item in boto3.client("s3").list_objects_v2(Bucket="artifacts")["Contents"]}
    assert any(key.endswith("adapter_model.safetensors") for key in keys)
    assert not any("optimizer" in key for key in keys)
    assert done.summary["query"]["matches_batch"] is True
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in (done.folder / "recipe.json").read_text()


def test_the_engine_starts_once_and_during_training_where_both_fit(tmp_path: Path) -> None:
    """Ray is told of four CPUs, so that an engine of two fits next to a training on two, however many there are."""
    root = tmp_path / "runs"  # of its own: the tests of serving count the adapters of the others
    done = run_recipe(
        "cluster.num_cpus=4", "train.max_samples=16", "dataset.max_rows.test=4", "stop_after=infer", "serve.port=0",
        f"storage.artifacts={root}/artifacts", root=root,
    )  # fmt: skip
    assert done.code == 0, done.shown
    assert "infer: the engine is starting while train runs" in done.shown
    assert "infer: the base model's 4 predictions are made" in done.shown
    assert "infer: 4 predictions of the base model are reused" in done.shown
    logs = [path.read_text() for path in (done.folder / "logs").glob("*.log")]
    assert sum(log.count("Initializing a V1 LLM engine") for log in logs) == 1
