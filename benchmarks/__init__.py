"""Measurements by subject. `python -m benchmarks.NAME` runs one, whichever folder holds it."""

from pathlib import Path

__path__ += sorted(str(path.parent) for path in Path(__file__).parent.glob("*/__init__.py"))
