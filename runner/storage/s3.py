"""S3 through boto3: connecting, listing and moving files, with errors that name the bucket and what to do.

botocore repeats requests that are refused (500, 503, SlowDown), cut off before the answer, or not answered in time;
s3transfer repeats downloads that are cut off. What they take for an answer although its bytes are wrong or missing is
repeated here. Credentials come from boto3's own chain and never pass through here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from runner.errors import DamagedError, RunnerError
from runner.storage.checksums import check_stored
from runner.storage.local import MOST_READ_BYTES, ObjectInfo

_CONNECT_TIMEOUT_S = 10.0
_READ_TIMEOUT_S = 60.0  # between two pieces of an answer
_SHORT_TIMEOUT_S = 5.0  # of a look whether a store answers
_NUM_ATTEMPTS = 6  # of a request; botocore waits up to 1, 2, 4, 8 and 16 s in between
_NUM_TRIES = 3  # of what botocore does not repeat
_BACKOFF_S = 1.0

_MIB = 1 << 20
_NUM_PARALLEL_PARTS = 8
_WRONG_BYTES = {"BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch", "IncompleteBody"}
_MISSING = {"404", "NoSuchKey", "NotFound"}
_AGAIN = "The store is overloaded or ill: run the same command again later; what is done is not done again."
_CHECKSUMS = (
    "A store that does not know the checksums of newer clients refuses so: set "
    "AWS_REQUEST_CHECKSUM_CALCULATION=when_required and AWS_RESPONSE_CHECKSUM_VALIDATION=when_required, and run again."
)
_CREDENTIALS = "Correct the credentials that boto3 finds (environment, profile or instance role)."
_HINTS = {
    **dict.fromkeys(("InvalidArgument", "InvalidRequest", "NotImplemented", "MissingContentLength"), _CHECKSUMS),
    **dict.fromkeys(("XAmzContentSHA256Mismatch", "411", "501"), _CHECKSUMS),
    **dict.fromkeys(("SlowDown", "InternalError", "ServiceUnavailable", "500", "502", "503", "504"), _AGAIN),
    **dict.fromkeys(("XMinioStorageFull", "507", "QuotaExceeded"), "Free space in the store, or raise its quota."),
    **dict.fromkeys(("PermanentRedirect", "301"), "Set AWS_REGION to the bucket's region, or correct the endpoint."),
    "RequestTimeTooSkewed": "Set this machine's clock.",
    "NoSuchBucket": "Create the bucket, or correct its name.",
    "AccessDenied": "Let the credentials read the bucket (and write, if a store); a public one takes anonymous: true.",
    "403": "Let the credentials read the bucket; a public one takes anonymous: true.",
    "InvalidAccessKeyId": _CREDENTIALS,
    "SignatureDoesNotMatch": f"{_CREDENTIALS} {_CHECKSUMS}",
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
        or not uri.isprintable()
    ):
        raise RunnerError(f"{uri!r} is not an S3 URI", "Write s3://bucket or s3://bucket/prefix, without '..'.")
    return bucket, prefix


def connect(endpoint_url: str | None = None, anonymous: bool = False, *, patient: bool = True) -> Any:
    """A boto3 S3 client that retries in boto3's standard mode. Safe to use from several threads.

    endpoint_url: None follows boto3's own chain (AWS_ENDPOINT_URL_S3, profile). anonymous: requests are unsigned.
    patient: False gives up after seconds, for a look whether the store answers.
    """
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "max_attempts": _NUM_ATTEMPTS if patient else 2},
        connect_timeout=_CONNECT_TIMEOUT_S if patient else _SHORT_TIMEOUT_S,
        read_timeout=_READ_TIMEOUT_S if patient else _SHORT_TIMEOUT_S,
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
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
    from botocore.parsers import ResponseParserError
    from s3transfer.exceptions import S3DownloadFailedError

    try:
        yield
    except NoCredentialsError as error:
        raise RunnerError(
            f"{uri}: there are no credentials",
            "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or a role; public ones take anonymous: true.",
        ) from error
    except ClientError as error:
        code = error_code(error)
        hint = "Correct the name." if code in _MISSING else _HINTS.get(code, "")
        raise RunnerError(f"{uri}: {'there is no such key' if code in _MISSING else error}", hint) from error
    except (BotoCoreError, Boto3Error, S3DownloadFailedError, ResponseParserError, ValueError) as error:
        raise RunnerError(f"{uri}: {error}", "Check the endpoint and the network, and run again.") from error


def error_code(error: BaseException | None) -> str:
    """S3's code of a ClientError ("NoSuchKey", or the HTTP status where an answer has no body); "" for others."""
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


_T = TypeVar("_T")


def again(work: Callable[[], _T]) -> _T:
    """Call until it succeeds, a few times: for answers that are cut off or whose bytes are wrong."""
    from botocore.exceptions import FlexibleChecksumError
    from botocore.parsers import ResponseParserError
    from s3transfer.exceptions import S3DownloadFailedError

    broken = (DamagedError, FlexibleChecksumError, ResponseParserError, S3DownloadFailedError)
    for attempt in range(1, _NUM_TRIES):
        try:
            return work()
        except broken:
            time.sleep(_BACKOFF_S * attempt)
    return work()


def transfer_config() -> Any:
    """Multipart from 16 MiB, eight parts of a file at a time."""
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(
        multipart_threshold=16 * _MIB, multipart_chunksize=16 * _MIB, max_concurrency=_NUM_PARALLEL_PARTS
    )


def list_objects(client: Any, bucket: str, prefix: str, most: int | None = None) -> Iterator[ObjectInfo]:
    """Every object below the prefix (taken as a folder; empty: the bucket). `key` is the whole S3 key.

    most: look no further when so many were listed.
    """
    folder = f"{prefix}/" if prefix else ""
    with explained(f"s3://{bucket}/{folder}"):
        for item in again(lambda: _listing(client, bucket, folder, most)):
            if not item["Key"].endswith("/"):  # a folder's placeholder, which consoles create
                yield ObjectInfo(item["Key"], item["Size"], item["LastModified"].timestamp(), item.get("ETag", ""))


def _listing(client: Any, bucket: str, folder: str, most: int | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=folder):
        if "Name" not in page:  # botocore takes an answer without a body for one without keys
            raise DamagedError(f"s3://{bucket}/{folder}: an empty answer came instead of the list of keys", _AGAIN)
        found += page.get("Contents", [])
        if most is not None and len(found) >= most:
            break
    return found


def head(client: Any, bucket: str, key: str) -> Mapping[str, Any]:
    """S3's answer to HEAD, with checksums. Raises RunnerError naming bucket and key."""
    with explained(f"s3://{bucket}/{key}"):
        answer: Mapping[str, Any] = client.head_object(Bucket=bucket, Key=key, ChecksumMode="ENABLED")
    return answer


def download(
    client: Any,
    bucket: str,
    key: str,
    target: Path,
    on_bytes: Callable[[int], None] = lambda num_bytes: None,
    verify: Callable[[], None] | None = None,
) -> None:
    """Download one object into the file, again if the bytes are wrong.

    verify: raises DamagedError when the file is not what it should be; None: compare with what the store says of it.
    Raises RunnerError naming bucket and key when it cannot be had.
    """
    uri = f"s3://{bucket}/{key}"

    def once() -> None:
        with _uncounted(on_bytes) as count:
            client.download_file(bucket, key, str(target), Config=transfer_config(), Callback=count)
            if verify is None:
                check_stored(head(client, bucket, key), target, uri)
            else:
                verify()

    with explained(uri):
        again(once)


@contextmanager
def _uncounted(on_bytes: Callable[[int], None]) -> Iterator[Callable[[int], None]]:
    """`on_bytes`, with all bytes it was given subtracted again if the block fails."""
    moved: list[int] = []

    def count(num_bytes: int) -> None:
        moved.append(num_bytes)
        on_bytes(num_bytes)

    try:
        yield count
    except BaseException:
        on_bytes(-sum(moved))
        raise


class S3Blobs:
    """Files below a prefix of a bucket."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""

    def put_file(self, source: Path, key: str, on_bytes: Callable[[int], None]) -> None:
        def once() -> None:
            with _uncounted(on_bytes) as count:
                self._upload(source, key, count)
                check_stored(head(self._client, self._bucket, self._prefix + key), source, self._uri(key))

        with explained(self._uri(key)):
            again(once)

    def _upload(self, source: Path, key: str, on_bytes: Callable[[int], None]) -> None:
        from boto3.exceptions import S3UploadFailedError
        from botocore.exceptions import ClientError

        where = (self._bucket, self._prefix + key)
        try:
            self._client.upload_file(str(source), *where, Config=transfer_config(), Callback=on_bytes)
        except S3UploadFailedError as error:
            cause = error.__context__
            if error_code(cause) in _WRONG_BYTES:
                raise DamagedError(f"{self._uri(key)}: {cause}", _HINTS.get(error_code(cause), _AGAIN)) from error
            # A multipart upload that was completed but not answered is unknown when botocore asks again.
            if error_code(cause) != "NoSuchUpload":
                raise cause if isinstance(cause, ClientError) else error from None

    def put_new(self, data: bytes, key: str) -> bool:
        from botocore.exceptions import ClientError

        where = {"Bucket": self._bucket, "Key": self._prefix + key}

        def once() -> bool:
            try:
                self._client.put_object(**where, Body=data, IfNoneMatch="*")
            except ClientError as error:
                status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                if status == 412:
                    return False
                if status == 409 or error_code(error) in _WRONG_BYTES:  # 409: somebody else's write is under way
                    raise DamagedError(f"{self._uri(key)}: {error}", _HINTS.get(error_code(error), _AGAIN)) from error
                if status != 501 and error_code(error) not in ("NotImplemented", "InvalidArgument"):
                    raise
                self._client.put_object(**where, Body=data)  # a store without conditional writes
            return True

        with explained(self._uri(key)):
            return again(once)

    def get_file(self, key: str, target: Path, on_bytes: Callable[[int], None], verify: Callable[[], None]) -> None:
        download(self._client, self._bucket, self._prefix + key, target, on_bytes, verify)

    def read(self, key: str) -> bytes | None:
        from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError

        def once() -> bytes | None:
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
            except ClientError as error:
                status = error.response["ResponseMetadata"]["HTTPStatusCode"]
                if status == 404 and error_code(error) != "NoSuchBucket":
                    return None
                raise
            if answer.get("ContentLength", 0) > MOST_READ_BYTES:
                raise DamagedError(f"{self._uri(key)} is larger than {MOST_READ_BYTES >> 20} MiB", "Remove it.")
            try:
                body: bytes = answer["Body"].read()
            except (HTTPClientError, IncompleteReadError) as error:  # botocore leaves this to who reads
                raise DamagedError(f"{self._uri(key)} was cut off: {error}", _AGAIN) from error
            return body

        with explained(self._uri(key)):
            return again(once)

    def check(self, key: str, source: Path, verify: Callable[[Path], None]) -> None:
        from botocore.exceptions import ClientError

        where = {"Bucket": self._bucket, "Key": self._prefix + key}
        with explained(self._uri(key)):
            try:
                answer = self._client.head_object(**where, ChecksumMode="ENABLED")
            except ClientError as error:
                if error_code(error) in _MISSING:
                    raise DamagedError(f"{self._uri(key)} is missing", _AGAIN) from error
                raise
        check_stored(answer, source, self._uri(key))

    def walk(self, prefix: str) -> Iterator[ObjectInfo]:
        for item in list_objects(self._client, self._bucket, (self._prefix + prefix).rstrip("/")):
            yield replace(item, key=item.key.removeprefix(self._prefix))

    def delete(self, keys: list[str]) -> None:
        for key in keys:
            with explained(self._uri(key)):
                self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)

    def abandon(self, prefix: str) -> None:
        folder = f"{self._prefix}{prefix}/"
        with suppress(RunnerError), explained(f"s3://{self._bucket}/{folder}"):  # not every store knows or allows this
            for page in self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=folder
            ):
                for item in page.get("Uploads", []):
                    self._client.abort_multipart_upload(Bucket=self._bucket, Key=item["Key"], UploadId=item["UploadId"])

    def _uri(self, key: str) -> str:
        return f"s3://{self._bucket}/{self._prefix}{key}"
