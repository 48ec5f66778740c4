"""Which checkpoints of an earlier attempt a training may resume from: those that are whole, by their seals.

A worker puts a seal into its part of a checkpoint before it is uploaded: sizes and digests of the part's files, and the
name of the training. What was cut off by a kill, has changed since, or is of another training does not match its seals,
and the checkpoint before is used instead.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from runner.errors import RunnerError
from runner.patches import ray_train
from runner.storage.atomic import unsealed, write_state
from runner.storage.digest import digest_file
from runner.text import count_text

# Folders of the last checkpoint, in which the worker reports what it leaves: the adapter or model, and the log.
ADAPTER, LOG = "adapter", "log"

_SEAL = "seal-{}.json"
_FOLDER = "checkpoint_"  # how Ray Train names them; the rest of the name is the time
_CHUNK_BYTES = 1 << 20
_AGAIN = "Look at the disk or store of train.storage_path, and run again."


def seal(folder: Path, rank: int, num_parts: int, metrics: dict[str, Any], training: str) -> None:
    """Write down what this worker's part of a checkpoint holds. num_parts: workers that report one.

    metrics: what is reported with it, so that Ray Train's own list of checkpoints can be made again. training: the name
    of its `ray.train.RunConfig`.
    """
    files = {
        path.relative_to(folder).as_posix(): [path.stat().st_size, digest_file(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    values = {"training": training, "num_parts": num_parts, "files": files, "metrics": metrics}
    write_state(folder / _SEAL.format(rank), values)


def repair(storage_path: str, name: str) -> list[str]:
    """Leave of an earlier attempt's checkpoints only what is whole, and tell Ray Train of just these.

    storage_path, name: of `ray.train.RunConfig`. Returns what was incomplete, newest first:
    "checkpoint_...: what is wrong". The newest one left is read and compared with its digests, those before it by size.
    """
    from pyarrow import fs as filesystems

    fs, root = filesystems.FileSystem.from_uri(storage_path)  # as Ray Train does
    home = f"{root}/{name}"
    listed = fs.get_file_info(filesystems.FileSelector(home, allow_not_found=True))
    folders = sorted(
        (each.path for each in listed if each.base_name.startswith(_FOLDER) and not each.is_file), reverse=True
    )
    damaged: list[str] = []
    whole: list[tuple[str, dict[str, Any]]] = []
    for folder in folders:
        try:
            whole.append((Path(folder).name, check(fs, folder, name, digests=not whole)))
        except ValueError as error:
            damaged.append(f"{Path(folder).name}: {error}")
            fs.delete_dir(folder)
    if listed:
        _tell_ray(fs, home, whole[::-1])
    return damaged


def check_final(folder: Path, training: str) -> None:
    """Raise RunnerError unless the local copy of a training's last checkpoint is what its workers sealed."""
    from pyarrow import fs as filesystems

    try:
        check(filesystems.LocalFileSystem(), str(folder), training, digests=True)
    except ValueError as error:
        raise RunnerError(f"the results of the training were damaged where they are stored: {error}", _AGAIN) from error


def check(fs: Any, folder: str, training: str, *, digests: bool) -> dict[str, Any]:
    """The metrics that a whole checkpoint was reported with. Raises ValueError saying what is wrong with it.

    fs: a pyarrow filesystem. training: as of `seal`. digests: also read the files, which takes as long as resuming.
    """
    from pyarrow import fs as filesystems

    listed = fs.get_file_info(filesystems.FileSelector(folder, recursive=True))
    sizes = {each.path.removeprefix(f"{folder}/"): each.size for each in listed if each.is_file}
    first = _read_seal(fs, folder, 0)
    seals = [first, *(_read_seal(fs, folder, rank) for rank in range(1, first["num_parts"]))]
    if strange := [each["training"] for each in seals if each["training"] != training]:
        raise ValueError(f"it is of another training, {strange[0]}")
    for name, (size, sha256) in (item for each in seals for item in each["files"].items()):
        if sizes.get(name) != size:
            raise ValueError(f"{name} has {sizes.get(name, 0)} of {count_text(size, 'byte')}")
        if digests and _digest(fs, f"{folder}/{name}") != sha256:
            raise ValueError(f"{name} has changed")
    metrics: dict[str, Any] = first["metrics"]
    return metrics


def _read_seal(fs: Any, folder: str, rank: int) -> dict[str, Any]:
    name = _SEAL.format(rank)
    try:
        with fs.open_input_stream(f"{folder}/{name}") as file:
            return {"training": "", **unsealed(file.read(), name)}
    except FileNotFoundError:
        raise ValueError(f"{name} is missing") from None
    except RunnerError as error:
        raise ValueError(error.message) from None


def _digest(fs: Any, path: str) -> str:
    digest = hashlib.sha256()
    with fs.open_input_stream(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _tell_ray(fs: Any, home: str, checkpoints: list[tuple[str, dict[str, Any]]]) -> None:
    """Write Ray Train's list of the checkpoints, oldest first; its own may be incomplete, as it writes in place."""
    name, content = ray_train.checkpoint_list(checkpoints)
    with fs.open_output_stream(f"{home}/{name}") as file:
        file.write(content)
