"""What a source's address says: its scheme, its folder, and the file of a source that is one file. No I/O."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from stages.sections.dataset import Dataset, data_file


def scheme_of(source: str) -> str:
    """`s3` of `s3://bucket`; "" of a local path."""
    return source.partition("://")[0].lower() if "://" in source else ""


def folder_of(source: str) -> str:
    """The folder of the source's files: its parent where it is one file. A query is left out."""
    name = data_file(source)
    if name is None:
        return source
    if not scheme_of(source):
        return str(Path(source).expanduser().parent)
    return source.partition("?")[0].rpartition("/")[0]


def split_names(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    """The files' names or patterns of each split that the dataset has; splits held out of others are not among them."""
    found = {}
    for split in ("train", "val", "test"):
        value = getattr(dataset.files, split)
        if value is not None:
            found[split] = tuple(name.removeprefix("./") for name in ([value] if isinstance(value, str) else value))
    return found


def shown_name(url: str) -> str:
    """The file's name in a URL."""
    return unquote(urlsplit(url).path.rpartition("/")[2])
