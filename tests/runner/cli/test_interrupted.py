"""Ctrl-C at a command: exit code 130, one line that says how to continue, and no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.cli.main import main
from runner.errors import EXIT_INTERRUPTED
from runner.pipeline.engine import loop
from runner.report import pages
from tests import conftest
from tests.paths import ROOT


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Ctrl-C as a terminal sends it. A shell has what it starts in the background ignore it, and so this process."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def _ctrl_c(*_: Any, **__: Any) -> Any:
    os.kill(os.getpid(), signal.SIGINT)


def _ctrl_c_that_a_library_swallows(*_: Any, **__: Any) -> Any:
    try:
        _ctrl_c()
    except KeyboardInterrupt:
        raise AttributeError("'NoneType' object has no attribute '_invalidate_flags_cache'") from None


@pytest.mark.parametrize("happens", [_ctrl_c, _ctrl_c_that_a_library_swallows])
def test_ctrl_c_while_a_recipe_is_composed_says_how_to_continue(
    happens: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("runner.recipe.load.compose", happens)
    before = signal.getsignal(signal.SIGINT)
    assert main(["plan", "recipe=viggo_quickstart"]) == EXIT_INTERRUPTED
    shown = capsys.readouterr()
    assert shown.err == "interrupted; continue with: python -m runner plan recipe=viggo_quickstart\n"
    assert shown.out == ""
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize(("where", "name"), [(loop.planning, "build"), (pages, "write_report")])
def test_ctrl_c_before_the_first_stage_and_after_the_last_one_says_how_to_continue(
    where: Any, name: str, fake_stages: Any, local: list[str], monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(where, name, _ctrl_c)
    assert main(["run", "recipe=viggo_quickstart", *local]) == EXIT_INTERRUPTED
    shown = capfd.readouterr()
    assert "interrupted; continue with: python -m runner run recipe=viggo_quickstart" in shown.err
    assert "Traceback" not in shown.out + shown.err


@pytest.mark.parametrize("interrupted", [True, False])
def test_what_an_interrupted_stage_leaves_is_ended_and_noted_in_its_log(
    interrupted: bool, fake_stages: Any, local: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("runner.cluster.leaks.Leaks.sweep", lambda *_, **__: ["left behind: process 7, ended"])
    if interrupted:
        monkeypatch.setattr(conftest.Ingest, "run", _ctrl_c)
    main(["run", "recipe=viggo_quickstart", *local, "pipeline=[ingest]"])
    shown = "".join(capfd.readouterr())
    assert ("process 7" in shown) is not interrupted
    logs = "".join(path.read_text() for path in tmp_path.rglob("*.log"))
    assert ("process 7" in logs) is interrupted


@pytest.mark.parametrize(("module", "shown"), [
    ("runner.cli", "interrupted\n"),
    ("runner.recipe.load", "interrupted; continue with: python -m runner plan recipe=viggo_quickstart\n"),
])  # fmt: skip
def test_ctrl_c_while_modules_are_imported_is_one_line(module: str, shown: str, tmp_path: Path) -> None:
    """Python would end itself by the signal where the interruption has passed through code that is text."""
    watch = (
        "import os, signal, sys, runpy\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == {module!r}:\n"
        "            sys.meta_path.remove(self)\n"
        "            exec('os.kill(os.getpid(), signal.SIGINT)')\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv = ['runner', 'plan', 'recipe=viggo_quickstart']\n"
        "runpy.run_module('runner', run_name='__main__')\n"
    )
    (tmp_path / "watch.py").write_text(watch)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "watch.py")], env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == EXIT_INTERRUPTED
    assert done.stderr == shown
