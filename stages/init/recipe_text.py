"""A proposal as a recipe file with comments."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from runner.text import count_text
from stages.init.proposal import Proposal
from stages.init.target import usual_engine

SCHEMA = "recipe.schema.json"
_METHODS = {
    "sft": "answers to questions",
    "dpo": "preference pairs",
    "kto": "answers with a verdict",
    "pt": "plain text",
}
_WIDTH = 116
_EVAL_STEPS = 0.2  # a share of all steps: a curve of five points, also where there is one epoch


def recipe_text(made: Proposal, name: str, command: str) -> str:
    """The file. name: of the recipe. command: the one that wrote it."""
    parts = (_head(made, name, command), _model(made), _dataset(made), _train(made), _infer(made), _evaluate(made))
    return "\n".join(line for part in parts for line in part) + "\n"


def quoted(value: Any) -> str:
    """A value for YAML; a text in double quotes in which `${` is not an interpolation."""
    if isinstance(value, str):
        return json.dumps(value.replace("${", "\\${"), ensure_ascii=False)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {quoted(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(quoted, value)) + "]"
    return f"{value:.1e}".replace("e-0", "e-") if isinstance(value, float) and value < 0.01 else json.dumps(value)


def comment(text: str, indent: str = "") -> list[str]:
    """The text as comment lines."""
    import textwrap

    plain = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return textwrap.wrap(plain, _WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ",
                         break_long_words=False, break_on_hyphens=False)  # fmt: skip


def _head(made: Proposal, name: str, command: str) -> Iterator[str]:
    rows = " + ".join(f"{count:,} {split}" for split, count in made.num_rows.items())
    what = count_text(len(made.labels), "label") if made.labels else _METHODS[made.shape.stage]
    yield "# @package _global_"
    yield f"# yaml-language-server: $schema={SCHEMA}"
    yield from comment(f"{made.found.source}: {rows} rows of the shape {made.shape.kind}, {what}.")
    yield from comment(f"Proposed by: {command}")
    yield "defaults:"
    yield from comment(f"{made.target.why}; python -m runner list shows other variants", "  ")
    yield f"  - override /model: {made.target.model}"
    yield f"  - override /cluster: {made.target.cluster}"
    yield "  - override /storage: local"
    yield "  - override /evaluate: exact_match"
    yield f"name: {quoted(name)}"
    yield "seed: 42"
    if made.shape.stage == "pt":
        yield "# Nothing is asked of plain text: the adapter is trained and published."
        yield "pipeline: [ingest, train, publish, cleanup]"


def _model(made: Proposal) -> Iterator[str]:
    if made.keys.model:
        yield "model:"
        reads = "For what the answers have besides text, in batch inference and at the endpoint."
        own = "The model's own chat template may have no tools, or no reasoning; this one of the same form has."
        yield from comment(own if "chat_template" in made.keys.model else reads, "  ")
        yield from _keys(made.keys.model)


def _keys(values: Mapping[str, str]) -> Iterator[str]:
    return (f"  {name}: {value}" for name, value in values.items())


def _dataset(made: Proposal) -> Iterator[str]:
    yield "dataset:"
    yield f"  source: {quoted(made.found.source)}"
    yield from _files(made)
    if "column" in made.split:
        yield from comment("The column that names each row's split.", "  ")
        yield f"  split: {quoted(made.split)}"
    elif made.split:
        kept = "; the labels are as frequent in each" if "stratify" in made.split else ""
        yield from comment(f"Held out of the training rows. Rows with the same prompt stay in one split{kept}.", "  ")
        yield f"  split: {quoted(made.split)}"
    if made.bad_share:
        yield from comment(f"{made.bad_share:.1%} of the rows cannot be used and are left out: see the remarks.", "  ")
        yield "  on_bad_row: skip"
        yield f"  max_bad_share: {made.max_bad_share:g}"
    for remark in made.remarks:
        yield from comment(f"Remark: {remark}", "  ")
    if made.shape.ignored:
        yield f"  ignore_keys: {quoted(list(made.shape.ignored))}"
    if made.shape.roles:
        yield f"  roles: {quoted(made.shape.roles)}"
    yield "  prompt:"
    yield from _prompt(made)


def _files(made: Proposal) -> Iterator[str]:
    if made.found.files:
        listed = dict.fromkeys(("train", "val", "test")) | {
            split: names[0] if len(names) == 1 else list(names) for split, names in made.found.files.items()
        }
        yield f"  files: {quoted(listed)}"


def _prompt(made: Proposal) -> Iterator[str]:
    names = f"Columns: {', '.join(made.columns[:20])}."
    if made.shape.doubt:
        yield from comment(f"A guess, {made.shape.doubt}: correct it if it is wrong. {names}", "    ")
    else:
        yield from comment(names, "    ")
    for key, value in made.shape.prompt.items():
        yield f"    {key}: {quoted(value)}"


def _train(made: Proposal) -> Iterator[str]:
    limits, stage = made.limits, made.shape.stage
    num_train = made.num_rows["train"]
    args: dict[str, Any] = {"cutoff_len": limits.cutoff_len}
    if stage == "sft" and ({"val", "column"} & made.split.keys() or "val" in made.found.splits):
        args |= {"eval_dataset": "val", "eval_strategy": "steps", "eval_steps": _EVAL_STEPS}
    yield "train:"
    yield f"  stage: {stage}"
    yield f"  learning_rate: {quoted(made.target.learning_rate(stage))}"
    yield f"  num_epochs: {made.target.num_epochs(num_train)}"
    basis = "" if made.exact else f" ({_ESTIMATED})"
    spread = f"about {count_text(limits.p50, 'token')} (median), {limits.p99:,} (99 %), at most {limits.longest:,}"
    yield from comment(f"Rows have {spread}{basis}.", "  ")
    if "eval_steps" in args:
        yield from comment("The loss on the val rows is measured after each fifth of the steps.", "  ")
    yield f"  args: {_plain(args)}"
    yield from _keys(made.keys.train)


def _plain(values: Mapping[str, Any]) -> str:
    """A mapping of names and values that need no quotes."""
    return quoted(values).replace(chr(34), "")


_ESTIMATED = "estimated from bytes: preview counts them with the model's tokenizer"


def _infer(made: Proposal) -> Iterator[str]:
    if made.shape.stage == "pt":
        return
    limits = made.limits
    yield "infer:"
    yield "  engine: shared  # with the endpoint: it starts once"
    yield "  # a row of cutoff_len and an answer of max_tokens"
    kwargs = usual_engine().kwargs_for(limits.cutoff_len, limits.max_tokens)
    yield f"  engine_kwargs: {_plain(kwargs)}"
    yield f"  sampling: {{temperature: 0.0, max_tokens: {limits.max_tokens}}}"


def _evaluate(made: Proposal) -> Iterator[str]:
    if made.shape.stage == "pt":
        return
    yield "evaluate:"
    yield from _keys(made.keys.evaluate)
    if made.calls:
        yield "  metrics: [calls_match, exact_match]  # the same calls in the same order; the text with its calls"
    elif "tool_parser" in made.keys.model:
        yield "  metrics: [exact_match, calls_match]  # the text with its calls; none of the scored answers calls"
    elif made.labels:
        yield "  metrics: [exact_match]  # of labels: the share of rows that got the right one"
        if made.label_column is not None:
            yield f"  slices: {quoted([made.label_column])}"
    else:
        yield from comment(
            "Exact match is strict with free text; rouge and bleu need: pip install rouge-score sacrebleu.", "  "
        )
        yield "  metrics: [exact_match, exact_match_normalized]"
    yield "  # Serve nothing that is worse than this (exit code 3):"
    yield '  # require: {exact_match: ">=0.8", delta_vs_base: ">=0.1"}'
