"""The served endpoint against vLLM's own server: first token and throughput for several numbers of clients, in turns.

    python -m benchmarks.serve                                         # CPU: 1, 4 and 16 clients
    python -m benchmarks.serve cluster=local_gpu --clients 1 8 32

Both serve the same model and adapter with the same engine arguments and environment; vLLM's server is the module that
`vllm serve` runs. Requests ask the adapter. Every answer is as long as `infer.sampling.max_tokens` says. Requests come
to the stage by Ray Serve's HAProxy, or with --python-proxy by its proxy in Python.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common import measure
from benchmarks.common.load import measure_endpoint
from benchmarks.common.stages import (
    Work,
    gpu_peak,
    interpreter,
    parser,
    prepare,
    running,
    say,
    with_defaults,
    workspace,
)
from stages.data.example import read_examples
from stages.engines.base import load_engine
from stages.engines.vllm.batch import engine_kwargs as batch_engine_kwargs
from stages.engines.vllm.serving.server import engine_env, engine_kwargs
from stages.models.adapter import CONFIG, largest_rank

_START_S = 900
_ROWS = "generated://viggo?functions=inform,request_attribute&attributes=name,release_year,genres"


def main() -> None:
    options = parser(__doc__ or "", repeats=2)
    options.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16], help="numbers of clients")
    options.add_argument("--requests", type=int, default=12, help="requests of each client (default 12)")
    options.add_argument("--python-proxy", action="store_true", help="with RAY_SERVE_ENABLE_HA_PROXY=0")
    args = options.parse_args()
    name = args.name or "serve"
    env = {"RAY_SERVE_ENABLE_HA_PROXY": "0"} if args.python_proxy else {}
    defaults = [
        "recipe=viggo_quickstart",
        f'dataset.source="{_ROWS}&train=384&test=200&seed=7"',
        "pipeline=[ingest,train,publish,serve]",
        "evaluate.compare_base=false",
        "train.max_samples=64",
    ]
    with workspace(args.root) as root:
        work = prepare(with_defaults(defaults, args.overrides), root, "publish")
        turns: dict[str, list[dict[str, Any]]] = {"runner": [], "bare": []}
        for number in range(args.repeats):
            for side, server in (("runner", partial(by_runner, env=env)), ("bare", by_bare)):
                say(f"serve: {side}, turn {number + 1} of {args.repeats}")
                turns[side].append(turn(work, server, side, number, args.clients, args.requests))
    found = {"overrides": args.overrides, "turns": turns}
    measure.write_section(name, report(measure.save(name, found)))


def turn(work: Work, server: Any, side: str, number: int, clients: list[int], each: int) -> dict[str, Any]:
    """Start a server, load it with each number of clients, stop it."""
    port, log = free_port(), work.root / "logs" / f"{side}-serve-{number}.log"
    requests = bodies(work)
    with gpu_peak() as peak:
        began = time.perf_counter()
        with server(work, port, log) as (url, model):
            ready_s = time.perf_counter() - began
            for count in clients:  # one round that does not count: graphs, caches, connections
                measure_endpoint(url, model, requests, count, count)
            levels = []
            for count in clients:
                levels.append(measure_endpoint(url, model, requests, count, count * each))
                say(f"  {count} clients: {levels[-1]}")
    return {"first_answer_s": round(ready_s, 2), "levels": levels, "peak_gpu_mib": peak[0]}


def bodies(work: Work) -> list[dict[str, Any]]:
    """Requests about the test rows. The answers' length is fixed, so that both servers make the same tokens."""
    sampling = work.recipe.infer.sampling
    length = {"max_tokens": sampling["max_tokens"], "min_tokens": sampling["max_tokens"], "temperature": 0.0}
    examples = read_examples(work.folders["test_set"] / "test.jsonl")
    return [{"messages": example.prompt, **length} for example in examples]


@contextmanager
def by_runner(
    work: Work, port: int, log: Path, env: Mapping[str, str] | None = None, before: Sequence[str] = ()
) -> Iterator[tuple[str, str]]:
    """The serve stage with `serve.keep_alive` once it answers, ended as a person would: by Ctrl-C.

    env: added to this process's own. before: stages that run again first.
    """
    adapter_id = json.loads((work.folders["adapter"] / "_manifest.json").read_text())["meta"]["adapter_id"]
    again = [f"force=[{','.join(before)}]"] if before else []
    only = f"only=[{','.join([*before, 'serve'])}]"
    overrides = [*work.overrides, only, *again, "serve.keep_alive=true", f"serve.port={port}"]
    with running([sys.executable, "-m", "runner", *overrides], log, env or {}) as child:
        url, model = f"http://127.0.0.1:{port}/v1", f"{work.recipe.serve.model_id}:{adapter_id}"
        wait_for(url, model, bodies(work)[0], child, log)
        yield url, model


@contextmanager
def by_bare(work: Work, port: int, log: Path, env: Mapping[str, str] | None = None) -> Iterator[tuple[str, str]]:
    """vLLM's own server once it answers, with the stage's executor. env: added to its own (default: the stage's)."""
    adapter = work.folders["adapter"]
    arguments = {
        **batch_engine_kwargs(work.recipe, largest_rank((adapter / CONFIG).read_bytes())),
        **engine_kwargs(work.recipe, with_adapters=True),
    }
    arguments.pop("distributed_executor_backend", None)
    environment = load_engine(work.recipe).environment
    command = [interpreter(environment), "-m", "vllm.entrypoints.openai.api_server", "--port", str(port)]
    command += ["--host", "127.0.0.1"]
    command += ["--model", str(work.folders["model"]), "--served-model-name", "base", "--disable-uvicorn-access-log"]
    command += ["--lora-modules", f"tuned={adapter}", *flags(arguments)]
    if env is None:
        env = {
            **engine_env(work.recipe, environment),
            **work.recipe.resources_of("serve").runtime_env.get("env_vars", {}),
        }
    with running(command, log, env) as child:
        wait_for(f"http://127.0.0.1:{port}/v1", "tuned", bodies(work)[0], child, log)
        yield f"http://127.0.0.1:{port}/v1", "tuned"


def flags(arguments: dict[str, Any]) -> list[str]:
    """Engine arguments as vLLM's command line takes them."""
    made: list[str] = []
    for name, value in arguments.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            made.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            made += [f"--{flag}", json.dumps(value) if isinstance(value, (dict, list)) else str(value)]
    return made


def wait_for(url: str, model: str, body: dict[str, Any], server: subprocess.Popen[bytes], log: Path) -> None:
    """Ask until the first answer comes. Raises RuntimeError when none does in time, or the server has ended."""
    end = time.monotonic() + _START_S
    data = json.dumps({"model": model, **body, "max_tokens": 1, "min_tokens": 1}).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < end:
        if server.poll() is not None:
            raise RuntimeError(f"the server ended with {server.returncode}:\n{log.read_text()[-3000:]}")
        request = urllib.request.Request(f"{url}/chat/completions", data, {"Content-Type": "application/json"})  # noqa: S310
        try:
            with opener.open(request, timeout=120) as response:
                json.load(response)
            return
        except OSError:
            time.sleep(0.25)
    raise RuntimeError(f"{url} did not answer for {model} within {_START_S} s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def report(found: dict[str, Any]) -> str:
    """The comparison as Markdown."""
    sides = found["turns"]
    rows = []
    for index, level in enumerate(sides["runner"][0]["levels"]):
        row = {"clients": str(level["num_clients"])}
        values = {side: [turn["levels"][index] for turn in sides[side]] for side in sides}
        for side, label in (("runner", "serve stage"), ("bare", "vLLM's server")):
            row[f"{label}: first token, ms"] = measure.cell([value["first_token_ms"] for value in values[side]], 1)
            row[f"{label}: tokens/s"] = measure.cell([value["output_tokens_per_s"] for value in values[side]], 0)
        pairs = zip(values["runner"], values["bare"], strict=True)
        row["tokens/s, ratio"] = measure.cell(
            [a["output_tokens_per_s"] / b["output_tokens_per_s"] for a, b in pairs], 3
        )
        row["failed"] = str(sum(value["num_failed"] for side in values for value in values[side]))
        rows.append(row)
    starts = {side: measure.cell([turn["first_answer_s"] for turn in sides[side]], 1) for side in sides}
    peaks = {side: max(turn["peak_gpu_mib"] for turn in sides[side]) for side in sides}
    lines = [
        measure.head("Serving", found),
        measure.table(rows),
        f"From the command to the first answer: serve stage {starts['runner']} s, vLLM's server {starts['bare']} s.",
    ]
    if peaks["runner"]:
        lines.append(f"Peak GPU memory: serve stage {peaks['runner']} MiB, vLLM's server {peaks['bare']} MiB.")
    return "\n\n".join(lines)


if __name__ == "__main__":
    main()
