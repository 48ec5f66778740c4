"""Rows as the model will see them: text with its special tokens, what carries loss, and lengths against the limits.

Nothing is imitated: training rows are encoded by the trainer's own encoder and requests as batch inference makes them,
and both are compared as ingest compares them. Rows are read as ingest reads them; of the model only the tokenizer is
obtained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict
from functools import partial
from io import StringIO
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from runner.cluster.environments.call import call
from runner.errors import RunnerError
from runner.text import count_text
from stages.data.example import Example, read_examples
from stages.engines.base import load_engine
from stages.ingest import parity
from stages.ingest import stage as ingest
from stages.ingest.asked import learned_in
from stages.ingest.data import prepare_data
from stages.ingest.reach import out_of_reach
from stages.models import obtain as models
from stages.models.chat_template import ChatTemplate, with_template_text
from stages.models.endpoint_form import RefusedRowError
from stages.models.learned import NO_LOSS, Sample, asked_ids
from stages.models.time_limit import MAKERS_CODE, within
from stages.samples import without_torch
from stages.samples.dataset import judge
from stages.samples.encoder import Encoder
from stages.samples.too_long import shortened, shortened_text
from stages.sections.dataset import SplitLimits
from stages.sections.recipe import Recipe
from stages.trainers.base import load_trainer

MOST_ROWS = 2000
_PERCENTILES = (50, 90, 99)
_SECONDS = 120.0


def preview(recipe: Recipe, index: int) -> dict[str, Any]:
    """Row `index` (from 0) of the training and of the test split, and the lengths of the first MOST_ROWS rows.

    `{train: {row, lengths, counts} | None, test: {row, lengths} | None, problems: [{message, hint}], remarks}`; row is
    None in a split that is shorter, else `{id, num_tokens, num_loss_tokens, parts: [{text, loss}], title}` for each
    sequence of it, in `rows`; lengths are `{num_rows, percentiles, longest, limit, num_over, limit_is}`. train is
    None where nothing is trained. problems: why the run would end before training.
    Raises RunnerError when the rows or the tokenizer cannot be had, or no split has such a row.
    """
    recipe = with_template_text(ingest.with_absolute_paths(_limited(recipe)))
    log = StringIO()
    with TemporaryDirectory() as folder, redirect_stdout(log), redirect_stderr(log):
        tokenizer = obtain_tokenizer(recipe)
        data = prepare_data(recipe, Path(folder), lambda *args, **figures: None)
        variables = without_torch.variables(recipe, tokenizer)
        asked = (recipe.model_dump_json(), str(tokenizer), folder, index)
        found = call(learned_in(recipe), rendered, *asked, variables=variables)
        return {**found, "remarks": [*data.remarks, *found["remarks"]]}


def rendered(values: str, tokenizer: str, folder: str, index: int) -> dict[str, Any]:
    """`preview` of the rows in the folder, in the environment that rows are compared in. values: the recipe's, as JSON;
    tokenizer: its folder."""
    without_torch.begin()
    recipe = Recipe.model_validate_json(values)
    look = partial(_both, recipe, tokenizer, Path(folder), index)
    found: dict[str, Any] = within(_SECONDS, MAKERS_CODE, look)
    return found


def _both(recipe: Recipe, tokenizer: str, folder: Path, index: int) -> dict[str, Any]:
    template = ChatTemplate.of(recipe, tokenizer)
    problems: list[dict[str, str]] = []
    train = _training(recipe, template, folder / "train_set" / "train.jsonl", index, problems)
    test_file = folder / "test_set" / "test.jsonl"
    test = _test(recipe, template, test_file, index, problems)
    parts = {"train": train, "test": test}
    sizes = {name: part["lengths"]["num_rows"] for name, part in parts.items() if part}
    if sizes and index >= max(sizes.values()):
        shown = " and ".join(f"the {name} split has rows 0 to {size - 1}" for name, size in sizes.items())
        raise RunnerError(f"row={index}: {shown} here", "Give one of these.")
    return {**parts, "problems": _unique(problems), "remarks": out_of_reach(recipe, template, test_file)}


def _unique(problems: list[dict[str, str]]) -> list[dict[str, str]]:
    return [problem for at, problem in enumerate(problems) if problem not in problems[:at]]


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


def _tell(problems: list[dict[str, str]], check: Callable[[], Any]) -> None:
    """Call the function; an error of it is a problem."""
    try:
        check()
    except RunnerError as error:
        problems.append({"message": error.message, "hint": error.hint})


def _training(
    recipe: Recipe, template: ChatTemplate, path: Path, index: int, problems: list[dict[str, str]]
) -> dict[str, Any] | None:
    examples = list(read_examples(path)) if "train" in recipe.pipeline and path.is_file() else []
    if not examples:
        return None
    encoder = load_trainer(recipe).encoder(recipe, template)
    _tell(problems, lambda: parity.check(recipe, template, parity.sample_of(path, recipe.seed)))
    rows = [_sequences(encoder, example) for example in examples]
    counts = load_trainer(recipe).encoder(recipe, template)
    for _ in counts.columns(examples):
        pass
    _tell(problems, lambda: judge(counts.counts, counts.rules, "train"))
    lengths = [len(sample.ids) for row in rows for sample in row] or [0]
    limit = encoder.rules.limit
    return {
        "rows": _shown_training(encoder, examples[index], rows[index]) if index < len(examples) else [],
        "lengths": _lengths(lengths, limit, f"{encoder.rules.limit_name} {limit}") | {"num_rows": len(examples)},
        "counts": asdict(counts.counts),
        "too_long": recipe.train.too_long,
    }


def _sequences(encoder: Encoder, example: Example) -> list[Sample]:
    """The example's sequences before any cut; none where it cannot be learned, which `parity` and `judge` tell."""
    try:
        if example.text is not None:
            ids = encoder.template.ids(example.text)
            return [Sample(ids, ids, 0)]
        return list(encoder.pair(example)) if example.chosen is not None else encoder.samples(example)
    except RefusedRowError:
        return []


def _shown_training(encoder: Encoder, example: Example, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """What is learned of the example, as it is after the cut."""
    rules, pair = encoder.rules, example.chosen is not None
    groups = [list(samples)] if pair and samples else [[sample] for sample in samples]
    titles = (
        ["chosen", "rejected"][: len(samples)]
        if pair
        else [f"{at} of {len(samples)}" if len(samples) > 1 else "" for at in range(1, len(samples) + 1)]
    )
    if example.label is not None:
        titles = ["good answer" if example.label else "bad answer"] * len(samples)
    kept: list[Sample | None] = []
    for group in groups:
        if example.text is not None:
            cut = shortened_text(group[0], rules.limit, rules.too_long)
        else:
            cut = shortened(group, rules.limit, rules.too_long, encoder.template.tokenizer.bos_token_id)
        kept += cut.samples if cut.samples is not None else [None] * len(group)
    shown = []
    for title, sample, whole in zip(titles, kept, samples, strict=True):
        state = (
            "" if sample is whole else "left out: too long" if sample is None else f"cut from {len(whole.ids)} tokens"
        )
        sample = sample or whole
        described = _described(
            example.id, encoder.template.tokenizer, sample.ids, [each != NO_LOSS for each in sample.labels]
        )
        shown.append({**described, "title": ", ".join(filter(None, (title, state)))})
    return shown


def _test(
    recipe: Recipe, template: ChatTemplate, path: Path, index: int, problems: list[dict[str, str]]
) -> dict[str, Any] | None:
    examples = list(read_examples(path))
    if not examples:
        return None
    asked: dict[int, list[int]] = {}
    for at, example in enumerate(examples):
        if example.text is not None:
            continue
        try:
            seeing = template.seeing(example.images)
            asked[at] = asked_ids(seeing, example.prompt, example.tools, reasoning=recipe.train.reasoning)
        except RefusedRowError as error:
            problems.append({"message": error.message, "hint": error.hint})
    limits = load_engine(recipe).batch_limits(recipe)
    row = []
    if index in asked:
        ids = asked[index]
        row = [_described(examples[index].id, template.tokenizer, ids, [False] * len(ids)) | {"title": ""}]
    lengths = [len(ids) for ids in asked.values()] or [0]
    measured = _lengths(lengths, limits.prompt, limits.made_of)
    return {"rows": row, "lengths": measured | {"num_rows": len(examples)}}


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


_OVER = {"fail": "the run will end before training", "drop": "they will be left out"}


def preview_lines(found: dict[str, Any]) -> list[str]:
    """For the terminal: each row's text, what carries loss between « and », a line of lengths, and the problems."""
    lines = []
    titles = {"train": "as training learns it", "test": "as batch inference and clients ask it"}
    for split, title in titles.items():
        if (part := found[split]) is None:
            continue
        for row in part["rows"]:
            loss = f", {row['num_loss_tokens']} of them with loss, between « and »" if split == "train" else ""
            text = "".join(f"«{each['text']}»" if each["loss"] else each["text"] for each in row["parts"])
            which = f" ({row['title']})" if row["title"] else ""
            lines += [f"{row['id']}, {title}{which}: {count_text(row['num_tokens'], 'token')}{loss}", text, ""]
        lengths = part["lengths"]
        if not lengths["longest"]:
            lines += [f"no row of the {split} split can be learned or asked; why stands below", ""]
            continue
        if not part["rows"]:
            lines += [
                f"the {split} split has no such row (it has 0 to {lengths['num_rows'] - 1} here), or it is refused",
                "",
            ]
        spread = "  ".join(f"{name} % {value}" for name, value in lengths["percentiles"].items())
        num_over = lengths["num_over"]
        over = (
            f"{count_text(num_over, 'row')} {'is' if num_over == 1 else 'are'} longer" if num_over else "all rows fit"
        )
        if split == "train" and num_over:
            over += (
                f", and {_OVER.get(part['too_long'], 'their prompts will be cut')} (train.too_long={part['too_long']})"
            )
        lines += [
            f"{split} tokens of {count_text(lengths['num_rows'], 'row')}: {spread}  longest {lengths['longest']}; "
            f"{lengths['limit_is']}: {over}",
            "",
        ]
    if remarks := found.get("remarks"):
        lines += [*remarks, ""]
    for problem in found["problems"]:
        lines += [f"NOT FIT TO TRAIN: {problem['message']}", f"  {problem['hint']}", ""]
    if not found["problems"] and found["train"] and found["test"]:
        lines += ["Training and requests have the same tokens, on the rows compared.", ""]
    return lines[:-1]
