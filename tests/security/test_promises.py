"""docs/security.md: every promise names a test, and every test that it names is there."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import pytest

from tests.paths import ROOT

TEXT = (ROOT / "docs" / "security.md").read_text()
NAMED = re.compile(r"((?:tests/[\w/]+/)?test_\w+\.py|tests/[\w/]+\.yaml)(?:::(\w+))?")
WITHOUT_A_TEST = ("What is not promised", "Not checked")


def places(promise: str) -> list[tuple[PurePosixPath, str]]:
    """(file, function or "") of the tests that a promise names; a bare file name is in the folder of the one before."""
    found: list[tuple[PurePosixPath, str]] = []
    for file, function in NAMED.findall(promise):
        path = PurePosixPath(file)
        found.append((path if "/" in file or not found else found[-1][0].with_name(file), function))
    return found


def promises() -> list[str]:
    """Items of lists, and rows of the tables whose last column is a test."""
    items = re.findall(r"^- (.+?)(?=\n- |\n\n|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    rows = TEXT.partition("| Promise | Test |\n|---|---|\n")[2].partition("\n\n")[0].splitlines()
    assert len(items) > 10
    assert len(rows) > 8
    return [" ".join(each.split()) for each in (*items, *rows)]


@pytest.mark.parametrize("promise", promises(), ids=lambda text: text[:40])
def test_a_promise_names_tests_that_are_there(promise: str) -> None:
    named = places(promise)
    assert named
    for file, function in named:
        assert (ROOT / file).is_file(), file
        assert not function or f"def {function}(" in (ROOT / file).read_text(), f"{file}::{function}"


def test_what_is_not_promised_stands_there_too() -> None:
    assert all(words in TEXT for words in WITHOUT_A_TEST)
