"""Limits of a recipe file, looked at before anything makes objects of it.

An alias in YAML costs a few bytes, and whoever copies what it stands for copies it whole: ten lines of ten aliases
each are ten billion values. Deep nesting ends in a stack overflow.
"""

from __future__ import annotations

<<<<<<< HEAD
=======
import os
from collections.abc import Iterator
from pathlib import Path

>>>>>>> 72e7ad2 (Silent ends speak: a disk that is full or cannot be written to, an address that does not answer, a lost head, a long TMPDIR; limits of YAML hold behind links; the trust model on one page)
import yaml

MAX_BYTES = 1 << 20
MAX_VALUES = 100_000
MAX_DEPTH = 64


<<<<<<< HEAD
def why_refused(text: str) -> str:
    """What is too large or too deep in the text of a YAML file, or "". Raises YAMLError for text that is no YAML."""
=======
def refused_files(folder: Path) -> list[Problem]:
    """A problem for every YAML file below the folder that is too large, too deep, or grows too large by its aliases."""
    found = ((file, why_refused(file)) for file in sorted(_recipe_files(folder)))
    hint = "Write it shorter; data belongs into a dataset."
    return [Problem("", None, f"a recipe file {why}", hint, str(file)) for file, why in found if why]


def _recipe_files(folder: Path) -> Iterator[Path]:
    """The YAML files below the folder, and below the folders that links lead to: Hydra follows them too."""
    seen: set[tuple[int, int]] = set()
    for name, folders, files in os.walk(folder, followlinks=True):
        stat = Path(name).stat()
        if (stat.st_dev, stat.st_ino) in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        yield from (Path(name, file) for file in files if file.endswith(".yaml"))


def why_refused(file: Path) -> str:
    """What is wrong with the file, or "". A file that is no YAML is left to whoever composes it."""
    try:
        if file.exists() and not file.is_file():
            return "is not a regular file"
        if file.stat().st_size > MAX_BYTES:
            return f"has {file.stat().st_size} bytes; there may be {MAX_BYTES}"
        return _why_refused(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return ""


def _why_refused(text: str) -> str:
>>>>>>> 72e7ad2 (Silent ends speak: a disk that is full or cannot be written to, an address that does not answer, a lost head, a long TMPDIR; limits of YAML hold behind links; the trust model on one page)
    sizes: dict[str, int] = {}  # anchor -> values that an alias to it stands for
    above: list[tuple[str | None, int]] = []  # of each open collection: its anchor, values so far
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            above.append((event.anchor, 1))
            if len(above) > MAX_DEPTH:
                return f"is nested more than {MAX_DEPTH} levels deep"
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, size = above.pop()
        elif isinstance(event, yaml.AliasEvent):
            anchor, size = None, sizes.get(event.anchor or "", 1)
        elif isinstance(event, yaml.ScalarEvent):
            anchor, size = event.anchor, 1
        else:
            continue
        if anchor is not None:
            sizes[anchor] = size
        if above:
            above[-1] = (above[-1][0], above[-1][1] + size)
        if size > MAX_VALUES or (above and above[-1][1] > MAX_VALUES):
            return f"stands for more than {MAX_VALUES} values, with its aliases written out"
    return ""
