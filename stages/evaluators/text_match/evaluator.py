"""Metrics that compare two texts, or a text with a prescribed form."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from stages.evaluators.base import Arguments, Offered
from stages.sections.json_schema import references_outside

_EXACT, _TEXT = "stages.evaluators.text_match.exact", "stages.evaluators.text_match.text_metrics"


def _pattern_compiles(args: Arguments) -> tuple[str, str] | None:
    try:
        re.compile(args["pattern"])
    except (re.error, TypeError) as error:
        return f"the pattern is not a regular expression: {error}", "Correct evaluate.metric_args.regex.pattern."
    return None


def _refs_stay_inside(args: Arguments) -> tuple[str, str] | None:
    """A schema that names another document would have it fetched, from a file or a host."""
    for outside in references_outside(args.get("schema")):
        return (
            f"the schema refers to {outside!r}, outside itself",
            "Put that schema under $defs, and refer to it there.",
        )
    return None


METRICS = {
    "exact_match": Offered(f"{_EXACT}:exact_match"),
    "exact_match_normalized": Offered(f"{_EXACT}:exact_match_normalized"),
    "rouge": Offered(f"{_TEXT}:rouge", "rouge_score", install="rouge-score"),
    "bleu": Offered(f"{_TEXT}:Bleu", "sacrebleu", install="sacrebleu"),
    "regex": Offered(f"{_TEXT}:regex", check=_pattern_compiles),
    "json_schema": Offered(f"{_TEXT}:json_schema", "jsonschema", install="jsonschema", check=_refs_stay_inside),
}
_OTHER_NAMES = dict.fromkeys(("accuracy", "acc", "em", "exact"), "exact_match")


class TextMatch:
    """Compares the answer's text with the reference's."""

    def metrics(self) -> Mapping[str, Offered]:
        return METRICS

    def other_names(self) -> Mapping[str, str]:
        return _OTHER_NAMES

    def slices(self) -> Mapping[str, Callable[[str], str]]:
        return {}
