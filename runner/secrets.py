"""What looks like a secret: refused in recipes, and masked in whatever is shown or kept."""

from __future__ import annotations

import re
from typing import Any

REDACTED = "***"
_KEY = re.compile(
    r"(^|_)(password|passwd|secret|secrets|api_keys?|access_key|access_key_id|secret_key|private_key|"
    r"auth_token|access_token|session_token|hf_token|hf_hub_token|token|credentials?)$",
    re.IGNORECASE,
)
_VALUE = re.compile(r"\b(AKIA[0-9A-Z]{16}|hf_[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,})")
_ENVIRONMENT = re.compile(r"oc\.env:\s*[^,}]*(SECRET|PASSWORD|TOKEN|API_KEY|ACCESS_KEY|CREDENTIAL)", re.IGNORECASE)
_URL_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")


def is_secret(name: str, value: Any) -> bool:
    """Whether a key of that name with that value looks like a secret. A number named max_token counts text."""
    if value is None or (name.endswith("token") and isinstance(value, int | float)):
        return False
    return bool(_KEY.search(name)) or (isinstance(value, str) and bool(_VALUE.search(value)))


def reads_secret(text: str) -> bool:
    """Whether the text takes a secret out of the environment: ${oc.env:AWS_SECRET_ACCESS_KEY}."""
    return bool(_ENVIRONMENT.search(text))


def redact(value: Any, key: str = "") -> Any:
    """A copy with everything that looks like a secret replaced: by key name, by value, and logins inside URLs."""
    if isinstance(value, dict):
        return {name: redact(item, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [redact(item, key) for item in value]
    if value is not None and _KEY.search(key):
        return REDACTED
    if isinstance(value, str):
        return _URL_LOGIN.sub(f"{REDACTED}@", _VALUE.sub(REDACTED, value))
    return value


def redact_override(text: str) -> str:
    """An override of the command line without its value, if any name in it is a secret's."""
    key, equals, _ = text.partition("=")
    if any(_KEY.search(word) for word in re.split(r"\W+", text)):
        return f"{key}{equals}{REDACTED}"
    return str(redact(text))
