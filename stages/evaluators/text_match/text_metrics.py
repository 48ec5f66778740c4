"""Metrics of free text and of answers with a prescribed form, by the libraries that define them.

`rouge` and `bleu` need the extra `metrics` of this package (rouge-score, sacrebleu); `json_schema` needs jsonschema.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from runner.errors import RunnerError
from runner.recipe.machine import pip_install

_INSTALL = pip_install("rouge-score sacrebleu jsonschema")


def rouge(prediction: str, reference: str, *, kind: str = "rougeL") -> float:
    """F-measure of ROUGE (Lin, 2004) by rouge-score. kind: rougeL, rougeLsum, rouge1, rouge2, ..."""
    measure: float = _rouge_scorer(kind).score(reference, prediction)[kind].fmeasure
    return measure


@cache
def _rouge_scorer(kind: str) -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise RunnerError(f"the metric 'rouge' needs rouge-score: {error}", _INSTALL) from error
    scorer = RougeScorer([kind])
    try:
        scorer.score("a", "a")
    except ValueError as error:
        raise RunnerError(
            f"evaluate.metric_args.rouge.kind={kind!r}: {error}", "Take rougeL, rougeLsum or rouge1 to rouge9."
        ) from error
    return scorer


class Bleu:
    """BLEU of the corpus (Papineni et al., 2002) by sacrebleu with its default tokenizer, as a share of 1."""

    def __init__(self, tokenize: str = "13a", lowercase: bool = False) -> None:
        try:
            from sacrebleu.metrics.bleu import BLEU
        except ImportError as error:
            raise RunnerError(f"the metric 'bleu' needs sacrebleu: {error}", _INSTALL) from error
        self._bleu = BLEU(tokenize=tokenize, lowercase=lowercase)

    def sums(self, prediction: str, reference: str) -> Sequence[float]:
        """Lengths of prediction and reference, then the n-grams found and the n-grams there are, for n = 1 to 4."""
        row = self._bleu.corpus_score([prediction], [[reference]])
        return (row.sys_len, row.ref_len, *row.counts, *row.totals)

    def score(self, sums: Sequence[float]) -> float:
        """As sacrebleu's corpus_score with exponential smoothing (its default)."""
        sys_len, ref_len, *counts = map(round, sums)
        if not sys_len:
            return 0.0
        whole = self._bleu.compute_bleu(
            correct=counts[:4], total=counts[4:], sys_len=sys_len, ref_len=ref_len, smooth_method="exp"
        )
        return float(whole.score) / 100


def regex(prediction: str, reference: str, *, pattern: str) -> float:
    """1 when the whole prediction matches the regular expression (Python's syntax)."""
    return float(re.fullmatch(pattern, prediction, flags=re.DOTALL) is not None)


def json_schema(prediction: str, reference: str, *, schema: Mapping[str, Any]) -> float:
    """1 when the prediction is one JSON document that is valid under the schema (its `$schema` says which draft)."""
    validator = _validator(json.dumps(schema, sort_keys=True))
    try:
        return float(validator.is_valid(json.loads(prediction)))
    except (ValueError, RecursionError):
        return 0.0


@cache
def _validator(schema: str) -> Any:
    try:
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import Draft202012Validator, validator_for
        from referencing import Registry
    except ImportError as error:
        raise RunnerError(f"the metric 'json_schema' needs jsonschema: {error}", _INSTALL) from error
    value = json.loads(schema)
    found = validator_for(value, default=Draft202012Validator)
    try:
        found.check_schema(value)
    except SchemaError as error:
        raise RunnerError(
            f"evaluate.metric_args.json_schema.schema is not a JSON Schema: {error.message}", "Correct the schema."
        ) from error
    return found(value, registry=Registry())  # which fetches nothing that a $ref names
