"""LoRA adapters in the artifact store, as the endpoint sees them: which there are, and how one gets onto a node.

An adapter is a complete set `<store>/<adapter_id>/` (its `_manifest.json` is written last). What is not complete is
not served.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from runner.errors import DamagedError, RunnerError
from runner.storage.artifact import Artifact
from runner.storage.local import ObjectInfo
from runner.storage.store import SET_MANIFEST, Store

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"

_CODE = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".py", ".pyc", ".so")
_DIGEST_IN_ID = re.compile(r"-([0-9a-f]{8})$")  # the end of every id that publish gives
_NUM_PARALLEL_READS = 8
_ADAPTER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def largest_rank(config: str | bytes) -> int:
    """The largest rank among an adapter's matrices. config: the text of its adapter_config.json."""
    values = json.loads(config)
    rank: int = max([values["r"], *(values.get("rank_pattern") or {}).values()])
    return rank


class AdapterNotFoundError(RunnerError):
    """There is no such adapter to serve. The endpoint answers it with HTTP status 404."""


def adapter_name(model_id: str, adapter_id: str) -> str:
    """The model name that requests use for an adapter."""
    return f"{model_id}:{adapter_id}"


def checked_adapter_id(adapter_id: str) -> str:
    """The id, if it is one path element of plain characters. Raises AdapterNotFoundError for '..', slashes and such."""
    if not _ADAPTER_ID.fullmatch(adapter_id):
        raise AdapterNotFoundError(f"{adapter_id[:128]!r} is not an adapter id: letters, digits, '.', '_' and '-' only")
    return adapter_id


class Catalogue:
    """The adapters of a store that can be asked for: those that `find_adapter` finds. base_model: as there.

    A manifest is read once, and again when the store lists it with another size, time or tag.
    """

    def __init__(self, store: Store, base_model: str | None = None) -> None:
        self._store, self._base_model = store, base_model
        self._known: dict[ObjectInfo, bool] = {}

    def ids(self) -> list[str]:
        """Ids of the adapters that are there now, sorted. Raises RunnerError when the store does not answer."""
        listed = [info for info in self._store.list() if _ADAPTER_ID.fullmatch(_set_of(info))]
        new = [info for info in listed if info not in self._known]
        with ThreadPoolExecutor(_NUM_PARALLEL_READS) as pool:
            found = dict(zip(new, pool.map(self._is_found, new), strict=True))
        self._known = {info: found[info] if info in found else self._known[info] for info in listed}
        return sorted(_set_of(info) for info in listed if self._known[info])

    def _is_found(self, info: ObjectInfo) -> bool:
        try:
            find_adapter(self._store, _set_of(info), self._base_model)
        except (AdapterNotFoundError, DamagedError):
            return False
        return True


def _set_of(info: ObjectInfo) -> str:
    """The set whose manifest the file is; "" for any other file."""
    key, _, rest = info.key.partition("/")
    return key if rest == SET_MANIFEST else ""


def find_adapter(store: Store, adapter_id: str, base_model: str | None = None) -> Artifact:
    """The complete set of that id. Raises AdapterNotFoundError when there is none, or it is not made of safetensors, or
    it says that it was trained on another model than base_model (`model.source`; None: any)."""
    artifact = store.exists(checked_adapter_id(adapter_id))
    if artifact is None:
        raise AdapterNotFoundError(f"there is no complete adapter {adapter_id!r} in the store")
    if (named := _DIGEST_IN_ID.search(adapter_id)) and not artifact.sha256.startswith(named[1]):
        raise AdapterNotFoundError(f"the set {adapter_id!r} is another one (sha256 {artifact.sha256[:8]}) by now")
    if base_model is not None and (trained_on := artifact.meta.get("base_model", base_model)) != base_model:
        raise AdapterNotFoundError(f"the adapter {adapter_id!r} was trained on {trained_on}, and this is {base_model}")
    names = {entry.path for entry in artifact.files}
    if not {WEIGHTS, CONFIG} <= names:
        raise AdapterNotFoundError(f"the set {adapter_id!r} is not a LoRA adapter: it lacks {WEIGHTS} or {CONFIG}")
    if code := sorted(name for name in names if name.lower().endswith(_CODE)):
        raise AdapterNotFoundError(f"the set {adapter_id!r} has files that can run code: {', '.join(code)[:200]}")
    return artifact


class Recent:
    """Adapters that were found a moment ago, so that not every request reads the store.

    One that is not there is looked for each time: it may just have been published. fresh_s: how long one counts as
    there, and so how long one that is removed may still be asked for.
    """

    def __init__(self, fresh_s: float = 2.0, now: Callable[[], float] = time.monotonic) -> None:
        self._fresh_s, self._now = fresh_s, now
        self._until: dict[str, float] = {}

    def __contains__(self, adapter_id: str) -> bool:
        return self._until.get(adapter_id, 0.0) > self._now()

    def add(self, adapter_id: str) -> None:
        """The adapter was found just now."""
        now = self._now()
        self._until = {each: until for each, until in self._until.items() if until > now}
        self._until[adapter_id] = now + self._fresh_s


def fetch_adapter(store: Store, adapter_id: str, cache: Path, base_model: str | None = None) -> Path:
    """Folder on this node that holds the adapter, verified file by file against its manifest.

    The folder is named after the set's digest, so that it is right for as long as it exists and all replicas of a node
    share it; one whose files are damaged is fetched again. Raises AdapterNotFoundError (as `find_adapter`), or
    RunnerError when a file is damaged in the store.
    """
    artifact = find_adapter(store, adapter_id, base_model)
    folder = cache.expanduser() / "adapters" / artifact.sha256
    try:
        store.fetch(artifact, folder)
    except OSError:  # another replica put the same set there first
        store.fetch(artifact, folder)
    except DamagedError:
        shutil.rmtree(folder, ignore_errors=True)
        store.fetch(artifact, folder)
    return folder
