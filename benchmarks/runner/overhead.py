"""What the runner itself takes for a stage: a pipeline of stages that do nothing, with Ray up.

    python -m benchmarks.overhead

Each stage makes an artifact of one small file, so that planning, fingerprints, digests, records and logs are all there.
What is measured is the time from the start of one stage's own work to that of the next.
"""

from __future__ import annotations

import io
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.common import measure
from benchmarks.common.stages import parser, say, workspace
from runner.pipeline import registry
from runner.pipeline.engine import run
from runner.pipeline.stage import StageResult
from runner.recipe.load import compose, to_recipe
from runner.report.observers import observers
from runner.report.terminal import Report
from runner.storage.artifact import scan_folder

_NUM_STAGES = 25
_begun: list[float] = []


class Empty:
    """Takes what the stage before has made, if there is one, and writes one file."""

    name: ClassVar[str]
    number: ClassVar[int]
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = ("name",)
    libraries: ClassVar[tuple[str, ...]] = ("ray",)
    provides: ClassVar[tuple[str, ...]]
    ephemeral: ClassVar[bool] = False

    def needs(self, recipe: Any) -> tuple[str, ...]:
        return (f"made_{self.number - 1}",) if self.number else ()

    def run(self, ctx: Any) -> StageResult:
        ctx.ray.start()
        _begun.append(time.perf_counter())
        folder = ctx.stage_dir / self.provides[0]
        folder.mkdir()
        (folder / "content.txt").write_text(self.name)
        return StageResult([scan_folder(self.provides[0], folder)], note="nothing")


def main() -> None:
    args = parser(__doc__ or "", repeats=3).parse_args()
    for number in range(_NUM_STAGES):
        attributes = {"name": f"empty_{number}", "number": number, "provides": (f"made_{number}",)}
        setattr(sys.modules[__name__], f"Empty{number}", type(f"Empty{number}", (Empty,), attributes))
        registry.BUILTIN[f"empty_{number}"] = f"{__name__}:Empty{number}"
    turns = []
    with workspace(args.root) as root:
        for number in range(args.repeats):
            say(f"overhead: turn {number + 1} of {args.repeats}")
            turns.append(once(root / f"turn-{number}", args.overrides))
    measure.write_section("overhead", report(measure.save("overhead", {"overrides": args.overrides, "turns": turns})))


def once(root: Path, overrides: list[str]) -> list[float]:
    """Seconds of each stage but the last, in a run of its own."""
    names = ",".join(f"empty_{number}" for number in range(_NUM_STAGES))
    recipe, options = to_recipe(
        compose(["recipe=viggo_quickstart", f"pipeline=[{names}]", f"storage.root={root}", *overrides])
    )
    _begun.clear()
    code, _ = run(recipe, options, "python -m benchmarks.overhead", observers(Report(io.StringIO())))
    if code or len(_begun) != _NUM_STAGES:
        raise RuntimeError(f"the run ended with {code} after {len(_begun)} stages, see {root}")
    return [round(b - a, 4) for a, b in pairwise(_begun)]


def report(found: dict[str, Any]) -> str:
    """The table as Markdown."""
    rows = [
        {"run": str(number + 1), "a stage, ms": measure.cell([1000 * each for each in seconds], 1)}
        for number, seconds in enumerate(found["turns"])
    ]
    return "\n\n".join(
        [
            measure.head("The runner itself", found),
            f"Runs of {_NUM_STAGES} stages that do nothing; median (least-greatest) of a stage:",
            measure.table(rows),
        ]
    )


if __name__ == "__main__":
    main()
