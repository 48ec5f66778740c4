"""Ingest: the dataset's rows, checked and written for training and testing, and the base model on local disk."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from runner.errors import RunnerError
from runner.pipeline.estimates.figure import Estimate, Known
from runner.pipeline.estimates.rates import Conditions
from runner.pipeline.optional import Rule
from runner.pipeline.stage import StageResult
from runner.storage.artifact import Artifact, scan_folder
from runner.storage.atomic import write_json, write_text
from runner.text import size_text
from stages.data import rows, rules
from stages.data.generated import grammar
from stages.data.prompt import prompt_columns
from stages.data.sources import fetch as sources
from stages.ingest.canonical import file_state
from stages.models import obtain as models
from stages.models.known import MODEL, conditions

if TYPE_CHECKING:
    from runner.pipeline.context import RunContext
    from runner.recipe.schema import Dataset, Recipe

_UPDATE_EVERY_S = 0.5
_GENERATED = "generated://"


class Ingest:
    """Makes `train_set` (train.jsonl, val.jsonl, dataset_info.json), `test_set` (test.jsonl) and `model`."""

    name: ClassVar[str] = "ingest"
    version: ClassVar[int] = 1
    reads: ClassVar[tuple[str, ...]] = (
        "dataset.source", "dataset.files", "dataset.max_rows", "dataset.prompt", "dataset.format", "dataset.on_bad_row",
        "dataset.endpoint_url", "model.source", "model.revision", "model.trust_remote_code", "train.stage",
    )  # fmt: skip
    libraries: ClassVar[tuple[str, ...]] = ("transformers",)
    provides: ClassVar[tuple[str, ...]] = ("train_set", "test_set", "model")
    ephemeral: ClassVar[bool] = False

    def needs(self, recipe: Recipe) -> tuple[str, ...]:
        return ()

    def canonical(self, recipe: Recipe) -> dict[str, Any]:
        """Local files by their content, generated rows by the grammar's settings; what the sources do not use is None.

        What lies behind a remote source is not looked at: it counts as unchanged until `force=[ingest]`.
        """
        dataset, model = recipe.dataset, recipe.model
        meaning: dict[str, Any] = {}
        if dataset.source.startswith(_GENERATED):
            spec = asdict(grammar.parse_uri(dataset.source, recipe.seed))
            meaning |= {"dataset.source": {**spec, "kind": "generated"}, "dataset.files": None}
        elif "://" not in dataset.source:
            names = {name for name in dataset.files.model_dump().values() if name is not None}
            folder = Path(dataset.source).expanduser()
            meaning["dataset.source"] = {name: file_state(folder / name) for name in sorted(names)}
        if not dataset.source.startswith("s3://"):
            meaning["dataset.endpoint_url"] = None
        if models.is_local(model.source):
            paths = [path for path in Path(model.source).expanduser().glob("*") if path.is_file()]
            meaning["model.source"] = {path.name: file_state(path) for path in sorted(paths)}
        if models.is_local(model.source) or "://" in model.source:
            meaning["model.revision"] = None
        return meaning

    def rules(self) -> Sequence[Rule]:
        return rules.RULES

    def estimate(self, known: Known) -> Iterator[Estimate]:
        from stages.ingest.estimate import estimate

        return estimate(known)

    def conditions(self, values: Mapping[str, Any]) -> Conditions:
        return conditions(values, (*MODEL, "dataset.source", "dataset.prompt", "dataset.max_rows"))

    def run(self, ctx: RunContext) -> StageResult:
        """Prepare the data and obtain the model, side by side where the cluster has room for both.

        Raises RunnerError naming file and line of bad rows, and whatever cannot be fetched.
        """
        recipe = with_absolute_paths(ctx.recipe)
        folder = ctx.stage_dir.absolute()
        calls = [("data", recipe, folder, ctx.progress()), ("model", recipe, folder, ctx.progress())]
        data, model = ctx.ray.call_each(do_part, ctx.resources, calls)
        for line in data.remarks:
            ctx.say(line)
        rows_of = data.metrics["rows"]
        note = f"{' + '.join(f'{count:,} {split}' for split, count in rows_of.items())} rows; {_model_note(model)}"
        return StageResult([*data.artifacts, model], {**data.metrics, "model_bytes": model.size_bytes}, note)


def _model_note(model: Artifact) -> str:
    return f"{model.meta['source']} ({size_text(model.size_bytes)})"


@dataclass(frozen=True)
class DataParts:
    """What preparing the data gave: artifacts, metrics, and remarks for the terminal."""

    artifacts: list[Artifact]
    metrics: dict[str, Any]
    remarks: list[str]


def do_part(part: str, recipe: Recipe, folder: Path, progress: Any) -> Any:
    """One part of the stage's work, as a Ray task: `data` -> DataParts, or `model` -> Artifact."""
    update = _throttled(progress.update)
    if part == "data":
        return prepare_data(recipe, folder, update)
    return obtain_model(recipe, update)


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """The recipe with local sources as absolute paths: a task need not have this process's working directory."""
    dataset, model = recipe.dataset, recipe.model
    if "://" not in dataset.source:
        dataset = dataset.model_copy(update={"source": str(Path(dataset.source).expanduser().absolute())})
    if models.is_local(model.source):
        model = model.model_copy(update={"source": str(Path(model.source).expanduser().absolute())})
    return recipe.model_copy(update={"dataset": dataset, "model": model})


def dataset_info(recipe: Recipe) -> dict[str, Any]:
    """LLaMA-Factory's `dataset_info.json`: what the columns of `train` and `val` mean to it."""
    dataset, stage = recipe.dataset, recipe.train.stage
    info: dict[str, Any] = {"formatting": dataset.format}
    if stage not in rows.PROMPTED_STAGES:
        info["columns"] = dict(rows.RAW_COLUMNS[stage][dataset.format == "sharegpt"])
        if stage == "pt":
            info["formatting"] = "alpaca"
        if stage in ("dpo", "rm"):
            info["ranking"] = True
    elif rows.training_format(dataset) == "sharegpt":
        info["formatting"] = "sharegpt"
        info["columns"] = {"messages": "messages"}
        info["tags"] = {
            "role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant",
            "system_tag": "system",
        }  # fmt: skip
    else:
        info["columns"] = {"prompt": "instruction", "query": "input", "response": "output"}
        if dataset.prompt.system is not None:
            info["columns"]["system"] = "system"
    return {split: {"file_name": f"{split}.jsonl", **info} for split in split_names(recipe) if split != "test"}


def split_names(recipe: Recipe) -> list[str]:
    """Splits that the dataset has: those with a file name, or with rows to generate."""
    dataset = recipe.dataset
    if dataset.source.startswith(_GENERATED):
        spec = grammar.parse_uri(dataset.source, recipe.seed)
        return [split for split in grammar.SPLITS if spec.num_rows(split)]
    return [split for split, name in dataset.files.model_dump().items() if name is not None]


def obtain_model(recipe: Recipe, update: Callable[..., None]) -> Artifact:
    """The base model as an artifact. `update`: as `ProgressHandle.update`."""
    model, cache = recipe.model, Path(recipe.storage.cache).expanduser().absolute()
    folder = models.obtain_model(
        model.source, model.revision, cache, recipe.storage.endpoint_url, model.trust_remote_code,
        lambda done, total: update(done, total, "bytes"),
    )  # fmt: skip
    return models.describe_model(folder, cache, {"source": model.source, "revision": model.revision})


def prepare_data(recipe: Recipe, folder: Path, update: Callable[..., None]) -> DataParts:
    """Write `train_set/` and `test_set/` into the folder. `update`: as `ProgressHandle.update`.

    Raises RunnerError with file and line of the first bad rows unless `dataset.on_bad_row` is skip.
    """
    dataset = recipe.dataset
    if "id" in prompt_columns(dataset.prompt):
        raise RunnerError(
            "dataset.prompt takes the column 'id', which the runner numbers itself", "Give the column another name."
        )
    begin = time.monotonic()
    splits = split_names(recipe)
    targets = {"train": folder / "train_set", "val": folder / "train_set", "test": folder / "test_set"}
    for target in {*targets.values(), folder / "raw"}:
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
    readers = _readers(recipe, splits, folder / "raw", update)
    reports: dict[str, rows.SplitReport] = {}
    for split in splits:
        convert = (
            rows.make_test_row(dataset) if split == "test" else rows.make_training_row(dataset, recipe.train.stage)
        )
        limit = getattr(dataset.max_rows, split)
        target = targets[split] / f"{split}.jsonl"
        reports[split] = rows.write_split(
            readers[split], target, convert, split, limit, lambda done: update(done, None, "rows")
        )
    _judge(dataset, reports)
    if "test" not in splits:
        (targets["test"] / "test.jsonl").touch()
    write_json(targets["train"] / "dataset_info.json", dataset_info(recipe))
    shutil.rmtree(folder / "raw")
    artifacts = [scan_folder(name, folder / name) for name in ("train_set", "test_set")]
    metrics = _metrics(reports, artifacts, time.monotonic() - begin)
    return DataParts(artifacts, metrics, _skipped(dataset, reports, folder))


def _readers(recipe: Recipe, splits: list[str], raw: Path, update: Callable[..., None]) -> dict[str, Iterable[Any]]:
    dataset = recipe.dataset
    if dataset.source.startswith(_GENERATED):
        spec = grammar.parse_uri(dataset.source, recipe.seed)
        return {split: enumerate(grammar.generate(spec, cast(grammar.Split, split)), 1) for split in splits}
    names = {split: getattr(dataset.files, split) for split in splits}
    paths = sources.fetch_files(
        dataset.source, sorted(set(names.values())), raw, endpoint_url=dataset.endpoint_url,
        anonymous=dataset.anonymous, on_bytes=lambda done, total: update(done, total, "bytes"),
    )  # fmt: skip
    return {split: rows.JsonLines(paths[name]) for split, name in names.items()}


def _judge(dataset: Dataset, reports: dict[str, rows.SplitReport]) -> None:
    """Raises RunnerError for bad rows that the recipe does not skip, and for a split without a good row."""
    num_bad = sum(report.num_bad for report in reports.values())
    lines = _problem_lines(dataset, reports)
    if num_bad and dataset.on_bad_row == "fail":
        more = f"\n  and {num_bad - len(lines):,} more" if num_bad > len(lines) else ""
        shown = "".join(f"\n  {line}" for line in lines)
        raise RunnerError(
            f"{num_bad:,} bad row{'s' if num_bad > 1 else ''} in dataset.source={dataset.source}:{shown}{more}",
            "Mend the rows, name columns that they have in dataset.prompt, or leave them out with "
            "dataset.on_bad_row: skip.",
        )
    for split, report in reports.items():
        if not report.num_rows:
            first = f": {lines[0]}" if lines else ""
            raise RunnerError(
                f"dataset.source={dataset.source} has no usable row in its {split} split{first}",
                f"Correct the data, or set dataset.files.{split}: null.",
            )


def _problem_lines(dataset: Dataset, reports: dict[str, rows.SplitReport]) -> list[str]:
    """The first bad rows of all splits, as "file:line: why"."""
    lines = []
    for split, report in reports.items():
        file = getattr(dataset.files, split) or split
        lines += [f"{file}:{number}: {why}" for number, why in report.problems]
    return lines[: rows.MOST_SHOWN]


def _skipped(dataset: Dataset, reports: dict[str, rows.SplitReport], folder: Path) -> list[str]:
    """Remarks about rows that were left out, the first of which are listed in `skipped_rows.txt`."""
    num_bad = sum(report.num_bad for report in reports.values())
    if not num_bad:
        return []
    path = folder / "skipped_rows.txt"
    write_text(path, "".join(f"{line}\n" for line in _problem_lines(dataset, reports)))
    return [f"left out {num_bad:,} bad row{'s' if num_bad > 1 else ''}; the first are listed in {path}"]


def _metrics(reports: dict[str, rows.SplitReport], artifacts: list[Artifact], elapsed_s: float) -> dict[str, Any]:
    digests = {split: report.source_sha256 for split, report in reports.items() if report.source_sha256}
    return {
        "rows": {split: report.num_rows for split, report in reports.items()},
        "skipped": {split: report.num_bad for split, report in reports.items()},
        "rows_per_s": round(sum(report.num_rows for report in reports.values()) / max(elapsed_s, 1e-3)),
        "bytes": sum(artifact.size_bytes for artifact in artifacts),
        "source_sha256": digests,
    }


def _throttled(update: Callable[..., None]) -> Callable[..., None]:
    """The same, at most twice a second: a download reports every piece, and each report is a message."""
    last = 0.0

    def throttled(*args: Any, **figures: Any) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _UPDATE_EVERY_S:
            last = now
            update(*args, **figures)

    return throttled
