"""`status`: what a running or finished run does, from its folder alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runner.pipeline.engine.progress import read_progress
from runner.pipeline.manifest import Manifest
from runner.pipeline.run_locks import holder_of_run
from runner.pipeline.runs import IDENTITY, state_of_run
from runner.report.progress_text import progress_text
from runner.text import duration_text


def status_of(folder: Path) -> dict[str, Any]:
    """`{run_id, recipe, folder, status, alive, stages, stage, event, updated_at, dashboard, command}`.

    status is the manifest's, or `killed` when it says running and no process holds the run's lock. stages: `{name,
    status, wall_s, note}` of those that ended, then the one that runs, then those to come.
    Raises RunnerError when the manifest cannot be read.
    """
    manifest, progress = Manifest.load(folder), read_progress(folder) or {}
    identity = state_of_run(folder, IDENTITY)
    holder = holder_of_run(folder, identity)
    alive = manifest.status == "running" and holder is not None
    now = time.time()
    ended = {record.name for record in manifest.stages}
    stages = [
        {"name": record.name, "status": record.status, "wall_s": record.wall_s, "note": record.error or record.note}
        for record in manifest.stages
    ]
    current = progress.get("stage", "") if alive else ""
    if current and current not in ended:
        wall_s = now - progress["stage_began_at"]
        stages.append({"name": current, "status": "running", "wall_s": wall_s, "note": ""})
    if alive:
        to_come = [name for name in progress.get("stages", []) if name not in ended and name != current]
        stages += [{"name": name, "status": "to come", "wall_s": 0.0, "note": ""} for name in to_come]
    return {
        "run_id": manifest.run_id,
        "recipe": manifest.recipe,
        "folder": str(folder),
        "status": "killed" if manifest.status == "running" and not alive else manifest.status,
        "alive": alive,
        "ended_by": manifest.ended_by if manifest.status == "failed" else "",
        "holder": str(holder) if alive else "",
        "stages": stages,
        "stage": current,
        "event": progress.get("event") if alive else None,
        "updated_at": progress.get("updated_at") if alive else None,
        "dashboard": progress.get("dashboard", "") if alive else "",
        "command": identity.get("command", ""),
    }


def status_lines(status: dict[str, Any]) -> Iterator[str]:
    """The status for a person."""
    yield f"{status['recipe']}  {status['run_id']}  {status['status']}"
    yield status["folder"]
    if status["ended_by"]:
        yield status["ended_by"]
    if status["holder"]:
        yield status["holder"]
    for stage in status["stages"]:
        worked = duration_text(stage["wall_s"]) if stage["wall_s"] else ""
        yield f"  {stage['name']:<10} {stage['status']:<12} {worked:>11}  {stage['note']}".rstrip()
        if stage["name"] == status["stage"] and status["event"]:
            yield f"  {'':<10} {progress_text(status['event'])}  ({_ago(status['updated_at'])})"
    if status["dashboard"]:
        yield f"Ray's dashboard: {status['dashboard']}"
    log = Path(status["folder"]) / "logs" / f"{status['stage']}.log"
    if status["stage"] and log.is_file():
        yield f"log: {log}"
    if status["status"] in ("killed", "failed", "interrupted"):
        yield f"continue with: {status['command']}"


def _ago(timestamp: float) -> str:
    return f"{duration_text(round(max(0.0, time.time() - timestamp)))} ago"
