"""Rules about where rows come from: addresses, files that are there and can be read, and splits."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from runner.errors import Problem, RunnerError, nearest
from runner.storage import s3
from runner.storage.store import checked_key
from stages.data.generated.named import parse_uri
from stages.data.look import first_row, look_at
from stages.data.prompt import has
from stages.data.prompt import names as shown_names
from stages.data.readers.json_document import splits_in
from stages.data.readers.sniff import sniff
from stages.data.sources import SCHEMES
from stages.data.sources.base import is_pattern
from stages.data.sources.fetch import OWN_FILES_HINT, shared_files
from stages.data.sources.hub import parse_address
from stages.data.sources.local import LocalFiles
from stages.data.sources.names import folder_of, scheme_of, split_names
from stages.data.split_column import SPLIT_WORDS
from stages.sections.dataset import HeldOut
from stages.sections.recipe import Recipe

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # lenient: old buckets and other makers' stores have other rules
_LOOPBACK = re.compile(r"http://(127\.0\.0\.1|localhost|\[::1\])[:/]")
_HOSTS = re.compile(r"https://(huggingface\.co|github\.com)/")
_HUB_PAGE = re.compile(r"https://huggingface\.co/datasets/([\w.-]+/[\w.-]+)(/|/tree/.*|/viewer.*)?")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]")
_PART = re.compile(r"\[\d*%?:\d*%?\]")
"""A part of a split in the words of the `datasets` library: train[:80%]."""
_USERS = {"train": ("train",), "test": ("infer", "query")}


def dataset_source_is_readable(recipe: Recipe) -> Iterator[Problem]:
    source, scheme = recipe.dataset.source, scheme_of(recipe.dataset.source)
    if scheme == "generated":
        yield from _generated(recipe)
    elif scheme == "s3":
        yield from s3_address("dataset.source", folder_of(source))
    elif scheme == "http" and not _LOOPBACK.match(source):
        yield Problem("dataset.source", source, "is not encrypted", "Write https://.")
    elif scheme == "hf":
        yield from _hub(source)
    elif scheme == "https":
        yield from _page(source)
    elif scheme == "file":
        path = source.removeprefix("file://")
        yield Problem("dataset.source", source, "is a file:// address", f"Write the path alone: {path}")
    elif scheme and scheme not in SCHEMES:
        guess = nearest(scheme, SCHEMES)
        hint = f"Did you mean {guess}://?" if guess else "Give one of these."
        known = ", ".join(f"{each}://" for each in SCHEMES if each != "http")
        message = f"has the unknown scheme {scheme}://; there are: {known}, and local folders"
        yield Problem("dataset.source", source, message, hint)
    elif not scheme and recipe.cluster.address is None:
        yield from _local_files(recipe)


def _page(source: str) -> Iterator[Problem]:
    """Pages for people, about a dataset or a file, instead of the file."""
    if "/blob/" in source and (host := _HOSTS.match(source)):
        part = "resolve" if host[1] == "huggingface.co" else "raw"
        message, hint = "is a page about a file", f"Write {source.replace('/blob/', f'/{part}/', 1)}"
        yield Problem("dataset.source", source, message, hint)
    elif found := _HUB_PAGE.fullmatch(source):
        yield Problem("dataset.source", source, "is the page of a dataset", f"Write hf://{found[1]}")


def _hub(source: str) -> Iterator[Problem]:
    try:
        parse_address(source)
    except (RunnerError, TypeError) as error:
        yield Problem("dataset.source", source, str(error), getattr(error, "hint", ""))


def s3_address(key: str, uri: str) -> Iterator[Problem]:
    """Problems of an s3:// address."""
    try:
        bucket, _ = s3.split_uri(uri)
    except RunnerError as error:
        yield Problem(key, uri, error.message, error.hint)
        return
    if not _BUCKET.fullmatch(bucket):
        message = f"names the bucket {bucket!r}, which has other characters than letters, digits, '.', '-' and '_'"
        yield Problem(key, uri, message, "Write s3://bucket/prefix.")


def _generated(recipe: Recipe) -> Iterator[Problem]:
    source = recipe.dataset.source
    try:
        spec = parse_uri(source)
    except (RunnerError, ValueError) as error:
        yield Problem("dataset.source", source, str(error), getattr(error, "hint", ""))
        return
    for split, users in _USERS.items():
        if spec.num_rows(split) == 0 and (stages := [name for name in users if name in recipe.pipeline]):  # type: ignore[arg-type]
            message = f"generates no {split} rows, which {stages[0]} needs"
            yield Problem("dataset.source", source, message, f"Give {split}=100 or so in its query.")


def splits_stay_in_their_source(recipe: Recipe) -> Iterator[Problem]:
    for split, names in split_names(recipe.dataset).items():
        if not names:
            hint = f"Name a file, or set dataset.files.{split}=null."
            yield Problem(f"dataset.files.{split}", [], "is a list without a file", hint)
        for name in names:
            try:
                checked_key(name.rstrip("/"))
            except RunnerError as error:
                yield Problem(f"dataset.files.{split}", name, "is not a path below dataset.source", error.hint)


def _local_files(recipe: Recipe) -> Iterator[Problem]:
    """Only for a cluster that is started here: another one may see other folders."""
    source = recipe.dataset.source
    files = LocalFiles(source)
    if not files.folder.is_dir() or _WINDOWS.match(source):
        message, hint = _no_folder(source, files.folder)
        yield Problem("dataset.source", source, message, hint)
        return
    patterns = split_names(recipe.dataset)
    for split, names in patterns.items():
        for name in names:
            yield from _local_file(files, split, name)
    with suppress(RunnerError):
        found = {split: [each for name in names for each in files.find(name)] for split, names in patterns.items()}
        for split, name, other in shared_files(patterns, found):
            message = f"means {name}, which is the file of {other} too"
            yield Problem(f"dataset.files.{split}", list(patterns[split]), message, OWN_FILES_HINT)


def _no_folder(source: str, folder: Path) -> tuple[str, str]:
    """Why the source is not a folder of rows, and what to do."""
    if folder.is_file():
        try:
            sniff(folder, folder.name)
        except RunnerError as error:
            return error.message.removeprefix(f"{folder.name} "), error.hint
        words = "is a file whose name does not end as those of rows do"
        return words, f"Name its folder, and dataset.files.train={folder.name}."
    if _WINDOWS.match(source):
        return "is a path of Windows, which this machine does not have", "Write the path as this machine has it."
    more = f" For a dataset of the hub write hf://{source}." if _HUB_ID.fullmatch(source) else ""
    return f"is not a folder of this machine: {folder}", f"Correct the path.{more}"


def _local_file(files: LocalFiles, split: str, name: str) -> Iterator[Problem]:
    key, folder = f"dataset.files.{split}", files.folder
    hint = _instead(files, split)
    try:
        files.checked(name)
    except RunnerError as error:
        yield Problem(key, name, error.message, error.hint)
        return
    if not is_pattern(name) and not (folder / name).is_file():
        if (folder / name).is_dir():
            yield Problem(
                key, name, f"is a folder in {folder}, not a file", f"Write {name.rstrip('/')}/* for its files."
            )
            return
        there = ", ".join(sorted(item.name for item in folder.iterdir())[:10]) or "nothing"
        if "," in name:
            hint = "Write several names as a list: [a.jsonl, b.jsonl]."
        yield Problem(key, name, f"is not a file in {folder}, which holds: {there}", hint)
        return
    try:
        found = files.find(name)
        for each in found:
            sniff(files.checked(each), each)
        look_at(folder / found[0], found[0], split)
    except (RunnerError, OSError) as error:
        hint = getattr(error, "hint", "") or "Correct the file's permissions."
        if _PART.search(name):
            hint = "Name the file; dataset.split holds rows out of it, and dataset.max_rows takes some of them."
        yield Problem(key, name, str(error), hint)


def _instead(files: LocalFiles, split: str) -> str:
    """What to write, by the names of the files that are there."""
    words = re.compile(rf"(.*[^a-z]|)({'|'.join(SPLIT_WORDS[split])})([^a-z].*|)", re.IGNORECASE)
    there = [each for each in files.all() if words.fullmatch(each)]
    if not there:
        return f"Name the split's file, or set dataset.files.{split}=null."
    pattern = re.sub(r"\d{5}-of-\d{5}", "*", there[0])
    named = pattern if len(there) > 1 and all(fnmatch.fnmatchcase(each, pattern) for each in there) else there[0]
    return f"Set dataset.files.{split}={named} where that is it, or null for none."


def needed_splits_have_files(recipe: Recipe) -> Iterator[Problem]:
    dataset = recipe.dataset
    if dataset.source.startswith("generated://"):
        return
    for split, users in _USERS.items():
        stages = [name for name in users if name in recipe.pipeline]
        rule = dataset.split
        held_out = rule is not None and (rule.column or getattr(rule, split, None)) is not None
        if stages and getattr(dataset.files, split) is None and not held_out:
            message = f"is null, but {stages[0]} needs the {split} rows"
            hint = f"Name the file, or take {stages[0]} out of pipeline."
            if split == "test":
                hint = "Name the file, or hold out a share of the training rows with dataset.split.test=0.1."
            yield Problem(f"dataset.files.{split}", None, message, hint)


def held_out_splits_have_no_file(recipe: Recipe) -> Iterator[Problem]:
    """A split comes from its files or from the training rows."""
    dataset, rule = recipe.dataset, recipe.dataset.split
    if rule is None:
        return
    if dataset.source.startswith("generated://"):
        hint = "Give val= and test= in its query, or remove dataset.split."
        yield Problem("dataset.split", None, "holds rows out, and generated:// has splits of its own", hint)
        return
    if rule.column is not None:
        yield from _by_column(recipe, rule)
        return
    if rule.values:
        message = "says what values of a column mean, and dataset.split.column names none"
        yield Problem("dataset.split.values", rule.values, message, "Set dataset.split.column to the column.")
    if rule.val is None and rule.test is None:
        yield Problem("dataset.split", None, "names no split", "Set dataset.split.test=0.1, for example.")
    shares = [share for share in (rule.val, rule.test) if isinstance(share, float)]
    if sum(shares) >= 1:
        yield Problem("dataset.split", shares, "leaves no training rows", "Give shares that are below 1 in all.")
    yield from _columns_of_split(recipe, rule)
    for split in ("val", "test"):
        name = getattr(dataset.files, split)
        if getattr(rule, split) is not None and name is not None:
            message = f"stands next to dataset.files.{split}={name}: a split is a file or is held out"
            yield Problem(f"dataset.split.{split}", getattr(rule, split), message, f"Set dataset.files.{split}=null.")


def _columns_of_split(recipe: Recipe, rule: HeldOut) -> Iterator[Problem]:
    """The rows have the columns of groups and strata."""
    row = first_row(recipe, "train")
    for key, name in (("by", None if rule.by == "hash" else rule.by), ("stratify", rule.stratify)):
        if row and name is not None and not has(row, name):
            guess = nearest(name, row)
            hint = f"Did you mean {guess}?" if guess else "Name one of these."
            message = f"is a column that the rows lack; they have: {shown_names(sorted(row))}"
            yield Problem(f"dataset.split.{key}", name, message, hint)


def _by_column(recipe: Recipe, rule: HeldOut) -> Iterator[Problem]:
    """A column that names splits decides alone, and the rows have it."""
    defaults = HeldOut().model_dump()
    for name, value in rule.model_dump(include={"val", "test", "by", "stratify", "seed"}).items():
        if value != defaults[name]:
            message = f"stands next to dataset.split.column={rule.column}, which names each row's split"
            yield Problem(f"dataset.split.{name}", value, message, f"Remove dataset.split.{name}, or column.")
    for split in ("val", "test"):
        if (file := getattr(recipe.dataset.files, split)) is not None:
            message = f"is a file of its own, and dataset.split.column={rule.column} names the split of each row"
            yield Problem(f"dataset.files.{split}", file, message, f"Set dataset.files.{split}=null.")
    row = first_row(recipe, "train")
    if row and not has(row, rule.column or ""):
        guess = nearest(rule.column or "", row)
        hint = f"Did you mean {guess}?" if guess else "Name one of these."
        message = f"is a column that the rows lack; they have: {shown_names(sorted(row))}"
        yield Problem("dataset.split.column", rule.column, message, hint)


def _has_both(recipe: Recipe, name: str, splits: set[str]) -> bool:
    """Whether the file has the rows of each of these splits under the split's name, or splits have no file."""
    if recipe.dataset.source.startswith("generated://"):
        return True
    with suppress(RunnerError, OSError):
        path = LocalFiles(recipe.dataset.source).checked(name)
        form = sniff(path, name)
        return form.kind == "json" and splits <= splits_in(path, name, form)
    return False


def splits_have_files_of_their_own(recipe: Recipe) -> Iterator[Problem]:
    """The same file for two splits scores what was trained."""
    seen: dict[str, str] = {}
    for split, names in split_names(recipe.dataset).items():
        for name in names:
            other = seen.setdefault(name, split)
            if other != split and not _has_both(recipe, name, {split, other}):
                message = f"is the file of {other} too, so what is trained would be scored"
                hint = "Name another file, or set it to null and hold rows out with dataset.split."
                yield Problem(f"dataset.files.{split}", name, message, hint)


RULES = (
    splits_stay_in_their_source,
    dataset_source_is_readable,
    needed_splits_have_files,
    held_out_splits_have_no_file,
    splits_have_files_of_their_own,
)
