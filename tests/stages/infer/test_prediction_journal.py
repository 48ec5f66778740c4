"""The journal of finished predictions: what survives, what a damaged record costs, and in which order it is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.errors import RunnerError
from stages.data.prediction import Prediction
from stages.infer import journal as prediction_journal
from stages.infer.journal import Journal


def line(index: int, error: str | None = None) -> str:
    return Prediction(f"{index}", "tuned", "é\u2028", "", 1, 2, error, {}).line()


def filled(path: Path, num_rows: int = 4) -> Path:
    with Journal(path, num_rows, ["tuned", "base"]) as journal:
        for index in reversed(range(num_rows)):
            journal.add(index, "base", line(index))
            journal.add(index, "tuned", line(index, "too long" if index == 1 else None))
    return path


def test_lines_come_in_the_rows_order_however_they_were_added(tmp_path: Path) -> None:
    with Journal(filled(tmp_path / "journal"), 4, ["tuned", "base"]) as journal:
        journal.check_complete()
        assert [json.loads(text)["id"] for text in journal.lines()] == list("00112233")
        assert [json.loads(text)["error"] for text in journal.lines()][2:4] == ["too long", None]
        assert (journal.count, journal.num_expected, journal.num_errors, journal.num_tokens) == (8, 8, 1, 16)
        assert journal.refusal == "too long"


def test_a_second_answer_does_not_count(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", 1, ["tuned"]) as journal:
        journal.add(0, "tuned", line(0))
        journal.add(0, "tuned", line(7))
        assert list(journal.lines()) == [line(0)]
        assert journal.count == 1


def test_a_lost_row_is_named(tmp_path: Path) -> None:
    with Journal(tmp_path / "journal", 3, ["tuned"]) as journal:
        journal.add(0, "tuned", line(0))
        journal.add(2, "tuned", line(2))
        with pytest.raises(RunnerError, match=r"1 of 3 test rows without a prediction \(tuned\), row 1 for one"):
            journal.check_complete()


def test_a_file_cut_at_any_byte_loses_only_the_records_that_it_cuts(tmp_path: Path) -> None:
    whole = filled(tmp_path / "whole", 2).read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
    path = tmp_path / "journal"
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        with Journal(path, 2, ["tuned", "base"]) as journal:
            assert journal.count == sum(end <= size for end in ends)
            assert journal.num_damaged == (size not in (0, *ends))
            for index in range(2):
                for variant in ("tuned", "base"):
                    journal.add(index, variant, line(index))
            journal.check_complete()
        with Journal(path, 2, ["tuned", "base"]) as journal:
            assert (journal.count, journal.num_damaged) == (4, 0)


def test_a_record_with_a_changed_byte_does_not_count(tmp_path: Path) -> None:
    path = filled(tmp_path / "journal")
    records = path.read_bytes().splitlines(keepends=True)
    records[3] = records[3].replace(b'"id": "2"', b'"id": "3"')
    path.write_bytes(b"".join(records))
    with Journal(path, 4, ["tuned", "base"]) as journal:
        assert (journal.count, journal.num_damaged) == (7, 1)
        assert not journal.is_done(2, "tuned")


def test_records_of_another_test_set_do_not_count(tmp_path: Path) -> None:
    with Journal(filled(tmp_path / "journal"), 2, ["tuned"]) as journal:
        assert (journal.count, journal.num_damaged) == (2, 6)


def test_the_disk_is_waited_for_now_and_then_not_for_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(prediction_journal.os, "fsync", synced.append)
    clock = [0.0]
    with Journal(tmp_path / "journal", 1000, ["tuned"], now=lambda: clock[0]) as journal:
        for index in range(1000):
            clock[0] = index * 0.01
            journal.add(index, "tuned", line(index))
            journal.flush()
        assert len(synced) == 5
