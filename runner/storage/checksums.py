"""Whether a file is what a store says of the object it came from, or became."""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from runner.errors import DamagedError
from runner.text import count_text

_PIECE_BYTES = 1 << 20
_MD5 = re.compile(r"[0-9a-f]{32}")


def check_stored(head: Mapping[str, Any], path: Path, shown: str) -> None:
    """Raise DamagedError unless the file has the size, and the checksum if there is one, of S3's answer to HEAD."""
    size_bytes = path.stat().st_size
    if size_bytes != head["ContentLength"]:
        raise DamagedError(
            f"{shown} has {count_text(head['ContentLength'], 'byte')} in the store, and {size_bytes:,} here",
            "Run again.",
        )
    for name, stored, compute in stored_checksums(head):
        if (here := compute(path)) != stored:
            raise DamagedError(f"{shown} is damaged: its {name} is {stored} in the store and {here} here", "Run again.")


def stored_checksums(head: Mapping[str, Any]) -> list[tuple[str, str, Callable[[Path], str]]]:
    """Name, value and computation of what S3 says of the content of the whole object; often nothing of one in parts.

    An ETag is the MD5 of the content unless the object came in parts (it ends in -N then) or is encrypted with a key of
    KMS or of the client: https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
    """
    found: list[tuple[str, str, Callable[[Path], str]]] = []
    etag = str(head.get("ETag", "")).strip('"')
    encrypted = "aws:kms" in str(head.get("ServerSideEncryption", "")) or "SSECustomerAlgorithm" in head
    if _MD5.fullmatch(etag) and not encrypted:
        found.append(("MD5", etag, _md5))
    if head.get("ChecksumType", "COMPOSITE" if "-" in etag else "FULL_OBJECT") == "FULL_OBJECT":
        computed = (("ChecksumSHA256", _sha256), ("ChecksumCRC32", _crc32))
        found += [(name, head[name], compute) for name, compute in computed if head.get(name)]
    return found


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def _crc32(path: Path) -> str:
    value = 0
    for piece in _pieces(path):
        value = zlib.crc32(piece, value)
    return base64.b64encode(value.to_bytes(4, "big")).decode()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return base64.b64encode(hashlib.file_digest(file, "sha256").digest()).decode()


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    for piece in _pieces(path):
        digest.update(piece)
    return digest.hexdigest()
