"""The one way to find the folder of a run: `<storage.root>/<recipe>/<run id>/`, by the names that people use.

A run is named by its id, by the start of an id that no other run has, by its folder, as `latest`, or as the best of a
sweep: `@best` of the newest one, `SWEEP@best` of the one whose id begins so.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from runner.errors import Problem, RecipeError, RunnerError, UsageError, nearest
from runner.pipeline.manifest import MANIFEST
from runner.storage.atomic import read_state, write_text
from runner.storage.digest import digest_bytes
from runner.text import count_text

LATEST, BEST = "latest", "@best"
_STAMP, _STAMP_CHARS, _SECOND_NS = "%Y%m%d-%H%M%S", 15, 10**9
SWEEPS, SWEEP = "sweeps", "sweep.json"
IDENTITY = "identity.json"
_SHORTEST = 4  # characters of the start of an id; fewer are a typing mistake
_INDEX = "roots"
ANOTHER_ROOT = "Name a folder that you may write: storage.root=..."
_HOMES = (Path("/root"), Path("/home"), Path("/Users"))
_ABOVE = tuple(map(Path, ("/usr", "/usr/local", "/var", "/var/lib", "/run", "/opt", "/tmp", "/var/tmp")))  # noqa: S108
_SYSTEM = tuple(map(Path, (
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/sbin",
    "/sys", "/usr/bin", "/usr/include", "/usr/lib", "/usr/lib64", "/usr/sbin", "/usr/share", "/System", "/Library",
)))  # fmt: skip
_MEMORY = Path("/dev/shm")  # noqa: S108 (a disk in memory)


def run_folders(root: Path, recipe: str | None = None) -> list[Path]:
    """Folders of the runs below `storage.root`, or of one recipe's, in order of their names, which begin with times."""
    homes = [root / recipe] if recipe else _folders_in(root)
    return sorted(folder for home in homes for folder in _folders_in(home) if (folder / MANIFEST).is_file())


def runs_of(home: Path, identity: str, say: Callable[[str], None] = lambda message: None) -> Iterator[Path]:
    """Folders of the runs of exactly the recipe with that digest, the newest first.

    home: folder of the recipe's runs. say: gets a remark about each whose identity cannot be read.
    """
    for folder in reversed(run_folders(home.parent, home.name)):
        if f"-{identity[:6]}" not in folder.name:
            continue
        try:
            same = read_state(folder / IDENTITY)["recipe_sha256"] == identity
        except (RunnerError, OSError) as error:
            say(f"{error}; {folder.name} is not continued, though its results are used")
            continue
        if same:
            yield folder


def link_out_of(folder: Path) -> Path | None:
    """A link in the run's folder, or the folder itself, that leads out of it. Runs make none."""
    home, real = folder.parent.resolve(), folder.resolve()
    if real.parent != home:
        return folder
    for above, folders, files in os.walk(folder):
        for path in (Path(above, name) for name in (*folders, *files)):
            if path.is_symlink() and not _resolved(path).is_relative_to(real):
                return path
    return None


def _resolved(path: Path) -> Path:
    """Where the link leads; nowhere for links that lead to each other."""
    with suppress(RuntimeError):
        return path.resolve()
    return Path("/")


def _folders_in(folder: Path) -> list[Path]:
    with suppress(OSError):
        return [path for path in folder.iterdir() if path.is_dir()]
    return []


def find_run(root: Path, name: str, recipe: str | None = None, elsewhere: Sequence[Path] = ()) -> Path:
    """The folder of the run of that name.

    recipe: look at this recipe's runs only. elsewhere: other roots, looked at where there is none below `root`.
    Raises UsageError when there is none, or the name fits several.
    """
    if by_path := _of_path(root, name):
        return by_path
    for place in (root, *elsewhere):
        folders = run_folders(place, recipe)
        if name == LATEST:
            if folders:
                return max(folders, key=_began)
        elif name.endswith(BEST):
            if found := _best(place, name.removesuffix(BEST)):
                return run_of_id(place, found)
        elif found_run := _of_id(folders, name):
            return found_run
    raise _missing(root, name, recipe, elsewhere)


def _of_path(root: Path, name: str) -> Path | None:
    """The run's folder where the name is its path, from here or from the root."""
    with suppress(OSError, RuntimeError, ValueError):
        for path in (Path(name).expanduser(), root / name) if "/" in name else ():
            if (path / MANIFEST).is_file():
                return path.resolve()
    return None


def state_of_run(folder: Path, name: str) -> dict[str, Any]:
    """A state file of the run. Raises RunnerError where it is missing or damaged."""
    try:
        return read_state(folder / name)
    except FileNotFoundError:
        hint = "Copy the folder again, or run the recipe again."
        raise RunnerError(f"{folder} is not the whole folder of a run: it has no {name}", hint) from None


def run_of_id(root: Path, run_id: str) -> Path:
    """The folder of the run of that id, or whose id alone begins so. Raises UsageError."""
    found = _of_id(run_folders(root), run_id)
    if found is None:
        raise _missing(root, run_id, None, ())
    return found


def _of_id(folders: Iterable[Path], run_id: str) -> Path | None:
    folders = list(folders)
    if exact := next((folder for folder in folders if folder.name == run_id), None):
        return exact
    fitting = [folder for folder in folders if len(run_id) >= _SHORTEST and folder.name.startswith(run_id)]
    if len(fitting) > 1:
        names = ", ".join(folder.name for folder in fitting[:5])
        raise UsageError(
            f"{count_text(len(fitting), 'run')} have an id that begins with {run_id}: {names}", "Write more of it."
        )
    return fitting[0] if fitting else None


def next_stamp(names: Iterable[str]) -> str:
    """Now, as the ids of runs and sweeps begin with it; after the newest of the names where the clock was set back,
    since ids are compared by their times."""
    now, newest = time.strftime(_STAMP), ""
    for name in names:
        with suppress(ValueError):
            newest = max(newest, f"{datetime.strptime(name[:_STAMP_CHARS], _STAMP):{_STAMP}}")
    return now if newest <= now else f"{datetime.strptime(newest, _STAMP) + timedelta(seconds=1):{_STAMP}}"


def mark_newest(root: Path, folder: Path) -> None:
    """Have `latest` mean this run, which begins or continues now, whatever the clock says."""
    newest = max((_began(other) for other in run_folders(root) if other != folder), default=0)
    if _began(folder) <= newest:
        os.utime(folder / "recipe.json", ns=(newest + _SECOND_NS,) * 2)


def _began(folder: Path) -> int:
    """When the run was last started or continued, by what it writes then."""
    with suppress(OSError):
        return (folder / "recipe.json").stat().st_mtime_ns
    return 0


def _best(root: Path, sweep: str) -> str:
    """Id of the best run of the sweep whose id begins so, of the newest for ""; "" where there is none."""
    folders = [path for path in _folders_in(root / SWEEPS) if path.name.startswith(sweep)]
    for folder in sorted(folders, reverse=True):
        with suppress(RunnerError, OSError):
            if best := read_state(folder / SWEEP).get("best"):
                return str(best)
    return ""


def _missing(root: Path, name: str, recipe: str | None, elsewhere: Sequence[Path]) -> UsageError:
    known = [folder.name for folder in run_folders(root, recipe)]
    wanted = f"run {name!r}" if name != LATEST else f"run of {recipe}" if recipe else "run"
    if name.endswith(BEST):
        wanted = f"finished job of a sweep for {name}"
    places = f", nor in {count_text(len(elsewhere), 'other place')} of runs" if elsewhere else ""
    guess = nearest(name, known)
    hint = f"Did you mean {guess}?" if guess else "Start one, or say where: storage.root=..."
    return UsageError(f"there is no {wanted} below {root}{places}", hint)


def unusable_root(root: Path, *, to_write: bool = False) -> str:
    """Why there can be no run folders at the path, or "": it is the system's or the user's home, a file is in its way,
    or with `to_write` a missing right."""
    if why := of_the_system(root):
        return why
    place = next((path for path in (root, *root.parents) if path.exists()), root)
    if not place.is_dir():
        return f"{place} is a file, not a folder"
    if to_write and not os.access(place, os.W_OK | os.X_OK):
        return f"{place} cannot be written by this user, or is on a file system that is read-only"
    return ""


def check_writable(folder: str) -> None:
    """Raise UsageError when no file can be written below the folder, which may be missing as yet."""
    if why := unusable_root(Path(folder).expanduser().absolute(), to_write=True):
        raise UsageError(why, ANOTHER_ROOT)


def of_the_system(folder: Path) -> str:
    """Why the folder is not one for a run's files, or "": the root folder, a home folder itself, or the system's."""
    for path in (folder, folder.resolve()):
        if path == Path(path.anchor):
            return f"{folder} is the root folder"
        if path in (_own_home(), *_HOMES):
            return f"{folder} is a home folder itself"
        if path in _ABOVE or (any(map(path.is_relative_to, _SYSTEM)) and not path.is_relative_to(_MEMORY)):
            return f"{folder} is a folder of the system"
    return ""


def _own_home() -> Path | None:
    """The user's, where there is one."""
    with suppress(RuntimeError):
        return Path.home()
    return None


def make_root(root: Path) -> None:
    """Make the folder of the run folders. Raises RecipeError that names `storage.root` when it cannot be used."""
    why = unusable_root(root, to_write=True)
    try:
        if not why:
            root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = f"{error.filename or root}: {(error.strerror or str(error)).lower()}"
    if why:
        raise RecipeError([Problem("storage.root", str(root), f"cannot be used: {why}", ANOTHER_ROOT)])


def remember_root(root: Path) -> None:
    """Note a place of runs in the user's cache, so that they are found from any folder. That it fails is no matter."""
    with suppress(OSError):
        file = _index() / digest_bytes(str(root).encode())[:16]
        if not file.is_file():
            write_text(file, str(root))


def known_roots() -> Iterator[Path]:
    """Places of runs that were noted and still are there, the newest first."""
    with suppress(OSError):
        for file in sorted(_index().iterdir(), key=lambda path: path.stat().st_mtime_ns, reverse=True):
            if (root := Path(file.read_text(encoding="utf-8"))).is_dir():
                yield root


def _index() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "recipe-runner" / _INDEX
