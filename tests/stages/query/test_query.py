"""What is sent to the endpoint, what is measured, and the message when it does not answer."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner.errors import RunnerError
from runner.recipe.load import compose, to_recipe
from runner.storage.artifact import scan_folder
from stages.data.answer import Answer
from stages.data.example import Example
from stages.data.prediction import Prediction
from stages.query.received import Received
from stages.query.stage import Query, ask_all, batch_predictions, figures, request_of, row_report
from stages.sections.recipe import Recipe

ROW = {"id": "test-000000", "instruction": "Say it.", "input": "a game", "output": "inform(name[a])"}
EXAMPLE = Example(
    "test-000000",
    [{"role": "user", "content": "Say it.\na game"}, {"role": "assistant", "content": "inform(name[a])"}],
    columns=ROW,
)


class Endpoint(BaseHTTPRequestHandler):
    """Streams `words` as an OpenAI endpoint does; other models than base and base:a are a 404."""

    words = ("in", "form", "()")
    received: list[dict[str, Any]] = []  # noqa: RUF012
    keys: list[str] = []  # noqa: RUF012
    delay_s = 0.0

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.received.append(body)
        self.keys.append(self.headers["Authorization"])
        if body["model"] not in ("base", "base:a"):
            return self.answer(404, json.dumps({"error": {"message": "no such model"}}))
        if body["model"] == "base:a" and self.delay_s:
            time.sleep(self.delay_s)
        deltas: list[dict[str, Any]] = [
            {"role": "assistant", "content": ""},
            *({"content": word} for word in self.words),
        ]
        chunks: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        chunks.append({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}})
        common = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": body["model"]}
        lines = [f"data: {json.dumps({**common, **chunk})}\n\n" for chunk in chunks]
        return self.answer(200, "".join([*lines, "data: [DONE]\n\n"]), "text/event-stream")

    def answer(self, status: int, text: str, kind: str = "application/json") -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


class Silent:
    """A progress handle that tells nobody."""

    def update(self, done: float, total: float | None, unit: str, **figures: Any) -> None:
        pass


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Endpoint, "received", [])
    monkeypatch.setattr(Endpoint, "keys", [])
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # must not be asked about loopback
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


def recipe_of(*overrides: str) -> Recipe:
    return to_recipe(compose(["recipe=viggo_quickstart", *overrides]))[0]


def ask(url: str, recipe: Recipe, *models: str, key: str | None = None) -> dict[str, dict[str, Any]]:
    return ask_all(url, list(models), [request_of(recipe, EXAMPLE)], Silent(), key)[0]  # type: ignore[arg-type]


def test_request_has_the_messages_of_the_prompt_spec(quickstart: Recipe) -> None:
    assert request_of(quickstart, EXAMPLE)["messages"] == EXAMPLE.prompt


def test_sampling_is_split_into_what_openai_knows_and_what_only_vllm_does() -> None:
    recipe = recipe_of("infer.sampling={temperature: 0.3, max_tokens: 7, top_k: 5, stop: [x], bad_words: [y]}")
    request = request_of(recipe, EXAMPLE)
    assert (request["temperature"], request["max_tokens"], request["stop"]) == (0.3, 7, ["x"])
    assert (request["extra_body"]["top_k"], request["extra_body"]["bad_words"]) == (5, ["y"])


def test_unsaid_sampling_is_that_of_batch_inference_and_not_the_models_own() -> None:
    recipe = recipe_of("~infer.sampling.temperature", "~infer.sampling.max_tokens")
    request = request_of(recipe, EXAMPLE)
    assert (request["temperature"], request["top_p"], request["max_tokens"]) == (1.0, 1.0, 16)
    assert request["extra_body"] == {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}


def test_the_api_key_is_sent(endpoint: str, quickstart: Recipe) -> None:
    ask(endpoint, quickstart, "base", key="a-good-key-0123456789")
    assert Endpoint.keys == ["Bearer a-good-key-0123456789"]


def test_every_sampling_parameter_is_sent(endpoint: str) -> None:
    ask(endpoint, recipe_of("infer.sampling={temperature: 0.0, max_tokens: 7, top_k: 5}"), "base")
    body = Endpoint.received[0]
    assert (body["temperature"], body["max_tokens"], body["top_k"], body["repetition_penalty"]) == (0.0, 7, 5, 1.0)
    assert (body["stream"], body["stream_options"]) == (True, {"include_usage": True})


def test_streams_an_answer_from_each_model(endpoint: str, quickstart: Recipe) -> None:
    answers = ask(endpoint, quickstart, "base", "base:a")
    assert [body["model"] for body in Endpoint.received] == ["base", "base:a"]
    tuned = answers["base:a"]
    assert (tuned["text"], tuned["num_tokens"], tuned["finish_reason"]) == ("inform()", 4, "stop")
    assert 0 < tuned["first_token_s"] <= tuned["total_s"]


def test_an_unknown_model_gives_the_endpoints_message(endpoint: str, quickstart: Recipe) -> None:
    with pytest.raises(RunnerError, match=r"refused nope with status 404: .*no such model"):
        ask(endpoint, quickstart, "nope")


def test_a_dead_endpoint_is_named(quickstart: Recipe) -> None:
    with pytest.raises(RunnerError, match=r"http://127\.0\.0\.1:9/v1/ does not answer"):
        ask("http://127.0.0.1:9/v1", quickstart, "base")


def test_a_slow_endpoint_is_a_timeout(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Endpoint, "delay_s", 1.0)
    with pytest.raises(RunnerError, match=r"within query\.timeout_s=0\.1"):
        ask(endpoint, recipe_of("query.timeout_s=0.1"), "base:a")


def test_reads_batch_predictions_of_the_asked_rows_without_errors(tmp_path: Path) -> None:
    answers = [
        ("a", "tuned", "x", None),
        ("a", "base", "y", None),
        ("b", "tuned", "", "boom"),
        ("c", "tuned", "z", None),
    ]
    rows = [Prediction(name, variant, text, "", 1, 1, error, {}) for name, variant, text, error in answers]
    (tmp_path / "part-0.jsonl").write_text("".join(f"{row.line()}\n" for row in rows))
    found = batch_predictions(scan_folder("predictions", tmp_path), {"a", "b"})
    assert found == {("tuned", "a"): "x", ("base", "a"): "y"}
    assert batch_predictions(None, {"a"}) == {}


def answer(text: str, first: float, rate: float | None) -> dict[str, Any]:
    return {"model": "m", "text": text, "first_token_s": first, "tokens_per_s": rate}


BOTH = {"base": "base", "tuned": "base:a"}


def test_adapters_of_other_runs_are_compared_with_their_own_batch() -> None:
    models = {**BOTH, "run-2": "base:b"}
    answers = {"base": answer("x", 1, 1), "base:a": answer("y", 1, 1), "base:b": answer("z", 0.5, 9)}
    batch = {("tuned", "r"): "y", ("run-2", "r"): "other"}
    metrics = figures(models, [row_report("r", models, answers, batch)])
    assert metrics["matches_batch"] is True
    assert metrics["others"]["run-2"]["matches_batch"] is False
    assert metrics["others"]["run-2"]["first_token_s"] == 0.5


def test_compares_the_streamed_text_with_the_batch() -> None:
    answers = {"base": answer("x", 1, 1), "base:a": answer("y", 1, 1)}
    line = row_report("r", BOTH, answers, {("tuned", "r"): "y", ("base", "r"): "other"})
    assert (line["tuned"]["matches_batch"], line["base"]["matches_batch"]) == (True, False)
    assert row_report("r", BOTH, answers, {})["tuned"]["matches_batch"] is None
    led = {"base": answer(" x", 1, 1), "base:a": answer("y ", 1, 1)}  # by the chat template's white space
    line = row_report("r", BOTH, led, {("tuned", "r"): "y", ("base", "r"): "x"})
    assert (line["tuned"]["matches_batch"], line["base"]["matches_batch"]) == (False, True)


def test_figures_are_medians_and_the_first_rows_text() -> None:
    models, table = BOTH, []
    for first, rate, text in ((0.1, 10.0, "one"), (0.3, None, "two"), (0.2, 30.0, "three")):
        answers = {"base": answer("b", 1.0, 5.0), "base:a": answer(text, first, rate)}
        table.append(row_report("r", models, answers, {("tuned", "r"): "one"}))
    metrics = figures(models, table)
    assert (metrics["first_token_s"], metrics["tokens_per_s"], metrics["text"]) == (0.2, 20.0, "one")
    assert metrics["matches_batch"] is False
    assert metrics["base"]["tokens_per_s"] == 5.0
    assert len(metrics["rows"]) == 3


def test_the_base_model_alone_has_figures_too() -> None:
    table = [row_report("r", {"base": "base"}, {"base": answer("b", 1.0, 5.0)}, {})]
    metrics = figures({"base": "base"}, table)
    assert (metrics["text"], metrics["matches_batch"]) == ("b", None)


def test_needs_predictions_only_when_the_pipeline_infers(quickstart: Recipe) -> None:
    assert Query().needs(quickstart) == ("endpoint", "test_set", "predictions")
    assert Query().needs(recipe_of("pipeline=[ingest,serve,query]")) == ("endpoint", "test_set")


def test_a_streamed_answer_is_put_together_from_text_reasoning_and_calls() -> None:
    def delta(**fields: Any) -> Any:
        return SimpleNamespace(**{"content": None, "tool_calls": None, **fields})

    def call(index: int, arguments: str, name: str | None = None) -> Any:
        return SimpleNamespace(index=index, function=SimpleNamespace(name=name, arguments=arguments))

    received = Received()
    assert not received.add(delta())
    assert received.add(delta(reasoning="Count "))
    received.add(delta(reasoning="them."))
    received.add(delta(content="\n\nLet me look."))
    received.add(delta(tool_calls=[call(0, '{"item":', "stock")]))
    received.add(delta(tool_calls=[call(0, ' "rye"}'), call(1, "{", "open")]))
    assert received.answer() == Answer(
        "\n\nLet me look.",
        [{"name": "stock", "arguments": {"item": "rye"}}, {"name": "open", "arguments": "{"}],
        "Count them.",
    )
