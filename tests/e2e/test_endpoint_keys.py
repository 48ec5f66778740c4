"""An endpoint with keys on real parts: who gets in, what listens, and that no secret is written or shown anywhere."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from tests.e2e.conftest import Done, serving

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

OLD, NEW = "canary-old-key-9Xq3", "canary-new-key-7Wt5"
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "canary-aws-5Kd8",
    "AWS_ACCESS_KEY_ID": "canary-id-2Lm6",
    "HF_TOKEN": "canary-hub-4Np1",
    "MY_PASSWORD": "canary-password-6Rv9",
    "SERVE_API_KEYS": "canary-environment-key-3Zs2",
}
ASKED = (
    *(f"/api/v0/{what}?detail=true" for what in ("actors", "tasks", "runtime_envs", "workers")),
    *("/logical/actors", "/api/serve/applications/", "/api/jobs/", "/metrics"),
)


@dataclass(frozen=True)
class Up:
    """A run that serves. process: of the run; keys: file of its API keys; folder: of the run; log: what it printed."""

    url: str
    process: psutil.Process
    keys: Path
    folder: Path
    log: Path

    def tree(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


@pytest.fixture(scope="module")
def up(workspace: Path, quickstart_run: Done) -> Iterator[Up]:
    """The base model of the quickstart, with its data, served with keys and a dashboard."""
    keys, log = workspace.parent / "keys", workspace.parent / "served.log"
    keys.write_text(f"{OLD}\n")
    overrides = [
        "recipe=viggo_quickstart", "name=keys", "pipeline=[ingest,serve,query]", "evaluate.require={}",
        f"storage.root={workspace}", "cluster.dashboard=true", "serve.limits.max_tokens=64",
        f"serve.api_keys.file={keys}", "serve.api_keys.env=SERVE_API_KEYS", "serve.limits.max_body_bytes=100000",
    ]  # fmt: skip
    with serving(log, *overrides, env=SECRETS) as (url, pid):
        yield Up(url, psutil.Process(pid), keys, (workspace / "latest").resolve(), log)


def get(url: str, token: str = "", timeout_s: float = 30.0) -> tuple[int, bytes]:
    """Status and body; (0, b"") where no HTTP is spoken."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}", "Origin": "http://evil.example"})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=timeout_s) as answer:
            assert not [name for name in answer.headers if name.lower().startswith("access-control")]
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except (OSError, HTTPException):  # a port of another protocol
        return 0, b""


def client(up: Up, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=up.url, api_key=key, max_retries=0)


def test_a_key_opens_the_endpoint_and_nothing_else_does(up: Up) -> None:
    root = up.url.removesuffix("/v1")
    assert get(f"{root}/health")[0] == 200
    for path in ("/v1/models", "/v1/chat/completions", "/docs", "/openapi.json", "/metrics", "/tokenize"):
        assert get(root + path)[0] == 401
        assert get(root + path, "canary-old-key-9Xq")[0] == 401
    for path in ("/docs", "/redoc", "/openapi.json", "/metrics"):
        assert get(root + path, OLD)[0] == 404
    with pytest.raises(openai.AuthenticationError), client(up, "wrong-key-0123456789") as stranger:
        stranger.models.list()
    for key in (OLD, SECRETS["SERVE_API_KEYS"]):
        with client(up, key) as known:
            assert len(known.models.list().data) == 1


def test_limits_hold_and_answers_stream(up: Up) -> None:
    with client(up, OLD) as known:
        ask: dict[str, Any] = {
            "model": known.models.list().data[0].id,
            "messages": [{"role": "user", "content": "Count to ten."}],
        }
        with pytest.raises(openai.BadRequestError, match="at most 64"):
            known.chat.completions.create(**ask, max_tokens=65)
        with pytest.raises(openai.BadRequestError, match="at most 16"):
            known.chat.completions.create(**ask, n=17)
        with pytest.raises(openai.BadRequestError, match="trust_request_chat_template"):
            known.chat.completions.create(**ask, extra_body={"chat_template": "{{ 7 * 7 }}"})
        with pytest.raises(openai.APIStatusError) as large:
            known.chat.completions.create(**ask, user="x" * 100_001)
        assert large.value.status_code == 413
        body = {"ignore_eos": True}
        answer = known.chat.completions.create(**ask, extra_body=body)
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 64  # the most that it may have, where it says nothing
        pieces = [time.monotonic() for _ in known.chat.completions.create(**ask, stream=True, extra_body=body)]
        assert len(pieces) > 30


def test_everything_listens_on_loopback(up: Up) -> None:
    listening = [
        connection.laddr.ip.removeprefix("::ffff:")
        for process in up.tree()
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert len(listening) > 5
    assert set(listening) <= {"127.0.0.1", "::1"}


def test_no_secret_is_in_the_arguments_of_a_process(up: Up) -> None:
    """Which `ps` shows to every user of the machine; their environment is shown to nobody else."""
    lines = []
    for process in up.tree():
        with suppress(psutil.NoSuchProcess):
            lines.append(" ".join(process.cmdline()))
    assert len(lines) > 5
    assert not [line for line in lines if any(secret in line for secret in (OLD, NEW, *SECRETS.values()))]


def test_no_secret_is_in_any_file_page_or_answer(up: Up) -> None:
    secrets = [value.encode() for value in (OLD, NEW, *SECRETS.values())]
    sessions = [path for path in Path("/tmp/ray").glob("session_2*") if path.name.endswith(f"_{up.process.pid}")]
    assert len(sessions) == 1
    files = [path for folder in (up.folder, sessions[0], up.log.parent) for path in folder.rglob("*")]
    files = [path for path in files if path.is_file() and path != up.keys]
    assert len(files) > 50
    for path in files:
        content = path.read_bytes()
        assert not [secret for secret in secrets if secret in content], path
    assert any(path.name == "report.html" for path in files)
    answers = {}
    token = Path("~/.ray/auth_token").expanduser()
    secret = token.read_text().strip() if token.is_file() else ""
    ports = {
        connection.laddr.port
        for process in up.tree()
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    for port in ports:
        if get(f"http://127.0.0.1:{port}/", secret, timeout_s=3.0)[0]:
            answers |= {f"{port}{path}": get(f"http://127.0.0.1:{port}{path}", secret) for path in ASKED}
    assert any(b"AdapterServer" in body for status, body in answers.values() if status == 200), {
        name: status for name, (status, _) in answers.items()
    }
    for name, (_, body) in answers.items():
        assert not [secret for secret in secrets if secret in body], name
    assert json.loads((up.folder / "recipe.json").read_text())["serve"]["api_keys"]["env"] == "SERVE_API_KEYS"


def test_an_old_key_is_refused_after_rotation(up: Up) -> None:
    """The last of these tests: it leaves other keys behind."""
    up.keys.write_text(f"{NEW}\n")
    assert get(f"{up.url}/models", OLD)[0] == 401
    assert get(f"{up.url}/models", NEW)[0] == 200
    up.keys.unlink()
    assert get(f"{up.url}/models", NEW)[0] == 401
    assert get(f"{up.url}/models", SECRETS["SERVE_API_KEYS"])[0] == 200
