"""Adapters of several runs behind one endpoint; the second run needs no prediction of the base model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import openai
import psutil
import pytest

from tests.e2e.conftest import RUN_TIMEOUT_S, Done, processes, run_recipe, serving

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def second(quickstart_run: Done, workspace: Path) -> Done:
    """A run whose adapter has another rank, in the same store.

    Trained on so many rows it is sure of its answers: in bfloat16 near ties depend on what shares the batch.
    """
    run = run_recipe("train.lora_rank=4", "train.max_samples=256", "stop_after=evaluate", root=workspace)
    assert run.code == 0, run.shown
    return run


def test_adapters_of_two_runs_answer_side_by_side_as_in_batch(
    quickstart_run: Done, second: Done, workspace: Path
) -> None:
    assert second.status("ingest") == "skipped"
    infer = next(stage for stage in second.summary["stages"] if stage["name"] == "infer")
    assert infer["metrics"]["num_predictions"] == 200
    assert "100 predictions of the base model are reused" in second.shown

    runs = [quickstart_run.summary["run_id"], second.summary["run_id"]]
    options = ["serve.keep_alive=false", "serve.port=0", "query.num_rows=2", f"storage.root={workspace}"]
    served = subprocess.run(
        [sys.executable, "-m", "runner", "action=serve", f"runs=[{','.join(runs)}]", *options],
        cwd=workspace.parent, env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=RUN_TIMEOUT_S,
    )  # fmt: skip
    assert served.returncode == 0, served.stdout
    query = json.loads((workspace / "latest" / "summary.json").read_text())["query"]
    assert query["matches_batch"] is True
    assert query["others"][runs[1]]["matches_batch"] is True
    assert query["others"][runs[1]]["model"] != query["model"]
    assert "Answers of the endpoint" in (workspace / "latest" / "report.html").read_text()


@pytest.fixture
def endpoint(quickstart_run: Done, second: Done, workspace: Path) -> Iterator[openai.OpenAI]:
    """The first run served with whatever adapters its store has, of which a replica holds one at a time."""
    overrides = [f"runs=[{quickstart_run.summary['run_id']}]", "serve.max_adapters_per_replica=1"]
    log = workspace.parent / "serving.log"
    with (
        serving(log, "action=serve", *overrides, f"storage.root={workspace}") as (url, _),
        openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client,
    ):
        yield client


def test_adapters_come_and_go_with_the_store_while_the_endpoint_is_up(
    endpoint: openai.OpenAI, quickstart_run: Done, tmp_path: Path
) -> None:
    own = Path(quickstart_run.artifact("adapter")["uri"])
    (other,) = [folder for folder in own.parent.iterdir() if folder != own]

    def names() -> set[str]:
        return {model.id.partition(":")[2] for model in endpoint.models.list().data} - {""}

    def ask(adapter: str) -> str | None:
        base = next(model.id for model in endpoint.models.list().data if ":" not in model.id)
        answer = endpoint.chat.completions.create(
            model=f"{base}:{adapter}", messages=[{"role": "user", "content": "Hello"}], max_tokens=4
        )
        return answer.choices[0].message.content

    assert names() == {own.name, other.name}
    assert ask(other.name)
    other.rename(tmp_path / other.name)
    assert names() == {own.name}
    time.sleep(2.5)  # what was asked for a moment ago may still be
    with pytest.raises(openai.NotFoundError, match="no complete adapter"):
        ask(other.name)
    assert ask(own.name)
    (tmp_path / other.name).rename(other)
    assert names() == {own.name, other.name}
    assert ask(other.name)


@dataclass(frozen=True)
class Proxied:
    """An endpoint with two adapters in its store, of which a replica holds one. started: its processes."""

    client: openai.OpenAI
    haproxy: bool
    started: list[psutil.Process]
    models: list[str]

    def ask(self, model: str, tokens: int, timeout_s: float) -> float:
        """Seconds until so many tokens have come."""
        begun = time.monotonic()
        self.client.with_options(timeout=timeout_s).chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Hello"}], max_tokens=tokens,
            extra_body={"ignore_eos": True},
        )  # fmt: skip
        return time.monotonic() - begun


@pytest.fixture(scope="module", params=["1", "0"], ids=["haproxy", "python proxy"])
def proxied(request: pytest.FixtureRequest, quickstart_run: Done, second: Done, workspace: Path) -> Iterator[Proxied]:
    overrides = [f"runs=[{quickstart_run.summary['run_id']}]", "serve.max_adapters_per_replica=1"]
    log, env = workspace.parent / f"proxy-{request.param}.log", {"RAY_SERVE_ENABLE_HA_PROXY": request.param}
    before = processes()
    with serving(log, "action=serve", *overrides, f"storage.root={workspace}", env=env) as (url, _):
        started = [psutil.Process(pid) for pid in processes() - before]
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
            names = [each.id for each in client.models.list().data]
            yield Proxied(client, request.param == "1", started, names)
    assert not processes() - before


def test_either_proxy_passes_requests_to_the_replica(proxied: Proxied) -> None:
    assert any(process.name() == "haproxy" for process in proxied.started) == proxied.haproxy
    for model in proxied.models:
        parts = proxied.client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Hello"}], max_tokens=4, stream=True
        )
        assert "".join(part.choices[0].delta.content or "" for part in parts)


def test_an_adapter_answers_after_a_request_for_another_was_given_up(proxied: Proxied) -> None:
    """A replica holds one of the two: the abandoned request must leave the engine before the other is loaded."""
    one, other = [model for model in proxied.models if ":" in model]
    proxied.ask(one, 1, 60)
    undisturbed = proxied.ask(other, 8, 60)
    for _ in range(3):
        with pytest.raises(openai.APITimeoutError):
            proxied.ask(one, 450, 1)
        assert proxied.ask(other, 8, 60) < 3 * undisturbed + 1
