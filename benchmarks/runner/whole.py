"""Where the seconds of a whole run go: each stage's wall time, and how much of it the work itself took.

    python -m benchmarks.whole                                         # CPU: the quickstart
    python -m benchmarks.whole recipe=viggo_qwen7b cluster=local_gpu storage=local

The work is training steps, generating predictions, and answering the query stage's requests. All else is what a person
waits for around it: imports, starts of workers and engines, files, shutting down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.common import measure
from benchmarks.common.stages import parser, run_recipe, say, with_defaults, workspace
from runner.pipeline.manifest import Manifest, StageRecord


def main() -> None:
    args = parser(__doc__ or "", repeats=1).parse_args()
    name = args.name or "whole"
    overrides = with_defaults(["recipe=viggo_quickstart", "serve.port=0"], args.overrides)
    with workspace(args.root) as root:
        turns = []
        for number in range(args.repeats):
            say(f"whole: turn {number + 1} of {args.repeats}")
            turns.append(turn(overrides, root if args.repeats == 1 else root / f"turn-{number}"))
    measure.write_section(name, report(measure.save(name, {"overrides": args.overrides, "turns": turns})))


def turn(overrides: list[str], root: Path) -> dict[str, Any]:
    """Run the recipe once, with run folders and store under the root."""
    given = [f"storage.root={root}", f"storage.artifacts={root}/artifacts", *overrides]
    done = run_recipe(given, root / "logs" / "whole.log")
    manifest = Manifest.load((root / "latest").resolve())
    return {
        "wall_s": round(done.wall_s, 2),
        "peak_gpu_mib": done.peak_gpu_mib,
        "stages": [
            {
                "name": record.name,
                "status": record.status,
                "wall_s": round(record.wall_s, 2),
                "work_s": round(work_s(record), 2),
                "note": record.note,
                "warnings": record.warnings,
            }
            for record in manifest.stages
        ],
    }


def work_s(record: StageRecord) -> float:
    """Seconds of the stage in which it did what it is for; a stage that the table does not name has none."""
    if record.status != "done" or record.name not in _WORK:
        return 0.0
    return _WORK[record.name](record.metrics, record.wall_s)


_WORK: dict[str, Callable[[Mapping[str, Any], float], float]] = {
    "train": lambda metrics, wall_s: float(metrics["train_runtime_s"]),
    "infer": lambda metrics, wall_s: float(metrics["wall_s"] - metrics["engine_start_s"]),
    "query": lambda metrics, wall_s: wall_s,
}


def report(found: dict[str, Any]) -> str:
    """The turns as Markdown."""
    turns = found["turns"]
    rows = []
    for index, stage in enumerate(turns[0]["stages"]):
        same = [turn["stages"][index] for turn in turns]
        rows.append(
            {
                "stage": stage["name"] + (" (reused)" if stage["status"] == "skipped" else ""),
                "wall, s": measure.cell([each["wall_s"] for each in same], 1),
                "of it the work, s": measure.cell([each["work_s"] for each in same], 1) if stage["work_s"] else "",
                "": stage["note"].replace("|", "\\|"),
            }
        )
    around = [turn["wall_s"] - sum(stage["wall_s"] for stage in turn["stages"]) for turn in turns]
    rows.append({"stage": "start and end", "wall, s": measure.cell(around, 1), "of it the work, s": "", "": ""})
    shares = [1 - sum(stage["work_s"] for stage in turn["stages"]) / turn["wall_s"] for turn in turns]
    lines = [
        measure.head("A whole run", found),
        measure.table(rows),
        f"The whole command took {measure.cell([turn['wall_s'] for turn in turns], 1)} s. "
        f"Share of it that is not training, inference or answering: {measure.cell(shares)}.",
    ]
    warnings = [warning for turn in turns for stage in turn["stages"] for warning in stage["warnings"]]
    if turns[0]["peak_gpu_mib"]:
        lines.append(
            f"Peak GPU memory {max(turn['peak_gpu_mib'] for turn in turns)} MiB; what the stages left behind when they "
            f"ended (processes, ports, GPU memory): {'; '.join(warnings) or 'nothing'}."
        )
    return "\n\n".join(lines)


if __name__ == "__main__":
    main()
