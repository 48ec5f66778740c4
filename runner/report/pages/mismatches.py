"""Wrong answers for the page: what was asked, expected and said, and where the two part."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from string import Formatter
from typing import Any

from runner.errors import RunnerError
from runner.report.pages.tokens import difference
from runner.storage.artifact import Artifact
from stages.data.prediction import BASE, TUNED, read_predictions
from stages.evaluators.meaning.representation import parse

_MAX_SHOWN = 300
_MAX_CHARS = 4_000


def mismatches(scores: Artifact | None, predictions: Artifact | None, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """`{total, rows}`: the first 300 rows that were not exactly right.

    A row is `{id, question, expected, found, base, error, group}`; expected and found are pieces (differs, text), base
    is the base model's answer or None, group the reference's function or "".
    """
    rows, total = [], 0
    if scores is not None and "://" not in scores.uri:
        with suppress(OSError, ValueError), (scores.path / "mismatches.jsonl").open(encoding="utf-8") as file:
            for line in file:
                total += 1
                if total <= _MAX_SHOWN:
                    rows.append(json.loads(line))
    base = _base_answers(predictions, {row["id"] for row in rows if row["variant"] == TUNED})
    columns = _question_columns(recipe)
    return {"total": total, "rows": [_shown(row, base.get(row["id"]), columns) for row in rows]}


def _shown(row: Mapping[str, Any], base: str | None, columns: list[str]) -> dict[str, Any]:
    expected, found = difference(row["reference"][:_MAX_CHARS], row["prediction"][:_MAX_CHARS])
    meaning = parse(row["reference"])
    question = "\n".join(str(row["row"][name]) for name in columns if row["row"].get(name))
    return {
        "id": row["id"],
        "question": (question or json.dumps(row["row"], ensure_ascii=False))[:_MAX_CHARS],
        "expected": expected,
        "found": found,
        "base": base[:_MAX_CHARS] if base is not None else None,
        "error": row["error"],
        "group": meaning.function if meaning else "",
    }


def _question_columns(recipe: Mapping[str, Any]) -> list[str]:
    """Columns that the user message is made of."""
    prompt = (recipe.get("dataset") or {}).get("prompt") or {}
    with suppress(ValueError):
        return [name for _, name, _, _ in Formatter().parse(prompt.get("user") or "") if name]
    return []


def _base_answers(predictions: Artifact | None, ids: set[str]) -> dict[str, str]:
    if predictions is None or "://" in predictions.uri or not ids:
        return {}
    with suppress(OSError, RunnerError):
        return dict(islice(_answers(predictions, ids), len(ids)))
    return {}


def _answers(predictions: Artifact, ids: set[str]) -> Iterator[tuple[str, str]]:
    for row in read_predictions(predictions):
        if row.variant == BASE and row.id in ids:
            yield row.id, row.prediction
