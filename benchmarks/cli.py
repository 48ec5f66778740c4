"""Wall time of the commands that only look at a recipe, beside an import of Hydra and the tools' own lightest commands.

python -m benchmarks.cli --repeats 5
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import measure

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
    beside = _TOOLS / name
    return str(beside) if beside.exists() else name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="turns; every command runs once in each")
    repeats = parser.parse_args().repeats
    with TemporaryDirectory() as root:
        wanted = commands(root)
        seconds: dict[str, list[float]] = {name: [] for name in wanted}
        failed: dict[str, str] = {}
        for _ in range(repeats):
            for name, command in wanted.items():
                if name not in failed:
                    try:
                        seconds[name].append(measure.timed(command))
                    except (OSError, RuntimeError) as error:  # a tool that does not run here has no figure
                        failed[name] = str(error).strip().splitlines()[-1]
    measure.save("cli", {"seconds": seconds, "failed": failed})
    measure.write_section("cli", report(seconds, failed))


def report(seconds: dict[str, list[float]], failed: dict[str, str]) -> str:
    """The table as Markdown: medians, with least and greatest."""
    rows = [
        {"command": f"`{name}`", "seconds": measure.cell(values) if values else f"fails: {failed[name]}"}
        for name, values in seconds.items()
    ]
    return "\n\n".join(
        [
            f"### Commands that only look: `{measure.command('cli')}`",
            measure.machine_line(measure.machine()),
            measure.table(rows),
            "Median (least-greatest) of wall times, the commands in turns.",
        ]
    )


if __name__ == "__main__":
    main()
