"""A stage of another package: how long the texts of the test rows are."""

import json
from pathlib import Path
from typing import Literal

from pydantic import Field

from runner.pipeline.optional import settings_of
from runner.pipeline.stage import StageResult
from runner.recipe.schema import Section
from runner.storage.artifact import scan_folder
from runner.storage.atomic import write_json


class LengthSettings(Section):
    """Which texts to measure, and how."""

    column: str = Field(description="Column of the test rows.", examples=["input"])
    unit: Literal["words", "characters"] = Field("words", description="What is counted.")


class Lengths:
    """Makes `lengths`: the shortest and the longest text of a column of the test rows."""

    name, version, ephemeral = "lengths", 1, False
    reads, libraries, provides = ("stages.lengths",), (), ("lengths",)
    settings = LengthSettings

    def needs(self, recipe):
        return ("test_set",)

    def run(self, ctx):
        rows = ctx.input("test_set").path / "test.jsonl"
        found = ctx.ray.call(measure, ctx.resources, rows, settings_of(self, ctx.recipe))
        write_json(ctx.stage_dir / "lengths" / "lengths.json", found)
        note = f"{found['least']} to {found['most']} {found['unit']}"
        return StageResult([scan_folder("lengths", ctx.stage_dir / "lengths")], found, note)


def measure(rows: Path, settings: LengthSettings) -> dict:
    texts = [json.loads(line)["columns"][settings.column] for line in rows.read_text().splitlines()]
    counts = [len(text.split() if settings.unit == "words" else text) for text in texts]
    return {"least": min(counts), "most": max(counts), "unit": settings.unit}
