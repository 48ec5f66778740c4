"""What the report says of a run, as plain values: the view that the templates print."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from runner import __version__
from runner.pipeline.manifest import ORIGINS, Manifest, StageRecord
from runner.pipeline.results import FinishedRun
from runner.pipeline.rules.check import trusted_values
from runner.recipe.extension import extension, recipe_class
from runner.recipe.load import flatten
from runner.report.pages.parts import (
    StagePart,
    finished_run,
    outcomes_of,
    parts_of,
    state_of,
    status_now,
    stopped_in,
    verdict_of,
)
from runner.storage.artifact import Artifact
from runner.text import count_text

_LOG_LINES, _LOG_BYTES = 40, 16_384
_COLOURING = re.compile(r"\x1b\[[\d;]*[A-Za-z]")
_COMMAND_LINE = "command line"


def run_facts(folder: Path) -> dict[str, Any]:
    """Everything the templates of a run need, read from its folder and the local artifacts it names.

    What is missing (a stage that did not run, a file that is gone) is missing in the page too.
    Raises RunnerError when the manifest cannot be read.
    """
    run = finished_run(folder)
    manifest, recipe = run.manifest, run.recipe
    identity, origins = (state_of(folder / name) for name in ("identity.json", ORIGINS))
    outcomes, parts = outcomes_of(run), parts_of(run)
    keys = [{"key": key, "value": value, "origin": _origin(key, origins)} for key, value in sorted(flatten(recipe))]
    return {
        "run": _run(run, identity),
        "verdict": verdict_of(run, outcomes),
        "failure": _failure(run, str(identity.get("command", ""))),
        "next": [line for outcome in outcomes for line in outcome.lines],
        "settings": _settings(run, parts, keys),
        "parts": parts,
        "cards": [card for each in parts for card in each.part.cards],
        "stages": _timeline(manifest, recipe),
        "chain": _chain(manifest),
        "artifacts": [
            {**artifact.summary(), "stage": record.name} for record in manifest.stages for artifact in record.artifacts
        ],
        "recipe": keys,
        "versions": _versions(manifest),
        "remarks": [*_remarks(run), *(remark for outcome in outcomes for remark in outcome.remarks),
                    *(f"{each.stage} has no part here: {each.failure}" for each in parts if each.failure)],
    }  # fmt: skip


def _run(run: FinishedRun, identity: Mapping[str, Any]) -> dict[str, Any]:
    manifest = run.manifest
    return {
        "id": manifest.run_id,
        "recipe": manifest.recipe,
        "status": status_now(run),
        "created_at": manifest.created_at,
        "machine": manifest.machine,
        "wall_s": sum(record.wall_s for record in manifest.stages),
        "command": identity.get("command", ""),
    }


def _settings(run: FinishedRun, parts: list[StagePart], keys: list[dict[str, Any]]) -> dict[str, Any]:
    """The settings that a reader asks for first, and what the command line changed."""
    main = extension().sources(run.recipe)
    main += [setting for each in parts for setting in each.part.settings]
    changed = [(each["key"], each["value"]) for each in keys if each["origin"].startswith(_COMMAND_LINE)]
    return {"main": main, "changed": changed}


def _failure(run: FinishedRun, command: str) -> dict[str, Any] | None:
    """Of a run that ended early: the stage, the end of its log, and the command that continues it."""
    if status_now(run) not in ("failed", "interrupted", "killed"):
        return None
    stopped = stopped_in(run)
    log = run.folder / "logs" / f"{stopped}.log"
    return {"stage": stopped, "log": str(log), "end": log_end(log) if stopped else "", "command": command}


def log_end(log: Path) -> str:
    """The last 40 lines of a log without what colours them, "" when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LOG_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(_COLOURING.sub("", text).splitlines()[-_LOG_LINES:])


def _timeline(manifest: Manifest, recipe: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Stages in order with their part of the whole time: left and width in percent."""
    total = sum(record.wall_s for record in manifest.stages) or 1.0
    configured, found, before = recipe.get("resources") or {}, [], 0.0
    for record in manifest.stages:
        resources = record.resources or configured.get(record.name) or {}
        found.append(
            {
                "name": record.name,
                "status": record.status,
                "wall_s": record.wall_s,
                "left": 100 * before / total,
                "width": 100 * record.wall_s / total,
                "resources": _resources(resources),
                "origin_run": record.origin_run,
                "note": record.error or record.note,
            }
        )
        before += record.wall_s
    return found


def _resources(resources: Mapping[str, Any]) -> str:
    parts = [f"{resources.get('cpus_per_worker', 1):g} CPU"]
    if resources.get("gpus_per_worker"):
        parts.append(f"{resources['gpus_per_worker']:g} GPU {resources.get('accelerator_type') or ''}".strip())
    parts += [f"{amount:g} {name}" for name, amount in (resources.get("custom") or {}).items()]
    workers = resources.get("num_workers", 1)
    if isinstance(workers, Mapping):
        workers = f"{workers['min']} to {workers['max']}"
    return f"{workers} x ({', '.join(parts)})" if workers != 1 else ", ".join(parts)


def _chain(manifest: Manifest) -> list[dict[str, Any]]:
    """Every artifact with its digest; each says which of its inputs it was made from, by digest.

    holds: every input that its stage recorded is the artifact of that name in this run; None: nothing to compare.
    same_as: digests of other artifacts that it carries, such as that of what an endpoint serves.
    """
    artifacts: dict[str, tuple[Artifact, StageRecord]] = {
        artifact.name: (artifact, record) for record in manifest.stages for artifact in record.artifacts
    }
    steps = []
    for name, (artifact, record) in artifacts.items():
        seen = record.inputs.get("inputs", {})
        same = [digest == artifacts[source][0].sha256 for source, digest in seen.items() if source in artifacts]
        carried = {key.removesuffix("_sha256"): value for key, value in artifact.meta.items()
                   if key.endswith("_sha256") and value}  # fmt: skip
        steps.append(
            {"name": name, "digest": artifact.sha256, "from": list(seen), "holds": all(same) if same else None,
             "carried": carried}
        )  # fmt: skip
    return steps


def _origin(key: str, origins: Mapping[str, str]) -> str:
    """What set the key or the nearest section above it; the schema's default when nothing did."""
    while key:
        if key in origins:
            return str(origins[key])
        key = key.rpartition(".")[0]
    return "default" if origins else ""


def _versions(manifest: Manifest) -> list[tuple[str, str]]:
    """Libraries that the results depend on, as the stages' records have them, and what wrote this page."""
    found: dict[str, str] = {}
    for record in manifest.stages:
        found |= {name: version for name, version in record.inputs.get("libraries", {}).items() if version}
    own = [("recipe-runner", __version__), ("python", platform.python_version()), ("platform", platform.platform())]
    return [*own, *sorted(found.items())]


def _remarks_of_code(values: Mapping[str, Any]) -> Iterator[str]:
    """What ran only because the command line trusted it; nothing of a recipe that an earlier version wrote."""
    with suppress(ValidationError):
        recipe = recipe_class().model_validate(dict(values))
        for key, _, whose in extension().code(recipe):
            yield f"{key} is on: {whose} has run."
        for key, value in trusted_values(recipe).items():
            yield f"{key} = {value} was trusted by the command line (--trust): it may name code, files or hosts."


def _remarks(run: FinishedRun) -> Iterator[str]:
    """What a reader of the results should know before believing them."""
    manifest = run.manifest
    yield from _remarks_of_code(run.recipe)
    for record in manifest.stages:
        skipped = record.metrics.get("skipped")
        if isinstance(skipped, dict) and sum(skipped.values()):
            yield f"{record.name} left out {count_text(sum(skipped.values()), 'row')} that could not be used."
    reused = [record.name for record in manifest.stages if record.origin_run and record.origin_run != manifest.run_id]
    if reused:
        yield f"Reused from earlier runs: {', '.join(reused)}."
