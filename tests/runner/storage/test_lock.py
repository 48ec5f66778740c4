"""One holder at a time, whoever dies, wherever it ran."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from runner.cli.main import main
from runner.errors import EXIT_INVALID_RECIPE, EXIT_LOCKED, LockedError
from runner.pipeline.engine import run
from runner.pipeline.run_locks import lock_path, no_runs, one_run
from runner.recipe.load import compose, to_recipe
from runner.report.observers import OnTerminal
from runner.report.terminal import Report
from runner.storage import lock as locks
from runner.storage.digest import digest_json
from runner.storage.lock import LEASE_S, Holder, hold, holder_of
from tests import conftest

HOLDING = """
import sys, time
from pathlib import Path
from runner.storage.lock import hold
with hold(Path(sys.argv[1]), "python -m runner recipe=mine"):
    print("held", flush=True)
    time.sleep(600)
"""

# Tries the lock once for each line; a second lock, of the kernel, tells whether anybody else has it at the same time.
RACING = """
import fcntl, sys, time
from pathlib import Path
from runner.errors import LockedError
from runner.storage.lock import hold
print("ready", flush=True)
for line in sys.stdin:
    path = Path(line.strip())
    try:
        with hold(path), path.with_name("witness").open("a") as witness:
            fcntl.flock(witness, fcntl.LOCK_EX | fcntl.LOCK_NB)
            time.sleep(0.002)
            fcntl.flock(witness, fcntl.LOCK_UN)
        print("held", flush=True)
    except LockedError:
        print("locked", flush=True)
    except BlockingIOError:
        print("two holders", flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".locks" / "0123456789abcdef"


@pytest.fixture
def holding(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLDING, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def elsewhere(patch: pytest.MonkeyPatch) -> None:
    """From now on this process is on another machine."""
    patch.setattr(locks, "_machine", lambda: "another boot")


def let_lease_end(path: Path) -> None:
    then = path.stat().st_mtime - LEASE_S - 1
    os.utime(path, (then, then))


def write_lock(path: Path, **changes: Any) -> None:
    holder = Holder("far", "its boot", 1, 1, 0.0, "python -m runner", "0" * 16)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(replace(holder, **changes))))


def test_a_process_that_wants_a_held_lock_is_told_who_has_it(path: Path, holding: subprocess.Popen[str]) -> None:
    with pytest.raises(LockedError) as caught, hold(path):
        pass
    message = caught.value.message
    assert f"process {holding.pid} on {os.uname().nodename}, since 20" in message
    assert message.endswith(": python -m runner recipe=mine")
    assert caught.value.exit_code == EXIT_LOCKED


def test_the_lock_of_a_killed_process_is_free_at_once(path: Path, holding: subprocess.Popen[str]) -> None:
    holding.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, holding.pid, os.WEXITED | os.WNOWAIT)  # it is dead, though nobody has asked how it ended
    with hold(path) as lock:
        assert holder_of(path) == lock.holder
    assert holder_of(path) is None
    assert list(path.parent.iterdir()) == []


def test_another_process_with_the_number_of_a_dead_one_does_not_hold_its_lock(path: Path) -> None:
    write_lock(path, machine=locks._machine(), pid=os.getpid(), started=1)
    with hold(path) as lock:
        assert lock.path != path
    assert list(path.parent.iterdir()) == []


def test_a_lock_of_another_machine_is_held_until_its_lease_ends(path: Path) -> None:
    write_lock(path)
    with pytest.raises(LockedError, match="process 1 on far"), hold(path):
        pass
    let_lease_end(path)
    with hold(path):
        pass


def test_a_holder_on_this_machine_keeps_the_lock_however_long_it_is_silent(path: Path) -> None:
    with hold(path):
        let_lease_end(path)
        with pytest.raises(LockedError), hold(path):
            pass


def test_processes_that_are_hidden_from_this_user_are_judged_by_their_lease(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    write_lock(path, machine=locks._machine(), pid=2**22 + 1, started=7)
    monkeypatch.setattr(os, "kill", refuse)
    with pytest.raises(LockedError), hold(path):
        pass
    let_lease_end(path)
    with hold(path):
        pass


def test_a_holder_that_was_taken_for_dead_finds_out_and_leaves_the_lock_alone(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hold(path) as first:
        elsewhere(monkeypatch)
        let_lease_end(path)
        with hold(path, "the second") as second:
            with pytest.raises(LockedError, match=r"lost its lock: process .*: the second holds it now"):
                first.confirm()
            first.release()
            second.confirm()
            assert holder_of(path) == second.holder
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("harm", ["removed", "corrupt"])
def test_a_holder_whose_file_is_harmed_finds_out(path: Path, harm: str) -> None:
    with hold(path) as lock:
        if harm == "removed":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:20])
        with pytest.raises(LockedError, match="was removed or replaced"):
            lock.confirm()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"host": 1}', b"\xff"])
def test_a_corrupt_lock_holds_for_as_long_as_a_lease(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(LockedError, match="an unknown process"), hold(path):
        pass
    let_lease_end(path)
    with hold(path):
        pass
    assert list(path.parent.iterdir()) == []


def test_a_holder_that_cannot_touch_its_file_gives_up_after_a_lease(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise OSError(errno.EIO, "the file system hangs")

    with hold(path) as lock:
        now = locks._monotonic()
        with monkeypatch.context() as patch:
            patch.setattr(os, "utime", fail)
            lock.confirm()
            patch.setattr(locks, "_monotonic", lambda: now + LEASE_S + 1)
            with pytest.raises(LockedError, match=r"could not be touched for over 60 s.*hangs"):
                lock.confirm()
    path.unlink()


def test_the_loss_is_told_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notified = threading.Event()
    monkeypatch.setattr(locks, "BEAT_S", 0.01)
    with hold(path, on_lost=notified.set):
        path.unlink()
        assert notified.wait(10)


def test_beats_keep_the_lease(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT_S", 0.01)
    with hold(path):
        let_lease_end(path)
        old = path.stat().st_mtime
        for _ in range(1000):
            if path.stat().st_mtime > old:
                break
            threading.Event().wait(0.01)
        assert path.stat().st_mtime > old


def test_a_file_system_without_links_will_do(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", fail)
    with hold(path), pytest.raises(LockedError, match=f"process {os.getpid()}"), hold(path):
        pass
    assert holder_of(path) is None


def test_what_killed_processes_left_next_to_the_lock_is_removed(path: Path) -> None:
    path.parent.mkdir()
    for name in (f"{path.name}.{'1' * 16}", f".{path.name}.0123456789ab.tmp"):
        (path.parent / name).touch()
        let_lease_end(path.parent / name)
    (path.parent / f".{path.name}.ba9876543210.tmp").touch()
    with hold(path):
        assert {item.name for item in path.parent.iterdir()} == {path.name, f".{path.name}.ba9876543210.tmp"}


def left_over(path: Path, kind: int) -> None:
    """A free lock, or one that a dead process left: of this machine, of another, corrupt, or with a dead successor."""
    if kind == 0:
        return
    if kind == 3:
        path.write_bytes(b"{")
    else:
        write_lock(path, **({"machine": locks._machine(), "pid": os.getpid()} if kind == 1 else {}))
    if kind == 4:
        write_lock(path.with_name(f"{path.name}.{'0' * 16}"), machine=locks._machine(), token="1" * 16)
    let_lease_end(path)


def test_of_eight_processes_that_race_for_a_lock_never_two_have_it(path: Path) -> None:
    path.parent.mkdir()
    processes = [
        subprocess.Popen([sys.executable, "-c", RACING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    try:
        answers = [answers_of(processes, "")]
        for number in range(50):
            lock = path.with_name(f"{number:016x}")
            left_over(lock, number % 5)
            answers.append(answers_of(processes, f"{lock}\n"))
            assert "held" in answers[-1]
            assert set(answers[-1]) <= {"held", "locked"}
            assert not list(path.parent.glob(f"{lock.name}*"))
        assert any("locked" in line for line in answers)
    finally:
        for process in processes:
            process.communicate()


def answers_of(processes: list[subprocess.Popen[str]], line: str) -> list[str]:
    for process in processes:
        assert process.stdin
        process.stdin.write(line)
        process.stdin.flush()
    return [process.stdout.readline().strip() for process in processes if process.stdout]


def test_the_command_says_who_runs_the_same_recipe_and_exits_with_4(
    local: list[str], tmp_path: Path, holding: subprocess.Popen[str], path: Path
) -> None:
    overrides = ["recipe=viggo_quickstart", *local]
    recipe, _ = to_recipe(compose(overrides))
    target = lock_path(tmp_path / "runs", digest_json(recipe.model_dump(mode="json")))
    target.parent.mkdir(parents=True)
    path.rename(target)
    done = subprocess.run([sys.executable, "-m", "runner", *overrides], capture_output=True, text=True)
    assert done.returncode == EXIT_LOCKED
    assert f"the same recipe is already running: process {holding.pid}" in done.stderr.replace("\n", " ")


def test_a_run_that_has_lost_its_lock_writes_nothing_more(
    fake_stages: Any, local: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, options = to_recipe(compose(["recipe=viggo_quickstart", *local]))
    seen: list[bytes] = []
    made = conftest.Train.run

    def loses(self: Any, ctx: Any) -> Any:
        result = made(self, ctx)
        (path,) = (tmp_path / "runs" / ".locks").iterdir()
        path.unlink()
        seen.append((ctx.run_dir / "manifest.json").read_bytes())
        return result

    monkeypatch.setattr(conftest.Train, "run", loses)
    with pytest.raises(LockedError, match="lost its lock"):
        run(recipe, options, "python -m runner", [OnTerminal(Report(io.StringIO()))])
    (manifest,) = (tmp_path / "runs").glob("*/*/manifest.json")
    assert seen == [manifest.read_bytes()]
    assert fake_stages.runs == ["ingest", "train"]


def test_clean_removes_nothing_while_any_run_is_active(
    fake_stages: Any, local: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recipe=viggo_quickstart", *local]) == 0
    (manifest,) = (tmp_path / "runs").glob("*/*/manifest.json")
    with one_run(tmp_path / "runs", "f" * 64, "python -m runner recipe=another"):
        assert main(["recipe=viggo_quickstart", *local, "action=clean"]) == EXIT_LOCKED
        assert "recipe=another" in capsys.readouterr().err.replace("\n", " ")
        assert manifest.is_file()
    assert main(["recipe=viggo_quickstart", *local, "action=clean"]) == 0
    assert not manifest.parent.exists()


def test_no_run_starts_while_run_folders_are_removed(tmp_path: Path) -> None:
    with no_runs(tmp_path, "python -m runner action=clean"):
        with (
            pytest.raises(LockedError, match=r"removed: process .*action=clean"),
            one_run(tmp_path, "f" * 64, ""),
        ):
            pass
        with pytest.raises(LockedError, match="already"), no_runs(tmp_path, ""):
            pass
    with one_run(tmp_path, "f" * 64, ""):
        pass


LEASED = """
import itertools, sys, time
from pathlib import Path
from runner.storage import lock
from runner.errors import LockedError
lock.LEASE_S, lock.BEAT_S, lock._machine = 3.0, 0.2, lambda: sys.argv[2]
for count in itertools.count():
    try:
        with lock.hold(Path(sys.argv[1])):
            print(f"held {count}", flush=True)
            time.sleep(600)
    except LockedError:
        print("locked", flush=True)
        time.sleep(0.5)
"""


@pytest.mark.e2e
@pytest.mark.chaos
def test_a_lock_goes_to_another_machine_once_its_holder_is_dead_and_not_before(path: Path) -> None:
    def start(machine: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", LEASED, str(path), machine], stdout=subprocess.PIPE, text=True, bufsize=1
        )

    with start("one") as first:
        assert first.stdout
        assert first.stdout.readline() == "held 0\n"
        with start("two") as second:
            assert second.stdout
            refused = [second.stdout.readline() for _ in range(12)]  # 6 s, two leases
            assert set(refused) == {"locked\n"}
            first.kill()
            later = iter(second.stdout.readline, "")
            assert next(line for line in later if line != "locked\n").startswith("held")
            second.kill()


def test_a_lock_that_cannot_be_written_ends_the_command_as_one_that_has_begun_nothing(
    fake_stages: Any, local: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").mkdir(exist_ok=True)
    (tmp_path / "runs" / ".locks").touch()
    assert main(["run", "recipe=viggo_quickstart", *local, f"storage.root={tmp_path}/runs"]) == EXIT_INVALID_RECIPE
    shown = capfd.readouterr().err
    assert f"{tmp_path}/runs/.locks" in shown
    assert "Traceback" not in shown
    assert fake_stages.runs == []
