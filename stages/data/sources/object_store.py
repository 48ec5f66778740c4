"""S3, and stores that speak it."""

from __future__ import annotations

from pathlib import Path

from runner.errors import RunnerError
from runner.storage import s3
from stages.data.sources.base import MOST_SEEN, NAME_HINT, Count, is_pattern, matching
from stages.data.sources.names import folder_of


class S3Files:
    """Objects below a prefix."""

    def __init__(self, source: str, endpoint_url: str | None, anonymous: bool) -> None:
        self._source = source
        self._bucket, self._prefix = s3.split_uri(folder_of(source))
        self._client = s3.connect(endpoint_url, anonymous)
        self._place = (endpoint_url, anonymous)

    def find(self, pattern: str) -> list[str]:
        """As FileSource."""
        if not is_pattern(pattern):
            return [pattern]
        start = f"{self._prefix}/" if self._prefix else ""
        there = [
            each.key.removeprefix(start)
            for each in s3.list_objects(self._client, self._bucket, self._prefix, MOST_SEEN + 1)
        ]
        return matching(self._source, pattern, there)

    def local(self, name: str) -> Path | None:
        """As FileSource."""
        return None

    def fetch(self, name: str, target: Path, count: Count) -> None:
        """As FileSource."""
        key = self._key(name)
        try:
            size_bytes = s3.head(self._client, self._bucket, key)["ContentLength"]
        except RunnerError as error:
            raise RunnerError(f"dataset.source: {error.message}", f"{error.hint} {NAME_HINT}".strip()) from error
        count.expect(size_bytes)
        s3.download(self._client, self._bucket, key, target, count.add)

    def tag(self, name: str) -> str | None:
        """As FileSource: the object's ETag and size."""
        answer = s3.head(s3.connect(*self._place, patient=False), self._bucket, self._key(name))
        return f"{answer.get('ETag', '').strip(chr(34))} {answer['ContentLength']}"

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name


def open_source(source: str, endpoint_url: str | None, anonymous: bool) -> S3Files:
    """The files of an s3:// source."""
    return S3Files(source, endpoint_url, anonymous)
