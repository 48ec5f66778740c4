"""What clients get from a live endpoint for requests that are wrong, costly or given up."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.conftest import processes, serving
from tests.e2e.request_values import VALUES

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ASK: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8}
JSON = {"Content-Type": "application/json"}


class Up:
    """A run that serves the quickstart's base model, to all addresses of the machine where a key is asked for."""

    def __init__(self, url: str, pid: int, before: set[int]) -> None:
        self.client = httpx.Client(
            base_url=url, trust_env=False, timeout=300, headers={"Authorization": f"Bearer {KEY}"}
        )
        self.model = self.client.get("/models").json()["data"][0]["id"]
        self.tree = [psutil.Process(each) for each in processes() - before] + [psutil.Process(pid)]

    def post(self, body: Any, path: str = "/chat/completions", **how: Any) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps({"model": self.model, **body}).encode()
        return self.client.post(path, content=content, **{"headers": JSON, **how})


KEY = "a-key-of-the-tests-7Qx4"


@pytest.fixture(scope="module", params=["1", "0"], ids=["haproxy", "python proxy"])
def up(request: pytest.FixtureRequest, workspace: Path) -> Iterator[Up]:
    keys, log = workspace.parent / "request_keys", workspace.parent / f"requests-{request.param}.log"
    keys.write_text(f"{KEY}\n")
    overrides = [
        "recipe=viggo_quickstart", "name=requests", "pipeline=[ingest,serve,query]", "evaluate.require={}",
        f"storage.root={workspace}", "serve.host=0.0.0.0", f"serve.api_keys.file={keys}",
        "serve.limits.requests_per_minute=100000",
    ]  # fmt: skip
    before = processes()
    with serving(log, *overrides, env={"RAY_SERVE_ENABLE_HA_PROXY": request.param}) as (url, pid):
        up = Up(url, pid, before)
        try:
            yield up
        finally:
            up.client.close()


def refused(answer: httpx.Response, status: int = 400) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    for internal in ("Internal exception", "Traceback", "ray.llm", ".cc:", "ctx"):
        assert internal not in answer.text
    return error


def test_wrong_requests_are_refused_in_one_sentence(up: Up) -> None:
    hello = json.dumps({"model": up.model, **ASK}).encode()
    assert refused(up.post(hello, headers={}), 415)
    assert refused(up.post(hello, headers={"Content-Type": "text/plain"}), 415)
    for body in (b"[]", b'"hi"', b"{"):
        assert refused(up.post(body))["code"] == "invalid_json"
    surrogate = b'{"messages": [{"role": "user", "content": "\\ud83d x"}]}'
    assert refused(up.post(surrogate))["param"] == "messages"
    for name, instead in (("guided_choice", "structured_outputs.choice"), ("max_new_tokens", "max_tokens")):
        assert instead in refused(up.post({**ASK, name: ["yes"]}))["message"]
    completion = {"prompt": "Hello", "max_tokens": 2}
    assert refused(up.post({**completion, "best_of": 3}, "/completions"))["param"] == "best_of"
    assert refused(up.post({**completion, "prompt": ["a"] * 1000}, "/completions"))["code"] == "limit_exceeded"
    assert refused(up.post({**ASK, "temperature": -1}))["param"] == "temperature"
    assert refused(up.post({**ASK, "messages": "hi"}))["param"] == "messages"
    assert refused(up.post({**ASK, "max_tokens": 10**6}))
    assert up.client.get("/nothing").json()["error"]["code"] == "not_found"


def test_every_extreme_value_of_a_parameter_is_used_or_refused_by_its_name(up: Up) -> None:
    wrong = {}
    for fragment, param in VALUES:
        rest = "" if fragment.startswith('"max_tokens"') else ', "max_tokens": 4'
        message = '"messages": [{"role": "user", "content": "Hello"}]'
        answer = up.post(f'{{"model": "{up.model}", {message}{rest}, {fragment}}}'.encode())
        if answer.status_code == 200 and not param:
            assert answer.json()["choices"][0]["finish_reason"] in ("length", "stop")
        elif answer.status_code != 400 or not param or refused(answer)["param"] != param:
            wrong[fragment[:80]] = (answer.status_code, answer.text[:200])
    assert wrong == {}
    assert up.post(ASK).status_code == 200


def form(schema: Any) -> dict[str, Any]:
    return {**ASK, "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


def test_schemas_and_grammars_that_the_engine_cannot_use_are_refused_and_others_hold(up: Up) -> None:
    for wrong in (
        form({"$ref": "#"}),
        form({"type": "nope"}),
        {**ASK, "structured_outputs": {"regex": "(a"}},
        {**ASK, "structured_outputs": {"grammar": 'root ::= root "a"'}},
    ):
        assert refused(up.post(wrong))["code"] == "invalid_grammar"
    answer = up.post({**ASK, "structured_outputs": {"choice": ["yes", "no"]}})
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] in ("yes", "no")
    assert up.post({**ASK, "structured_outputs": {"choice": ["yes", "no"]}}).status_code == 200


def test_clients_that_give_up_free_the_engine(up: Up) -> None:
    """16 requests of 400 tokens, each left after a second; then one of 8 tokens is as fast as before."""
    quick = {**ASK, "ignore_eos": True}
    assert up.post(quick).status_code == 200
    alone = timed(lambda: up.post(quick))

    def give_up(stream: bool) -> None:
        with suppress(httpx.TimeoutException):
            if stream:
                with up.client.stream("POST", "/chat/completions", json=long, headers=JSON, timeout=1) as answer:
                    for _ in zip(answer.iter_lines(), range(5), strict=False):
                        pass
            else:
                up.post({**quick, "max_tokens": 400}, timeout=1)

    long = {"model": up.model, **quick, "max_tokens": 400, "stream": True}
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(give_up, [False, True] * 8))
    time.sleep(1)
    assert timed(lambda: up.post(quick)) < 3 * alone + 0.5
    for process in up.tree:
        with suppress(psutil.NoSuchProcess):
            if process.name() == "haproxy":
                assert process.cpu_percent(interval=1) < 20


def timed(work: Any) -> float:
    begun = time.monotonic()
    assert work().status_code == 200
    return time.monotonic() - begun


def test_of_all_ports_the_endpoint_s_alone_is_open_to_others(up: Up) -> None:
    port = up.client.base_url.port
    listening = {
        (connection.laddr.ip.removeprefix("::ffff:"), connection.laddr.port)
        for process in up.tree
        if process.is_running()
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert len(listening) > 5
    assert {each for each in listening if each[0] not in ("127.0.0.1", "::1")} == {("0.0.0.0", port)}


def test_half_sent_requests_do_not_block_others(up: Up) -> None:
    held = []
    try:
        for _ in range(1000):
            client = socket.create_connection(("127.0.0.1", up.client.base_url.port or 0))
            held.append(client)
            with suppress(OSError):
                client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        assert up.post(ASK).status_code == 200
        time.sleep(17)
        assert not [client for client in held if is_open(client)]
    finally:
        for client in held:
            client.close()


def is_open(client: socket.socket) -> bool:
    client.setblocking(False)
    with suppress(BlockingIOError):
        with suppress(ConnectionError):
            client.recv(1, socket.MSG_PEEK)  # the end, or an error
        return False
    return True
