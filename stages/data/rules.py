"""Rules about where data and models come from and where artifacts go, and about the prompt."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from runner.errors import Problem, RunnerError, nearest
from runner.recipe.schema import Recipe
from runner.storage import s3
from runner.storage.store import checked_key
from stages.data.generated.grammar import GrammarSpec, parse_uri
from stages.data.prompt import columns
from stages.data.rows import PROMPTED_STAGES, RAW_COLUMNS
from stages.models.obtain import is_local

_GENERATED_COLUMNS = frozenset({"instruction", "input", "output"})
_FIRST_ROW_BYTES = 1 << 20
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # lenient: old buckets and other makers' stores have other rules
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_PACKAGE = re.compile(r"(?!.*\.\.)package://[A-Za-z0-9][\w.-]*/[\w./-]+\.gguf")
_SPLIT_USERS = {"train": ("train",), "test": ("infer", "query")}


def prompt_templates_parse(recipe: Recipe) -> Iterator[Problem]:
    for name in ("system", "user", "assistant"):
        template = getattr(recipe.dataset.prompt, name)
        if template is None:
            continue
        try:
            used = columns(template)
        except RunnerError as error:
            yield Problem(f"dataset.prompt.{name}", template, error.message, error.hint)
            continue
        if name != "system" and not used:
            yield Problem(
                f"dataset.prompt.{name}",
                template,
                "names no column of the row, so every row would be the same",
                "Name a column in braces, such as {input}.",
            )


def prompt_is_whole(recipe: Recipe) -> Iterator[Problem]:
    """Messages come from the templates or from a column, not from both and not from half of one."""
    prompt = recipe.dataset.prompt
    templates = {"user": prompt.user, "assistant": prompt.assistant}
    for name, template in templates.items():
        if prompt.conversations is None and template is None:
            hint = f"Add dataset.prompt.{name}=..., or name the column of messages in dataset.prompt.conversations."
            yield Problem(f"dataset.prompt.{name}", None, "is required and was not given", hint)
    given = [f"dataset.prompt.{name}" for name, template in templates.items() if template is not None]
    if prompt.conversations is not None and given:
        message = f"stands beside {' and '.join(given)}: a row's messages are either there or made by these"
        hint = f"Set {' and '.join(f'{name}=null' for name in given)}, or remove conversations."
        yield Problem("dataset.prompt.conversations", prompt.conversations, message, hint)


def prompt_columns_exist(recipe: Recipe) -> Iterator[Problem]:
    """Where the rows can be seen without a network: generated ones, and the first of a local file."""
    there = _columns_of(recipe, "train") if recipe.train.stage in PROMPTED_STAGES else None
    there = there or _columns_of(recipe, "test")
    for name in ("system", "user", "assistant", "conversations"):
        template = getattr(recipe.dataset.prompt, name)
        try:
            used = {template} - {None} if name == "conversations" else columns(template or "")
        except RunnerError:
            continue  # reported by prompt_templates_parse
        if "id" in used:
            message = "takes the column 'id', which the runner numbers itself"
            yield Problem(f"dataset.prompt.{name}", template, message, "Give the column another name.")
            continue
        missing = sorted(used - there) if there else []
        if there and missing:
            guess = nearest(missing[0], there)
            message = f"takes {_names(missing)}, which the rows lack; they have: {', '.join(sorted(there))}"
            near = guess if name == "conversations" else f"{{{guess}}}"
            hint = f"Did you mean {near}?" if guess else "Name one of these, or write {{ }} for braces."
            yield Problem(f"dataset.prompt.{name}", template, message, hint)


def training_columns_exist(recipe: Recipe) -> Iterator[Problem]:
    """Rows of stages that no prompt is written for (dpo, kto, ...) have columns of their own."""
    stage, there = recipe.train.stage, _columns_of(recipe, "train")
    if "train" not in recipe.pipeline or stage in PROMPTED_STAGES or there is None:
        return
    wanted = RAW_COLUMNS[stage][recipe.dataset.format == "sharegpt"]
    missing = sorted({column for use, column in wanted.items() if use != "query"} - there)
    if missing:
        message = f"takes rows with {_names(missing)}, which they lack; they have: {', '.join(sorted(there))}"
        yield Problem("train.stage", stage, message, "Give other data, or set train.stage=sft.")


def _names(names: list[str]) -> str:
    return f"the column{'s' if len(names) > 1 else ''} {' and '.join(map(repr, names))}"


def _columns_of(recipe: Recipe, split: str) -> frozenset[str] | None:
    source, name = recipe.dataset.source, getattr(recipe.dataset.files, split)
    if source.startswith("generated://"):
        return _GENERATED_COLUMNS
    path = Path(source).expanduser() / (name or "")
    if "://" in source or not path.is_file():
        return None
    with path.open("rb") as file:
        line = file.readline(_FIRST_ROW_BYTES)
    try:
        row = json.loads(line)
    except ValueError:
        return None  # ingest reports bad rows, each with its line
    return frozenset(row) if isinstance(row, dict) else None


def dataset_source_is_readable(recipe: Recipe) -> Iterator[Problem]:
    source = recipe.dataset.source
    if source.startswith("generated://"):
        yield from _generated(recipe)
    elif source.startswith("s3://"):
        yield from _s3_address("dataset.source", source)
    elif source.startswith("http://") and not re.match(r"http://(127\.0\.0\.1|localhost|\[::1\])[:/]", source):
        yield Problem("dataset.source", source, "is not encrypted", "Write https://.")
    elif "://" in source and not source.startswith(("https://", "http://")):
        scheme = source.partition("://")[0]
        guess = nearest(scheme, ("s3", "https", "generated"))
        hint = f"Did you mean {guess}://?" if guess else "Give one of these."
        message = f"has the unknown scheme {scheme}://; there are: s3://, https://, generated://, and local folders"
        yield Problem("dataset.source", source, message, hint)
    elif "://" not in source and recipe.cluster.address is None:
        yield from _local_files(recipe, Path(source).expanduser())


def _generated(recipe: Recipe) -> Iterator[Problem]:
    source = recipe.dataset.source
    try:
        spec: GrammarSpec = parse_uri(source)
    except (RunnerError, ValueError) as error:
        yield Problem("dataset.source", source, str(error), getattr(error, "hint", ""))
        return
    for split, users in _SPLIT_USERS.items():
        if spec.num_rows(split) == 0 and (stages := [name for name in users if name in recipe.pipeline]):  # type: ignore[arg-type]
            yield Problem(
                "dataset.source",
                source,
                f"generates no {split} rows, which {stages[0]} needs",
                f"Give {split}=100 or so in its query.",
            )


def splits_stay_in_their_source(recipe: Recipe) -> Iterator[Problem]:
    for split in ("train", "val", "test"):
        name = getattr(recipe.dataset.files, split)
        if name is not None:
            try:
                checked_key(name)
            except RunnerError as error:
                yield Problem(f"dataset.files.{split}", name, "is no path below dataset.source", error.hint)


def _local_files(recipe: Recipe, folder: Path) -> Iterator[Problem]:
    """Only for a cluster that is started here: another one may see other folders."""
    if not folder.is_dir():
        message = f"is no folder of this machine: {folder.absolute()}"
        yield Problem("dataset.source", recipe.dataset.source, message, "Correct the path.")
        return
    for split in ("train", "val", "test"):
        name = getattr(recipe.dataset.files, split)
        if name is not None and not (folder / name).is_file():
            there = ", ".join(sorted(item.name for item in folder.iterdir())[:10]) or "nothing"
            message = f"is no file in {folder}, which holds: {there}"
            hint = f"Name the split's file, or set dataset.files.{split}=null."
            yield Problem(f"dataset.files.{split}", name, message, hint)


def needed_splits_have_files(recipe: Recipe) -> Iterator[Problem]:
    if recipe.dataset.source.startswith("generated://"):
        return
    for split, users in _SPLIT_USERS.items():
        stages = [name for name in users if name in recipe.pipeline]
        if stages and getattr(recipe.dataset.files, split) is None:
            message = f"is null, but {stages[0]} needs the {split} rows"
            yield Problem(f"dataset.files.{split}", None, message, f"Name the file, or take {stages[0]} out.")


def addresses_are_well_formed(recipe: Recipe) -> Iterator[Problem]:
    artifacts, path = recipe.storage.artifacts, recipe.train.storage_path
    for key, value in (("storage.artifacts", artifacts), ("train.storage_path", path)):
        if value is None:
            continue
        if value.startswith("s3://"):
            yield from _s3_address(key, value)
        elif "://" in value:
            yield Problem(key, value, "is no place to store", "Give s3://bucket/prefix or a local folder.")
        elif not value.strip():
            yield Problem(key, value, "is empty", "Give s3://bucket/prefix or a local folder.")
    for key, folder in (("storage.root", recipe.storage.root), ("storage.cache", recipe.storage.cache)):
        if "://" in folder or not folder.strip():
            yield Problem(key, folder, "must be a folder that all nodes see", "Give a path; artifacts may go to s3://.")


def _s3_address(key: str, uri: str) -> Iterator[Problem]:
    try:
        bucket, _ = s3.split_uri(uri)
    except RunnerError as error:
        yield Problem(key, uri, error.message, error.hint)
        return
    if not _BUCKET.fullmatch(bucket):
        message = f"names the bucket {bucket!r}, which has other characters than letters, digits, '.', '-' and '_'"
        yield Problem(key, uri, message, "Write s3://bucket/prefix.")


def model_source_is_known(recipe: Recipe) -> Iterator[Problem]:
    source = recipe.model.source
    if source.startswith("s3://"):
        yield from _s3_address("model.source", source)
    elif source.startswith("package://"):
        if not _PACKAGE.fullmatch(source):
            yield Problem(
                "model.source", source, "names no GGUF file of a package", "Write package://<distribution>/<file>.gguf."
            )
    elif is_local(source):
        if recipe.cluster.address is None and not (Path(source).expanduser() / "config.json").is_file():
            message = "is no model folder of this machine: it has no config.json"
            yield Problem("model.source", source, message, "Give a folder that save_pretrained wrote.")
    elif not _HUB_ID.fullmatch(source):
        yield Problem(
            "model.source",
            source,
            "names no model",
            "Give a hub id (owner/name), s3://bucket/prefix, a folder, or package://<distribution>/<file>.gguf.",
        )


RULES = (
    splits_stay_in_their_source,
    prompt_templates_parse,
    prompt_is_whole,
    prompt_columns_exist,
    training_columns_exist,
    dataset_source_is_readable,
    needed_splits_have_files,
    addresses_are_well_formed,
    model_source_is_known,
)
