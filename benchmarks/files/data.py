"""Ingest of Parquet and CSV, in turns with `datasets.load_dataset` and `map` on the same work.

    python -m benchmarks.data

Then many shards by tasks on one Ray node of one core, and on two.

The work: read every row, make its messages, and write them as JSON Lines. Ingest also refuses bad rows, and looks for
duplicates and control tokens. Each turn is a process of its own; memory is the most that it held (VmHWM).
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.common import measure
from benchmarks.common.stages import parser, say, workspace

_NUM_WORDS = 3000


def main() -> None:
    options = parser(__doc__ or "", repeats=2)
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--shards", type=int, default=100, help="0: none (default 100)")
    options.add_argument("--shard-repeats", type=int, help="turns with shards (default: --repeats)")
    options.add_argument("--turn", nargs=3, metavar=("WHO", "FILE", "FOLDER"), help="one turn, in this process")
    args = options.parse_args()
    if args.turn:
        print(json.dumps(_turn(*args.turn)))
        return
    with workspace(args.root) as root:
        files = write_files(root / "rows", args.rows)
        found: dict[str, Any] = {"rows": args.rows, "turns": [], "load": round(os.getloadavg()[0], 1)}
        for number in range(args.repeats):
            for form, file in files.items():
                for who in ("ingest", "datasets"):
                    say(f"data: {form}, {who}, turn {number + 1}")
                    found["turns"].append({"form": form, "who": who, **_process(who, file, root / f"{who}-{form}")})
        shards = _shards(files["Parquet"], root / "shards", max(1, args.shards))
        for number in range((args.shard_repeats or args.repeats) if args.shards else 0):
            for nodes in ("1", "2"):
                say(f"data: {args.shards} shards, {nodes} nodes, turn {number + 1}")
                turn = _process(f"nodes-{nodes}", shards, root / f"nodes-{nodes}")
                found["turns"].append({"form": f"{args.shards} shards", "who": f"ingest, nodes: {nodes}", **turn})
    measure.write_section("data", report(measure.save("data", found)))


def write_files(folder: Path, num_rows: int) -> dict[str, Path]:
    """The same rows as Parquet and as CSV: an id, a question of 12 words, an answer of 8 and a number."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    drawn = random.Random(0)  # noqa: S311
    words = [f"word{number}" for number in range(_NUM_WORDS)]
    table = pa.table(
        {
            "id": range(num_rows),
            "question": [" ".join(drawn.choices(words, k=12)) for _ in range(num_rows)],
            "answer": [" ".join(drawn.choices(words, k=8)) for _ in range(num_rows)],
            "score": [round(drawn.random(), 3) for _ in range(num_rows)],
        }
    )
    pq.write_table(table, folder / "train.parquet", row_group_size=100_000)
    pyarrow.csv.write_csv(table, folder / "train.csv")
    return {"Parquet": folder / "train.parquet", "CSV": folder / "train.csv"}


def _shards(file: Path, folder: Path, count: int) -> Path:
    """The rows of the Parquet file in that many; gives the first."""
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    table = pq.read_table(file)
    size = -(-table.num_rows // count)
    names = [folder / f"train-{number:05d}-of-{count:05d}.parquet" for number in range(count)]
    for number, name in enumerate(names):
        pq.write_table(table.slice(number * size, size), name)
    return names[0]


def _process(who: str, file: Path, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.data", "--turn", who, str(file), str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    turn: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return turn


def _turn(who: str, file: str, folder: str) -> dict[str, Any]:
    makers = {"ingest": _ingest, "datasets": _datasets, "nodes-1": _on_one_node, "nodes-2": _on_two_nodes}
    work = makers[who](Path(file), Path(folder))
    wall, cpu = time.perf_counter(), _cpu_s()
    num_rows = work()
    wall, cpu = time.perf_counter() - wall, _cpu_s() - cpu
    found = {"wall_s": round(wall, 2), "cpu_s": round(cpu, 2), "rows_per_s": round(num_rows / wall)}
    return {**found, "peak_mib": _peak_mib()}


def _peak_mib() -> int:
    """The most that this process held. Not ru_maxrss, which begins with what the process that started it had held."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split(maxsplit=1)[0]) // 1024


def _cpu_s() -> float:
    used = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def _on_one_node(file: Path, folder: Path) -> Any:
    return _on_nodes(file, folder, 1)


def _on_two_nodes(file: Path, folder: Path) -> Any:
    return _on_nodes(file, folder, 2)


def _wait(seconds: float) -> None:
    time.sleep(seconds)  # a function of C cannot be a task


def _on_nodes(file: Path, folder: Path, count: int) -> Any:
    """Ingest of the file's shards by tasks on so many nodes of one core, whose workers have started."""
    import ray
    from ray.cluster_utils import Cluster

    from runner.cluster.session import run_tasks
    from runner.recipe.schema import StageResources
    from stages.ingest.rows import pieces

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for _ in range(count - 1):
        cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, logging_level="warning")
    pieces.LEAST_BYTES = 1 << 20
    resources = StageResources(cpus_per_worker=1, placement_strategy="SPREAD")
    run_tasks(_wait, resources, [(1,)] * count * 2)
    pattern = re.sub(r"\d+-of", "*-of", file.name)
    return _ingest(file.with_name(pattern), folder, lambda function, calls: run_tasks(function, resources, calls))


def _ingest(file: Path, folder: Path, spread: Any = None) -> Any:
    from runner.testing import changed, composed, load_recipe
    from stages.ingest.data import prepare_data
    from stages.sections.recipe import with_sections

    section = {
        "source": str(file.parent), "files": {"train": file.name, "val": None, "test": None},
        "prompt": {"system": "Be brief.", "user": "{question}", "assistant": "{answer}"},
    }  # fmt: skip
    recipe = load_recipe(
        changed(composed("viggo_quickstart"), {"dataset": section, "pipeline": ["ingest", "train", "publish"]})
    )
    whole = with_sections(recipe)
    given = (whole, folder, lambda *args, **figures: None, *([spread] if spread else []))
    return lambda: prepare_data(*given).metrics["rows"]["train"]


def _datasets(file: Path, folder: Path) -> Any:
    import datasets

    datasets.disable_progress_bars()

    def messages(row: dict[str, Any]) -> dict[str, Any]:
        turns = (("system", "Be brief."), ("user", row["question"]), ("assistant", row["answer"]))
        return {"messages": [{"role": role, "content": content} for role, content in turns]}

    def work() -> int:
        form = "parquet" if file.suffix == ".parquet" else "csv"
        rows = datasets.load_dataset(form, data_files=str(file), split="train", cache_dir=str(folder / "cache"))
        made = rows.map(messages, remove_columns=rows.column_names, num_proc=2)
        made.to_json(folder / "train.jsonl", num_proc=2)
        return len(made)

    return work


def _of_nodes(turns: list[dict[str, Any]]) -> list[str]:
    """How many times as fast two nodes were as one, by the medians of their turns."""
    rates = [[turn["rows_per_s"] for turn in turns if turn["who"].endswith(f"nodes: {nodes}")] for nodes in "12"]
    if not all(rates):
        return []
    one, two = map(statistics.median, rates)
    return [f"Two nodes of one core to one: {two / one:.2f} ({two:,.0f} to {one:,.0f} rows/s, medians)."]


def report(found: dict[str, Any]) -> str:
    """The table as Markdown."""
    rows = [
        {
            "form": turn["form"], "who": turn["who"], "rows/s": f"{turn['rows_per_s']:,}", "s": turn["wall_s"],
            "CPU, s": turn["cpu_s"], "rows/s of a core": f"{found['rows'] / turn['cpu_s']:,.0f}",
            "peak, MiB": turn["peak_mib"],
        }
        for turn in found["turns"]
    ]  # fmt: skip
    return "\n\n".join(
        [
            measure.head("Reading files", found),
            f"{found['rows']:,} rows to messages in JSON Lines, in turns; ingest in one process, `datasets` in two. "
            f"Load by others at the beginning: {found['load']}.",
            measure.table(rows),
            *_of_nodes(found["turns"]),
        ]
    )


if __name__ == "__main__":
    main()
