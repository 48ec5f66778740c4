"""Whether the answers are labels: a few short ones that come again and again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

MOST_LISTED = 20
_MOST, _CHARS, _WORDS = 100, 60, 6
_RARE = 5


def labels_of(answers: Mapping[str, int]) -> list[str]:
    """The labels in order of the alphabet; [] where the answers are texts. answers: each with its number of rows."""
    total = sum(answers.values())
    few = 2 <= len(answers) <= min(_MOST, max(2, total // 3))
    short = all(len(each) <= _CHARS and len(each.split()) <= _WORDS and "\n" not in each for each in answers)
    return sorted(answers) if few and short and total > len(answers) else []


def label_remarks(answers: Mapping[str, int]) -> list[str]:
    """What is worth knowing of labels: those that differ in case or spaces alone, and rare ones."""
    alike: dict[str, list[str]] = {}
    for each in sorted(answers):
        alike.setdefault(" ".join(each.split()).casefold(), []).append(each)
    lines = [
        f"the labels {' and '.join(map(repr, each))} differ in case or spaces alone: make them one"
        for each in alike.values()
        if len(each) > 1
    ]
    rare = [name for name, count in Counter(answers).items() if count < _RARE]
    if rare:
        shown = ", ".join(map(repr, sorted(rare)[:5])) + (", ..." if len(rare) > 5 else "")
        lines.append(f"fewer than {_RARE} rows have {'the label' if len(rare) == 1 else 'each of the labels'} {shown}")
    return lines


def label_system(labels: Sequence[str]) -> str:
    """The system message that asks for a label; it lists at most MOST_LISTED."""
    if len(labels) > MOST_LISTED:
        return "Classify the text. Answer with its label and nothing else."
    escaped = [label.replace("{", "{{").replace("}", "}}") for label in labels]
    shown = "\n".join(escaped) if any("," in label for label in labels) else ", ".join(escaped)
    between = "\n" if any("," in label for label in labels) else " "
    return f"Classify the text. Answer with one of these labels and nothing else:{between}{shown}"
