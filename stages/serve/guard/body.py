"""The body of a request as data: JSON, an object, of characters that can be written. All else is refused."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from stages.serve.guard.refusal import NOT_JSON, RefusedError, bad_request

_JSON = re.compile(r"application/(?:[\w.-]+\+)?json\s*(?:;.*)?", re.IGNORECASE)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")


def read_object(content_type: str, body: bytes) -> dict[str, Any]:
    """The JSON object of a body. Raises RefusedError, also for a key that is given twice, for NaN, for numbers
    that are too large, and for halves of surrogate pairs."""
    if not _JSON.fullmatch(content_type.strip()):
        raise RefusedError(NOT_JSON)
    try:
        value = json.loads(body.decode("utf-8"), parse_constant=_no_json, parse_float=_finite, object_pairs_hook=_once)
    except UnicodeDecodeError:
        raise bad_request("The body is not UTF-8.", code="invalid_json") from None
    except RecursionError:
        raise bad_request("The body is nested too deeply.", code="invalid_json") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise bad_request(f"The body is not valid JSON: {error.msg} at {where}.", code="invalid_json") from None
    except ValueError:  # a number of more digits than Python reads
        raise bad_request("The body has a number that is too long.", code="invalid_json") from None
    if not isinstance(value, dict):
        kind = {list: "a list", str: "a string", type(None): "null"}.get(type(value), "a single value")
        raise bad_request(f"The body must be a JSON object, and is {kind}.", code="invalid_json")
    if _SURROGATE.search(body):
        refuse_surrogates(value)
    return value


def _no_json(name: str) -> NoReturn:
    raise bad_request(f"The body is not valid JSON: {name} is not a JSON number.", code="invalid_json")


def _finite(text: str) -> float:
    if math.isinf(number := float(text)):
        raise bad_request(f"The body has the number {text[:20]}, which is too large.", code="invalid_json")
    return number


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object, if no key of it stands twice: one of the two values would not be used."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        param = twice.encode(errors="replace").decode()[:200]
        raise bad_request(f"The body has {param!r} twice.", param, "invalid_json")
    return found


def refuse_surrogates(body: dict[str, Any]) -> None:
    """Raise RefusedError naming the key whose text has half a surrogate pair, which no encoding can write."""
    for key, value in body.items():
        if any("\ud800" <= character <= "\udfff" for text in (key, *texts(value)) for character in text):
            param = key.encode(errors="replace").decode()
            message = f"{param} has half of a surrogate pair, which is not a character."
            raise bad_request(message, param, "invalid_unicode")


def texts(value: Any) -> Iterator[str]:
    """Every string in a JSON value, keys included."""
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, dict):
            left += [*each.keys(), *each.values()]
        elif isinstance(each, list):
            left += each
