"""A function is called in the interpreter of an environment."""

from __future__ import annotations

import os
import sys
from operator import add
from pathlib import Path

import pytest

from runner.cluster import environments
from runner.cluster.environments import Chosen, Record
from runner.cluster.environments.call import call
from runner.errors import RunnerError
from stages.models.gguf import find_packaged_file

TOOL = Chosen("tool", "a.b", "c")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment `tool` whose interpreter is this one's, in another process."""
    monkeypatch.setenv(environments.HOME, str(tmp_path))
    own = environments.folder("tool")
    (own / "bin").mkdir(parents=True)
    environments.python("tool").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    environments.python("tool").chmod(0o755)
    (own / environments.RECORD).write_text(Record("tool", "tool-cpu.lock", "0", "3.11", {}).text())
    return own


def test_the_result_comes_from_another_process_which_has_the_same_environments(folder: Path) -> None:
    assert call(TOOL, os.getpid) != os.getpid()
    assert call(TOOL, add, "a", "b") == "ab"
    assert call(TOOL, os.getenv, environments.HOME) == str(folder.parent)
    assert call(TOOL, os.getenv, "A", variables={"A": "1"}) == "1"


def test_without_an_environment_and_inside_it_nothing_is_started(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert call(None, os.getpid) == os.getpid()
    monkeypatch.setattr(sys, "prefix", str(folder))
    assert call(TOOL, os.getpid) == os.getpid()


def test_what_goes_wrong_there_is_told_here(folder: Path) -> None:
    with pytest.raises(RunnerError, match="the package 'no-such-package' is not installed") as caught:
        call(TOOL, find_packaged_file, "no-such-package", "x.gguf")
    assert "--no-deps no-such-package" in caught.value.hint
    with pytest.raises(RunnerError, match="environment tool has ended: ValueError: invalid literal"):
        call(TOOL, int, "x")
    with pytest.raises(RunnerError, match="has ended: exit code 3"):
        call(TOOL, os._exit, 3)


def test_an_environment_that_is_not_made_is_named_with_its_command(folder: Path) -> None:
    (folder / environments.RECORD).unlink()
    with pytest.raises(RunnerError) as caught:
        call(TOOL, os.getpid)
    assert caught.value.message == "a.b=c is looked at in the environment tool, which is not made"
    assert environments.command("tool", "cpu") in caught.value.hint
