"""Declarative pipelines on Ray, one recipe each."""

__version__ = "0.1.0"
