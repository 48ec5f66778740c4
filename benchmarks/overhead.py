"""What the runner itself takes for a stage: pipelines of stages that do nothing, with Ray up.

    python -m benchmarks.overhead

Each stage makes an artifact of one small file, so that planning, fingerprints, digests, records and logs are all there.
The time of a stage is the difference of a long and a short pipeline, over the difference in stages.
"""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import stages
from benchmarks import measure
from benchmarks.stages import parser, say, workspace
from runner.engine import run
from runner.manifest import scan_folder
from runner.report import Report
from runner.resolve import compose, to_recipe
from stages.base import StageResult

_SHORT, _LONG = 5, 25


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
        folder = ctx.stage_dir / self.provides[0]
        folder.mkdir()
        (folder / "content.txt").write_text(self.name)
        return StageResult([scan_folder(self.provides[0], folder)], note="nothing")


def main() -> None:
    args = parser(__doc__ or "", repeats=3).parse_args()
    for number in range(_LONG):
        attributes = {"name": f"empty_{number}", "number": number, "provides": (f"made_{number}",)}
        setattr(sys.modules[__name__], f"Empty{number}", type(f"Empty{number}", (Empty,), attributes))
        stages.BUILTIN[f"empty_{number}"] = f"{__name__}:Empty{number}"
    turns: dict[int, list[float]] = {_SHORT: [], _LONG: []}
    with workspace(args.root) as root:
        for number in range(args.repeats):
            for count, seconds in turns.items():
                say(f"overhead: {count} stages, turn {number + 1} of {args.repeats}")
                seconds.append(once(count, root / f"{count}-{number}", args.overrides))
    found = {"overrides": args.overrides, "turns": {str(count): seconds for count, seconds in turns.items()}}
    measure.write_section("overhead", report(measure.save("overhead", found)))


def once(num_stages: int, root: Path, overrides: list[str]) -> float:
    """Seconds of a whole run of so many stages, Ray's start and end included."""
    names = ",".join(f"empty_{number}" for number in range(num_stages))
    given = ["recipe=viggo_quickstart", f"pipeline=[{names}]", f"storage.root={root}", *overrides]
    recipe, options = to_recipe(compose(given))
    begin = time.perf_counter()
    code, _ = run(recipe, options, "python -m benchmarks.overhead", Report(io.StringIO()))
    elapsed = time.perf_counter() - begin
    if code:
        raise RuntimeError(f"the run ended with {code}, see {root}")
    return elapsed


def report(found: dict[str, Any]) -> str:
    """The table as Markdown."""
    short, long = found["turns"][str(_SHORT)], found["turns"][str(_LONG)]
    rows = [
        {"stages": str(count), "whole run, s": measure.cell(seconds)}
        for count, seconds in ((_SHORT, short), (_LONG, long))
    ]
    each = [(b - a) / (_LONG - _SHORT) for a, b in zip(short, long, strict=True)]
    return "\n\n".join(
        [
            measure.head("The runner itself", found),
            measure.table(rows),
            f"A stage that does nothing takes {measure.cell(each, 3)} s.",
        ]
    )


if __name__ == "__main__":
    main()
