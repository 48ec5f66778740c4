"""Right and wrong rows for the page: the conversation, what was expected and answered, and where the two differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any

from runner.errors import RunnerError
from runner.storage.artifact import Artifact
from stages.data.answer import answer_text, calls_of
from stages.data.example import BadRowError, text_of
from stages.data.prediction import BASE, TUNED, Prediction, read_predictions
from stages.data.prompt import columns
from stages.data.shapes.conversation import read_messages
from stages.evaluate.classes import label_scores
from stages.evaluate.difference import difference
from stages.evaluate.pictures import pictures_of
from stages.evaluate.slices import Slices
from stages.evaluators.base import CorpusMetric, Metric, judged
from stages.evaluators.metrics import load_metrics
from stages.sections.prompt import Prompt

MAX_WRONG, MAX_RIGHT = 300, 100
MAX_ROWS = 100_000  # of larger sets the first are read: a page is to be there in seconds
_MAX_CHARS = 4_000


class Cases:
    """What one pass over the predictions gives: the rows to show, labels of slices, and (reference, answer) of all."""

    def __init__(self, predictions: Artifact, recipe: Mapping[str, Any], test_set: Artifact | None = None) -> None:
        """test_set: has the rows' images, which predictions do not; None: they are not shown."""
        keys = recipe.get("evaluate") or {}
        self.main = TUNED if TUNED in predictions.meta.get("variants", []) else BASE
        self.truncated = False
        self._prompt = _prompt(recipe)
        self._metrics = _metrics(keys)
        self._slices = Slices(keys.get("slices") or [])
        self._pairs: list[tuple[str, str]] = []
        self._chosen: dict[int, Prediction] = {}
        self.num_wrong = self.num_right = 0
        for row in read_predictions(predictions):
            if row.variant != self.main:
                continue
            if len(self._pairs) == MAX_ROWS:
                self.truncated = True
                break
            self._add(row)
        wanted = {row.id for row in self._chosen.values()} if self.main == TUNED else set()
        self.pictures = pictures_of(test_set, [row.id for row in self._shown()])
        self._base = dict(islice(_answers_of_base(predictions, wanted), len(wanted)))

    def _add(self, row: Prediction) -> None:
        """Count a row, and keep it if it is to be shown."""
        place = len(self._pairs)
        self._pairs.append((row.reference, row.prediction))
        self._slices.add(row)
        right = _is_right(row)
        self.num_right += right
        self.num_wrong += not right
        shown = self.num_right <= MAX_RIGHT if right else self.num_wrong <= MAX_WRONG
        if shown:
            self._chosen[place] = row

    def classes(self) -> dict[str, Any] | None:
        """See `label_scores`."""
        return label_scores(self._pairs)

    def rows(self) -> list[dict[str, Any]]:
        """The shown rows, wrong ones first: `{id, right, turns, expected, found, base, error, metrics, slices, ...}`.

        turns: (role, text) of the request, without the text that all rows share. expected and found: pieces
        (differs, text). metrics: (name, value of this row). slices: (name, value of this row).
        """
        labels: dict[str, list[str]] = {}
        with suppress(RunnerError):
            labels = self._slices.labels() if self._pairs else {}
        places = {id(row): place for place, row in self._chosen.items()}
        return [self._row(places[id(row)], row, labels) for row in self._shown()]

    def _shown(self) -> list[Prediction]:
        """The chosen rows, wrong ones first."""
        return sorted(self._chosen.values(), key=_is_right)

    def _row(self, place: int, row: Prediction, labels: Mapping[str, list[str]]) -> dict[str, Any]:
        expected, found = difference(row.reference[:_MAX_CHARS], row.prediction[:_MAX_CHARS])
        base = self._base.get(row.id)
        return {
            "id": row.id,
            "number": place,
            "right": _is_right(row),
            "pictures": self.pictures.of(row.id),
            "turns": [(role, text[:_MAX_CHARS]) for role, text in self._turns(row)],
            "expected": expected,
            "found": found,
            "reference": row.reference.strip()[:60],
            "answer": row.prediction.strip()[:60],
            "num_chars": len(row.reference),
            "base": base[:_MAX_CHARS] if base is not None else None,
            "reasoning": (row.reasoning or "").strip()[:_MAX_CHARS],
            "error": row.error,
            "metrics": [(name, _value(metric, row)) for name, metric in self._metrics.items()],
            "slices": [(name, values[place]) for name, values in labels.items()],
        }

    def _turns(self, answered: Prediction) -> list[tuple[str, str]]:
        """The conversation, or what the row puts into the prompt's templates."""
        prompt, row = self._prompt, answered.row
        if prompt is not None and prompt.conversations is not None:
            with suppress(BadRowError):
                asked = answered.messages or read_messages(row.get(prompt.conversations), "the row", ())[:-1]
                turns = [(str(each["role"]), answer_text(text_of(each), calls_of(each))) for each in asked]
                return [turn for turn in turns if turn[0] != "system" or prompt.system is None]
        names = columns(prompt.user) if prompt is not None and prompt.user else set()
        shown = [str(row[name]) for name in row if name in names]
        return [("user", "\n".join(shown))] if shown else [("row", json.dumps(row, ensure_ascii=False))]

    def templates(self) -> list[tuple[str, str]]:
        """(role, template) of the messages that are made of every row."""
        prompt = self._prompt
        found = [("system", prompt.system), ("user", prompt.user)] if prompt else []
        return [(role, text) for role, text in found if text]


def _is_right(row: Prediction) -> bool:
    return row.prediction == row.reference and row.error is None


def _answers_of_base(predictions: Artifact, ids: set[str]) -> Iterator[tuple[str, str]]:
    for row in read_predictions(predictions) if ids else ():
        if row.variant == BASE and row.id in ids:
            yield row.id, row.prediction


def _prompt(recipe: Mapping[str, Any]) -> Prompt | None:
    with suppress(ValueError):
        return Prompt.model_validate((recipe.get("dataset") or {}).get("prompt") or {})
    return None


def _metrics(keys: Mapping[str, Any]) -> dict[str, Metric]:
    """The metrics that can be computed of a single row, here and now."""
    found: dict[str, Metric] = {}
    for name in keys.get("metrics") or []:
        with suppress(RunnerError):
            (metric,) = load_metrics([name], keys.get("metric_args")).values()
            if not isinstance(metric, CorpusMetric):
                found[name] = metric
    return found


def _value(metric: Metric, row: Prediction) -> float | None:
    """The row's own value; None where it has no chance to be right or wrong."""
    found = judged(metric, row)
    if found is None:
        return None
    if isinstance(found, tuple):
        hits, chances = found
        return hits / chances if chances else None
    return 0.0 if row.error is not None else float(found)
