"""Metrics, one folder a kind."""
