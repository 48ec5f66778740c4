"""The base model's predictions, kept next to the runs: they do not depend on the adapter, so a sweep makes them once.

A file is a complete journal (`stages.infer.journal`), named by the digest of all that such a prediction depends
on. One that is corrupt or not complete does not count. Rows that the engine refused are not kept.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from runner.errors import LockedError, RunnerError
from runner.pipeline.fingerprint import fingerprint_inputs
from runner.pipeline.run_locks import lock_path
from runner.storage.artifact import Artifact
from runner.storage.digest import digest_json
from runner.storage.lock import hold
from stages.data.prediction import BASE
from stages.engines.base import load_engine
from stages.infer.journal import Journal
from stages.ingest.canonical import without
from stages.sections.recipe import Recipe

_FOLDER = "base_predictions"
_POLL_S = 1.0
# Keys that say whether the base model predicts, and change none of its answers.
_WITHOUT_EFFECT = ("evaluate.compare_base",)


def base_file(recipe: Recipe, stage: Any, inputs: Mapping[str, Artifact]) -> Path:
    """Where the predictions of this base model for this test set are kept, whether they are there or not.

    stage: the one that predicts: its version, libraries, and the recipe's values that it reads count.
    """
    covered = fingerprint_inputs(stage, recipe, {name: inputs[name].sha256 for name in ("model", "test_set")})
    values = covered["recipe"]
    values["infer.engine_kwargs"] = without(values["infer.engine_kwargs"], load_engine(recipe).for_adapters)
    identity = {**covered, "recipe": without(values, _WITHOUT_EFFECT)}
    root = recipe.storage.runs
    return root / _FOLDER / f"{digest_json(identity)[:32]}.jsonl"


@contextmanager
def made_once(path: Path, waiting: Callable[[str], None]) -> Iterator[None]:
    """Be the only one that makes the file while the block runs. Waits while another run does, and tells `waiting` once.

    A run that was killed holds nobody up: see `runner.storage.lock`.
    """
    lock, reported = lock_path(path.parent.parent, f"base-{path.stem}"), False
    with ExitStack() as held:
        while not path.is_file():
            try:
                held.enter_context(hold(lock, what="the base model's predictions are being made"))
                break
            except LockedError as error:
                if not reported:
                    waiting(error.message)
                reported = True
                time.sleep(_POLL_S)
        yield


def reuse_kept(path: Path, journal: Journal, num_rows: int) -> int:
    """Add the kept predictions to the journal. Returns how many were new to it."""
    if not path.is_file():
        return 0
    before = journal.count
    try:
        with Journal(path, num_rows, [BASE], identity=path.stem) as kept:
            kept.check_complete()
            for index, line in enumerate(kept.lines()):
                journal.add(index, BASE, line)
    except RunnerError:  # corrupt, or of fewer rows: it is written again at the end
        path.unlink(missing_ok=True)
    return journal.count - before


def keep(path: Path, journal: Journal, variants: list[str], num_rows: int) -> None:
    """Write a complete journal's predictions of the base model there, unless the engine refused some row.

    Raises RunnerError when the journal is not complete.
    """
    journal.check_complete()
    if path.is_file() or journal.num_errors:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with Journal(temporary, num_rows, [BASE], identity=path.stem) as kept:
            for place, line in enumerate(journal.lines()):
                if variants[place % len(variants)] == BASE:
                    kept.add(place // len(variants), BASE, line)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
