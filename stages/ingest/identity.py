"""What the sources of rows and model are known by: their content where it is on this machine, else tags of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from runner.errors import RunnerError
from runner.storage.content import file_state, folder_state
from runner.storage.digest import digest_json
from stages.data.generated import named
from stages.data.sources import FILE_SOURCES, scheme_of
from stages.data.sources.fetch import open_files
from stages.data.sources.names import folder_of, split_names
from stages.models import gguf
from stages.models import obtain as models
from stages.models.vision import model_type_of_vision
from stages.sections.dataset import Dataset
from stages.sections.model import is_local
from stages.sections.recipe import Recipe

_PACKAGE = "package://"
_HERE = ("", "package")
_IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")


def rows_meaning(recipe: Recipe) -> dict[str, Any]:
    """What `dataset.source` and the keys that only some sources use stand for in a fingerprint."""
    dataset, meaning = recipe.dataset, dict[str, Any]()
    if scheme_of(dataset.source) == "generated":
        spec = asdict(named.parse_uri(dataset.source, recipe.seed))
        meaning |= {"dataset.source": {**spec, "kind": "generated"}, "dataset.files": None}
    elif scheme_of(dataset.source) in _HERE:
        meaning["dataset.source"] = _files_here(dataset, None if _takes_no_images(recipe) else _written_by_runs(recipe))
    if not dataset.source.startswith("s3://"):
        meaning["dataset.endpoint_url"] = None
    return meaning


def model_meaning(recipe: Recipe) -> dict[str, Any]:
    """What `model.source`, `model.revision` and the store's endpoint stand for in a fingerprint."""
    source, meaning = recipe.model.source, dict[str, Any]()
    if is_local(source):
        meaning["model.source"] = folder_state(Path(source).expanduser())  # templates lie in a folder of their own
    elif source.startswith(_PACKAGE):
        distribution, _, name = source.removeprefix(_PACKAGE).partition("/")
        meaning["model.source"] = {
            "source": source,
            "version": gguf.installed_version(distribution, gguf.ENVIRONMENT),
            "sha256": gguf.installed_hash(distribution, name, gguf.ENVIRONMENT),
        }
    if is_local(source) or "://" in source:
        meaning["model.revision"] = None
    if not source.startswith("s3://"):
        meaning["storage.endpoint_url"] = None
    return meaning


def looks(recipe: Recipe) -> dict[str, Callable[[], Any]]:
    """How to see over the network whether rows and model are still what they were, by key (see `LooksOutside`)."""
    dataset, model, found = recipe.dataset, recipe.model, dict[str, Callable[[], Any]]()
    scheme = scheme_of(dataset.source)
    if scheme == "hf":
        found["dataset.source"] = partial(_hub_rows_tag, dataset.source)
    elif scheme in FILE_SOURCES and scheme not in _HERE:
        found["dataset.source"] = partial(_file_tags, dataset)
    if model.source.startswith("s3://"):
        found["model.source"] = partial(models.s3_tag, model.source, recipe.storage.endpoint_url)
    elif "://" not in model.source and not is_local(model.source):
        found["model.source"] = partial(models.hub_tag, model.source, model.revision)
    return found


def _takes_no_images(recipe: Recipe) -> bool:
    """Whether the model takes no images, so that rows with any end the run. By what a run does not change."""
    model, published = recipe.model, recipe.model.architecture
    if is_local(model.source):
        folder = Path(model.source).expanduser()
        return (folder / "config.json").is_file() and model_type_of_vision(folder) is None
    return model.source.startswith(_PACKAGE) or (published is not None and published.of == model.source)


def _written_by_runs(recipe: Recipe) -> set[Path]:
    """Folders that runs write to, which may be next to the rows: their images are plots."""
    storage = recipe.storage
    here = (path for path in (storage.root, storage.artifacts, storage.cache) if "://" not in path)
    return {Path(path).expanduser().absolute() for path in here}


def _files_here(dataset: Dataset, not_rows: Collection[Path] | None) -> dict[str, Any]:
    """The content of each file that the dataset names, by its name. not_rows: folders without images of rows; None: the
    rows have none, and the folder, which may be a whole home, is not searched for them."""
    states: dict[str, Any] = {}
    for pattern in _patterns(dataset):
        with suppress(RunnerError):  # ingest says it
            files = open_files(dataset.source, None, False)
            for name in files.find(pattern):
                here = files.local(name)
                states[name] = file_state(here) if here else None
    if not scheme_of(dataset.source) and not_rows is not None:
        images = _images_here(Path(folder_of(dataset.source)).expanduser().absolute(), not_rows)
        states |= {"images": digest_json(images)} if images else {}
    return dict(sorted(states.items()))


def _images_here(folder: Path, not_rows: Collection[Path]) -> list[list[Any]]:
    """Name, size and time of change of each image below the folder, which rows may name. not_rows: folders that are
    left out, unless the folder is below one."""
    found = []
    for below, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and Path(below, name) not in not_rows)
        for path in (Path(below, name) for name in sorted(names) if name.lower().endswith(_IMAGES)):
            with suppress(OSError):
                stat = path.stat()
                found.append([path.relative_to(folder).as_posix(), stat.st_size, stat.st_mtime_ns])
    return found


def _file_tags(dataset: Dataset) -> dict[str, str | None]:
    files = open_files(dataset.source, dataset.endpoint_url, dataset.anonymous)
    names = {name for pattern in _patterns(dataset) for name in files.find(pattern)}
    return {name: tag for name in sorted(names) if (tag := files.tag(name))}


def _patterns(dataset: Dataset) -> set[str]:
    return {each for patterns in split_names(dataset).values() for each in patterns}


def _hub_rows_tag(source: str) -> str | None:
    from stages.data.sources.hub import commit

    return commit(source)
