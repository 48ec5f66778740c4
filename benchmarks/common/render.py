"""Write the sections of RESULTS.md again from the figures in `results/`, whichever machine they came from.

python -m benchmarks.render [NAME ...]
"""

from __future__ import annotations

import argparse
import importlib
import json

from benchmarks.common import measure


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("names", nargs="*", help="such as train-7b-gpu (default: all)")
    wanted = options.parse_args().names
    for path in sorted((measure.HERE / "results").glob("*.json")):
        if wanted and path.stem not in wanted:
            continue
        name, _, kind = path.stem.rpartition("-")
        module = importlib.import_module(f"benchmarks.{name.partition('-')[0]}")
        document = json.loads(path.read_text(encoding="utf-8"))
        measure.write_section(name, module.report(document), gpu=kind == "gpu")


if __name__ == "__main__":
    main()
