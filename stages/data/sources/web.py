"""Files of a web server, over https. A source that is one file may have a query, such as a signature."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from runner.errors import RunnerError
from runner.text import count_text
from stages.data.sources.base import NAME_HINT, Count, is_pattern
from stages.sections.dataset import data_file

_TIMEOUT_S = (10, 60)  # to connect, and between two pieces
_SHORT_TIMEOUT_S = (5, 10)  # of a look whether a file has changed
_NUM_TRIES = 4
_BACKOFF_S = 0.5
_RETRIED_STATUS = (429, 500, 502, 503, 504)
_PIECE_BYTES = 1 << 20
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class WebFiles:
    """Files below a URL, or the one file of a URL."""

    def __init__(self, source: str) -> None:
        parts = urlsplit(source)
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise RunnerError(f"dataset.source={shown(source)} is not encrypted", "Write https://.")
        if parts.username or (data_file(source) is None and (parts.query or parts.fragment)):
            raise RunnerError(
                f"dataset.source={shown(source)} has a query, fragment or user name",
                "Give the folder's plain URL, to which the split's file name is added, or the URL of one file.",
            )
        self._source, self._single = source, data_file(source)

    def find(self, pattern: str) -> list[str]:
        """As FileSource; a web server does not say what it has."""
        if is_pattern(pattern):
            raise RunnerError(
                f"dataset.source={shown(self._source)} cannot be searched for {pattern}: a web server lists no files",
                "List the files' names in dataset.files.",
            )
        return [pattern]

    def local(self, name: str) -> Path | None:
        """As FileSource."""
        return None

    def tag(self, name: str) -> str | None:
        """As FileSource: the ETag, else time of change and length."""
        import requests

        url = self._url(name)
        try:
            answer = requests.head(url, timeout=_SHORT_TIMEOUT_S, allow_redirects=True)
            if not answer.ok:  # signed for GET alone, or a server without HEAD
                with requests.get(url, timeout=_SHORT_TIMEOUT_S, stream=True) as answer:
                    answer.raise_for_status()
        except requests.RequestException as error:
            raise _explained(url, error) from None
        parts = [
            answer.headers.get("ETag") or answer.headers.get("Last-Modified"),
            answer.headers.get("Content-Length"),
        ]
        return " ".join(part for part in parts if part) or None

    def _url(self, name: str) -> str:
        return self._source if self._single == name else f"{self._source.rstrip('/')}/{quote(name)}"

    def fetch(self, name: str, target: Path, count: Count) -> None:
        """As FileSource, with retries when the server is busy or cuts off."""
        import requests

        url = self._url(name)
        for attempt in range(1, _NUM_TRIES + 1):
            try:
                return _download(url, target, count)
            except (requests.exceptions.ChunkedEncodingError, requests.ConnectionError) as error:  # cut off midway
                if attempt == _NUM_TRIES:
                    raise _explained(url, error) from None
                time.sleep(_BACKOFF_S * attempt)
            except requests.RequestException as error:
                raise _explained(url, error) from None
        raise AssertionError("unreachable")


def shown(url: str) -> str:
    """The URL without its query, which may hold a signature."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"


def _explained(url: str, error: Any) -> RunnerError:
    missing = error.response is not None and error.response.status_code in (403, 404, 410)
    hint = f"Correct dataset.source. {NAME_HINT}" if missing else "Check the network, or give another source."
    words = re.sub(r"\?\S+", "?...", str(error).replace(url, shown(url)))
    return RunnerError(f"dataset.source: {shown(url)}: {words}", hint)


def _download(url: str, target: Path, count: Count) -> None:
    """Download once; connecting and refusals by a busy server are tried again by the session itself."""
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    retries = Retry(_NUM_TRIES, backoff_factor=_BACKOFF_S, status_forcelist=_RETRIED_STATUS, raise_on_status=False)
    with requests.Session() as session:
        session.mount(f"{urlsplit(url).scheme}://", HTTPAdapter(max_retries=retries))
        with session.get(url, stream=True, timeout=_TIMEOUT_S) as answer:
            answer.raise_for_status()
            if url.startswith("https://") and not answer.url.startswith("https://"):
                raise RunnerError(
                    f"dataset.source: {shown(url)} redirects to {shown(answer.url)}, which is not encrypted"
                )
            plain = "Content-Encoding" not in answer.headers and "Content-Length" in answer.headers
            size = int(answer.headers["Content-Length"]) if plain else None
            count.expect(size)
            try:
                with target.open("wb") as file:
                    for piece in answer.iter_content(_PIECE_BYTES):
                        file.write(piece)
                        count.add(len(piece))
            except requests.RequestException:  # what arrived comes once more with the next try
                count.add(-target.stat().st_size)
                count.expect(size and -size)
                raise
    if size is not None and (found := target.stat().st_size) != size:
        raise RunnerError(f"{shown(url)}: {count_text(found, 'byte')} arrived instead of {size}", "Run again.")


def open_source(source: str, endpoint_url: str | None, anonymous: bool) -> WebFiles:
    """The files of an https:// source."""
    return WebFiles(source)
