"""Locks that heal by themselves: files that say who holds what, on one machine or on a file system that several share.

A lock file is made by `link`, which succeeds for one process only, on NFS too. Its holder touches it every `BEAT_S`.
Who finds it judges its holder:

- on the same machine (same boot, same PID namespace) by whether that process lives, so that a killed run blocks nobody;
- on another by the lease: a file not touched for `LEASE_S` is left over. Both times that are compared are the file
  system's own (the age is that of a file just made next to it), so clocks that differ do not matter.

A file that is left over is not replaced, since two who find it could both do that. It is succeeded: the next holder
makes `<lock>.<token of the one before>`, which again succeeds for one only. The last of such a chain is the holder.
It removes the chain from its beginning, its own file last; a process that made a successor then finds the chain gone
and begins again.

A holder that was stopped for longer than its lease (a suspended machine, a file system that hung) finds that it has a
successor, or could not touch its file: it has lost the lock and must end.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from runner.errors import LockedError, UsageError, os_failure
from runner.storage.digest import digest_bytes

LEASE_S = 60.0
BEAT_S = 10.0


@dataclass(frozen=True)
class Holder:
    """Who holds a lock. machine: boot and PID namespace, "" where they are unknown. started: of the process, in clock
    ticks since the boot. since: Unix time (s) by its own clock, only to be shown."""

    host: str
    machine: str
    pid: int
    started: int
    since: float
    command: str
    token: str

    def __str__(self) -> str:
        if not self.host:
            return "an unknown process"
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        command = f": {self.command}" if self.command else ""
        return f"process {self.pid} on {self.host}, since {since}{command}"


class Lock:
    """A lock that this process holds. `lost`: why it does not any more, or ""."""

    def __init__(self, chain: list[tuple[Path, str]], holder: Holder) -> None:
        self.holder = holder
        self.lost = ""
        self._chain = chain
        self._touched = _monotonic()

    @property
    def path(self) -> Path:
        return self._chain[-1][0]

    def beat(self) -> None:
        """Say that the holder lives, and find out whether the lock has been lost."""
        try:
            found = _read(self.path)
            successor = _read(_successor(self._chain[0][0], self.holder.token))
            if found is None or found.token != self.holder.token:
                self.lost = f"its file {self.path} was removed or replaced"
            elif successor is not None:
                self.lost = f"{successor} holds it now, because this process did not renew it for over {LEASE_S:.0f} s"
            else:
                os.utime(self.path)  # the file system's time, not this machine's
                self._touched = _monotonic()
        except OSError as error:
            if _monotonic() - self._touched > LEASE_S:
                self.lost = f"its file {self.path} could not be touched for over {LEASE_S:.0f} s: {error}"

    def confirm(self) -> None:
        """Raises LockedError when the lock has been lost: what it guards may be somebody else's now."""
        if not self.lost:
            self.beat()
        if self.lost:
            raise LockedError(f"this run has lost its lock: {self.lost}", "Run the same command again to continue.")

    def tidy(self) -> None:
        """Remove what processes that were killed left next to a lock that nobody had held before."""
        if len(self._chain) > 1:
            return
        now = self.path.stat().st_mtime
        left = set(self.path.parent.glob(f"{self.path.name}.*")) - {_successor(self.path, self.holder.token)}
        for path in self.path.parent.glob(f".{self.path.name}.*.tmp"):
            with suppress(FileNotFoundError):
                left |= {path} if now - path.stat().st_mtime > LEASE_S else set()
        for path in left:
            path.unlink(missing_ok=True)

    def release(self) -> None:
        """Remove the chain of files, its beginning first; nothing if the lock has been lost."""
        self.beat()
        if not self.lost:
            for path, _ in self._chain:
                path.unlink(missing_ok=True)


@contextmanager
def hold(
    path: Path,
    command: str = "",
    what: str = "the same recipe is already running",
    on_lost: Callable[[], None] = lambda: None,
) -> Iterator[Lock]:
    """Hold the lock while the block runs. Raises LockedError naming the holder when another process has it,
    and UsageError where the lock cannot be written.

    command: what to show to those who want the lock. what: says to them what it means that it is held.
    on_lost: called once, in a thread, when the lock has been lost.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = _acquire(path, command, what)
    except OSError as error:
        failure = os_failure(error, str(path.parent))
        raise UsageError(failure.message, failure.hint) from error
    lock.tidy()
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(BEAT_S):
            lock.beat()
            if lock.lost:
                on_lost()
                break

    thread = threading.Thread(target=beat, name=f"lock-{path.name}", daemon=True)
    thread.start()
    try:
        yield lock
    finally:
        stop.set()
        thread.join(BEAT_S)  # a file system that hangs must not keep the process
        lock.release()


def holder_of(path: Path) -> Holder | None:
    """Who holds the lock now; None when nobody does."""
    chain = _chain(path)
    if not chain:
        return None
    with _probe(path, "") as probe:
        return None if _is_left_over(chain[-1][0], probe) else _read(chain[-1][0])


def holders_in(folder: Path, but: str) -> list[Holder]:
    """Who holds any of the locks in the folder but the one of that name."""
    paths = sorted(path for path in folder.iterdir() if "." not in path.name and path.name != but)
    return [holder for path in paths if (holder := holder_of(path)) is not None]


def _acquire(path: Path, command: str, what: str) -> Lock:
    while True:
        token = uuid.uuid4().hex[:16]
        me = Holder(
            socket.gethostname(), _machine(), os.getpid(), _started(os.getpid()) or 0, time.time(), command, token
        )
        with _probe(path, json.dumps(asdict(me))) as probe:
            chain = _chain(path)
            if chain and not _is_left_over(chain[-1][0], probe):
                if (holder := _read(chain[-1][0])) is None:
                    continue  # it was released just now
                raise LockedError(
                    f"{what}: {holder}", "Wait for it or stop it; its results are reused when you run this again."
                )
            own = _successor(path, chain[-1][1]) if chain else path
            try:
                _link(probe, own)
            except FileExistsError:
                continue  # somebody else was faster
        if _chain(path) == [*chain, (own, token)]:
            return Lock([*chain, (own, token)], me)
        own.unlink(missing_ok=True)  # the chain ended meanwhile


def _link(probe: Path, own: Path) -> None:
    """Give the file the name too. Raises FileExistsError when there is one of that name."""
    try:
        os.link(probe, own)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        with own.open("xb") as file:  # a file system without links
            file.write(probe.read_bytes())


@contextmanager
def _probe(path: Path, text: str) -> Iterator[Path]:
    """A new file next to the lock with the text, whose time is the file system's."""
    probe = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with probe.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # a lock that outlives a loss of power says whose it was
        yield probe
    finally:
        probe.unlink(missing_ok=True)


def _chain(path: Path) -> list[tuple[Path, str]]:
    """The lock's files and their tokens: the first, its successor, and so on."""
    chain: list[tuple[Path, str]] = []
    current = path
    while (found := _read(current)) is not None:
        chain.append((current, found.token))
        current = _successor(path, found.token)
    return chain


def _successor(path: Path, token: str) -> Path:
    return path.with_name(f"{path.name}.{token}")


def _read(path: Path) -> Holder | None:
    """The holder that the file names; None without a file. A corrupt file names nobody, with a token of its own."""
    try:
        data = path.read_bytes()
        values = json.loads(data)
        return Holder(**{field.name: values[field.name] for field in fields(Holder)})
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return Holder("", "", 0, 0, 0.0, "", digest_bytes(data)[:16])


def _is_left_over(path: Path, probe: Path) -> bool:
    """Whether the holder that the file names is dead, or has let its lease end."""
    holder = _read(path)
    if holder is None:
        return False
    if holder.machine and holder.machine == _machine():
        with suppress(PermissionError):  # processes of others may be hidden; the lease decides then
            return not _lives(holder)
    with suppress(FileNotFoundError):
        # Opened, not looked up: NFS asks the server for the attributes of a file that is opened.
        with path.open("rb") as file:
            touched = os.fstat(file.fileno()).st_mtime
        return probe.stat().st_mtime - touched > LEASE_S
    return False


def _machine() -> str:
    """What has the same processes as this one: the boot and the PID namespace; "" where that cannot be known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _lives(holder: Holder) -> bool:
    """Whether the process of this machine lives. Raises PermissionError when that is hidden from this user."""
    started = _started(holder.pid)
    if started is not None:
        return started == holder.started
    try:
        os.kill(holder.pid, 0)  # sends nothing
    except ProcessLookupError:
        return False
    return _started(holder.pid) == holder.started


def _started(pid: int) -> int | None:
    """When the process began, in clock ticks since the boot; 0 when it has ended; None when there is none to see."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
    except OSError:
        return None
    state, *values = after_name.split()
    return 0 if state in "ZX" else int(values[18])  # field 22 of proc(5), counted from the third


def _monotonic() -> float:
    """Seconds that also count while the machine sleeps, where there is such a clock."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
