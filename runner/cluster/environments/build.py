"""`python -m runner.cluster.environments.build NAME ...`: make environments from their locks, with uv.

`--own LOCK` puts the packages of a lock into the runner's own environment, which has no packages yet: only standard
modules and this package's own are imported.

Packages are unpacked once into a cache next to the environments and linked from there, so that those that two of them
share take their place on the disk once. The project itself is installed in place from a checkout; an installed one is
copied.
"""

from __future__ import annotations

import argparse
import ast
import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path

from runner.cluster import environments
from runner.cluster.environments import Record
from runner.errors import EXIT_DONE, RunnerError
from runner.storage.atomic import write_text

_ROOT = Path(__file__).resolve().parents[3]
_INSTALLED = """
import json, platform
from importlib.metadata import distributions
print(json.dumps([platform.python_version(), {each.name: each.version for each in distributions()}]))
"""
_CACHE, _PROJECT = ".cache", "recipe-runner"
_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"


def build(name: str, accelerator: str, torch_index: str = _TORCH_INDEX) -> bool:
    """Make the environment, unless it is there as its lock says. Returns whether there was something to do.

    Raises RunnerError where the lock or uv is missing, or a package cannot be installed.
    """
    lock = environments.lock_file(name, accelerator)
    if not lock.is_file():
        raise RunnerError(f"there is no {lock}", f"There are: {', '.join(known(accelerator))}.")
    with _alone():
        if not environments.unusable(name, accelerator):
            return False
        folder = environments.folder(name)
        (folder / environments.RECORD).unlink(missing_ok=True)
        _install(folder, lock, torch_index)
        write_text(folder / environments.RECORD, _record(name, lock, folder).text())
    return True


def known(accelerator: str) -> list[str]:
    """Names of the environments that have a lock."""
    ending = f"-{accelerator}.lock"
    return sorted(path.name.removesuffix(ending) for path in environments.LOCKS.glob(f"*{ending}"))


def build_own(lock: Path, torch_index: str = _TORCH_INDEX) -> None:
    """Put the lock's packages, and this one, into the environment of this interpreter."""
    with _alone():
        _install_packages(sys.executable, lock, torch_index)


def _install(folder: Path, lock: Path, torch_index: str) -> None:
    _run(*_uv_here(), "venv", "--clear", "--python", sys.executable, str(folder))
    _install_packages(str(folder / "bin" / "python"), lock, torch_index)


def _uv_here() -> list[str]:
    """uv with the one cache that the packages of all environments are linked from."""
    return [_uv(), "--quiet", "--no-config", "--cache-dir", str(environments.home() / _CACHE)]


def _install_packages(python: str, lock: Path, torch_index: str) -> None:
    """Modules are compiled, as pip does it: the first import of all that Ray's processes need would take longer than
    Ray waits for them, and a service's user may not write there."""
    uv = _uv_here()
    settings = pip_settings()
    with tempfile.TemporaryDirectory(prefix="wheels-", dir=environments.home()) as wheels:
        _download_torch(lock, wheels, torch_index)
        places = ["--find-links", wheels, *index_options(settings)]
        options = ["--python", python, "--link-mode", "hardlink", "--compile-bytecode", "--no-deps", *places]
        _run(*uv, "pip", "install", *options, "--requirement", str(lock), certificates=settings.get("cert", ()))
    if (_ROOT / "pyproject.toml").is_file():
        _run(*uv, "pip", "install", "--python", python, "--no-deps", "--no-build-isolation", "--editable", str(_ROOT))
    else:
        copy_project(Path(python).parents[1])


def copy_project(environment: Path) -> None:
    """Copy this package as it is installed here, with its metadata, by which libraries find its plug-ins."""
    (packages,) = environment.glob("lib/python*/site-packages")
    for file in distribution(_PROJECT).files or ():
        if not file.is_absolute() and ".." not in file.parts and "__pycache__" not in file.parts:
            (packages / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(str(file.locate()), packages / file)


def _uv() -> str:
    """uv, of the runner's environment or of the machine."""
    found = shutil.which("uv", path=str(Path(sys.executable).parent)) or shutil.which("uv")
    if found is None:
        raise RunnerError("uv is not installed, which makes environments", "Run: pip install uv")
    return found


def _download_torch(lock: Path, wheels: str, index: str) -> None:
    """PyTorch keeps its CPU builds on an index of its own; only pip takes a single package from there."""
    version = environments.pinned(lock.read_text(encoding="utf-8").splitlines()).get("torch", "")
    if "+" in version:
        pip = [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "-qq"]
        _run(*pip, "download", "--no-deps", "--dest", wheels, "--extra-index-url", index, f"torch=={version}")


def pip_settings() -> dict[str, list[str]]:
    """What this machine's pip is configured with, which uv does not read: values by option, such as `find-links`."""
    shown = subprocess.run(
        [sys.executable, "-P", "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    return settings_in(shown.stdout.splitlines())


def settings_in(lines: Sequence[str]) -> dict[str, list[str]]:
    """Values by option of the lines that `pip config list` prints, such as `global.find-links='/wheels'`, each once."""
    found: dict[str, list[str]] = {}
    for key, _, value in (line.partition("=") for line in lines):
        values = found.setdefault(key.rpartition(".")[2], [])
        values += [each for each in str(ast.literal_eval(value)).split() if each not in values]
    return found


def index_options(settings: Mapping[str, Sequence[str]]) -> list[str]:
    """The places of packages, as options of `uv pip`. An index in a folder is left out: uv cannot read pip's."""
    found = [("--find-links", place) for place in settings.get("find-links", ())]
    found += [("--default-index", url) for url in settings.get("index-url", ())[:1]]
    found += [("--index", url) for url in settings.get("extra-index-url", ()) if url.startswith("http")]
    return [part for option in found for part in option]


def _run(*command: str, certificates: Sequence[str] = ()) -> None:
    """certificates: the file of those that the machine's pip trusts, if it names one."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    for file in certificates:
        environment.setdefault("SSL_CERT_FILE", file)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        output = (done.stderr or done.stdout).strip()
        raise RunnerError(f"{' '.join(command)} failed:\n{output}", "Correct this, and run the same command again.")


def _record(name: str, lock: Path, folder: Path) -> Record:
    """Of what is installed, which must be what the lock says."""
    command = [str(folder / "bin" / "python"), "-I", "-c", _INSTALLED]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    python, found = json.loads(shown.stdout)
    wanted = environments.pinned(lock.read_text(encoding="utf-8").splitlines())
    there = environments.pinned(f"{name}=={version}" for name, version in found.items())
    differing = [f"{each}=={version}" for each, version in wanted.items() if there.get(each) != version]
    if differing:
        raise RunnerError(f"{folder} has other versions than {lock.name} says: {', '.join(differing)}")
    return Record(name, lock.name, environments.digest(lock), python, wanted)


@contextmanager
def _alone() -> Iterator[None]:
    """Others who make environments here at the same time wait."""
    environments.home().mkdir(parents=True, exist_ok=True)
    with (environments.home() / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _bytes(folder: Path) -> int:
    """Of the disk, without the environments that lie in it; a file that has several names counts once."""
    home = environments.home()
    others = {home} if home.is_relative_to(folder) else set()
    states = {path.lstat() for path in folder.rglob("*") if others.isdisjoint(path.parents)}
    return sum({(state.st_dev, state.st_ino): state.st_blocks * 512 for state in states}.values())


def _make(name: str, accelerator: str, torch_index: str) -> None:
    begun, folder = time.monotonic(), environments.folder(name)
    made = build(name, accelerator, torch_index)
    size = f"{_bytes(folder) / 1e9:.1f} GB, part of them linked" if made else "nothing to do"
    print(f"environment {name}: {folder} ({size}, {_since(begun)})")


def _since(begun: float) -> str:
    return f"{time.monotonic() - begun:.0f} s"


def main(argv: Sequence[str] | None = None) -> int:
    """The program: a line for each environment that was made. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="runner.cluster.environments.build", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--own", type=Path, metavar="LOCK", help="the runner's own environment, from this lock")
    parser.add_argument("--accelerator", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--torch-index", default=_TORCH_INDEX, help="where PyTorch's CPU builds are")
    args = parser.parse_args(argv)
    try:
        if args.own:
            begun = time.monotonic()
            build_own(args.own, args.torch_index)
            print(f"{args.own.name}: {sys.prefix} ({_bytes(Path(sys.prefix)) / 1e9:.1f} GB, {_since(begun)})")
        for name in args.names:
            _make(name, args.accelerator, args.torch_index)
    except RunnerError as error:
        print(f"error: {error.message}\n  {error.hint}", file=sys.stderr)
        return error.exit_code
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
