"""Schemas and grammars are tried as the engine compiles them, in processes that end when one takes too long."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from stages.engines.vllm.serving import grammar_worker
from stages.engines.vllm.serving.grammar_check import GrammarCheck
from stages.engines.vllm.serving.grammar_worker import EngineConfig, reason
from stages.engines.vllm.serving.side_process import LostError, Worker, Workers
from tests.stages.engines.model_config import OfModel
from tests.tiny_model import write_tiny_model

pytestmark = [
    pytest.mark.environment("engine"),
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> EngineConfig:
    folder = tmp_path_factory.mktemp("model")
    write_tiny_model(folder)
    return EngineConfig(OfModel(str(folder)), SimpleNamespace(backend="auto", disable_any_whitespace=False))


@pytest.fixture(scope="module")
def worker(config: EngineConfig) -> Iterator[Worker]:
    made = Worker(grammar_worker.run, lambda: config)
    yield made
    made.end()


PERSON = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
GOOD = [
    ("json", PERSON),
    ("json", json.dumps(PERSON)),
    ("json", {"type": "integer", "multipleOf": 3}),  # xgrammar does not know it, guidance does
    ("json", {"$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}, "$ref": "#/$defs/tree"}),
    ("regex", "[a-z]+@[a-z]+"),
    ("choice", ["yes", "no"]),
    ("grammar", 'root ::= "a" root | "b"'),
    ("structural_tag", {"type": "structural_tag", "format": {"type": "const_string", "value": "x"}}),
]
BAD = [
    ("json", {"$ref": "#"}, "Circular $ref chain"),
    ("json", {"type": "nope"}, 'Unsupported type "nope"'),
    ("json", {"enum": []}, "must not be empty"),
    ("json", {"$ref": "#/nowhere"}, "Cannot find field 'nowhere'"),
    ("regex", "(a", "parenthesis"),
    ("regex", "[", ""),
    ("grammar", 'root ::= root "a"', "allows no text"),
    ("grammar", 'root ::= x "a"\nx ::= root', "allows no text"),
    ("grammar", "root ::= y", 'Rule "y" is not defined'),
    ("grammar", "", "not found"),
]


@pytest.mark.parametrize(("kind", "value"), GOOD)
def test_what_the_engine_can_use_passes(kind: str, value: Any, worker: Worker) -> None:
    assert worker.ask((kind, value), 30) == ""


@pytest.mark.parametrize(("kind", "value", "words"), BAD)
def test_what_it_cannot_use_has_a_reason_without_places_in_code(
    kind: str, value: Any, words: str, worker: Worker
) -> None:
    found = worker.ask((kind, value), 30)
    assert found
    assert words in found
    assert ".cc:" not in found
    assert "\n" not in found


def bomb(levels: int) -> str:
    """A schema whose compilation takes the cube of its depth."""
    return '{"type": "object", "properties": {"p": ' * levels + '{"type": "string"}' + "}}" * levels


def test_one_that_takes_too_long_is_ended_and_the_next_is_tried(worker: Worker) -> None:
    assert worker.ask(("regex", "a"), 30) == ""
    before = set(psutil.Process().children(recursive=True))
    begun = time.monotonic()
    with pytest.raises(LostError, match=r"it takes longer than 0\.3 s"):
        worker.ask(("json", bomb(240)), 0.3)
    assert time.monotonic() - begun < 15
    assert worker._process is None
    assert len([process for process in before if process.is_running()]) < len(before)
    assert worker.ask(("regex", "a"), 30) == ""


def test_a_bomb_is_told_in_a_clause(worker: Worker) -> None:
    check = GrammarCheck(Workers([worker]), logging.getLogger("check"))
    assert asyncio.run(check("json", bomb(240), "bomb", 0.3)) == "it takes longer than 0.3 s to compile"


def test_what_is_known_is_not_tried_again_and_the_loop_stays_free(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask() -> None:
        check = GrammarCheck(Workers([worker]), logging.getLogger("check"))
        first, longest = asyncio.ensure_future(check("json", PERSON, "person", 60)), 0.0
        while not first.done():
            begun = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - begun)
        assert (await first, longest < 2) == ("", True)
        monkeypatch.setattr(worker, "ask", None)  # it would fail if it were asked
        for _ in range(100):
            assert await check("json", PERSON, "person", 60) == ""

    asyncio.run(ask())


def test_a_request_that_is_cancelled_leaves_its_process_to_the_next(worker: Worker) -> None:
    async def ask() -> None:
        check = GrammarCheck(Workers([worker]), logging.getLogger("check"))
        for number in range(3):
            asked = asyncio.ensure_future(check("regex", "a", f"a{number}", 60))
            await asyncio.sleep(0)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
        assert await check("regex", "a", "a", 60) == ""
        assert check._workers._idle == [worker]

    asyncio.run(ask())


def test_without_a_process_the_engines_own_checks_stay(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> EngineConfig:
        raise RuntimeError("no engine")

    check = GrammarCheck(Workers([Worker(grammar_worker.run, broken)]), logging.getLogger("check"))
    assert asyncio.run(ask_twice(check)) == ["", ""]
    assert "a grammar was not tried: no engine" in caplog.text


async def ask_twice(check: GrammarCheck) -> list[str]:
    return [await check("json", {}, "{}", 1) for _ in range(2)]


def test_a_reason_is_short_and_one_line() -> None:
    raised = ValueError("[08:43:09] /project/cpp/regex_converter.cc:83: Regex\n parsing error. ")
    assert reason(raised) == "Regex parsing error"
    assert len(reason(ValueError("x" * 1000))) == 300
    assert reason(MemoryError()) == "MemoryError"
