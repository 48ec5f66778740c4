"""The table of the kill matrix, from the folder in which its cases were kept.

    CHAOS_DIR=/tmp/chaos make chaos
    python -m benchmarks.chaos /tmp/chaos

A case runs a stage until a moment of it, kills one of its processes, and gives the same command again
(tests/chaos/test_kill_matrix.py). The newest result of each case counts.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.common import measure

_TABLE = "kill_matrix.jsonl"
_LOAD = "serve_under_load.json"  # of tests/chaos/test_serve_under_load.py


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="what CHAOS_DIR was")
    folder = parser.parse_args().folder
    lines = (folder / _TABLE).read_text().splitlines()
    newest = {case["case"]: case for case in map(json.loads, lines)}
    cases = [
        {name: case.get(name) for name in ("case", "verdict", "exit_code", "second_exit_code", "wall_s", "left_over")}
        for case in newest.values()
    ]
    load = json.loads((folder / _LOAD).read_text()) if (folder / _LOAD).is_file() else None
    measure.write_section("chaos", report(measure.save("chaos", {"cases": cases, "load": load})))


def report(found: dict[str, Any]) -> str:
    """A row for each stage and process, a column for each signal: how many of the moments passed."""
    signals = ("SIGKILL", "SIGTERM")
    cells: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for case in found["cases"]:
        stage, target, signal, _, *trainer = case["case"].split("-")
        cells.setdefault(", ".join([stage, target, *trainer]), {name: [] for name in signals})[signal].append(case)
    rows = [
        {
            "stage, process killed": name,
            **{signal: _passed(cases) for signal, cases in by_signal.items()},
            "seconds a case": measure.cell([case["wall_s"] for cases in by_signal.values() for case in cases], 0),
        }
        for name, by_signal in sorted(cells.items())
    ]
    left = sum(len(case["left_over"] or []) for case in found["cases"])
    failed = [case["case"] for case in found["cases"] if case["verdict"] != "passed"]
    return "\n\n".join(
        [
            measure.head("Killed and run again", found),
            measure.table(rows),
            f"{len(found['cases'])} cases, {len(failed)} failed{': ' + ', '.join(failed) if failed else ''}; "
            f"{left} processes left over. A case passes when the same command afterwards finishes with the same "
            "artifacts by digest (or the same answers), has skipped what was done, and nothing of either run is left.",
            *(_under_load(found["load"]) if found["load"] else []),
        ]
    )


def _under_load(load: dict[str, Any]) -> list[str]:
    rows = [
        {
            "phase": phase,
            "answered": str(outcomes.get("ok", 0)),
            "failed": str(sum(outcomes.values()) - outcomes.get("ok", 0)),
        }
        for phase, outcomes in load["phases"].items()
    ]
    return [
        "An endpoint under the load of 4 clients, each streaming one answer after another:",
        measure.table(rows),
        "Answers that were being streamed by the killed replica fail; it was replaced after "
        f"{load['killed_replica_replaced_s']:.0f} s. Requests to an engine that stands still end by the recipe's "
        f"timeout, here after {load['hung_request_s']:.0f} s.",
    ]


def _passed(cases: list[dict[str, Any]]) -> str:
    return f"{sum(case['verdict'] == 'passed' for case in cases)} of {len(cases)}" if cases else ""


if __name__ == "__main__":
    main()
