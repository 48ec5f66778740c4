"""What `data=` names: the source and files of a recipe's dataset, with the splits that files' names tell."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from runner.errors import RunnerError, nearest
from stages.data.sources import SCHEMES, scheme_of
from stages.data.sources.base import is_pattern
from stages.data.sources.fetch import open_files
from stages.data.split_column import SPLIT_WORDS
from stages.sections.dataset import data_file

_MOST_NAMED = 20
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_PACKED = (".gz", ".gzip", ".zst", ".zstd", ".bz2", ".xz", ".zip")


@dataclass(frozen=True)
class Found:
    """source: `dataset.source`. files: `dataset.files`, empty where the source is its one file.

    name: what the data is called. remarks: about files that are left out.
    """

    source: str
    files: dict[str, tuple[str, ...]]
    name: str
    remarks: list[str] = field(default_factory=list)

    @property
    def splits(self) -> dict[str, tuple[str, ...]]:
        """The files of each split, also of a source that is one file."""
        return self.files or {"train": (data_file(self.source) or "train",)}


def find_data(data: str) -> Found:
    """The files of `data`: a file, a folder, a pattern, or an address. Raises RunnerError when there are none."""
    scheme = scheme_of(data)
    if not scheme:
        return _local(data)
    if scheme == "generated" or scheme not in SCHEMES:
        known = ", ".join(f"{each}://" for each in SCHEMES if each not in ("http", "generated"))
        raise RunnerError(f"data={data} is not an address of rows", f"Give a file, a folder, a pattern, or {known}.")
    if scheme == "hf" or data_file(data):
        last = data.partition("?")[0].rstrip("/").rpartition("/")[2]
        return Found(data, {}, stem(last))
    names = _listed(data, "*")
    return _of_names(data, names, stem(data.rstrip("/").rpartition("/")[2]))


def stem(name: str) -> str:
    """A file's name without what says its form, and which of how many it is."""
    while (suffix := Path(name).suffix) and data_file(f"x{suffix}" if suffix not in _PACKED else f"x.csv{suffix}"):
        name = name.removesuffix(suffix)
    return _SHARD.sub("", name) or name


def _local(data: str) -> Found:
    path = Path(data).expanduser()
    parts = path.parts[: next((at for at, part in enumerate(path.parts) if is_pattern(part)), len(path.parts))]
    if path.is_file():
        source = portable(path)
        if data_file(source):
            return Found(source, {}, stem(path.name))
        return Found(portable(path.parent), {"train": (path.name,)}, stem(path.name))
    if path.is_dir():
        source = portable(path)
        return _of_names(source, _listed(source, "*"), path.resolve().name)
    if is_pattern(data):
        folder, pattern = Path(*parts), "/".join(path.parts[len(parts) :])
        source = portable(folder)
        return _of_names(source, _listed(source, pattern), folder.resolve().name, pattern)
    raise RunnerError(f"data={data}: there is no such file or folder ({path.absolute()})", _instead(data, path))


def _instead(data: str, path: Path) -> str:
    there = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
    if guess := nearest(path.name, there):
        return f"Did you mean {path.parent / guess}?"
    if _HUB_ID.fullmatch(data):
        return f"For a dataset of the hub write data=hf://{data}."
    return "Give a file, a folder, a pattern such as 'data/*.jsonl', hf://org/name, or s3://bucket/folder."


def _listed(source: str, pattern: str) -> list[str]:
    """The files below the source. Raises RunnerError in the words of `data=`."""
    try:
        return open_files(source, None, False).find(pattern)
    except RunnerError as error:
        hint = "Name a CSV, JSON Lines, JSON, Parquet, Arrow or text file, or a folder of them."
        raise RunnerError(error.message.replace("dataset.source=", "data: "), hint) from error


def portable(path: Path) -> str:
    """The path as a recipe names it: relative where it is below the current folder."""
    absolute = path.absolute()
    return absolute.relative_to(Path.cwd()).as_posix() if absolute.is_relative_to(Path.cwd()) else str(absolute)


def _of_names(source: str, names: Sequence[str], name: str, pattern: str = "") -> Found:
    """The files of a folder by split. Raises RunnerError when none holds rows, or none can be trained on."""
    rows = [each for each in names if _may_hold_rows(each)]
    if not rows:
        shown = ", ".join(names[:10]) or "nothing"
        raise RunnerError(f"data: {source} has no file of rows; it holds: {shown}", "Name a CSV, JSON or Parquet file.")
    form = _richest(rows)
    kept = [each for each in rows if _form(each) == form]
    splits: dict[str, list[str]] = {}
    for each in kept:
        splits.setdefault(_split_of(each), []).append(each)
    if "train" in splits:
        kept = [each for each in kept if each not in splits.pop("", [])]
    else:
        splits["train"] = splits.pop("", [])
    if not splits["train"]:
        shown = ", ".join(kept[:10])
        raise RunnerError(f"data: {source} has no file to train on; it holds: {shown}", "Name the file of the rows.")
    left = [each for each in rows if each not in kept]
    remarks = [f"left out of {source}: {', '.join(left[:10])}{', ...' if len(left) > 10 else ''}"] if left else []
    remarks += _texts_by_folder(kept) if form == "text" else []
    files = {split: _named(each, kept, pattern) for split, each in splits.items()}
    return Found(source, files, name or "data", remarks)


def _texts_by_folder(names: Sequence[str]) -> list[str]:
    """What to know of text files in several folders, which may be meant as their labels."""
    folders = sorted({name.rpartition("/")[0] for name in names} - {""})
    if len(folders) < 2:
        return []
    shown = f"{', '.join(folders[:5])}{', ...' if len(folders) > 5 else ''}"
    return [f"each line of the text files is a row, and the folders ({shown}) are not its label: to learn labels, "
            "write a CSV with the columns text and label"]  # fmt: skip


def _may_hold_rows(name: str) -> bool:
    base = name.rpartition("/")[2]
    hidden = any(part.startswith((".", "_")) for part in name.split("/"))
    return data_file(base) is not None and not hidden and not base.endswith(".schema.json")


def _form(name: str) -> str:
    suffixes = [each.lower() for each in Path(name).suffixes if each.lower() not in _PACKED]
    return {".txt": "text", ".text": "text"}.get(suffixes[-1] if suffixes else "", suffixes[-1] if suffixes else "")


def _richest(names: Sequence[str]) -> str:
    """A form of rows rather than text files, such as a README next to them."""
    forms = Counter(map(_form, names))
    return max(forms, key=lambda form: (form != "text", forms[form]))


def _split_of(name: str) -> str:
    words = set(re.split(r"[^a-z]+", stem(name).lower()))
    return next((split for split, known in SPLIT_WORDS.items() if words.intersection(known)), "")


def _named(names: Sequence[str], kept: Sequence[str], pattern: str) -> tuple[str, ...]:
    """Names one by one; a pattern where it means the same files and they are many, or the user gave it."""
    if len(names) == len(kept) and pattern:
        return (pattern,)
    if len(names) == len(kept) > _MOST_NAMED and len({Path(each).suffix for each in names}) == 1:
        return (f"*{Path(names[0]).suffix}",)
    return tuple(names)
