"""A run while it is active: its folder, what it has made so far, and what must be undone at its end."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.cluster.leaks import Leaks, kill_children
from runner.errors import EXIT_STAGE_FAILED, RunnerError
from runner.pipeline.engine.output import Output
from runner.pipeline.engine.progress import ProgressFile
from runner.pipeline.events import Event, Observers, OutputMoved, Remarked, StageProgressed
from runner.pipeline.manifest import Manifest
from runner.pipeline.runs import IDENTITY, link_out_of, mark_newest, next_stamp, run_folders, runs_of
from runner.pipeline.shared_cache import SharedCache
from runner.recipe.machine import machine_name
from runner.recipe.schema import Recipe, RunOptions
from runner.recipe.secrets import redact
from runner.storage import atomic as durable
from runner.storage.artifact import Artifact
from runner.storage.atomic import write_state, write_text
from runner.storage.lock import Lock
from runner.storage.verify import Digests

_RESERVE = ".reserve"  # space for the last record of a run whose disk is full
_RESERVED_BYTES = 256 << 10


@dataclass(frozen=True)
class Watched:
    """The observers of a run, also before its folder is there."""

    observers: Observers

    def say(self, text: str) -> None:
        self.observers.notify(Remarked(text))


@dataclass
class Run:
    """One run of a recipe: its folder, what it has made so far, and what must be undone at its end."""

    recipe: Recipe
    options: RunOptions
    command: str
    watched: Watched
    manifest: Manifest
    folder: Path
    progress: ProgressFile | None = None
    known: dict[str, Artifact] = field(default_factory=dict)
    deferred: list[tuple[str, Callable[[], None]]] = field(default_factory=list)
    output: Output = field(default_factory=Output)
    shared: SharedCache | None = None
    lock: Lock | None = None
    leaks: Leaks = field(default_factory=Leaks)
    signals: list[int] = field(default_factory=list)
    warmed: set[str] = field(default_factory=set)
    digests: Digests = field(default_factory=lambda: Digests(None))

    def log(self, stage: str) -> Path:
        return self.folder / "logs" / f"{stage}.log"

    def capture(self, stage: str) -> None:
        """From now on what is printed goes to the stage's log; observers have the terminal."""
        self.output.capture(self.log(stage))
        self.notify(OutputMoved(self.output.terminal))

    def notify(self, event: Event) -> None:
        """Tell the observers."""
        self.watched.observers.notify(event)

    def say(self, text: str) -> None:
        """Tell the observers something that a person should know."""
        self.watched.say(text)

    def show_progress(self, stage: str, event: dict[str, Any]) -> None:
        """Tell the observers, and whoever looks from another terminal."""
        self.notify(StageProgressed(stage, event))
        if self.progress is not None:
            self.progress.update(stage, event)

    def save(self) -> None:
        """Write the manifest. Raises LockedError when another run may be writing it by now."""
        if self.lock:
            self.lock.confirm()
        self.manifest.save(self.folder)

    def give_up(self, reason: str) -> None:
        """Record that the run failed, though its folder can hardly be written to: the room kept for this is freed."""
        with suppress(OSError, RunnerError):
            self.free_reserve()
            self.manifest.status, self.manifest.ended_by = "failed", reason
            self.save()

    def free_reserve(self) -> None:
        (self.folder / _RESERVE).unlink(missing_ok=True)

    def end_without_cluster(self, reason: str) -> None:
        """Record and say that the cluster is lost, and end this process with all that it started.

        Ray's own thread would end it within a minute without a word, and what waits for Ray meanwhile cannot be woken.
        """
        self.give_up(reason)
        with suppress(OSError, ValueError):
            print(
                f"error: {reason}\n  Run the same command again: finished stages are reused.", file=self.output.terminal
            )
            self.output.terminal.flush()
        if self.recipe.cluster.address is None:
            kill_children()
        os._exit(EXIT_STAGE_FAILED)


def open_run(recipe: Recipe, options: RunOptions, command: str, watched: Watched, root: Path, identity: str) -> Run:
    """Continue the newest run of exactly this recipe if it did not finish, else start a new one."""
    home = root / recipe.name
    manifest = _unfinished(home, identity, watched.say) if not options.force else None
    if manifest is None:
        stamp = next_stamp(other.name for other in run_folders(root, recipe.name))
        if stamp > time.strftime("%Y%m%d-%H%M%S"):
            watched.say(
                "the clock is behind the newest run of this recipe: the new run's id has the time after that one's"
            )
        manifest = Manifest(run_id=f"{stamp}-{identity[:6]}", recipe=recipe.name, created_at=time.time())
        count = 1
        while (home / manifest.run_id).exists():  # two runs within a second
            count += 1
            manifest.run_id = f"{stamp}-{identity[:6]}-{count}"
    folder = home / manifest.run_id
    manifest.status, manifest.ended_by, manifest.machine = "running", "", machine_name()
    manifest.save(folder)
    durable.remove_leftovers(folder)
    write_state(folder / "recipe.json", redact(recipe.model_dump(mode="json")))
    write_state(folder / IDENTITY, {"recipe_sha256": identity, "command": command})
    durable.write_bytes(folder / _RESERVE, bytes(_RESERVED_BYTES))
    mark_newest(root, folder)
    _point_latest(root, folder)
    return Run(recipe, options, command, watched, manifest, folder)


def _unfinished(home: Path, identity: str, say: Callable[[str], None]) -> Manifest | None:
    """The newest run of the recipe of that digest, if it did not finish. `say` gets remarks about damaged files, and
    about a run whose logs and journals would be written to elsewhere."""
    for folder in runs_of(home, identity, say):
        with suppress(RunnerError, OSError):  # PastRuns has reported it
            manifest = Manifest.load(folder)
            if manifest.status not in ("running", "failed", "interrupted"):
                return None
            if link := link_out_of(folder):
                say(f"{link} is a link that leads out of its run's folder; {folder.name} is not continued")
                return None
            return manifest
    return None


def _point_latest(root: Path, folder: Path) -> None:
    temporary = root / f".latest-{folder.name}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(folder.relative_to(root), target_is_directory=True)
    durable.move(temporary, root / "latest")


def stage_folder(folder: Path, fingerprint: str) -> Path:
    """The stage's folder, kept when it holds an attempt with the same fingerprint, else put aside."""
    mark = folder / ".fingerprint"
    if folder.exists() and (not mark.is_file() or mark.read_bytes() != fingerprint.encode()):
        durable.move(folder, folder.with_name(f".{folder.name}-{time.time_ns()}"))
    folder.mkdir(parents=True, exist_ok=True)
    if not mark.is_file():
        write_text(mark, fingerprint)
    return folder
