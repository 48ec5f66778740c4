"""What the train stage's task does before the workers start, in the environment that they run in.

python -m benchmarks.bare_tokens FILE, a pickle of the trainer's function, the recipe, and the folders that it is given.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path


def main(file: Path) -> None:
    prepare, recipe, *folders = pickle.loads(file.read_bytes())  # noqa: S301
    prepare(recipe, *folders)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
