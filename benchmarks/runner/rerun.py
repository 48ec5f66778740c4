"""A run with nothing to do: every stage of the quickstart reused from an earlier run, next to the cost of its imports.

python -m benchmarks.rerun                          # runs the quickstart on 16 rows first, then 10 times again
python -m benchmarks.rerun --root /tmp/runs         # with run folders that stay; the first run is then reused, too
"""

from __future__ import annotations

import json
import sys
from typing import Any

from benchmarks.common import measure
from benchmarks.common.stages import parser, say, workspace

# A short pipeline of real parts: what a rerun costs does not depend on how long the first run took.
DEFAULTS = ("recipe=viggo_quickstart", "train.max_samples=16", "dataset.max_rows.test=8", "serve.port=0")
PYTHON = sys.executable
# Says at its end whether Ray was imported, which starting it would have done.
_MAIN = (
    "import sys; from runner.cli.main import main; code = main(sys.argv[1:]); "
    "assert 'ray' not in sys.modules; sys.exit(code)"
)


def main() -> None:
    args = parser(__doc__ or "", repeats=10).parse_args()
    with workspace(args.root) as root:
        overrides = [*DEFAULTS, *args.overrides, f"storage.root={root}/runs"]
        say("rerun: the first run")
        measure.timed([PYTHON, "-m", "runner", *overrides])
        turns: dict[str, list[float]] = {name: [] for name in commands(overrides)}
        for number in range(args.repeats):
            say(f"rerun: turn {number + 1} of {args.repeats}")
            for name, command in commands(overrides).items():
                turns[name].append(measure.timed(command))
        summary = json.loads((root / "runs" / "latest" / "summary.json").read_text())
    statuses = {stage["name"]: stage["status"] for stage in summary["stages"]}
    if set(statuses.values()) != {"skipped"}:
        raise RuntimeError(f"the last rerun did work: {statuses}")
    found = {"overrides": args.overrides, "stages": statuses, "turns": turns}
    name = args.name or "rerun"
    measure.write_section(name, report(measure.save(name, found)))


def commands(overrides: list[str]) -> dict[str, list[str]]:
    """What is timed, each as a process of its own."""
    return {
        "run, all stages reused, no Ray": [PYTHON, "-c", _MAIN, *overrides],
        "action=plan": [PYTHON, "-m", "runner", *overrides, "action=plan"],
        "action=validate": [PYTHON, "-m", "runner", *overrides, "action=validate"],
        'python -c "import hydra"': [PYTHON, "-c", "import hydra"],
        'python -c "import ray"': [PYTHON, "-c", "import ray"],
    }


def report(found: dict[str, Any]) -> str:
    turns = found["turns"]
    rows = [{"Command": name, "Wall time, s": measure.cell(values)} for name, values in turns.items()]
    num_turns = len(turns["action=plan"])
    return "\n\n".join(
        [
            measure.head("A run with nothing to do", found),
            f"All {len(found['stages'])} stages of the quickstart (on 16 training rows) are reused from an earlier "
            f"run, verified by digest. Median (least-greatest) of {num_turns} processes each, in turns.",
            measure.table(rows),
        ]
    )


if __name__ == "__main__":
    main()
