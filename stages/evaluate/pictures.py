"""Small copies of the rows' images for the page, from the test set that ingest has sealed."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

from runner.storage.artifact import Artifact
from stages.data.example import Example, quoted
from stages.models.vision import decoded

MOST_BYTES = 4 << 20  # of all pictures of a page
MOST_PIXELS = 200_000_000  # that are decoded for a page: seconds
_SIDE = 224
_KIND, _QUALITY = "WEBP", 80


@dataclass(frozen=True)
class Picture:
    """uri: a data URI, None where the page has no space for it. width, height: of the image itself, in pixels."""

    uri: str | None
    width: int
    height: int


@dataclass(frozen=True)
class Pictures:
    """Pictures of rows by their ids. damage: why none is, or ""."""

    rows: Mapping[str, list[Picture]] = field(default_factory=dict)
    damage: str = ""

    def of(self, row_id: str) -> list[Picture]:
        return self.rows.get(row_id, [])

    @property
    def omitted(self) -> int:
        return sum(each.uri is None for pictures in self.rows.values() for each in pictures)


def pictures_of(test_set: Artifact | None, ids: Sequence[str]) -> Pictures:
    """The pictures of the rows, the first ones first where they are too many. test_set: on this machine, or None."""
    if test_set is None or not ids:
        return Pictures()
    with suppress(OSError, ValueError, TypeError):
        images = _images(test_set, set(ids))
        if images is None:
            return Pictures(damage="the test set has changed since the run")
        space = _Space()
        return Pictures(
            {row_id: [space.picture(each) for each in images[row_id]] for row_id in ids if row_id in images}
        )
    return Pictures()


def _images(test_set: Artifact, ids: set[str]) -> dict[str, list[str]] | None:
    """The rows' images as data URIs, of rows that have any; None where a file is not what ingest wrote."""
    wanted = {f'{{"id": {quoted(row_id)}, '.encode(): row_id for row_id in ids}
    found: dict[str, list[str]] = {}
    for entry in test_set.files:
        digest = hashlib.sha256()
        with (test_set.path / entry.path).open("rb") as file:
            for line in file:
                digest.update(line)
                row_id = wanted.get(line[: line.find(b", ") + 2])
                if row_id is not None and (images := Example.from_json(line).images):
                    found[row_id] = images
        if digest.hexdigest() != entry.sha256:
            return None
    return found


class _Space:
    """What is left of the page's bounds."""

    def __init__(self) -> None:
        self._bytes, self._pixels = MOST_BYTES, MOST_PIXELS

    def picture(self, uri: str) -> Picture:
        (image,) = decoded([uri])
        width, height = image.size
        self._pixels -= width * height
        small = _small(image, uri) if self._pixels >= 0 and self._bytes > 0 else None
        self._bytes -= len(small or "")
        return Picture(small if self._bytes >= 0 else None, width, height)


def _small(image: Any, uri: str) -> str:
    """The image's data URI, of a smaller copy where it is larger than is shown."""
    if max(image.size) <= _SIDE and len(uri) <= _SIDE * _SIDE:
        return uri
    image.draft("RGB", (_SIDE, _SIDE))  # of a JPEG less is decoded
    image.thumbnail((_SIDE, _SIDE))
    made = BytesIO()
    image.save(made, _KIND, quality=_QUALITY)
    return f"data:image/{_KIND.lower()};base64,{base64.b64encode(made.getvalue()).decode()}"
