"""S3 through boto3: connecting, listing and moving files, with errors that name the bucket and what to do.

Credentials come from boto3's own chain and never pass through here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from runner.blobs import ObjectInfo
from runner.errors import RunnerError

_MIB = 1 << 20
_NUM_PARALLEL_PARTS = 8
_MISSING = {"404", "NoSuchKey", "NotFound"}
_HINTS = {
    "NoSuchBucket": "Create the bucket, or correct its name.",
    "AccessDenied": "Let the credentials read the bucket (and write, if a store); a public one takes anonymous: true.",
    "403": "Let the credentials read the bucket; a public one takes anonymous: true.",
    "InvalidAccessKeyId": "Correct the credentials that boto3 finds (environment, profile or instance role).",
    "SignatureDoesNotMatch": "Correct the credentials that boto3 finds (environment, profile or instance role).",
    "ExpiredToken": "Renew the credentials.",
}


def split_uri(uri: str) -> tuple[str, str]:
    """`s3://bucket/some/prefix/` as (bucket, "some/prefix"). Raises RunnerError when it names no bucket."""
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    prefix = prefix.strip("/")
    if (
        not uri.startswith("s3://")
        or not bucket
        or any(part in ("", ".", "..") for part in prefix.split("/") if prefix)
    ):
        raise RunnerError(f"{uri!r} is no S3 URI", "Write s3://bucket or s3://bucket/prefix, without '..'.")
    return bucket, prefix


def connect(endpoint_url: str | None = None, anonymous: bool = False) -> Any:
    """A boto3 S3 client that retries in boto3's standard mode. Safe to use from several threads.

    endpoint_url: None follows boto3's own chain (AWS_ENDPOINT_URL_S3, profile). anonymous: requests are unsigned.
    """
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "max_attempts": 6},
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=64,
        **({"signature_version": UNSIGNED} if anonymous else {}),
    )
    # A session of its own: boto3's default session is not safe to create clients from in several threads.
    session = boto3.session.Session()
    region = session.region_name or "us-east-1"  # only shapes the address; the bucket's own region is redirected to
    with explained(endpoint_url or "S3"):
        return session.client("s3", endpoint_url=endpoint_url, config=config, region_name=region)


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn boto3's errors about the URI into RunnerErrors that say what to do."""
    from boto3.exceptions import S3UploadFailedError
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except NoCredentialsError as error:
        raise RunnerError(
            f"{uri}: there are no credentials",
            "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or a role; public ones take anonymous: true.",
        ) from error
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        hint = "Correct the name." if code in _MISSING else _HINTS.get(code, "")
        raise RunnerError(f"{uri}: {'there is no such key' if code in _MISSING else error}", hint) from error
    except (BotoCoreError, S3UploadFailedError, ValueError) as error:
        raise RunnerError(f"{uri}: {error}", "Check the endpoint and the network.") from error


def transfer_config() -> Any:
    """Multipart from 16 MiB, eight parts of a file at a time."""
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(
        multipart_threshold=16 * _MIB, multipart_chunksize=16 * _MIB, max_concurrency=_NUM_PARALLEL_PARTS
    )


def list_objects(client: Any, bucket: str, prefix: str) -> Iterator[ObjectInfo]:
    """Every object below the prefix (taken as a folder; empty: the bucket). `key` is the whole S3 key."""
    folder = f"{prefix}/" if prefix else ""
    with explained(f"s3://{bucket}/{folder}"):
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=folder):
            for item in page.get("Contents", []):
                if not item["Key"].endswith("/"):  # a folder's placeholder, which consoles create
                    yield ObjectInfo(item["Key"], item["Size"], item.get("ETag", ""))


def download(client: Any, bucket: str, key: str, target: Path, on_bytes: Callable[[int], None] | None = None) -> None:
    """Download one object into the file. Raises RunnerError naming bucket and key when it cannot be had."""
    with explained(f"s3://{bucket}/{key}"):
        client.download_file(bucket, key, str(target), Config=transfer_config(), Callback=on_bytes)


class S3Blobs:
    """Files below a prefix of a bucket."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""

    def put_file(self, source: Path, key: str, on_bytes: Callable[[int], None]) -> None:
        with explained(self._uri(key)):
            self._client.upload_file(
                str(source), self._bucket, self._prefix + key, Config=transfer_config(), Callback=on_bytes
            )

    def put_new(self, data: bytes, key: str) -> bool:
        from botocore.exceptions import ClientError

        with explained(self._uri(key)):
            where = {"Bucket": self._bucket, "Key": self._prefix + key}
            try:
                self._client.put_object(**where, Body=data, IfNoneMatch="*")
            except ClientError as error:
                status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                if status in (409, 412):  # somebody else's write is under way, or done
                    return False
                if status != 501 and error.response["Error"]["Code"] not in ("NotImplemented", "InvalidArgument"):
                    raise
                self._client.put_object(**where, Body=data)  # a store without conditional writes
        return True

    def get_file(self, key: str, target: Path, on_bytes: Callable[[int], None]) -> None:
        download(self._client, self._bucket, self._prefix + key, target, on_bytes)

    def read(self, key: str) -> bytes | None:
        with explained(self._uri(key)):
            try:
                body: bytes = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)["Body"].read()
            except self._client.exceptions.NoSuchKey:
                return None
        return body

    def walk(self, prefix: str) -> Iterator[ObjectInfo]:
        for item in list_objects(self._client, self._bucket, (self._prefix + prefix).rstrip("/")):
            yield ObjectInfo(item.key.removeprefix(self._prefix), item.size_bytes)

    def delete(self, keys: list[str]) -> None:
        for key in keys:
            with explained(self._uri(key)):
                self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)

    def _uri(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{key}"
