"""Metrics that compare two texts."""
