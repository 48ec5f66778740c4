"""How time and memory grow with the work: ingest of up to 1,000,000 rows, batch inference and evaluation of 10,000,
publish of 10,000 files.

    python -m benchmarks.scale

Memory is the most that a process held (VmHWM): of the driver, and of the largest of Ray's workers.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import measure
from benchmarks.common.stages import parser, say, workspace
from runner.pipeline.manifest import Manifest, StageRecord
from runner.storage.artifact import scan_folder
from runner.storage.store import open_store

_POLL_S = 0.25


def main() -> None:
    options = parser(__doc__ or "", repeats=1)
    options.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    options.add_argument("--predictions", type=int, nargs="+", default=[100, 1_000, 10_000])
    options.add_argument("--files", type=int, nargs="+", default=[100, 1_000, 10_000])
    args = options.parse_args()
    with workspace(args.root) as root:
        ingests = [ingest(count, args.overrides, root / f"ingest-{count}") for count in args.rows]
        predictions = [predict(count, args.overrides, root / f"infer-{count}") for count in args.predictions]
        publishes = [publish(count, root / f"publish-{count}") for count in args.files]
    found = {"ingest": ingests, "predict": predictions, "publish": publishes}
    measure.write_section("scale", report(measure.save("scale", found)))


def ingest(num_rows: int, overrides: Sequence[str], root: Path) -> dict[str, Any]:
    """The ingest stage on generated rows of the whole grammar."""
    say(f"scale: ingest of {num_rows:,} rows")
    source = f'dataset.source="generated://viggo?train={num_rows}&val=0&test=100&seed=7"'
    (record,), peaks = run(["pipeline=[ingest]", source, *overrides], root)
    return {
        "rows": num_rows,
        "rows_per_s": record.metrics["rows_per_s"],
        "stage_s": round(record.wall_s, 1),
        "driver_mib": peaks.driver_mib,
        "worker_mib": peaks.worker_mib,
    }


def predict(num_rows: int, overrides: Sequence[str], root: Path) -> dict[str, Any]:
    """Batch inference by the base model, of two tokens a row, and the scores of its predictions."""
    say(f"scale: infer and evaluate of {num_rows:,} rows")
    source = f'dataset.source="generated://viggo?train=4&val=0&test={num_rows}&seed=7"'
    given = ["pipeline=[ingest,infer,evaluate]", source, "infer.engine=own", "infer.sampling.max_tokens=2"]
    (_, infer, evaluate), peaks = run([*given, *overrides], root)
    return {
        "rows": num_rows,
        "infer_rows_per_s": infer.metrics["rows_per_s"],
        "infer_s": round(infer.wall_s, 1),
        "evaluate_s": round(evaluate.wall_s, 2),
        "driver_mib": peaks.driver_mib,
    }


def run(overrides: Sequence[str], root: Path) -> tuple[list[StageRecord], Peaks]:
    """The quickstart with the overrides: its stages' records, and the memory that it took."""
    given = ["recipe=viggo_quickstart", f"storage.root={root}", *overrides]
    root.mkdir(parents=True, exist_ok=True)
    with (root / "run.log").open("w") as log:
        driver = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "runner", *given], stdout=log, stderr=subprocess.STDOUT
        )
        peaks = Peaks(driver.pid)
        code = driver.wait()
        peaks.stop()
    if code:
        raise RuntimeError((root / "run.log").read_text()[-2000:])
    return Manifest.load((root / "latest").resolve()).stages, peaks


def publish(num_files: int, root: Path) -> dict[str, Any]:
    """The artifact store's part of publish, on a folder of files of 4 KiB."""
    say(f"scale: publish of {num_files:,} files")
    folder = root / "set"
    folder.mkdir(parents=True)
    for number in range(num_files):
        (folder / f"part-{number:06d}.json").write_bytes(os.urandom(4096))
    begin = time.perf_counter()
    artifact = scan_folder("set", folder)
    open_store(str(root / "store")).publish(artifact, "set", "set")
    elapsed = time.perf_counter() - begin
    return {"files": num_files, "files_per_s": round(num_files / elapsed), "seconds": round(elapsed, 2)}


class Peaks:
    """The most memory that a process and the workers below it have held, MiB."""

    def __init__(self, pid: int) -> None:
        self.driver_mib = self.worker_mib = 0
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._stop.wait(_POLL_S):
            self.driver_mib = max(self.driver_mib, _peak_mib(self._pid))
            self.worker_mib = max([self.worker_mib, *(_peak_mib(pid) for pid in _ray_workers(self._pid))])


def _ray_workers(driver: int) -> list[int]:
    parents, found = {}, []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(fields[1])
    for pid in parents:
        above = pid
        while above in parents and above != driver:
            above = parents[above]
        if above == driver and _name(pid).startswith("ray::"):
            found.append(pid)
    return found


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _peak_mib(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM")), 0)


def report(found: dict[str, Any]) -> str:
    """The tables as Markdown."""
    ingests = [
        {
            "rows": f"{row['rows']:,}",
            "rows/s": f"{row['rows_per_s']:,.0f}",
            "stage, s": row["stage_s"],
            "driver, MiB": row["driver_mib"],
            "largest worker, MiB": row["worker_mib"],
        }
        for row in found["ingest"]
    ]
    predictions = [
        {
            "rows": f"{row['rows']:,}",
            "infer, rows/s": f"{row['infer_rows_per_s']:.1f}",
            "infer, s": row["infer_s"],
            "evaluate, s": row["evaluate_s"],
            "driver, MiB": row["driver_mib"],
        }
        for row in found["predict"]
    ]
    publishes = [
        {"files": f"{row['files']:,}", "files/s": f"{row['files_per_s']:,}", "seconds": row["seconds"]}
        for row in found["publish"]
    ]
    return "\n\n".join(
        [
            measure.head("Growth", found),
            "Ingest of generated rows (rows/s: generating, checking and writing, without Ray's start and the model):",
            measure.table(ingests),
            "Batch inference by the base model, two tokens a row, and evaluation (rows/s: once the engine is ready):",
            measure.table(predictions),
            "Publishing files of 4 KiB into a local store, digests and fsync included:",
            measure.table(publishes),
        ]
    )


if __name__ == "__main__":
    main()
