"""Answers that refuse a request, in the shape of OpenAI's API, which its clients turn into exceptions of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runner.text import count_text


@dataclass(frozen=True)
class Refusal:
    """An answer without asking the application. param: the request's key; headers: besides the content's own."""

    status: int
    message: str
    code: str | None
    kind: str = "invalid_request_error"
    headers: Mapping[str, str] | None = None
    param: str | None = None

    def body(self) -> dict[str, Any]:
        """As OpenAI's API words an error."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}


class RefusedError(Exception):
    """Raised where a request is checked; caught where it is answered."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def bad_request(message: str, param: str | None = None, code: str = "invalid_value") -> RefusedError:
    """A 400 to raise."""
    return RefusedError(Refusal(400, message, code, param=param))


NO_KEY = Refusal(
    401,
    "You didn't provide an API key. Send it in the header 'Authorization: Bearer KEY'.",
    "invalid_api_key",
    headers={"WWW-Authenticate": "Bearer"},
)
WRONG_KEY = Refusal(401, "Incorrect API key provided.", "invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
CLOSED = Refusal(503, "The endpoint is not ready.", "not_ready", "server_error")
INCOMPLETE = Refusal(400, "The request ended before its body.", "incomplete_body")
TOO_SLOW = Refusal(408, "The request's body did not arrive in time.", "request_timeout")
NOT_JSON = Refusal(
    415, "The body must be JSON, with the header 'Content-Type: application/json'.", "unsupported_media_type"
)
ENCODED = Refusal(
    415, "The body must be sent as it is, without a Content-Encoding such as gzip.", "unsupported_media_type"
)


def too_large(most: int) -> Refusal:
    """A 413. most: bytes."""
    return Refusal(413, f"The request's body is larger than {count_text(most, 'byte')}.", "request_too_large")
