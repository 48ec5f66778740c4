from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.errors import DamagedError
from runner.storage.checksums import check_stored, stored_checksums

MD5, CRC32, SHA256 = (
    "900150983cd24fb0d6963f7d28e17f72", "NSRBwg==", "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=",
)  # fmt: skip


@pytest.mark.parametrize(
    ("head", "names"),
    [
        ({"ETag": f'"{MD5}"'}, ["MD5"]),
        ({"ETag": f'"{MD5}"', "ServerSideEncryption": "AES256"}, ["MD5"]),
        ({"ETag": f'"{MD5}"', "ServerSideEncryption": "aws:kms"}, []),
        ({"ETag": f'"{MD5}"', "ServerSideEncryption": "aws:kms:dsse"}, []),
        ({"ETag": f'"{MD5}"', "SSECustomerAlgorithm": "AES256"}, []),
        ({"ETag": f'"{MD5}"', "ChecksumCRC32": CRC32, "ChecksumSHA256": SHA256}, ["MD5", "ChecksumSHA256",
                                                                                  "ChecksumCRC32"]),
        ({"ETag": f'"{MD5}-3"', "ChecksumCRC32": CRC32}, []),
        ({"ETag": f'"{MD5}-3"', "ChecksumCRC32": CRC32, "ChecksumType": "FULL_OBJECT"}, ["ChecksumCRC32"]),
        ({"ETag": f'"{MD5}-3"', "ChecksumCRC32": f"{CRC32}-3", "ChecksumType": "COMPOSITE"}, []),
        ({}, []),
    ],
)  # fmt: skip
def test_only_checksums_of_the_whole_content_count(tmp_path: Path, head: dict[str, Any], names: list[str]) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert [name for name, _, _ in stored_checksums(head)] == names
    check_stored({"ContentLength": 3, **head}, tmp_path / "abc", "s3://b/abc")
    (tmp_path / "abc").write_bytes(b"abd")
    if names:
        with pytest.raises(DamagedError, match=rf"s3://b/abc is damaged: its {names[0]} is"):
            check_stored({"ContentLength": 3, **head}, tmp_path / "abc", "s3://b/abc")


def test_a_file_of_another_size_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"ab")
    with pytest.raises(DamagedError, match="has 3 bytes in the store, and 2 here"):
        check_stored({"ContentLength": 3}, tmp_path / "abc", "s3://b/abc")
