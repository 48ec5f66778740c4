"""What looks like a secret: refused in recipes, and masked in whatever is shown or kept."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

REDACTED = "***"
_KEY = re.compile(
    r"(^|_)(password|passwd|secret|secrets|api_keys?|access_key|access_key_id|secret_key|private_key|"
    r"auth_token|access_token|session_token|hf_token|hf_hub_token|token|credentials?)$",
    re.IGNORECASE,
)
_VALUE = re.compile(r"\b(AKIA[0-9A-Z]{16}|hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,})")
_ENVIRONMENT = re.compile(r"oc\.env:\s*[^,}]*(SECRET|PASSWORD|TOKEN|API_KEY|ACCESS_KEY|CREDENTIAL)", re.IGNORECASE)
_VARIABLE = re.compile(r"SECRET|PASSW|PASSPHRASE|TOKEN|CREDENTIAL|(^|_)KEYS?(_ID)?$", re.IGNORECASE)
_PLACES_OF_KEYS = "api_keys"
_URL_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")


def secrets_in(value: Any, name: str = "", dotted: str = "") -> Iterator[str]:
    """Dotted keys of what looks like a secret: by the key's name, by the value, and logins inside addresses.

    A number named max_token counts text. Under `api_keys` stand the places of keys, and nothing else.
    """
    if isinstance(value, dict) and (name == _PLACES_OF_KEYS or not _KEY.search(name)):
        for key, item in value.items():
            below = f"{dotted}.{key}" if dotted else str(key)
            if name == _PLACES_OF_KEYS and not _is_place(str(key), item):
                yield below
            else:
                yield from secrets_in(item, str(key), below)
    elif value is None or (name.endswith("token") and isinstance(value, int | float)):
        return
    elif _KEY.search(name):
        yield dotted
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from secrets_in(item, "", f"{dotted}[{index}]")
    elif isinstance(value, str) and (_VALUE.search(value) or _URL_LOGIN.search(value)):
        yield dotted


def _is_place(key: str, value: Any) -> bool:
    return value is None or (key in ("file", "env") and isinstance(value, str))


def place_of_keys(dotted: str) -> str:
    """The section that the dotted key is in or below which says where keys are; "" for none."""
    found = re.match(rf"(.*\.)?{_PLACES_OF_KEYS}(?![^.])", dotted)
    return found[0] if found else ""


def names_secret(variable: str) -> bool:
    """Whether an environment variable of that name holds a secret, by all that is usual."""
    return bool(_VARIABLE.search(variable))


def reads_secret(text: str) -> bool:
    """Whether the text takes a secret out of the environment: ${oc.env:AWS_SECRET_ACCESS_KEY}."""
    return bool(_ENVIRONMENT.search(text))


def redact(value: Any, key: str = "") -> Any:
    """A copy with everything that looks like a secret replaced: by key name, by value, and logins inside URLs."""
    if isinstance(value, dict) and key == _PLACES_OF_KEYS:
        return {name: redact(item) if _is_place(str(name), item) else REDACTED for name, item in value.items()}
    if value is not None and _KEY.search(key):
        return REDACTED
    if isinstance(value, dict):
        return {name: redact(item, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [redact(item) for item in value]
    if isinstance(value, str):
        return _URL_LOGIN.sub(f"{REDACTED}@", _VALUE.sub(REDACTED, value))
    return value


def redact_override(text: str) -> str:
    """An override of the command line without its value, if any name in it is a secret's."""
    key, equals, _ = text.partition("=")
    words = re.split(r"\W+", re.sub(rf"\b{_PLACES_OF_KEYS}\.(file|env)\b", "", text))
    if any(_KEY.search(word) for word in words):
        return f"{key}{equals}{REDACTED}"
    return str(redact(text))
