"""What it costs to verify files by content: the first time on a machine, and when they have not changed since.

    python -m benchmarks.verify
    python -m benchmarks.verify --files 8 --mib 1024

A core's rate is bytes by CPU seconds of all threads, which other programs on the machine disturb little.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import measure
from runner.storage.artifact import Artifact, FileEntry
from runner.storage.digest import digest_file
from runner.storage.verify import Digests, damage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=4, help="files of the artifact (default 4)")
    parser.add_argument("--mib", type=int, default=256, help="size of each (default 256)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        artifact = written(Path(folder) / "made", args.files, args.mib)
        first = timed(artifact, Path(folder) / "digests")
        again = timed(artifact, Path(folder) / "digests")
    found = {"overrides": [], "num_files": args.files, "mib": args.mib, "first": first, "again": again}
    measure.write_section("verify", report(measure.save("verify", found)))


def written(folder: Path, num_files: int, mib: int) -> Artifact:
    """An artifact of random files."""
    folder.mkdir()
    entries = []
    for number in range(num_files):
        path = folder / f"{number}.bin"
        with path.open("wb") as file:
            for _ in range(mib):
                file.write(os.urandom(1 << 20))
        entries.append(FileEntry(path=path.name, size_bytes=path.stat().st_size, sha256=digest_file(path)))
    return Artifact(name="made", uri=str(folder), sha256="", files=entries)


def timed(artifact: Artifact, memory: Path) -> dict[str, float]:
    """Wall and CPU seconds of one verification."""
    wall, cpu = time.perf_counter(), time.process_time()
    assert damage(artifact, Digests(memory)) == ""
    return {"wall_s": round(time.perf_counter() - wall, 4), "cpu_s": round(time.process_time() - cpu, 4)}


def report(found: dict[str, Any]) -> str:
    """The costs as Markdown."""
    gigabytes = found["num_files"] * found["mib"] * (1 << 20) / 1e9
    rows = [
        {
            "verified": f"{gigabytes:.2f} GB in {found['num_files']} files, {when}",
            "wall, s": f"{found[key]['wall_s']:.3f}",
            "CPU, s": f"{found[key]['cpu_s']:.3f}",
            "GB/s a core": f"{gigabytes / found[key]['cpu_s']:.2f}" if key == "first" else "",
        }
        for key, when in (("first", "first on this machine"), ("again", "not changed since"))
    ]
    return "\n\n".join([measure.head("Verification of files", found), measure.table(rows)])


if __name__ == "__main__":
    main()
