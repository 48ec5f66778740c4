"""Rows as the model will see them: text with its special tokens, what carries loss, and lengths against the limits.

Nothing is imitated: LLaMA-Factory loads and encodes the training set that ingest writes, and the engine's requests are
those of batch inference. Rows are read as ingest reads them; of the model only the tokenizer is obtained.
"""

from __future__ import annotations

import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import fields
from io import StringIO
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from runner.errors import RunnerError
from runner.recipe.schema import Recipe, SplitLimits
from stages.infer.requests import Engine, request
from stages.ingest import stage as ingest
from stages.ingest.data import prepare_data
from stages.models import obtain as models
from stages.trainers.llamafactory.arguments import llamafactory_args, torchaudio_stand_in
from stages.trainers.llamafactory.dataset import write_dataset

MOST_ROWS = 2000
_NO_CUT = 1 << 20  # tokens: rows are measured whole, whatever cutoff_len is
_PERCENTILES = (50, 90, 99)


def preview(recipe: Recipe, index: int) -> dict[str, Any]:
    """Row `index` (from 0) of the training and of the test split, and the lengths of the first MOST_ROWS rows.

    `{train: {row, lengths} | None, test: ...}` with row `{id, num_tokens, num_loss_tokens, parts: [{text, loss}]}` and
    lengths `{num_rows, percentiles, longest, limit, num_over, limit_is}`. train is None for a stage other than sft.
    Raises RunnerError when the rows or the tokenizer cannot be had, or there is no such row.
    """
    recipe = ingest.with_absolute_paths(_limited(recipe))
    log = StringIO()
    with TemporaryDirectory() as folder, redirect_stdout(log), redirect_stderr(log):
        tokenizer_folder = obtain_tokenizer(recipe)
        prepare_data(recipe, Path(folder), lambda *args, **figures: None)
        tokenizer = _load(tokenizer_folder, recipe)
        train = None
        if recipe.train.stage == "sft":
            train = _training(recipe, tokenizer, tokenizer_folder, Path(folder) / "train_set", index)
        return {"train": train, "test": _test(recipe, tokenizer, tokenizer_folder, Path(folder) / "test_set", index)}


def _limited(recipe: Recipe) -> Recipe:
    limits = {name: min(limit or MOST_ROWS, MOST_ROWS) for name, limit in recipe.dataset.max_rows.model_dump().items()}
    return recipe.model_copy(
        update={"dataset": recipe.dataset.model_copy(update={"max_rows": SplitLimits.model_validate(limits)})}
    )


def obtain_tokenizer(recipe: Recipe) -> Path:
    """The folder of the model's tokenizer and config, without its weights."""
    model, cache = recipe.model, Path(recipe.storage.cache).expanduser().absolute()
    return models.obtain_tokenizer(
        model.source, model.revision, cache, recipe.storage.endpoint_url, model.trust_remote_code
    )


def _load(folder: Path, recipe: Recipe) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise RunnerError("preview needs transformers and LLaMA-Factory", "Run `make setup`.") from error
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=recipe.model.trust_remote_code)


def _training(recipe: Recipe, tokenizer: Any, model: Path, train_set: Path, index: int) -> dict[str, Any]:
    encoded = encode_training_rows(recipe, model, train_set)
    ids, labels = _pick(encoded, index, "train")
    with (train_set / "train.jsonl").open(encoding="utf-8") as file:
        row_id = [json.loads(line)["id"] for line in file][index]
    limit = recipe.train.args.get("cutoff_len") or _default_cutoff()
    lengths = [len(row) for row, _ in encoded]
    return {
        "row": _described(row_id, tokenizer, ids, [label >= 0 for label in labels]),
        "lengths": _lengths(lengths, limit, f"cutoff_len {limit}"),
    }


def encode_training_rows(recipe: Recipe, model: Path, train_set: Path) -> list[tuple[list[int], list[int]]]:
    """(token ids, labels) of each row of a `train_set` of ingest, whole; a label below 0 carries no loss.

    model: folder of the tokenizer. LLaMA-Factory's own loader and template do it; its caches stay beside the rows.
    """
    with torchaudio_stand_in():
        from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
        from llamafactory.hparams import DataArguments, ModelArguments
    from transformers import AutoTokenizer, Seq2SeqTrainingArguments

    rows_dir = write_dataset(recipe, train_set, train_set / "llamafactory")
    args = llamafactory_args(recipe, model=str(model), dataset_dir=str(rows_dir), output_dir=str(train_set / "out"))
    known = {field.name for field in fields(DataArguments)}
    given = {name: value for name, value in args.items() if name in known and name not in ("max_samples", "packing")}
    data = DataArguments(**(given | {"cutoff_len": _NO_CUT, "overwrite_cache": True}))
    tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=recipe.model.trust_remote_code)
    template = get_template_and_fix_tokenizer(tokenizer, data)
    training = Seq2SeqTrainingArguments(output_dir=str(train_set / "out"), use_cpu=True, report_to="none")
    arguments = ModelArguments(model_name_or_path=str(model), cache_dir=str(train_set / "cache"))
    rows = get_dataset(template, arguments, data, training, stage="sft", tokenizer=tokenizer)["train_dataset"]
    return [(list(row["input_ids"]), list(row["labels"])) for row in rows]


def _default_cutoff() -> int:
    from llamafactory.hparams import DataArguments

    return int(DataArguments().cutoff_len)


def _test(recipe: Recipe, tokenizer: Any, model: Path, test_set: Path, index: int) -> dict[str, Any] | None:
    lines = (test_set / "test.jsonl").read_text(encoding="utf-8").splitlines()
    if not lines:
        return None
    engine = Engine(str(model), {"base": str(model)})
    asked = [
        request({"text": line, "variant": "base"}, recipe=recipe, engine=engine)["tokenized_prompt"] for line in lines
    ]
    ids = _pick(asked, index, "test")
    context = recipe.infer.engine_kwargs.get("max_model_len")
    answer = recipe.infer.sampling.get("max_tokens") or 16
    limit = context - answer if isinstance(context, int) else None
    limit_is = f"max_model_len {context} - max_tokens {answer}"
    return {
        "row": _described(json.loads(lines[index])["id"], tokenizer, ids, [False] * len(ids)),
        "lengths": _lengths([len(row) for row in asked], limit, limit_is if limit else "max_model_len is the model's"),
    }


def _pick(rows: list[Any], index: int, split: str) -> Any:
    if not 0 <= index < len(rows):
        raise RunnerError(f"row={index}: the {split} split has rows 0 to {len(rows) - 1} here", "Give one of these.")
    return rows[index]


def _described(row_id: str, tokenizer: Any, ids: list[int], loss: list[bool]) -> dict[str, Any]:
    """The row in parts of tokens that all carry loss, or all do not."""
    edges = [0, *(at for at in range(1, len(ids)) if loss[at] != loss[at - 1]), len(ids)]
    parts = [
        {"text": tokenizer.decode(ids[start:end], skip_special_tokens=False), "loss": loss[start]}
        for start, end in pairwise(edges)
        if start < end
    ]
    return {"id": row_id, "num_tokens": len(ids), "num_loss_tokens": sum(loss), "parts": parts}


def _lengths(lengths: list[int], limit: int | None, limit_is: str) -> dict[str, Any]:
    ordered = sorted(lengths)
    percentiles = {str(each): ordered[min(len(ordered) - 1, len(ordered) * each // 100)] for each in _PERCENTILES}
    num_over = sum(length > limit for length in lengths) if limit is not None else 0
    return {
        "num_rows": len(lengths),
        "percentiles": percentiles,
        "longest": ordered[-1],
        "limit": limit,
        "limit_is": limit_is,
        "num_over": num_over,
    }


def preview_lines(found: dict[str, Any]) -> list[str]:
    """For the terminal: each row's text, what carries loss between « and », and a line of lengths."""
    lines = []
    titles = {"train": "as training learns it", "test": "as batch inference and clients ask it"}
    for split, title in titles.items():
        if (part := found[split]) is None:
            continue
        row, lengths = part["row"], part["lengths"]
        loss = f", {row['num_loss_tokens']} of them with loss, between « and »" if split == "train" else ""
        text = "".join(f"«{each['text']}»" if each["loss"] else each["text"] for each in row["parts"])
        spread = "  ".join(f"{name} % {value}" for name, value in lengths["percentiles"].items())
        over = f"{lengths['num_over']} rows are longer" if lengths["num_over"] else "all rows fit"
        lines += [f"{row['id']}, {title}: {row['num_tokens']} tokens{loss}", text, ""]
        lines += [
            f"{split} tokens of {lengths['num_rows']:,} rows: {spread}  longest {lengths['longest']}; "
            f"{lengths['limit_is']}: {over}",
            "",
        ]
    return lines[:-1]
