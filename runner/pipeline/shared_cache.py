"""Results of finished stages in the artifact store, so that other machines reuse them instead of repeating them.

`<store>/cache/<stage>/<fingerprint>/record.json` is written after the artifacts that it names. Of these, files that the
stage wrote below `storage.root` are kept as `<store>/cache/files/<name>/<digest>/`, whatever is in the store already is
referred to where it is, and the rest (the base model) stays where it is: a machine that needs it obtains it itself.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

from runner.errors import RunnerError
from runner.pipeline.manifest import StageRecord
from runner.pipeline.registry import deleted_artifacts
from runner.recipe.schema import Recipe
from runner.storage.artifact import Artifact, scan_folder
from runner.storage.atomic import write_json
from runner.storage.digest import digest_bytes
from runner.storage.store import Store, checked_key, open_store

_IN_STORE = "store://"
_RECORD = "record.json"


def is_shared(recipe: Recipe) -> bool:
    """Whether the recipe shares results: as it says, else when its store is not a part of `storage.root`."""
    storage = recipe.storage
    if storage.share_cache is not None or "://" in storage.artifacts:
        return storage.share_cache is not False
    root, store = storage.runs, Path(storage.artifacts).expanduser().resolve()
    return not store.is_relative_to(root)


class SharedCache:
    """The results that a store holds. `say` gets a remark when it cannot be reached, and per result not shared."""

    def __init__(self, recipe: Recipe, say: Callable[[str], None]) -> None:
        self._recipe = recipe
        self._say = say
        self._store: Store | None = None
        self._failed = False
        self._found: dict[str, StageRecord | None] = {}

    @property
    def store(self) -> Store:
        if self._store is None:
            storage = self._recipe.storage
            self._store = open_store(storage.artifacts, endpoint_url=storage.endpoint_url)
        return self._store

    def find(self, name: str, fingerprint: str) -> StageRecord | None:
        """The finished record of that fingerprint, if its artifacts in the store are complete."""
        key = f"cache/{name}/{fingerprint}"
        if key not in self._found and not self._failed:
            try:
                self._found[key] = self._read(key, name, fingerprint)
            except (RunnerError, OSError) as error:
                self._failed = True
                self._say(f"results in {self._recipe.storage.artifacts} are not used: {error}")
        return self._found.get(key)

    def _read(self, key: str, name: str, fingerprint: str) -> StageRecord | None:
        held = self.store.exists(key)
        if held is None:
            return None
        data = self.store.read_bytes(f"{key}/{_RECORD}")
        if [(entry.path, entry.sha256) for entry in held.files] != [(_RECORD, digest_bytes(data))]:
            raise RunnerError(f"{self.store.uri}/{key}/{_RECORD} is damaged", f"Delete {self.store.uri}/{key}.")
        try:
            record = StageRecord.model_validate(json.loads(data))
        except ValueError as error:
            raise RunnerError(f"{self.store.uri}/{key}/{_RECORD} is damaged: {error}") from error
        if (record.name, record.fingerprint) != (name, fingerprint):
            raise RunnerError(f"{self.store.uri}/{key}/{_RECORD} is of another stage")
        artifacts = [self._located(artifact) for artifact in record.artifacts]
        if None in artifacts:
            return None
        return record.model_copy(update={"artifacts": artifacts, "shared": self.store.uri, "from_store": True})

    def _located(self, artifact: Artifact) -> Artifact | None:
        """The artifact at its place in this store, or on this machine; None when the store does not hold it whole."""
        for entry in artifact.files:
            checked_key(entry.path)
        if not artifact.uri.startswith(_IN_STORE):
            if "://" in artifact.uri:
                raise RunnerError(
                    f"a record in {self.store.uri} names {artifact.uri}, which is in no store of this recipe"
                )
            return artifact
        held = self.store.exists(artifact.uri.removeprefix(_IN_STORE))
        if held is None or held.sha256 != artifact.sha256:
            return None
        return artifact.model_copy(update={"uri": held.uri, "files": held.files})

    def share(self, record: StageRecord, run_id: str, *, without_files: bool = False) -> StageRecord:
        """Put the finished record into the store, its artifacts first; returns it with `shared` set when it is there.

        without_files: keep only that the stage ran, as of an endpoint. A record that is there already stays. A failure
        is reported, and changes nothing for the run.
        """
        key = f"cache/{record.name}/{record.fingerprint}"
        try:
            if record.shared == self.store.uri:
                return record
            if self.store.exists(key) is None:
                artifacts = [] if without_files else [self._put(artifact) for artifact in record.artifacts]
                origin = record.origin_run or run_id
                update = {"artifacts": artifacts, "origin_run": origin, "status": "done", "note": "", "shared": ""}
                with tempfile.TemporaryDirectory() as folder:
                    write_json(Path(folder) / _RECORD, record.model_copy(update=update).model_dump(mode="json"))
                    self.store.publish(scan_folder("record", Path(folder)), key, "record")
        except (RunnerError, OSError) as error:
            self._say(f"the result of {record.name} is not shared: {error}")
            return record
        return record.model_copy(update={"shared": self.store.uri})

    def _put(self, artifact: Artifact) -> Artifact:
        """The artifact as other machines find it: in the store, or where it is when it is not for sharing."""
        if artifact.uri.startswith(f"{self.store.uri}/"):
            return artifact.model_copy(update={"uri": _IN_STORE + artifact.uri.removeprefix(f"{self.store.uri}/")})
        root = self._recipe.storage.runs
        own = "://" not in artifact.uri and artifact.path.resolve().is_relative_to(root)
        if not own or artifact.name in deleted_artifacts(self._recipe):
            return artifact
        key = f"cache/files/{artifact.name}/{artifact.sha256}"
        self.store.publish(artifact, key, artifact.name)
        return artifact.model_copy(update={"uri": _IN_STORE + key})

    def on_this_machine(self, artifact: Artifact, folder: Path) -> Artifact:
        """The artifact as local files: one that another machine left in an object store is fetched into the folder.

        Every file is verified. Raises RunnerError when it cannot be had, or is damaged.
        """
        if "://" not in artifact.uri or not artifact.uri.startswith(f"{self.store.uri}/cache/files/"):
            return artifact
        return self.store.fetch(artifact, folder / artifact.name)
