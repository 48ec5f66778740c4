"""The base model's predictions, made during training: they need no adapter, and the shared engine is there by then."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from runner.pipeline.context import RunContext
from runner.text import count_text
from stages.data.prediction import BASE
from stages.infer.base import base_file, keep, made_once
from stages.infer.figures import Figures, collect
from stages.infer.journal import Journal
from stages.infer.requests import Engine, RowFile, rows_per_chunk
from stages.infer.shared import ask
from stages.sections.recipe import Recipe

_TO_STOP_S = 30.0


class StoppedError(Exception):
    """The run ends before the predictions do."""


class Quiet:
    """Progress that is not shown, since another stage's is. Ends the work by StoppedError when `stop` is set."""

    def __init__(self) -> None:
        self.stop = threading.Event()

    def update(self, done: float, total: float | None, unit: str, **figures: Any) -> None:
        if self.stop.is_set():
            raise StoppedError


def start(ctx: RunContext[Recipe], stage: Any) -> None:
    """Predict in a thread, which the run's end stops. Does nothing where base model or test set have no part.

    ctx, stage: of the infer stage, which waits for the thread and takes its predictions over (`made_once`), or makes
    them itself when they could not be made here. The engine has been deployed, but need not have started.
    """
    recipe = ctx.recipe
    if not {"model", "test_set"} <= set(ctx.inputs) or not recipe.evaluate.compare_base:
        return
    kept, progress = base_file(recipe, stage, ctx.inputs), Quiet()
    thread = threading.Thread(target=_in_thread, args=(ctx, kept, progress), name="base-predictions", daemon=True)

    def end() -> None:
        progress.stop.set()
        thread.join(_TO_STOP_S)

    ctx.defer("the base model's predictions", end)
    thread.start()


def _in_thread(ctx: RunContext[Recipe], kept: Path, progress: Quiet) -> None:
    try:
        if num_rows := make(ctx, kept, progress):
            made = count_text(num_rows, "prediction is", "predictions are")
            ctx.say(f"  {ctx.stage}: the base model's {made} made")
    except StoppedError:
        pass
    except Exception as error:
        ctx.say(f"  {ctx.stage}: the base model has not predicted ahead: {type(error).__name__}: {error}")


def make(ctx: RunContext[Recipe], kept: Path, progress: Quiet) -> int:
    """Make the file of the base model's predictions. Returns how many there are, 0 when they had been made.

    Those of a killed run are reused.
    """
    rows = RowFile.scan(ctx.input("test_set").path / "test.jsonl", rows_per_chunk(ctx.recipe))
    model = str(ctx.input("model").path)
    engine = Engine(model, {BASE: model})
    with made_once(kept, lambda message: None):
        if kept.is_file():
            return 0
        kept.parent.mkdir(parents=True, exist_ok=True)
        with Journal(kept.with_suffix(".part"), rows.num_rows, [BASE], identity=kept.stem) as journal:
            pieces = rows.missing([BASE], journal.is_done)
            figures = Figures(time.time(), continued=journal.count)
            collect(ask(ctx.recipe, rows.path, pieces, engine, progress), journal, figures, progress)
            keep(kept, journal, [BASE], rows.num_rows)
            journal.discard()
    return rows.num_rows if kept.is_file() else 0  # it is not kept if the engine refused a row
