"""Answers that are labels: when they count as such, and the scores of each class."""

from __future__ import annotations

import pytest

from stages.evaluate.classes import OTHER, label_scores


def pairs(*counts: tuple[str, str, int]) -> list[tuple[str, str]]:
    return [(reference, answer) for reference, answer, count in counts for _ in range(count)]


def test_precision_recall_and_f1_of_each_class_and_the_confusion_matrix() -> None:
    found = label_scores(pairs(("a", "a", 6), ("a", "b", 2), ("b", "b", 3), ("b", "nonsense", 1), ("c", "a", 2)))
    assert found is not None
    by_label = {each["label"]: each for each in found["classes"]}
    assert list(by_label) == ["a", "b", "c"]
    assert (by_label["a"]["precision"], by_label["a"]["recall"]) == (6 / 8, 6 / 8)
    assert (by_label["b"]["precision"], by_label["b"]["recall"]) == (3 / 5, 3 / 4)
    assert by_label["b"]["f1"] == pytest.approx(2 * 0.6 * 0.75 / (0.6 + 0.75))
    assert (by_label["c"]["precision"], by_label["c"]["recall"], by_label["c"]["f1"]) == (None, 0.0, 0.0)
    assert found["accuracy"] == 9 / 14
    assert found["columns"] == ["a", "b", "c", OTHER]
    assert found["matrix"] == [[6, 2, 0, 0], [0, 3, 0, 1], [2, 0, 0, 0]]


def test_it_is_what_scikit_learn_would_say_of_two_classes() -> None:
    found = label_scores(pairs(("yes", "yes", 40), ("yes", "no", 10), ("no", "yes", 5), ("no", "no", 45)))
    assert found is not None
    assert found["macro_f1"] == pytest.approx((80 / 95 + 90 / 105) / 2)


def test_white_space_around_an_answer_does_not_count() -> None:
    found = label_scores(pairs(("a", " a\n", 3), ("b", "b", 3)))
    assert found is not None
    assert found["accuracy"] == 1.0


@pytest.mark.parametrize(
    "references",
    [
        [f"a text of its own {number}" for number in range(40)],
        ["always the same"] * 40,
        ["x" * 80, "y" * 80] * 20,
        ["one\ntwo", "three"] * 20,
        ["", "a"] * 20,
        [str(number) for number in range(31)] * 9,
        [],
    ],
    ids=["all different", "one", "long", "lines", "empty", "too many", "none"],
)
def test_other_answers_are_not_labels(references: list[str]) -> None:
    assert label_scores([(reference, reference) for reference in references]) is None
