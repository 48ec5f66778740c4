"""A process that ends, or a machine that loses power, before any of the file operations of a run: nothing is lost."""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.errors import EXIT_DONE
from runner.pipeline.stage import StageResult
from runner.storage.store import open_store
from tests import conftest
from tests.runner.runs import Place

CRASHED = 77
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Disk:
    """Counts what is changed below a folder, and ends the process before the chosen change.

    power: content that is not yet on the disk is lost as well, which is shown by halving the files.
    """

    def __init__(self, root: Path, crash_at: int, power: bool) -> None:
        self.root, self.crash_at, self.power = str(root), crash_at, power
        self.count = 0
        self.unsafe: set[str] = set()
        self.ended = False
        self._fsync = os.fsync

    def install(self) -> None:
        os.fsync = self.fsync  # type: ignore[assignment]
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.ended or (event != "open" and event not in CHANGES):
            return
        if not isinstance(arguments[0], str | os.PathLike) or not os.fspath(arguments[0]).startswith(self.root):
            return
        path = os.fspath(arguments[0])
        if event == "open":
            if not arguments[2] & WRITING:
                return
            self.step()
            self.unsafe.add(path)
        else:
            self.step()
            if event == "os.rename" and path in self.unsafe:
                self.unsafe.add(os.fspath(arguments[1]))

    def fsync(self, handle: int) -> None:
        path = str(Path(f"/proc/self/fd/{handle}").readlink())
        if path.startswith(self.root):
            self.step()
            self.unsafe.discard(path)
        self._fsync(handle)

    def step(self) -> None:
        if self.count == self.crash_at:
            self.ended = True
            for path in self.unsafe if self.power else ():
                if os.path.isfile(path):  # noqa: PTH113
                    os.truncate(path, os.path.getsize(path) // 2)  # noqa: PTH202
            os._exit(CRASHED)
        self.count += 1


def run_in_child(place: Place, crash_at: int, power: bool) -> tuple[int, int]:
    """Exit code of the run in a process of its own, and how many changes it made."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            disk = Disk(place.root, crash_at, power)
            disk.install()
            code = place.run()[0]
            disk.ended = True
            os.write(writer, str(disk.count).encode())
        finally:
            os._exit(code)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reader) as report:
        return os.waitstatus_to_exitcode(status), int(report.read() or 0)


@pytest.fixture
def place(fake_stages: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A place whose `publish` puts the checkpoint into the store."""

    def publish(self: Any, ctx: Any) -> StageResult:
        store = open_store(ctx.recipe.storage.artifacts)
        return StageResult([store.publish(ctx.input("trained_weights"), "adapters/m/a", "adapter")])

    monkeypatch.setattr(conftest.Publish, "run", publish)
    return Place(tmp_path)


def crash_and_repeat(place: Place, choose: Callable[[int], list[int]], power: bool) -> int:
    """Crash at each chosen change of a first run, and again at one of the run that repairs it. How many there were."""
    code, num_changes = run_in_child(place, -1, power)
    assert code == EXIT_DONE
    assert num_changes > 100
    _, reference, _ = place.run()
    chosen = choose(num_changes)
    for crash_at in chosen:
        shutil.rmtree(place.root)
        assert run_in_child(place, crash_at, power)[0] == CRASHED
        if crash_at % 3 == 0:
            run_in_child(place, crash_at // 2, power)
        code, digests, shown = place.run()
        assert (code, digests) == (EXIT_DONE, reference), (crash_at, shown)
        assert place.run()[0] == EXIT_DONE
    return len(chosen)


@pytest.mark.parametrize("power", [False, True], ids=["killed", "power lost"])
def test_a_crash_at_some_change_of_a_run_is_made_good_by_the_next(place: Place, power: bool) -> None:
    crash_and_repeat(place, lambda count: sorted(random.Random(power).sample(range(count), 6)), power)


@pytest.mark.e2e
@pytest.mark.chaos
@pytest.mark.parametrize("power", [False, True], ids=["killed", "power lost"])
def test_a_crash_at_every_change_of_a_run_is_made_good_by_the_next(place: Place, power: bool) -> None:
    num = crash_and_repeat(place, lambda count: list(range(count)), power)
    print(f"{num} crashes")
