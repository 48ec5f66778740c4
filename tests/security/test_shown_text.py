"""Rows, answers and messages that try to steer the terminal: they stay text. (The page: tests/runner/pages)."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from runner.cli.main import main
from runner.errors import Problem as Found
from runner.errors import RecipeError, RunnerError, printable
from runner.report.terminal import Report

ATTACKS = {
    "clears the screen": "\x1b[2J\x1b[H",
    "names the window": "\x1b]0;owned\x07",
    "copies to the clipboard": "\x1b]52;c;b3duZWQ=\x07",
    "a link": "\x1b]8;;https://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "one-byte control": "\x9b2J",
    "goes back over the line": "error\rall is well",
    "rubs out": "no\b\byes",
    "turns the text around": "\u202eevil",
    "hides": "a\u200bb\u2066",
    "a null": "a\x00b",
}
STEERING = ("\x1b", "\x9b", "\x07", "\r", "\b", "\x00", "\u202e", "\u200b", "\u2066")


def assert_only_text(shown: str) -> None:
    assert not [char for char in STEERING if char in shown]


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_steers_a_terminal_is_written_out(attack: str) -> None:
    shown = printable(ATTACKS[attack])
    assert_only_text(shown)
    assert "\\" in shown


def test_ordinary_text_is_left_alone() -> None:
    text = "Ёж, 日本語, naïve 🙂\n\tinform(name[a])"
    assert printable(text) == text


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_report_on_the_terminal_shows_text(attack: str) -> None:
    out, text = io.StringIO(), f"[red]{ATTACKS[attack]}[/red]"
    report = Report(out)
    report.say(text)
    report.error(RunnerError(text, text), [Found(text, text, text, text, text)])
    report.error(RecipeError([]), [])
    assert_only_text(out.getvalue())
    assert "[red]" in out.getvalue()  # nor is it taken for the console's own markup


def test_a_preview_of_rows_shows_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row = {"instruction": "".join(ATTACKS.values()), "input": "a", "output": "b"}
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
    own = "dataset.prompt.user='{instruction} {input}'"
    source = f"dataset.source={tmp_path}"
    main(["recipe=viggo_quickstart", "action=preview", source, own, f"storage.root={tmp_path}/runs"])
    printed = capsys.readouterr()
    assert_only_text(printed.out.replace("\r", "") + printed.err.replace("\r", ""))
