"""The quickstart many times in a row, then many requests to one endpoint: what fails, and what grows.

    python -m benchmarks.soak                                          # 20 runs, 10,000 requests
    python -m benchmarks.soak --runs 3 --requests 500

Every run does all of its stages again, on the same rows, so their adapters must be equal by digest. What a run may
leave is its folder; everything else (processes, ports, files, shared memory) must be as before it.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from benchmarks.common import measure
from benchmarks.common.load import measure_endpoint
from benchmarks.common.stages import parser, ray_sessions, run_recipe, running, say, with_defaults, workspace
from runner.pipeline.manifest import Manifest

_STAGES = ("ingest", "train", "publish", "infer", "evaluate", "serve", "query", "cleanup")
_ROWS = 'dataset.source="generated://viggo?functions=inform&attributes=name,release_year&train=32&val=4&test=8&seed=7"'
_PIECES = 20  # of the requests; the machine is looked at after each
_CLIENTS = 4
_START_S = 900
_MIB = 2**20
_TEMPORARY = Path(tempfile.gettempdir())
_SHARED_MEMORY = "/dev/shm"  # noqa: S108  # Ray's object store


def main() -> None:
    options = parser(__doc__ or "", repeats=1)
    options.add_argument("--runs", type=int, default=20, help="runs in a row (default 20)")
    options.add_argument("--requests", type=int, default=10_000, help="requests to one endpoint (default 10,000)")
    args = options.parse_args()
    name = args.name or "soak"
    defaults = ["recipe=viggo_quickstart", "serve.port=0", _ROWS, "infer.sampling.max_tokens=16"]
    with workspace(args.root) as root:
        overrides = with_defaults(defaults, args.overrides)
        given = [*overrides, f"storage.root={root}/runs", f"storage.artifacts={root}/artifacts"]
        before = surroundings()
        runs = [one_run(given, root, number, args.runs) for number in range(args.runs)]
        service = serve(given, root, args.requests)
    found = {"overrides": args.overrides, "before": before, "runs": runs, "service": service}
    measure.write_section(name, report(measure.save(name, found)))


def one_run(overrides: Sequence[str], root: Path, number: int, total: int) -> dict[str, Any]:
    """Run every stage, and look at the machine afterwards."""
    say(f"soak: run {number + 1} of {total}")
    log = root / "logs" / f"run-{number}.log"
    failure, wall_s = None, 0.0
    try:
        wall_s = run_recipe([*overrides, f"force=[{','.join(_STAGES)}]"], log).wall_s
    except RuntimeError as error:
        failure = str(error)[-500:]
    folder = (root / "runs" / "latest").resolve()
    manifest = Manifest.load(folder)
    adapter = manifest.artifact("adapter")
    return {
        "failure": failure,
        "wall_s": round(wall_s, 1),
        "stages_done": sum(record.status == "done" for record in manifest.stages),
        "adapter_sha256": adapter.sha256 if adapter else None,
        "run_folder_mib": round(size_mib(folder), 2),
        "store_mib": round(size_mib(root / "artifacts"), 2),
        **surroundings(),
    }


def serve(overrides: Sequence[str], root: Path, num_requests: int) -> dict[str, Any]:
    """Keep the endpoint of the last run's adapter up, and ask base model and adapter in turns."""
    log = root / "logs" / "service.log"
    with running([sys.executable, "-m", "runner", *overrides, "serve.keep_alive=true"], log, {}) as child:
        url, models = wait_until_up(log, child.poll)
        message = {"role": "user", "content": "The title Marble Monastery is a shooting game. It dates from 1994."}
        body = {"messages": [message], "max_tokens": 4, "min_tokens": 4, "temperature": 0.0}
        for model in models:
            measure_endpoint(url, model, [body], _CLIENTS, 25)  # caches, connections, the adapter
        looks = [look(child.pid)]
        pieces = []
        for piece in range(_PIECES):
            model = models[piece % len(models)]
            pieces.append(measure_endpoint(url, model, [body], _CLIENTS, num_requests // _PIECES))
            looks.append(look(child.pid))
            say(f"soak: {(piece + 1) * num_requests // _PIECES} requests; {looks[-1]}")
    time.sleep(3)
    return {
        "num_requests": num_requests // _PIECES * _PIECES,
        "pieces": pieces,
        "looks": looks,
        "after": surroundings(),
    }


def wait_until_up(log: Path, ended: Callable[[], int | None]) -> tuple[str, list[str]]:
    """The endpoint's URL and its models, from what the run shows. Raises RuntimeError when it does not come up."""
    end = time.monotonic() + _START_S
    while time.monotonic() < end and ended() is None:
        found = re.search(r"^URL +(\S+)\nmodels +(.+)$", log.read_text(), re.MULTILINE)
        if found and "Press Ctrl-C" in log.read_text():
            return found[1], found[2].split(", ")
        time.sleep(0.5)
    raise RuntimeError(f"no endpoint:\n{log.read_text()[-3000:]}")


def surroundings() -> dict[str, float]:
    """What a run must leave as it was: processes of Ray, vLLM and the runner, TCP ports, temporary files, memory."""
    own = [process for process in psutil.process_iter(["cmdline"]) if _is_ours(process.info["cmdline"] or [])]
    return {
        "processes": len(own),
        "ports": len({c.laddr.port for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN}),
        "ray_sessions": len(list((_TEMPORARY / "ray").glob("session_2*"))),
        "temporary_files": len(list(_TEMPORARY.iterdir())),
        "shared_memory_mib": round(psutil.disk_usage(_SHARED_MEMORY).used / _MIB, 1),
        "memory_in_use_mib": round((psutil.virtual_memory().total - psutil.virtual_memory().available) / _MIB),
    }


def _is_ours(command: Sequence[str]) -> bool:
    line = " ".join(command)
    return any(word in line for word in ("raylet", "gcs_server", "ray::", "VLLM::", "-m runner"))


def look(pid: int) -> dict[str, float]:
    """The run that serves and all below it: processes, memory of their own (PSS), open files, ports, log files."""
    tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    pss = files = ports = 0
    for process in tree:
        with suppress(psutil.Error):
            pss += process.memory_full_info().pss
            files += process.num_fds()
            ports += sum(c.status == psutil.CONN_LISTEN for c in process.net_connections("tcp"))
    (session,) = ray_sessions(pid)
    return {
        "processes": len(tree),
        "memory_mib": round(pss / _MIB),
        "open_files": files,
        "ports": ports,
        "logs_mib": round(size_mib(session), 2),
    }


def size_mib(folder: Path) -> float:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.lstat().st_size if path.is_file() else 0
    return total / _MIB


def report(found: dict[str, Any]) -> str:
    """Both tables as Markdown."""
    runs, service = found["runs"], found["service"]
    failed = sum(run["failure"] is not None for run in runs)
    adapters = {run["adapter_sha256"] for run in runs}
    rows = [
        {"": what, "before": found["before"].get(key, ""), "after run 1": runs[0][key], "most": max(_of(runs, key))}
        | {f"after run {len(runs)}": runs[-1][key]}
        for key, what in (
            ("processes", "processes of Ray, vLLM and the runner"),
            ("ports", "listening TCP ports"),
            ("ray_sessions", "folders in /tmp/ray"),
            ("temporary_files", "entries in /tmp"),
            ("shared_memory_mib", "shared memory, MiB"),
            ("memory_in_use_mib", "memory in use, MiB"),
            ("run_folder_mib", "the run's folder, MiB"),
            ("store_mib", "artifact store, MiB"),
        )
    ]
    pieces, looks = service["pieces"], service["looks"]
    third = len(looks) // 3
    grown = [
        {
            "": what,
            "before": looks[0][key],
            f"after {service['num_requests'] * third // _PIECES:,}": looks[third][key],
            f"after {service['num_requests'] * 2 * third // _PIECES:,}": looks[2 * third][key],
            f"after {service['num_requests']:,}": looks[-1][key],
        }
        for key, what in (
            ("processes", "processes"),
            ("memory_mib", "memory of all processes (PSS), MiB"),
            ("open_files", "open files"),
            ("ports", "listening ports"),
            ("logs_mib", "Ray's log files, MiB"),
        )
    ]
    num_failed = sum(piece["num_failed"] for piece in pieces)
    errors = sorted({error for piece in pieces for error in piece["errors"]})
    return "\n\n".join(
        [
            measure.head("Soak", found),
            f"{len(runs)} runs in a row, each doing {min(_of(runs, 'stages_done'))} of {len(_STAGES)} stages again at "
            f"least: {failed} failed, {len(adapters)} adapter by digest, "
            f"{measure.cell(_of(runs, 'wall_s'), 1)} s a run.",
            measure.table(rows),
            f"{service['num_requests']:,} streamed requests to one endpoint by {_CLIENTS} clients, base model and "
            f"adapter in turns: {num_failed} failed{': ' + '; '.join(errors) if errors else ''}. "
            f"First token, median of {service['num_requests'] // _PIECES} each: "
            f"{measure.cell([piece['first_token_ms'] for piece in pieces], 1)} ms.",
            measure.table(grown),
            "After its end: "
            + ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in service["after"].items())
            + ".",
        ]
    )


def _of(runs: Sequence[dict[str, Any]], key: str) -> list[Any]:
    return [run[key] for run in runs]


if __name__ == "__main__":
    main()
