"""Metrics of equal texts."""

from __future__ import annotations


def exact_match(prediction: str, reference: str) -> float:
    """1 when the texts are the same, character for character."""
    return float(prediction == reference)


def exact_match_normalized(prediction: str, reference: str) -> float:
    """1 when the texts are the same once runs of white space are one space and the ends are trimmed."""
    return float(prediction.split() == reference.split())
