"""Where artifacts are kept: a local folder or an S3 bucket, behind one class.

A set of files lives under `<store>/<key>/` and is complete once `_manifest.json` is next to them, which is written
last and, where the store can, only if there is none. A complete set never changes.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from runner.errors import DamagedError, RunnerError, os_failure
from runner.storage import atomic as durable
from runner.storage import s3
from runner.storage.artifact import Artifact, FileEntry, digest_files
from runner.storage.atomic import sealed, unsealed
from runner.storage.digest import digest_file
from runner.storage.local import Blobs, FolderBlobs, ObjectInfo
from runner.storage.verify import SET_MANIFEST as SET_MANIFEST
from runner.text import count_text

CLAIM = "_publishing."
_PROBE = "_writable/probe"
_CLAIM_S = 86_400.0
_NUM_READS = 3
_NUM_PARALLEL_FILES = 8

OnBytes = Callable[[int, int], None]
"""Called with bytes done and bytes in all, from any thread."""


def open_store(uri: str, *, endpoint_url: str | None = None, anonymous: bool = False, patient: bool = True) -> Store:
    """The store at `s3://bucket/prefix` or in a local folder. Raises RunnerError for any other scheme.

    endpoint_url: S3 endpoint; None follows boto3's own chain. anonymous: send S3 requests unsigned. patient: False
    gives up after seconds when S3 does not answer.
    """
    if uri.startswith("s3://"):
        bucket, prefix = s3.split_uri(uri)
        blobs = s3.S3Blobs(s3.connect(endpoint_url, anonymous, patient=patient), bucket, prefix)
        return Store(f"s3://{bucket}/{prefix}".rstrip("/"), blobs)
    if "://" in uri:
        raise RunnerError(f"storage.artifacts={uri} is not a store", "Give s3://bucket/prefix or a local folder.")
    root = Path(uri).expanduser().absolute()
    return Store(str(root), FolderBlobs(root))


def checked_key(key: str) -> str:
    """The key, if it names something below its store. Raises RunnerError for '..', absolute and unprintable ones."""
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in key or not key.isprintable():
        raise RunnerError(
            f"{key!r} is not a legal path in a store",
            "Use relative paths of printable characters: no '..', no leading or double '/', no backslash.",
        )
    return key


class Store:
    """A place of artifacts. `uri`: `s3://bucket/prefix`, or an absolute folder."""

    def __init__(self, uri: str, blobs: Blobs) -> None:
        self.uri = uri
        self._blobs = blobs

    def publish(self, artifact: Artifact, key: str, name: str, on_bytes: OnBytes | None = None) -> Artifact:
        """Upload the artifact's local files under `<uri>/<key>/`, the manifest last, and return it as stored.

        A set that is complete already is verified; files of it that are missing or damaged are put there again, and a
        manifest that is gone or cut is written again. Raises RunnerError when another set is under that key or on its
        way there, when unknown files are, or when a local file is not what the artifact says.
        """
        for entry in artifact.files:
            if checked_key(entry.path) == SET_MANIFEST or entry.path.startswith(CLAIM):
                raise RunnerError(f"artifact {name} holds a file {entry.path}, a name that stores keep for themselves")
        if (there := self._whole_or_none(key)) is not None:
            self._repair(self._same(there, artifact), artifact, key)
            return there
        claims = self._claim(artifact, key)
        try:
            published = self._complete(artifact, key, name, on_bytes)
        except BaseException:
            self._withdraw(claims[:1])
            raise
        self._withdraw(claims)  # nobody needs one any more, nor an upload that has not ended
        self._blobs.abandon(key)
        return published

    def _complete(self, artifact: Artifact, key: str, name: str, on_bytes: OnBytes | None) -> Artifact:
        """Put the set there, under a claim. Returns what is there when somebody else was faster with the same set."""
        if (there := self._whole_or_none(key)) is not None:  # their claim was withdrawn before this one looked
            return self._same(there, artifact)
        try:
            self._refuse_strays(artifact, key, name)
            self._upload(artifact, key, on_bytes)
            published = artifact.model_copy(update={"name": name, "uri": f"{self.uri}/{key}", "in_store": True})
            if not self._blobs.put_new(_as_manifest(published), f"{key}/{SET_MANIFEST}"):
                raise RunnerError(f"{self.uri}/{key} is being published by somebody else", "Run the stage again.")
            self._read_back(published, key)
        except RunnerError:
            if (there := self._exists_now(key)) is None:
                raise
            return self._same(there, artifact)
        return published

    def _read_back(self, published: Artifact, key: str) -> None:
        """Raise RunnerError unless the manifest that was just written is there: a proxy may answer 200 and store
        nothing."""
        there = self.exists(key)
        if there is None or there.sha256 != published.sha256:
            raise RunnerError(
                f"{self.uri}/{key}/{SET_MANIFEST} was written, and the store does not have it",
                "Run the stage again; if that repeats, the store or what stands before it is at fault.",
            )

    def _whole_or_none(self, key: str) -> Artifact | None:
        """As `exists`; a damaged manifest is removed, since whoever publishes knows what belongs there."""
        try:
            return self.exists(key)
        except DamagedError:
            self._blobs.delete([f"{key}/{SET_MANIFEST}"])
            return None

    def _repair(self, there: Artifact, artifact: Artifact, key: str) -> None:
        """Put the files again that the store has lost or damaged. Raises RunnerError when they are damaged here too."""

        def repair(entry: FileEntry) -> None:
            source, stored = artifact.path / entry.path, f"{key}/{checked_key(entry.path)}"
            shown = f"{there.uri}/{entry.path}"
            _verify(source, entry, str(source))
            try:
                self._blobs.check(stored, source, lambda path: _verify(path, entry, shown))
            except DamagedError:
                self._blobs.put_file(source, stored, lambda num_bytes: None)
                self._blobs.check(stored, source, lambda path: _verify(path, entry, shown))

        _in_parallel(repair, artifact.files)

    def _withdraw(self, claims: list[str]) -> None:
        with suppress(RunnerError):  # one that stays does no harm to this set
            self._blobs.delete(claims)

    def _upload(self, artifact: Artifact, key: str, on_bytes: OnBytes | None) -> None:
        count = _Counter(artifact.size_bytes, on_bytes)

        def upload(entry: FileEntry) -> None:
            source = artifact.path / entry.path
            _verify(source, entry, str(source))
            self._blobs.put_file(source, f"{key}/{entry.path}", count)

        _in_parallel(upload, artifact.files)
        stored = {info.key: info.size_bytes for info in self.list(key)}
        for entry in artifact.files:
            if stored.get(f"{key}/{entry.path}") != entry.size_bytes:
                raise RunnerError(f"{self.uri}/{key}/{entry.path} did not arrive whole", "Run the stage again.")

    def _exists_now(self, key: str) -> Artifact | None:
        """`exists`, when the store has just failed: None if that fails too."""
        try:
            return self.exists(key)
        except RunnerError:
            return None

    def _claim(self, artifact: Artifact, key: str) -> list[str]:
        """Say that this set is going to be under the key. Returns the keys of all claims there, one's own first.

        Sets of different content must not mix. Each publisher puts a claim there and then looks for others: of two,
        the later one sees the earlier one's, whether or not the store can write conditionally. Who sees a claim of
        another set gives up. A claim that is a day older than one's own, by the store's clock, was left by a process
        that was killed.
        """
        own = f"{key}/{CLAIM}{artifact.sha256[:16]}.{uuid.uuid4().hex[:8]}.json"
        who = {"sha256": artifact.sha256, "host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
        self._blobs.put_new(json.dumps(who).encode(), own)
        claims = {info.key: info for info in self.list(key) if info.key.startswith(f"{key}/{CLAIM}")}
        if own not in claims:
            raise RunnerError(f"{self.uri} does not list the file {own} that was just written", "Run the stage again.")
        now = claims[own].modified_at
        for info in claims.values():
            same = info.key.startswith(f"{key}/{CLAIM}{artifact.sha256[:16]}.")
            if not same and now - info.modified_at < _CLAIM_S:
                self._blobs.delete([own])
                raise RunnerError(
                    f"another set is being published to {self.uri}/{key}, see {info.key}",
                    "Publish under another key, or wait. If its process is dead, remove that file and run again.",
                )
        return [own, *(claims.keys() - {own})]

    def _refuse_strays(self, artifact: Artifact, key: str, name: str) -> None:
        """A reader of the whole prefix must not meet files of something else there."""
        known = {f"{key}/{entry.path}" for entry in artifact.files}
        found = {info.key for info in self.list(key) if not info.key.startswith(f"{key}/{CLAIM}")}
        if strays := sorted(found - known):
            raise RunnerError(
                f"{self.uri}/{key} already holds files that do not belong to {name}: {', '.join(strays[:5])}",
                "They have no manifest: remove them if they are from an interrupted upload, or choose another place.",
            )

    def _same(self, there: Artifact, artifact: Artifact) -> Artifact:
        if there.sha256 != artifact.sha256:
            raise RunnerError(
                f"{there.uri} already holds another set (sha256 {there.sha256[:12]}, not {artifact.sha256[:12]}), "
                "and a published set never changes",
                "Publish under another key, or delete that set first.",
            )
        return there

    def fetch(self, what: Artifact | str, destination: Path, on_bytes: OnBytes | None = None) -> Artifact:
        """Download an artifact of this store (or the set under a key) into the folder, which appears whole or not.

        Every file's size and SHA-256 is verified. A destination that already holds the set is left as it is.
        Raises RunnerError when there is no complete set, a file is damaged, or the destination holds something else.
        """
        artifact = what if isinstance(what, Artifact) else self.exists(what)
        if artifact is None:
            raise RunnerError(
                f"there is no complete set at {self.uri}/{what}", "Its manifest is written last; publish it."
            )
        key = self._key_of(artifact)
        local = artifact.model_copy(update={"uri": str(destination), "in_store": False})
        if destination.exists() and any(destination.iterdir()):
            for entry in artifact.files:
                _verify(destination / checked_key(entry.path), entry, str(destination / entry.path))
            return local
        destination.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=destination.parent, prefix=f".{destination.name}.part-"))
        temporary.chmod(0o755)
        count = _Counter(artifact.size_bytes, on_bytes)

        def download(entry: FileEntry) -> None:
            target = temporary / checked_key(entry.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            uri = f"{artifact.uri}/{entry.path}"
            self._blobs.get_file(f"{key}/{entry.path}", target, count, lambda: _verify(target, entry, uri))

        try:
            _in_parallel(download, artifact.files)
            durable.sync_tree(temporary)
            durable.move(temporary, destination)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return local

    def exists(self, key: str) -> Artifact | None:
        """The complete set under the key, or None. Raises RunnerError when its manifest is damaged."""
        checked_key(key)
        for _ in range(_NUM_READS - 1):  # of a damaged answer, which says nothing of the store
            with suppress(DamagedError):
                return self._read_set(key)
        return self._read_set(key)

    def _read_set(self, key: str) -> Artifact | None:
        data = self._blobs.read(f"{key}/{SET_MANIFEST}")
        if data is None:
            return None
        uri = f"{self.uri}/{key}"
        try:
            values = {**unsealed(data, f"{uri}/{SET_MANIFEST}"), "uri": uri, "in_store": True}
            artifact = Artifact.model_validate(values)
            if digest_files(artifact.files) != artifact.sha256:
                raise ValueError("its digest is not that of its files")
            for entry in artifact.files:
                checked_key(entry.path)
        except (ValueError, RunnerError) as error:
            why = f"{uri}/{SET_MANIFEST} is damaged: {error}" if isinstance(error, ValueError) else str(error)
            raise DamagedError(why, "Remove that file, and force the stage that published it.") from error
        return artifact

    def check_writable(self) -> None:
        """Raise RunnerError unless a small file can be put here, read and listed, as publishing will do."""
        data = uuid.uuid4().bytes
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "probe"
            source.write_bytes(data)
            try:
                self._blobs.put_file(source, _PROBE, lambda num_bytes: None)
                kept = self._blobs.read(_PROBE) == data and any(True for _ in self.list(_PROBE.partition("/")[0]))
            except OSError as error:
                raise os_failure(error, self.uri) from error
        if not kept:
            raise RunnerError(f"{self.uri} takes a file and does not keep it", "Look at what answers at that address.")
        with suppress(RunnerError):  # credentials may write and not delete; the next look writes the same key
            self._blobs.delete([_PROBE])

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every file below the prefix (a folder; empty: the whole store), in no particular order."""
        return self._blobs.walk(checked_key(prefix) if prefix else "")

    def read_bytes(self, key: str) -> bytes:
        """Content of one file. Raises RunnerError when there is none."""
        data = self._blobs.read(checked_key(key))
        if data is None:
            raise RunnerError(f"there is no {self.uri}/{key}")
        return data

    def delete_set(self, artifact: Artifact) -> None:
        """Delete the artifact's files and manifest, and nothing else. An artifact that is gone already is not an error.

        Raises RunnerError when another set has taken its place, or it is not in this store.
        """
        key = self._key_of(artifact)
        there = self.exists(key)
        if there is not None:
            self._same(there, artifact)
        self._blobs.delete([f"{key}/{SET_MANIFEST}"])  # first, so that nobody takes what is left for a complete set
        self._blobs.delete([f"{key}/{checked_key(entry.path)}" for entry in artifact.files])

    def _key_of(self, artifact: Artifact) -> str:
        if not artifact.uri.startswith(f"{self.uri}/"):
            raise RunnerError(f"{artifact.name} is at {artifact.uri}, which is not in the store {self.uri}")
        return checked_key(artifact.uri.removeprefix(f"{self.uri}/"))


class _Counter:
    """Sums up bytes from several threads and tells the caller."""

    def __init__(self, total: int, on_bytes: OnBytes | None) -> None:
        self._done = 0
        self._total = total
        self._on_bytes = on_bytes
        self._lock = threading.Lock()

    def __call__(self, num_bytes: int) -> None:
        with self._lock:
            self._done += num_bytes
            if self._on_bytes:
                self._on_bytes(self._done, self._total)


def _in_parallel(work: Callable[[FileEntry], None], files: list[FileEntry]) -> None:
    """Do the work for each file, several at a time; the first failure is raised and what has not begun is dropped."""
    with ThreadPoolExecutor(_NUM_PARALLEL_FILES) as pool:
        futures = [pool.submit(work, entry) for entry in files]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _verify(path: Path, entry: FileEntry, shown: str) -> None:
    """Raises DamagedError unless the file has the entry's size and SHA-256; `shown` is what to call it."""
    size = path.stat().st_size if path.is_file() else None
    if size != entry.size_bytes:
        found = "is missing" if size is None else f"has {count_text(size, 'byte')}"
        raise DamagedError(f"{shown} {found}, not the {count_text(entry.size_bytes, 'byte')} that its manifest says")
    if (digest := digest_file(path)) != entry.sha256:
        raise DamagedError(f"{shown} is damaged: its SHA-256 is {digest[:12]}..., not {entry.sha256[:12]}...")


def _as_manifest(artifact: Artifact) -> bytes:
    """The set's manifest: the artifact without its URI, which is wherever the manifest is found."""
    values = sealed(artifact.model_dump(mode="json", exclude={"uri", "in_store"}))
    return json.dumps(values, indent=2, ensure_ascii=False).encode()
