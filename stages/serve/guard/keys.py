"""The endpoint's API keys: where they are read, what a key is, and how one that a client sends is compared."""

from __future__ import annotations

import hmac
import logging
import os
import re
import time
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from runner.errors import RunnerError
from runner.storage.small import read_small
from stages.sections.serve import ApiKeys

# A digest of a key leaves this machine's memory, so a key must be too long to be found by trying.
MIN_KEY_CHARS = 16
_KEY = re.compile(rf"[!-~]{{{MIN_KEY_CHARS},512}}")
_MOST_BYTES = 1 << 20
_SETTLED_NS = 2_000_000_000


def parse_keys(text: str) -> tuple[list[str], list[int]]:
    """The keys of a key file, and the numbers of its lines that hold none.

    One key a line, of 16 to 512 printable ASCII characters; a `#` at the start of a line, or after a key and a space,
    begins a comment.
    """
    keys, wrong = [], []
    for number, line in enumerate(text.split("\n"), 1):
        key, *rest = line.split(None, 1) or [""]
        if not key or key.startswith("#"):
            continue
        if _KEY.fullmatch(key) and (not rest or rest[0].startswith("#")):
            keys.append(key)
        else:
            wrong.append(number)
    return keys, wrong


class NoKeysError(RunnerError):
    """A file or an environment variable does not give keys; the message says why, without any key in it."""


def known_keys(api_keys: ApiKeys) -> list[str]:
    """Every key of the file, then of the environment variable.

    Raises RunnerError, without any key in it, when the file or the variable cannot be read, holds none, or one that is
    too short.
    """
    keys: list[str] = []
    for key, name, keys_of in (
        ("file", api_keys.file, keys_of_file),
        ("env", api_keys.env, keys_of_environment),
    ):
        if name is not None:
            try:
                keys += keys_of(name)
            except NoKeysError as error:
                raise RunnerError(f"serve.api_keys.{key}={name} {error.message}", error.hint) from error
    return keys


def keys_of_file(name: str) -> list[str]:
    """The keys of a file, at least one. Raises NoKeysError."""
    hint = f"Write one key a line, of {MIN_KEY_CHARS} characters or more: `openssl rand -hex 24 > FILE`."
    try:
        keys, wrong = parse_keys(_text(key_file(name)))
    except (OSError, ValueError) as error:
        raise NoKeysError(f"cannot be read: {_reason(error)}", hint) from error
    if wrong or not keys:
        raise NoKeysError(f"is not a file of keys: {_no_keys_in(wrong) if wrong else 'it holds none'}", hint)
    return keys


def keys_of_environment(name: str) -> list[str]:
    """The keys of an environment variable, separated by commas or white space, at least one. Raises NoKeysError."""
    keys = [key for key in re.split(r"[\s,]+", os.environ.get(name, "")) if key]
    hint = f"Set it to one or more keys of {MIN_KEY_CHARS} characters or more, separated by commas."
    if not keys:
        raise NoKeysError("is not the name of a variable that is set", hint)
    if not all(_KEY.fullmatch(key) for key in keys):
        raise NoKeysError("is an environment variable with a key that is too short, or no key", hint)
    return keys


def own_key(api_keys: ApiKeys | None) -> str | None:
    """The key that this program sends to the endpoint, the first one; None when it asks for none.

    Raises RunnerError as `known_keys` does.
    """
    return known_keys(api_keys)[0] if api_keys is not None else None


def ring_settings(api_keys: ApiKeys | None) -> dict[str, Any] | None:
    """What a replica is told of the keys: `{file, digests}`, the digests of those in the environment; None for none.

    The file is the endpoint's to read. Raises RunnerError when the environment has no keys.
    """
    if api_keys is None:
        return None
    file = str(key_file(api_keys.file)) if api_keys.file is not None else None
    in_environment = keys_of_environment(api_keys.env) if api_keys.env is not None else []
    return {"file": file, "digests": [digest(key) for key in in_environment]}


def key_file(name: str) -> Path:
    """The key file as an absolute path."""
    return Path(name).expanduser().absolute()


def digest(key: str) -> str:
    """SHA-256 of a key, in hexadecimal: what the endpoint keeps and compares."""
    return sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def _text(path: Path) -> str:
    """The file's text. Raises OSError, or ValueError when it is too large or not UTF-8."""
    return read_small(path, _MOST_BYTES).decode("utf-8-sig")


def _reason(error: OSError | ValueError) -> str:
    """Why a file cannot be read, without any of its content (which a UnicodeDecodeError shows)."""
    if isinstance(error, OSError):
        return error.strerror or str(error) or type(error).__name__
    return "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)


def _no_keys_in(lines: Iterable[int]) -> str:
    named = ", ".join(map(str, lines))
    return f"line {named} holds no key of {MIN_KEY_CHARS} to 512 printable characters without spaces"


class KeyRing:
    """The digests of the keys that are good now.

    The file is looked at for each request, and read again when it has changed. While it cannot be read, or holds no
    key, none of its keys is good. digests: of keys that stay good as long as this ring.
    """

    def __init__(self, file: Path | None, digests: Sequence[str], log: logging.Logger) -> None:
        self._file, self._fixed, self._log = file, tuple(digests), log
        self._seen: object = None
        self._settled = False
        self._of_file: tuple[str, ...] = ()

    def owner(self, key: str) -> str | None:
        """The digest of the key when it is good, else None. All digests are compared, each in constant time."""
        given, found = digest(key), None
        for known in (*self._fixed, *self._current()):
            if hmac.compare_digest(known, given):
                found = known
        return found

    def _current(self) -> tuple[str, ...]:
        if self._file is None:
            return ()
        try:
            state = self._file.stat()
            seen: object = (state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
        except OSError as error:
            state, seen = None, _reason(error)
        if seen == self._seen and self._settled:
            return self._of_file
        # Two changes within a tick of the file system's clock look like one: what is young is read again.
        changed = state.st_ctime_ns if state else 0
        self._settled = time.time_ns() - changed > _SETTLED_NS
        first, self._seen = seen != self._seen, seen
        self._of_file = self._read(tell=first)
        return self._of_file

    def _read(self, *, tell: bool) -> tuple[str, ...]:
        assert self._file is not None
        try:
            keys, wrong = parse_keys(_text(self._file))
        except (OSError, ValueError) as error:
            keys, wrong = [], []
            if tell:
                self._log.error("the key file %s cannot be read: %s", self._file, _reason(error))
        if tell and wrong:
            self._log.error("the key file %s: %s", self._file, _no_keys_in(wrong))
        if tell and not keys:
            self._log.error("the key file %s holds no key: requests with its keys are refused", self._file)
        elif tell:
            self._log.info("the key file %s holds %d keys", self._file, len(keys))
        return tuple(digest(key) for key in keys)
