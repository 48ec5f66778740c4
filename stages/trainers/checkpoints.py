"""Which checkpoints of an earlier attempt a training may go on from: those that are whole, by their seals.

A worker puts a seal into its part of a checkpoint before it is uploaded: sizes and digests of the part's files. What
was cut off by a kill, or has changed since, does not match its seals, and the checkpoint before is used instead.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from runner.patches import ray_train
from runner.storage.atomic import write_json
from runner.storage.digest import digest_file

# Folders of the last checkpoint, in which the worker reports what it leaves: the adapter or model, and the log.
ADAPTER, LOG = "adapter", "log"

_SEAL = "seal-{}.json"
_FOLDER = "checkpoint_"  # how Ray Train names them; the rest of the name is the time
_CHUNK_BYTES = 1 << 20


def seal(folder: Path, rank: int, num_parts: int, metrics: dict[str, Any]) -> None:
    """Write down what this worker's part of a checkpoint holds. num_parts: workers that report one.

    metrics: what is reported with it, so that Ray Train's own list of checkpoints can be made again.
    """
    files = {
        path.relative_to(folder).as_posix(): [path.stat().st_size, digest_file(path)]
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    write_json(folder / _SEAL.format(rank), {"num_parts": num_parts, "files": files, "metrics": metrics})


def mend(storage_path: str, name: str) -> list[str]:
    """Leave of an earlier attempt's checkpoints only what is whole, and tell Ray Train of just these.

    storage_path, name: of `ray.train.RunConfig`. Returns what was torn, newest first: "checkpoint_...: what is wrong".
    The newest one left is read and compared with its digests, those before it by size.
    """
    from pyarrow import fs as filesystems

    fs, root = filesystems.FileSystem.from_uri(storage_path)  # as Ray Train does
    home = f"{root}/{name}"
    listed = fs.get_file_info(filesystems.FileSelector(home, allow_not_found=True))
    folders = sorted(
        (each.path for each in listed if each.base_name.startswith(_FOLDER) and not each.is_file), reverse=True
    )
    torn: list[str] = []
    whole: list[tuple[str, dict[str, Any]]] = []
    for folder in folders:
        try:
            whole.append((Path(folder).name, check(fs, folder, digests=not whole)))
        except ValueError as error:
            torn.append(f"{Path(folder).name}: {error}")
            fs.delete_dir(folder)
    if listed:
        _tell_ray(fs, home, whole[::-1])
    return torn


def check(fs: Any, folder: str, *, digests: bool) -> dict[str, Any]:
    """The metrics that a whole checkpoint was reported with. Raises ValueError saying what is wrong with it.

    fs: a pyarrow filesystem. digests: also read the files, which takes as long as to resume from them.
    """
    from pyarrow import fs as filesystems

    listed = fs.get_file_info(filesystems.FileSelector(folder, recursive=True))
    sizes = {each.path.removeprefix(f"{folder}/"): each.size for each in listed if each.is_file}
    first = _read_seal(fs, folder, 0)
    seals = [first, *(_read_seal(fs, folder, rank) for rank in range(1, first["num_parts"]))]
    for name, (size, sha256) in (item for each in seals for item in each["files"].items()):
        if sizes.get(name) != size:
            raise ValueError(f"{name} has {sizes.get(name, 0)} of {size} bytes")
        if digests and _digest(fs, f"{folder}/{name}") != sha256:
            raise ValueError(f"{name} has changed")
    metrics: dict[str, Any] = first["metrics"]
    return metrics


def _read_seal(fs: Any, folder: str, rank: int) -> dict[str, Any]:
    name = _SEAL.format(rank)
    try:
        with fs.open_input_stream(f"{folder}/{name}") as file:
            values: dict[str, Any] = json.loads(file.read())
            return values
    except FileNotFoundError:
        raise ValueError(f"{name} is missing") from None
    except ValueError:
        raise ValueError(f"{name} is torn") from None


def _digest(fs: Any, path: str) -> str:
    digest = hashlib.sha256()
    with fs.open_input_stream(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _tell_ray(fs: Any, home: str, checkpoints: list[tuple[str, dict[str, Any]]]) -> None:
    """Write Ray Train's list of the checkpoints, oldest first; it writes in place and may have left a torn one."""
    name, content = ray_train.checkpoint_list(checkpoints)
    with fs.open_output_stream(f"{home}/{name}") as file:
        file.write(content)
