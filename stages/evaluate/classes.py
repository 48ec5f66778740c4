"""Answers that are labels: precision, recall and F1 of each, and which label was taken for which."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

OTHER = "(another answer)"
_MAX_LABELS = 30
_MAX_CHARS = 60
_ROWS_PER_LABEL = 2  # fewer on average: the answers are texts that happen to be short


def label_scores(pairs: Iterable[tuple[str, str]]) -> dict[str, Any] | None:
    """pairs: (reference, prediction) of every row. None when the references are not labels.

    `{classes: [{label, n, predicted, precision, recall, f1}], accuracy, macro_f1, labels, columns, matrix}`; the
    largest class first; matrix[i][j]: rows whose reference is labels[i] and whose prediction is columns[j]. Answers
    that are not a label are one column. Precision is None where nothing was predicted as the class. White space at the
    ends of an answer does not count.
    """
    counts = Counter((reference.strip(), prediction.strip()) for reference, prediction in pairs)
    support: Counter[str] = Counter()
    for (reference, _), count in counts.items():
        support[reference] += count
    if not are_labels(support):
        return None
    labels = [label for label, _ in sorted(support.items(), key=lambda item: (-item[1], item[0]))]
    predicted: Counter[str] = Counter()
    for (_, prediction), count in counts.items():
        predicted[prediction if prediction in support else OTHER] += count
    columns = [*labels, *([OTHER] if predicted[OTHER] else [])]
    matrix = [[_cell(counts, support, row, column) for column in columns] for row in labels]
    classes = [_class(label, support[label], predicted[label], counts[label, label]) for label in labels]
    right = sum(counts[label, label] for label in labels)
    return {
        "classes": classes,
        "accuracy": right / sum(support.values()),
        "macro_f1": sum(each["f1"] for each in classes) / len(classes),
        "labels": labels,
        "columns": columns,
        "matrix": matrix,
    }


def are_labels(support: Counter[str]) -> bool:
    """Whether these references, with how often each occurs, are labels: few, short and repeated."""
    num_rows = sum(support.values())
    return (
        2 <= len(support) <= _MAX_LABELS
        and num_rows >= _ROWS_PER_LABEL * len(support)
        and all(0 < len(label) <= _MAX_CHARS and "\n" not in label for label in support)
    )


def _cell(counts: Counter[tuple[str, str]], support: Counter[str], row: str, column: str) -> int:
    if column != OTHER:
        return counts[row, column]
    return sum(count for (reference, found), count in counts.items() if reference == row and found not in support)


def _class(label: str, n: int, predicted: int, right: int) -> dict[str, Any]:
    return {
        "label": label,
        "n": n,
        "predicted": predicted,
        "precision": right / predicted if predicted else None,
        "recall": right / n,
        "f1": 2 * right / (n + predicted),
    }
