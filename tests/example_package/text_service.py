"""Stages of another package that use all that a stage may have: rules, a gate, a summary, a result that stays up."""

import json

from pydantic import Field

from runner.errors import Problem
from runner.pipeline.optional import settings_of
from runner.pipeline.stage import StageResult
from runner.recipe.schema import Section
from runner.storage.artifact import Artifact, scan_folder
from runner.storage.atomic import write_json


class SizeSettings(Section):
    """How large the test set may be."""

    max_files: int = Field(10, description="Files that the test set may have.", examples=[3])


class Size:
    """Makes `size`, and refuses a test set of too many files."""

    name, version, ephemeral = "size", 1, False
    reads, libraries, provides = ("stages.size",), (), ("size",)
    settings = SizeSettings

    def rules(self):
        return (limit_is_positive,)

    def needs(self, recipe):
        return ("test_set",)

    def run(self, ctx):
        files, limit = len(ctx.input("test_set").files), settings_of(self, ctx.recipe).max_files
        write_json(ctx.stage_dir / "size" / "size.json", {"files": files})
        missed = [f"{files} files, and at most {limit} are allowed"] if files > limit else []
        metrics = {"files": files, "gate": {"passed": not missed, "missed": missed}}
        return StageResult([scan_folder("size", ctx.stage_dir / "size")], metrics, f"{files} files")

    def summary(self, record):
        return {"size": record.metrics["files"] if record else None}


def limit_is_positive(recipe):
    limit = recipe.stages.get("size", {}).get("max_files", 1)
    if isinstance(limit, int) and limit < 0:
        yield Problem("stages.size.max_files", limit, "must be 0 or more", "Set stages.size.max_files=0.")


class BoardSettings(Section):
    """Whether the board stays."""

    stay: bool = Field(False, description="Keep the board up when all stages are done.")


class Board:
    """Puts up a `board` that shows the size, for as long as the run lasts."""

    name, version, ephemeral = "board", 1, True
    reads, libraries, provides = ("stages.board",), (), ("board",)
    settings = BoardSettings

    def needs(self, recipe):
        return ("size",)

    def keep_alive(self, recipe):
        return "stages.board.stay" if settings_of(self, recipe).stay else ""

    def usage(self, recipe, artifacts):
        return f"Look at {artifacts['board'].uri}."

    def run(self, ctx):
        board = ctx.run_dir / "board.txt"
        board.write_text(json.dumps(json.loads((ctx.input("size").path / "size.json").read_text())))
        ctx.defer("the board", board.unlink)
        return StageResult([Artifact(name="board", uri=str(board), sha256="0" * 64, kind="endpoint")], note="is up")
