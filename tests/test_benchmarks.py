"""The commands of the measurements: each one that a page prints runs, from whichever folder holds it."""

from __future__ import annotations

import re
from importlib.util import find_spec

from benchmarks.common.measure import HERE, RESULTS
from tests.paths import ROOT


def test_every_command_that_a_page_prints_is_found() -> None:
    pages = [RESULTS, *(ROOT / "docs").glob("*.md"), *ROOT.glob("*/patches/README.md")]
    names = {name for page in pages for name in re.findall(r"\bbenchmarks\.[a-z_]+", page.read_text())}
    assert len(names) > 15
    assert [name for name in sorted(names) if find_spec(name) is None] == []


def test_every_record_is_rendered_by_the_command_that_made_it() -> None:
    records = [path.stem.partition("-")[0] for path in (HERE / "results").glob("*.json")]
    assert len(records) > 20
    assert [name for name in records if find_spec(f"benchmarks.{name}") is None] == []


def test_no_two_folders_hold_a_command_of_one_name() -> None:
    modules = [path.stem for path in HERE.glob("*/*.py") if path.stem != "__init__"]
    folders = [path.parent.name for path in HERE.glob("*/__init__.py")]
    assert sorted({*modules, *folders}) == sorted([*modules, *folders])
