"""How training, batch inference and the endpoint grow with GPUs, and an endpoint's replicas with its load.

    ray start --head --port 6379 --num-cpus 32
    python -m benchmarks.gpus --gpus 1 2 cluster.address=127.0.0.1:6379 recipe=viggo_qwen7b storage=local

Each number of GPUs has so many training workers of one GPU, engines of one GPU, and replicas of one GPU. Training is
compared by its samples a second in steady state, inference by its output tokens a second without the engine's start,
the endpoint by the tokens a second of all clients. `--autoscale` lets the endpoint grow from one replica to the largest
number under load and shrink after it; a replica is counted where a GPU's memory is in use.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks.common import measure
from benchmarks.common.load import measure_endpoint
from benchmarks.common.stages import Work, parser, prepare, run_stage, say, with_defaults, workspace
from benchmarks.serving.serve import bodies, by_runner, free_port, wait_for

_CLIENTS = 32  # of each replica
_IN_USE_MIB = 2000  # a GPU with more of its memory in use has a worker or an engine
_SHRINKS_IN_S = 120


def main() -> None:
    options = parser(__doc__ or "", repeats=1)
    options.add_argument("--gpus", type=int, nargs="+", default=[1, 2, 4], help="numbers of GPUs (default 1 2 4)")
    options.add_argument("--parts", nargs="+", default=["infer", "serve", "train"], help="training last")
    options.add_argument("--requests", type=int, default=6, help="requests of each client (default 6)")
    options.add_argument("--autoscale", type=int, default=0, help="seconds of load while the endpoint may grow")
    args = options.parse_args()
    name = args.name or "gpus"
    sides = {"train": train, "infer": infer, "serve": partial(serve, each=args.requests)}
    found: dict[str, Any] = {"overrides": args.overrides, "gpus": args.gpus, "parts": {}}
    with workspace(args.root) as root:
        level = memory_mib()
        work = prepare(with_defaults(defaults(max(args.gpus)), args.overrides), root, "publish")
        for part in args.parts:
            found["parts"][part] = [one(part, sides[part], work, count, level) for count in args.gpus]
        if args.autoscale:
            found["autoscale"] = autoscale(work, max(args.gpus), args.autoscale)
    measure.write_section(name, report(measure.save(name, found)))


def defaults(most: int) -> list[str]:
    """What the overrides may replace. most: GPUs."""
    return [
        "recipe=viggo_qwen7b",
        "evaluate.compare_base=false",
        "pipeline=[ingest,train,publish,infer,serve]",
        f"resources.train.num_workers={most}",
    ]


def one(part: str, side: Any, work: Work, count: int, level: Sequence[int]) -> dict[str, Any]:
    """One stage on so many GPUs: `{gpus, rate, peak_mib, left_mib}`, memory as the largest of all GPUs."""
    say(f"{part} on {count}")
    with peak_memory() as peak:
        rate = side(work, count)
    left = max(now - before for now, before in zip(settled(level), level, strict=True))
    say(f"  {rate:.2f}, peak {peak[0]} MiB, left {left} MiB")
    return {"gpus": count, "rate": round(rate, 3), "peak_mib": peak[0], "left_mib": left}


def train(work: Work, count: int) -> float:
    """Samples a second of training by so many workers."""
    _, record = run_stage(
        work, "train", work.root / "logs" / f"train-{count}.log", f"resources.train.num_workers={count}"
    )
    return float(record.metrics["samples_per_s"])


def infer(work: Work, count: int) -> float:
    """Output tokens a second by so many engines of their own."""
    given = ("infer.engine=own", f"infer.concurrency={count}")
    _, record = run_stage(work, "infer", work.root / "logs" / f"infer-{count}.log", *given)
    return float(record.metrics["output_tokens_per_s"])


def serve(work: Work, count: int, each: int) -> float:
    """Tokens a second of an endpoint of so many replicas, with so many times the clients."""
    with endpoint(work, count, count, f"serve-{count}") as (url, model):
        requests, clients = bodies(work), _CLIENTS * count
        measure_endpoint(url, model, requests, clients, clients)  # does not count: graphs, caches, connections
        found = measure_endpoint(url, model, requests, clients, clients * each)
    say(f"  {found}")
    if found["num_failed"]:
        raise RuntimeError(f"{found['num_failed']} requests failed: {found['errors']}")
    return float(found["output_tokens_per_s"])


def autoscale(work: Work, most: int, load_s: int) -> dict[str, Any]:
    """Load of all replicas' clients on an endpoint that starts with one: GPUs in use over time, failed requests."""
    with endpoint(work, 1, most, "autoscale") as (url, model):
        requests, clients = bodies(work), _CLIENTS * most
        with gpus_in_use() as seen:
            begin, failed, asked = time.monotonic(), 0, 0
            while time.monotonic() - begin < load_s:
                found = measure_endpoint(url, model, requests, clients, clients * 2)
                failed, asked = failed + found["num_failed"], asked + found["num_requests"]
            end = time.monotonic() + _SHRINKS_IN_S
            while len(in_use()) > 1 and time.monotonic() < end:
                failed += measure_endpoint(url, model, requests, 1, 1)["num_failed"]
                asked += 1
    return {"replicas": seen, "num_requests": asked, "num_failed": failed, "load_s": load_s}


@contextmanager
def endpoint(work: Work, least: int, most: int, log: str) -> Iterator[tuple[str, str]]:
    """The served recipe with replicas between two numbers, once all of the least number are there."""
    given = (f"serve.autoscaling.min_replicas={least}", f"serve.autoscaling.max_replicas={most}")
    work = Work(work.recipe, (*work.overrides, *given), work.folders, work.root)
    with by_runner(work, free_port(), work.root / "logs" / f"{log}.log") as (url, model):
        wait_for(url, model, bodies(work)[0])
        while len(in_use()) < least:
            time.sleep(0.5)
        yield url, model


def memory_mib() -> list[int]:
    """Memory in use on each GPU, MiB."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    return [int(line) for line in shown.stdout.split()]


def in_use() -> list[int]:
    """Numbers of the GPUs whose memory is in use."""
    return [number for number, mib in enumerate(memory_mib()) if mib > _IN_USE_MIB]


def settled(level: Sequence[int], within_s: int = 60) -> list[int]:
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
    units = {"train": "samples/s", "infer": "output tokens/s", "serve": "tokens/s"}
    rows = []
    for part, turns in found["parts"].items():
        first = turns[0]
        for turn in turns:
            linear = turn["rate"] / first["rate"] * first["gpus"] / turn["gpus"]
            rows.append(
                {
                    "stage": part,
                    "GPUs": turn["gpus"],
                    "rate": f"{turn['rate']:,.1f} {units[part]}",
                    "of linear": f"{linear:.2f}",
                    "peak of one GPU, MiB": turn["peak_mib"],
                    "left after the stage, MiB": turn["left_mib"],
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
