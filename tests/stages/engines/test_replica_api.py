"""The API of a replica over the request models of the installed vLLM, with an engine that answers at once."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.testclient import TestClient

from runner.storage.artifact import scan_folder
from runner.storage.store import Store, open_store
from stages.engines.vllm.sampling.effect import Engine
from stages.models.adapter import CONFIG, WEIGHTS, Catalogue, Recent
from stages.models.chat.end_of_turn import Stop
from stages.models.weights import Adapter
from stages.sections.serve import Limits
from stages.serve.guard.front import GuardedFront

pytestmark = [
    pytest.mark.environment("engine"),
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

CHAT: dict[str, Any] = {"model": "base", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
SEEN: list[Any] = []


class Server:
    """A fake of `AdapterServer` for its API alone."""

    def engine_config(self) -> Any:
        raise RuntimeError("there is no engine")

    def met_by_requests(self) -> Engine:
        return Engine(template_variables=frozenset({"messages", "tools", "enable_thinking"}))

    def complete(self, body: Any) -> None:
        """The chat template ends turns as the tokenizer does."""

    def has_place_for(self, model: str) -> bool:
        return True

    async def answer(self, method: str, body: Any, info: Any, model: str) -> AsyncGenerator[Any, None]:
        from ray.llm._internal.serve.core.configs.openai_api_models import ErrorInfo, ErrorResponse

        SEEN.append(body)

        async def answers() -> AsyncGenerator[Any, None]:
            if body.seed == 1:
                info = ErrorInfo(message="It is too long.", type="BadRequestError", param="messages", code=400)
                yield ErrorResponse(error=info)
            elif body.seed == 2:
                raise RuntimeError("ray.llm secret")
            else:
                yield f"data: {json.dumps({'model': model})}\n\n"

        return answers()


def api_of(store: Store | None) -> Any:
    """The API of a replica of `base`, trained from org/model. store: of its adapters."""
    import ray.serve  # noqa: F401
    from ray.llm._internal.serve.core.configs.openai_api_models import ModelCard

    from stages.engines.vllm.serving.replica import OpenAIApi

    front = GuardedFront()
    front.configure({"keys": None, "limits": Limits(max_tokens=64).model_dump()})
    api = OpenAIApi.__new__(OpenAIApi)
    card = ModelCard(id="base", object="model", owned_by="us", permission=[], metadata={})
    catalogue = Catalogue(store, "org/model") if store else None
    for name, value in {"_server": Server(), "_front": front, "_only": None, "_catalogue": catalogue}.items():
        setattr(api, name, value)
    for name, value in {"_store": store, "_base_model": "org/model", "_recent": Recent()}.items():
        setattr(api, name, value)
    api._model_cards = {"base": card}
    return api


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(api_of(None).app(), raise_server_exceptions=False) as made:
        yield made


def post(client: TestClient, path: str = "/v1/chat/completions", **body: Any) -> Any:
    return client.post(path, json=body)


def test_requests_of_today_s_clients_pass(client: TestClient) -> None:
    for more in (
        {},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"tools": [{"type": "function", "function": FUNCTION}], "tool_choice": "none"},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "me"}]},
        {"messages": [{"role": "assistant", "content": "a"}, {"role": "tool", "tool_call_id": "1", "content": "x"}]},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}, "strict": True}}},
        {"response_format": {"type": "json_object"}},
        {"structured_outputs": {"choice": ["a"]}, "top_k": 1, "min_p": 0, "ignore_eos": True},
        {"logprobs": True, "top_logprobs": 2, "logit_bias": {"5": 1}, "user": "me", "seed": 3, "stop": ["x"]},
        {"chat_template_kwargs": {"enable_thinking": False}},
    ):  # fmt: skip
        answer = post(client, **{**CHAT, **more})
        assert answer.status_code == 200, (more, answer.text)
    completion = post(client, "/v1/completions", model="base", prompt=["a", "b"], echo=True, suffix=None)
    assert completion.status_code == 200, completion.text


def test_a_request_without_a_length_gets_the_limit(client: TestClient) -> None:
    without = {name: value for name, value in CHAT.items() if name != "max_tokens"}
    assert post(client, **without).status_code == 200
    assert SEEN[-1].max_completion_tokens == 64


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"guided_json": {}}, "guided_json"),
        ({"best_of": 3}, "best_of"),
        ({"max_new_tokens": 3}, "max_new_tokens"),
        ({"stream_options": {"include_usge": True}}, "stream_options.include_usge"),
        ({"messages": "hi"}, "messages"),
        ({"messages": None}, None),
        ({"top_k": "x"}, "top_k"),
        ({"response_format": {"type": "nope"}}, "response_format.type"),
        ({"tools": [{"function": {}}]}, "tools.0.function.name"),
        ({"stream": False, "stream_options": {"include_usage": True}}, "stream_options"),
        ({"seed": 1}, "messages"),
        ({"model": "other"}, "model"),
        ({"priority": 5}, "priority"),
        ({"kv_transfer_params": {"a": 1}}, "kv_transfer_params"),
        ({"chat_template_kwargs": {"other": 1}}, "chat_template_kwargs.other"),
        ({"max_tokens": 65}, "max_tokens"),
    ],
)
def test_a_wrong_one_is_a_4xx_of_one_sentence_that_names_the_parameter(
    more: dict[str, Any], param: str | None, client: TestClient
) -> None:
    answer = post(client, **{**CHAT, **more})
    assert answer.status_code in (400, 404), answer.text
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", param), error
    assert "\n" not in error["message"]
    for internal in ("Internal exception", "Value error", "vllm", "ray."):
        assert internal not in error["message"]


def test_a_failure_tells_nothing_of_the_inside(client: TestClient) -> None:
    answer = post(client, **CHAT, seed=2)
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    assert "secret" not in answer.text


def test_answers_end_where_the_chat_template_ends_a_turn() -> None:
    from stages.engines.vllm.serving.replica import AdapterServer

    server: Any = SimpleNamespace(_stop=Stop(token_ids=(7,), texts=("<end>",)))
    body = SimpleNamespace(messages=[], stop="x", stop_token_ids=None)
    AdapterServer.complete(server, body)
    assert (body.stop, body.stop_token_ids) == (["x", "<end>"], [7])
    completion = SimpleNamespace(prompt="a", stop=None, stop_token_ids=None)
    AdapterServer.complete(server, completion)
    assert completion.stop_token_ids is None


def test_a_deploy_changes_how_long_a_template_may_take_for_a_request() -> None:
    from stages.engines.vllm.serving.replica import AdapterServer

    configured: list[Any] = []
    server: Any = SimpleNamespace(
        _api=SimpleNamespace(configure=configured.append), _rendering=SimpleNamespace(timeout_s=5.0)
    )
    settings = {"guard": {"limits": {"template_timeout_s": 2.5}}}
    AdapterServer.reconfigure(server, settings)
    assert (server._rendering.timeout_s, configured) == (2.5, [settings])


def test_every_model_that_is_listed_can_be_asked_for(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    made = tmp_path / "made"
    for name, trained_on, files in (
        ("mine", "org/model", (WEIGHTS, CONFIG)),
        ("of-another", "org/other", (WEIGHTS, CONFIG)),
        ("no-adapter", "org/model", ("notes.json",)),
        ("with-code", "org/model", (WEIGHTS, CONFIG, "x.pkl")),
        ("changed-0123abcd", "org/model", (WEIGHTS, CONFIG)),
    ):
        (made / name).mkdir(parents=True)
        for file in files:
            (made / name / file).write_text("{}")
        meta = Adapter(name, "", "", 8, trained_on).meta()
        store.publish(scan_folder("adapter", made / name).model_copy(update={"meta": meta}), name, "adapter")
    with TestClient(api_of(store).app(), raise_server_exceptions=False) as client:
        listed = [card["id"] for card in client.get("/v1/models").json()["data"]]
        assert listed == ["base", "base:mine"]
        for name in [*listed, "base:of-another", "base:no-adapter", "base:with-code", "base:changed-0123abcd"]:
            assert client.get(f"/v1/models/{name}").status_code == (200 if name in listed else 404), name
