"""How training, batch inference and the endpoint grow with GPUs, and an endpoint's replicas with its load.

    ray start --head --port 6379 --num-cpus 32
    python -m benchmarks.gpus --gpus 1 2 cluster.address=127.0.0.1:6379 recipe=viggo_qwen7b storage=local

Each number has so many training workers of one GPU, and so many replicas, whose engines first predict the test set and
then answer as an endpoint (`infer.engine=shared`). Training has so many times the rows, so that each worker's share is
the same, and is compared by its rows a second. Batch inference is compared by its output tokens a second without the
engine's start, the endpoint by the tokens a second of all clients, a process of them for each replica. `autoscale` lets
the endpoint grow from one replica to the largest number under load and shrink after it; a replica is counted where a
GPU's memory is in use.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

from benchmarks.common import measure
from benchmarks.common.load import measure_endpoint
from benchmarks.common.stages import Work, parser, prepare, run_stage, say, with_defaults, workspace
from benchmarks.serving.serve import bodies, by_runner, free_port
from runner.pipeline.manifest import Manifest
from stages.engines.base import load_engine

_CLIENTS = 32  # of each replica
_IN_USE_MIB = 2000  # a GPU with more of its memory in use has a worker or an engine
_SHRINKS_IN_S = 120
_PARTS = ("answers", "autoscale", "train")
_UNITS = {"train": "rows/s", "batch": "output tokens/s", "endpoint": "output tokens/s"}


def main() -> None:
    options = parser(__doc__ or "", repeats=1)
    options.add_argument("--gpus", type=int, nargs="+", default=[1, 2, 4], help="workers, or replicas (default 1 2 4)")
    options.add_argument("--parts", nargs="+", choices=_PARTS, default=["answers", "train"], help="training last")
    options.add_argument("--rows", type=int, default=1000, help="training rows of each worker (default 1000)")
    options.add_argument("--requests", type=int, default=6, help="requests of each client (default 6)")
    options.add_argument("--load", type=int, default=120, help="seconds of load while the endpoint may grow")
    options.add_argument(
        "--settle", type=int, default=60, help="seconds for memory to be freed; 0: others use GPUs too"
    )
    args = options.parse_args()
    name = args.name or "gpus"
    found: dict[str, Any] = {"overrides": args.overrides, "turns": []}
    with workspace(args.root) as root:
        level = memory_mib()
        work = prepare(with_defaults(defaults(max(args.gpus), args.rows), args.overrides), root, "publish")
        for part in args.parts:
            if part == "autoscale":
                found["autoscale"] = autoscale(work, max(args.gpus), args.load)
                continue
            for count in args.gpus:
                say(f"{part}: {count}")
                with peak_memory() as peak:
                    rates = train(work, count, args.rows) if part == "train" else answers(work, count, args.requests)
                turn = {"gpus": count if part == "train" else count * ranks(work), "rates": rates}
                if args.settle:
                    left = max(now - before for now, before in zip(settled(level, args.settle), level, strict=True))
                    turn |= {"peak_mib": peak[0], "left_mib": left}
                say(f"  {turn}")
                found["turns"].append(turn)
                measure.save(name, found)
    measure.write_section(name, report(measure.save(name, found)))


def defaults(most: int, rows: int) -> list[str]:
    """What the overrides may replace. most: workers."""
    return [
        "recipe=viggo_qwen7b",
        "evaluate.compare_base=false",
        "pipeline=[ingest,train,publish,infer,serve]",
        "infer.engine=shared",
        f"train.max_samples={most * rows}",
        f"resources.train.num_workers={most}",
    ]


def ranks(work: Work) -> int:
    """GPUs of one engine."""
    number: int = load_engine(work.recipe).ranks(work.recipe.infer.engine_kwargs)
    return number


def train(work: Work, count: int, rows: int) -> dict[str, float]:
    """Rows a second of training by so many workers, each with so many rows."""
    given = (f"resources.train.num_workers={count}", f"train.max_samples={count * rows}")
    _, record = run_stage(work, "train", work.root / "logs" / f"train-{count}.log", *given)
    return {"train": float(record.metrics["samples_per_s"])}


def answers(work: Work, count: int, each: int) -> dict[str, float]:
    """Output tokens a second of so many replicas: of the test set in batch, and with so many times the clients."""
    with endpoint(work, count, count, f"answers-{count}", "infer") as (url, model):
        manifest = Manifest.load((work.root / "latest").resolve())
        batch = next(record for record in manifest.stages if record.name == "infer").metrics
        requests = bodies(work)
        load(url, model, requests, count, 1)  # does not count: graphs, caches, connections
        found = load(url, model, requests, count, each)
    if found["num_failed"]:
        raise RuntimeError(f"{found['num_failed']} requests failed: {found['errors']}")
    return {"batch": float(batch["output_tokens_per_s"]), "endpoint": found["output_tokens_per_s"]}


def load(url: str, model: str, requests: Any, num_processes: int, each: int) -> dict[str, Any]:
    """As `measure_endpoint`, with so many processes of `_CLIENTS` clients, each with so many requests."""
    with ProcessPoolExecutor(num_processes) as pool:
        begin = time.monotonic()
        shares = [
            pool.submit(measure_endpoint, url, model, requests[number:] + requests[:number], _CLIENTS, _CLIENTS * each)
            for number in range(0, num_processes * 97, 97)  # no two ask the same at once
        ]
        found = [share.result() for share in shares]
        wall_s = time.monotonic() - begin
    return {
        "num_requests": sum(one["num_requests"] for one in found),
        "num_failed": sum(one["num_failed"] for one in found),
        "errors": sorted({error for one in found for error in one["errors"]})[:3],
        "output_tokens_per_s": round(sum(one["output_tokens_per_s"] * one["wall_s"] for one in found) / wall_s, 1),
    }


def autoscale(work: Work, most: int, load_s: int) -> dict[str, Any]:
    """Load of all replicas' clients on an endpoint that starts with one: GPUs in use over time, failed requests."""
    with endpoint(work, 1, most, "autoscale") as (url, model):
        requests = bodies(work)
        with gpus_in_use() as seen:
            begin, failed, asked = time.monotonic(), 0, 0
            while time.monotonic() - begin < load_s:
                found = load(url, model, requests, most, 2)
                failed, asked = failed + found["num_failed"], asked + found["num_requests"]
            end = time.monotonic() + _SHRINKS_IN_S
            while len(in_use()) > ranks(work) and time.monotonic() < end:
                failed += measure_endpoint(url, model, requests, 1, 1)["num_failed"]
                asked += 1
    return {"replicas": seen, "num_requests": asked, "num_failed": failed, "load_s": load_s}


@contextmanager
def endpoint(work: Work, least: int, most: int, log: str, *before: str) -> Iterator[tuple[str, str]]:
    """The served recipe with replicas between two numbers. before: stages that run again first."""
    given = (f"serve.autoscaling.min_replicas={least}", f"serve.autoscaling.max_replicas={most}")
    work = Work(work.recipe, (*work.overrides, *given), work.folders, work.root)
    with by_runner(work, free_port(), work.root / "logs" / f"{log}.log", before=before) as (url, model):
        yield url, model


def memory_mib() -> list[int]:
    """Memory in use on each GPU, MiB."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    return [int(line) for line in shown.stdout.split()]


def in_use() -> list[int]:
    """Numbers of the GPUs whose memory is in use."""
    return [number for number, mib in enumerate(memory_mib()) if mib > _IN_USE_MIB]


def settled(level: Sequence[int], within_s: int) -> list[int]:
    """Memory in use once it is back at its level, or after the time."""
    end = time.monotonic() + within_s
    while (now := memory_mib()) and time.monotonic() < end:
        if all(mib <= before + 100 for mib, before in zip(now, level, strict=True)):
            break
        time.sleep(0.5)
    return now


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """The most memory in use on one of the GPUs, MiB, twice a second."""
    peak = [0]
    with followed(lambda: peak.__setitem__(0, max(peak[0], *memory_mib()))):
        yield peak


@contextmanager
def gpus_in_use() -> Iterator[list[tuple[float, int]]]:
    """Seconds since the begin and the number of GPUs in use, at each change of it."""
    seen: list[tuple[float, int]] = []
    begin = time.monotonic()

    def look() -> None:
        count = len(in_use())
        if not seen or seen[-1][1] != count:
            seen.append((round(time.monotonic() - begin, 1), count))

    with followed(look):
        yield seen


@contextmanager
def followed(look: Any) -> Iterator[None]:
    """Call it twice a second while the block runs."""
    stop = threading.Event()

    def follow() -> None:
        while not stop.wait(0.5):
            look()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def report(found: dict[str, Any]) -> str:
    """The comparison as Markdown."""
    rows = []
    for stage, unit in _UNITS.items():
        turns = [turn for turn in found["turns"] if stage in turn["rates"]]
        for turn in turns:
            linear = turn["rates"][stage] / turns[0]["rates"][stage] * turns[0]["gpus"] / turn["gpus"]
            rows.append(
                {
                    "stage": stage,
                    "GPUs": turn["gpus"],
                    "rate": f"{turn['rates'][stage]:,.1f} {unit}",
                    "of linear": f"{linear:.2f}",
                    "peak of one GPU, MiB": turn.get("peak_mib", ""),
                    "left after the stage, MiB": turn.get("left_mib", ""),
                }
            )
    lines = [measure.head("Several GPUs", found), *([measure.table(rows)] if rows else [])]
    if "autoscale" in found:
        lines.append(autoscaled(found["autoscale"]))
    return "\n\n".join(lines)


def autoscaled(found: dict[str, Any]) -> str:
    steps = ", ".join(f"{count} at {seconds} s" for seconds, count in found["replicas"])
    return (
        f"Under {found['load_s']} s of load from one replica: {found['num_requests']} requests, "
        f"{found['num_failed']} failed; GPUs in use: {steps}."
    )


if __name__ == "__main__":
    main()
