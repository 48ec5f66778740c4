"""Costly and broken images, sent to an endpoint of a model that sees while another client asks it plain questions."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import httpx
import psutil
import pytest

from tests.chaos.image_bombs import REFUSED, TAKEN
from tests.e2e.conftest import processes, serving
from tests.tiny_runs.test_images import write

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.timeout(900), pytest.mark.filterwarnings("default")]

LATE_S = 1.0
MOST_MORE_BYTES = 1 << 30
AT_ONCE = 8


class Up:
    """The endpoint, its processes, and the other client's times."""

    def __init__(self, url: str, pid: int, before: set[int]) -> None:
        self.client = httpx.Client(base_url=url, trust_env=False, timeout=300)
        self.model = self.client.get("/models").json()["data"][0]["id"]
        self.tree = [psutil.Process(each) for each in processes() - before] + [psutil.Process(pid)]
        self.times: list[float] = []

    def ask(self, *urls: str) -> httpx.Response:
        seen = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        messages = [{"role": "user", "content": [*seen, {"type": "text", "text": "?"}]}]
        return self.client.post("/chat/completions", json={"model": self.model, "messages": messages, "max_tokens": 8})

    def num_bytes(self) -> int:
        found = 0
        for process in self.tree:
            with suppress(psutil.Error):
                found += process.memory_info().rss
        return found

    @contextmanager
    def asked_by_another(self) -> Iterator[None]:
        """A client that asks one plain question after the other while the block runs."""
        ended, self.times = threading.Event(), []

        def ask() -> None:
            while not ended.is_set():
                begun = time.monotonic()
                assert self.ask().status_code == 200
                self.times.append(time.monotonic() - begun)

        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(ask)
            try:
                yield
            finally:
                ended.set()
                asking.result()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("bombs")
    write(folder)
    overrides = [
        "recipe=viggo_quickstart", "name=bombs", "pipeline=[ingest,serve]", "evaluate.require={}",
        f"storage.root={folder}/runs", f"storage.artifacts={folder}/artifacts", f"model.source={folder}/model",
        "model.architecture=null", f"dataset.source={folder}", "dataset.files.val=null", "dataset.prompt.user=null",
        "dataset.prompt.assistant=null", "dataset.prompt.conversations=messages", "evaluate.compare_base=false",
        "evaluate.slices=[]", "evaluate.metrics=[exact_match]",
    ]  # fmt: skip
    before = processes()
    with serving(folder / "bombs.log", *overrides) as (url, pid):
        made = Up(url, pid, before)
        try:
            assert made.ask(TAKEN["a JPEG that is called PNG"]()[0]).status_code == 200
            yield made
        finally:
            made.client.close()


def report(name: str, up: Up, took: list[float], alone: float, more: int) -> None:
    print(json.dumps({
        "image": name, "answered_s": [round(min(took), 2), round(max(took), 2)], "others_alone_s": round(alone, 2),
        "others_s": round(max(up.times, default=0.0), 2), "more_mib": more >> 20,
    }))  # fmt: skip


def sent(name: str, urls: list[str], up: Up) -> tuple[list[httpx.Response], list[float]]:
    """The answers to AT_ONCE such requests at once, and their times; prints what they cost."""
    with up.asked_by_another():
        time.sleep(1.0)
    alone, before, most = max(up.times), up.num_bytes(), [0]

    def timed(_: Any) -> tuple[httpx.Response, float]:
        begun = time.monotonic()
        answer = up.ask(*urls)
        return answer, time.monotonic() - begun

    with up.asked_by_another(), ThreadPoolExecutor(AT_ONCE) as pool:
        asking = [pool.submit(timed, each) for each in range(AT_ONCE)]
        while not all(each.done() for each in asking):
            most[0] = max(most[0], up.num_bytes())
            time.sleep(0.05)
        found = [each.result() for each in asking]
        time.sleep(0.2)
    took = [each for _, each in found]
    report(name, up, took, alone, max(0, most[0] - before))
    assert max(up.times) < alone + LATE_S
    assert most[0] - before < MOST_MORE_BYTES
    return [answer for answer, _ in found], took


@pytest.mark.parametrize("name", REFUSED)
def test_a_costly_or_broken_image_is_refused_at_once_and_delays_nobody(name: str, up: Up) -> None:
    answers, took = sent(name, REFUSED[name](), up)
    for answer in answers:
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["type"] == "invalid_request_error"
    assert max(took) < LATE_S


@pytest.mark.parametrize("name", TAKEN)
def test_an_image_within_the_limits_is_answered_and_delays_nobody(name: str, up: Up) -> None:
    answers, _ = sent(name, TAKEN[name](), up)
    for answer in answers:
        assert answer.status_code == 200, answer.text


def test_the_endpoint_answers_afterwards(up: Up) -> None:
    assert up.ask().status_code == 200
