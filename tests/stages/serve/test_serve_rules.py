"""Who may reach the endpoint: an open one has keys, and the keys are somewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.errors import Problem
from runner.testing import problems_of
from tests.runner.recipes import given as by_command_line

KEY = "a-good-key-0123456789"


def problems(changes: dict[str, Any]) -> dict[str, Problem]:
    return problems_of(by_command_line(changes))


@pytest.fixture
def keys(tmp_path: Path) -> str:
    file = tmp_path / "keys"
    file.write_text(f"{KEY}\n")
    return str(file)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.7", "example.org", ""])
def test_an_open_endpoint_asks_for_a_key(host: str, keys: str) -> None:
    found = problems({"serve.host": host})["serve.host"]
    assert "no API key" in found.message
    assert "serve.api_keys.file" in found.hint
    assert problems({"serve.host": host, "serve.api_keys": {"file": keys}}) == {}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    assert problems({"serve.host": host}) == {}


@pytest.mark.parametrize("host", ["::1", "::", "[::1]", "fe80::1"])
def test_an_address_of_ipv6_is_refused_with_one_that_works(host: str, keys: str) -> None:
    found = problems({"serve.host": host, "serve.api_keys": {"file": keys}})["serve.host"]
    assert "IPv6" in found.message
    assert "serve.host=127.0.0.1" in found.hint


def test_keys_come_from_a_file_and_from_the_environment(keys: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYS", KEY)
    assert problems({"serve.api_keys": {"file": keys, "env": "KEYS"}}) == {}


@pytest.mark.parametrize(
    ("places", "key"),
    [
        ({}, "serve.api_keys"),
        ({"file": "/nowhere/keys"}, "serve.api_keys.file"),
        ({"file": "/dev/null"}, "serve.api_keys.file"),
        ({"env": "NO_SUCH_VARIABLE"}, "serve.api_keys.env"),
        ({"env": "PATH"}, "serve.api_keys.env"),
        ({"env": "KEY-0123456789abcdef"}, "serve.api_keys.env"),
        ({"fil": "x"}, "serve.api_keys.fil"),
    ],
)
def test_keys_that_are_nowhere_are_a_problem(places: dict[str, Any], key: str) -> None:
    found = problems({"serve.api_keys": places})
    assert list(found) == [key]
    assert found[key].hint


def test_keys_of_another_cluster_s_machine_are_not_looked_for() -> None:
    changes = {"serve.api_keys": {"file": "/etc/keys"}, "cluster.address": "10.0.0.1:6379"}
    assert "serve.api_keys.file" not in problems(changes)


def test_without_serve_nobody_needs_the_keys() -> None:
    assert problems({"serve.api_keys": {"file": "/etc/keys"}, "pipeline": ["ingest", "train"]}) == {}


@pytest.mark.parametrize("given", [KEY, [KEY], {"keys": [KEY]}, {"file": [KEY]}, {"key": KEY}, {"env": [KEY]}])
def test_a_key_in_the_recipe_is_refused_and_not_repeated(given: Any) -> None:
    found = problems({"serve.api_keys": given})
    assert found
    assert KEY not in repr(found)


def test_query_can_ask_what_batch_inference_asked() -> None:
    found = problems({"serve.limits.max_tokens": 47, "infer.sampling.max_tokens": 48})
    assert "Set serve.limits.max_tokens=48" in found["serve.limits.max_tokens"].hint
    assert problems({"serve.limits.max_tokens": 48, "infer.sampling.max_tokens": 48}) == {}
    alone = {"serve.limits.max_tokens": 47, "pipeline": ["ingest", "train", "publish", "infer", "evaluate", "serve"]}
    assert problems(alone) == {}
