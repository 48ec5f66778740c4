"""Where a dataset's split files come from: S3, https, or a local folder.

`generated://` is no place of files: `stages.data.generated.grammar` writes its rows.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from runner.errors import RunnerError
from runner.storage import s3
from runner.storage.store import checked_key

_TIMEOUT_S = (10, 60)  # to connect, and between two pieces
_NUM_TRIES = 4
_BACKOFF_S = 0.5
_RETRIED_STATUS = (429, 500, 502, 503, 504)
_PIECE_BYTES = 1 << 20
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_NAME_HINT = "Name the split's file in dataset.files.{train,val,test}, or null where the dataset has none."

OnBytes = Callable[[int, int | None], None]
"""Called with bytes done and bytes in all (None: unknown), from any thread."""


def fetch_files(
    source: str,
    names: Sequence[str],
    folder: Path,
    *,
    endpoint_url: str | None = None,
    anonymous: bool = False,
    on_bytes: OnBytes = lambda done, total: None,
) -> dict[str, Path]:
    """Local paths of the named files of the source, side by side and with retries downloaded into the folder.

    Files of a local source are used where they are. A file appears in the folder whole or not at all.
    Raises RunnerError naming the file (bucket and key, or URL) when it is missing or cannot be read.
    """
    for name in names:
        checked_key(name)
    if source.startswith("s3://"):
        fetch = _s3_fetcher(source, endpoint_url, anonymous)
    elif source.startswith(("https://", "http://")):
        fetch = _http_fetcher(source)
    elif "://" in source:
        raise RunnerError(
            f"dataset.source={source} is no source of files",
            "Give s3://bucket/prefix, https://..., a local folder, or generated://viggo?...",
        )
    else:
        return {name: _local_file(source, name) for name in names}
    count = _Count(on_bytes)

    def one(name: str) -> Path:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        try:
            fetch(name, part, count)
            return part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    with ThreadPoolExecutor(len(names) or 1) as pool:
        return dict(zip(names, pool.map(one, names), strict=True))


class _Count:
    """Sums up the bytes of several files; the total is known once each file's size is."""

    def __init__(self, on_bytes: OnBytes) -> None:
        self._on_bytes = on_bytes
        self._done = 0
        self._total: int | None = 0
        self._lock = threading.Lock()

    def expect(self, num_bytes: int | None) -> None:
        with self._lock:
            self._total = None if num_bytes is None or self._total is None else self._total + num_bytes

    def add(self, num_bytes: int) -> None:
        with self._lock:
            self._done += num_bytes
            self._on_bytes(self._done, self._total)


_Fetcher = Callable[[str, Path, _Count], None]


def _local_file(source: str, name: str) -> Path:
    folder = Path(source).expanduser().absolute()
    if not folder.is_dir():
        raise RunnerError(f"dataset.source={source}: there is no folder {folder}", "Correct the path.")
    path = folder / name
    if not path.is_file():
        there = ", ".join(sorted(item.name for item in folder.iterdir())[:10]) or "nothing"
        raise RunnerError(f"dataset.source={source} has no file {name}; it holds: {there}", _NAME_HINT)
    return path


def _s3_fetcher(source: str, endpoint_url: str | None, anonymous: bool) -> _Fetcher:
    bucket, prefix = s3.split_uri(source)
    client = s3.connect(endpoint_url, anonymous)

    def fetch(name: str, target: Path, count: _Count) -> None:
        key = f"{prefix}/{name}" if prefix else name
        try:
            size_bytes = s3.head(client, bucket, key)["ContentLength"]
        except RunnerError as error:
            raise RunnerError(f"dataset.source: {error.message}", f"{error.hint} {_NAME_HINT}".strip()) from error
        count.expect(size_bytes)
        s3.download(client, bucket, key, target, count.add)

    return fetch


def _http_fetcher(source: str) -> _Fetcher:
    parts = urlsplit(source)
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise RunnerError(f"dataset.source={source} is not encrypted", "Write https://.")
    if parts.query or parts.fragment or parts.username:
        raise RunnerError(
            f"dataset.source={parts.scheme}://{parts.hostname}{parts.path} has a query, fragment or user name",
            "Give the folder's plain URL; the split's file name is added to it.",
        )

    def fetch(name: str, target: Path, count: _Count) -> None:
        import requests

        url = f"{source.rstrip('/')}/{quote(name)}"
        for attempt in range(1, _NUM_TRIES + 1):
            try:
                return _download(url, target, count)
            except (
                requests.exceptions.ChunkedEncodingError,
                requests.ConnectionError,
            ) as error:  # cut off in the middle
                if attempt == _NUM_TRIES:
                    raise RunnerError(f"dataset.source: {url}: {error}", _hint(error)) from error
                time.sleep(_BACKOFF_S * attempt)
            except requests.RequestException as error:
                raise RunnerError(f"dataset.source: {url}: {error}", _hint(error)) from error
        raise AssertionError("unreachable")

    return fetch


def _hint(error: Any) -> str:
    missing = error.response is not None and error.response.status_code in (403, 404, 410)
    return f"Correct dataset.source. {_NAME_HINT}" if missing else "Check the network, or give another source."


def _download(url: str, target: Path, count: _Count) -> None:
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
                raise RunnerError(f"dataset.source: {url} redirects to {answer.url}, which is not encrypted")
            plain = "Content-Encoding" not in answer.headers and "Content-Length" in answer.headers
            size = int(answer.headers["Content-Length"]) if plain else None
            count.expect(size)
            with target.open("wb") as file:
                for piece in answer.iter_content(_PIECE_BYTES):
                    file.write(piece)
                    count.add(len(piece))
    if size is not None:
        _check_size(target, size, url)


def _check_size(path: Path, size_bytes: int, shown: str) -> None:
    if (found := path.stat().st_size) != size_bytes:
        raise RunnerError(f"{shown}: {found} bytes arrived instead of {size_bytes}", "Run again.")
