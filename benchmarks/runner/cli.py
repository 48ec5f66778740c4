"""Wall time of the commands that only look at a recipe, next to importing Hydra and the tools' own lightest commands.

python -m benchmarks.cli --repeats 5
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.common import measure

_RECIPE = ["recipe=viggo_qwen7b", "storage.artifacts=s3://bucket/prefix"]
_TOOLS = Path(sys.executable).parent


def commands(root: str) -> dict[str, list[str]]:
    """What is shown -> the command. root: an empty folder of runs, so that no plan depends on what lies about."""
    runner = [sys.executable, "-m", "runner"]
    verbs = ("validate", "plan", "list", "schema", "show")
    return {
        "python -m runner --help": [*runner, "--help"],
        **{
            f"python -m runner recipe=viggo_qwen7b action={verb}": [
                *(*runner, *_RECIPE, f"storage.root={root}", f"action={verb}")
            ]
            for verb in verbs
        },
        'python -c "import hydra"': [sys.executable, "-c", "import hydra"],
        "llamafactory-cli version": [_tool("llamafactory-cli"), "version"],
        "vllm --help": [_tool("vllm"), "--help"],
    }


def _tool(name: str) -> str:
    own = _TOOLS / name
    return str(own) if own.exists() else name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="turns; every command runs once in each")
    repeats = parser.parse_args().repeats
    with TemporaryDirectory() as root:
        wanted = commands(root)
        load = os.getloadavg()[0]
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in wanted}
        failed: dict[str, str] = {}
        for _ in range(repeats):
            for name, command in wanted.items():
                if name not in failed:
                    try:
                        before = _cpu_s()
                        wall_s = measure.timed(command)
                        seconds[name].append((wall_s, _cpu_s() - before))
                    except (OSError, RuntimeError) as error:  # a tool that does not run here has no figure
                        failed[name] = str(error).strip().splitlines()[-1]
    document = measure.save("cli", {"wall_and_cpu_s": seconds, "failed": failed, "load_average": load})
    measure.write_section("cli", report(document))


def _cpu_s() -> float:
    """CPU seconds of all child processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def report(found: dict[str, Any]) -> str:
    """The table as Markdown: medians, with least and greatest."""
    failed = found["failed"]
    rows = [
        {
            "command": f"`{name}`",
            "wall time, s": measure.cell([wall for wall, _ in pairs]) if pairs else f"fails: {failed[name]}",
            "CPU time, s": measure.cell([cpu for _, cpu in pairs]) if pairs else "",
        }
        for name, pairs in found["wall_and_cpu_s"].items()
    ]
    return "\n\n".join(
        [
            measure.head("Commands that only look", found),
            measure.table(rows),
            "Median (least-greatest), the commands in turns. "
            f"The machine's load average before was {found['load_average']:.1f}.",
        ]
    )


if __name__ == "__main__":
    main()
