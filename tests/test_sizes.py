"""Folders stay small enough to survey, and functions short enough to read at once."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.paths import ROOT

MODULES = 15  # of one folder, besides __init__.py
LINES = 60  # of one function
FOLDERS = ("runner", "stages", "tests", "benchmarks")
CODE = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]


def functions(path: Path) -> list[tuple[str, int]]:
    """(place, lines) of each function of a file."""
    nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    return [(f"{path.relative_to(ROOT)}:{n.lineno} {n.name}", (n.end_lineno or n.lineno) - n.lineno + 1) for n in nodes]


def test_no_folder_has_more_modules_than_a_reader_can_survey() -> None:
    folders = {path.parent for path in CODE}
    sizes = {str(f.relative_to(ROOT)): len({*f.glob("*.py")} - {f / "__init__.py"}) for f in folders}
    assert {folder: size for folder, size in sizes.items() if size > MODULES} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    found = [place for path in CODE for place in functions(path)]
    assert len(found) > 1000
    assert {place: lines for place, lines in found if lines > LINES} == {}
