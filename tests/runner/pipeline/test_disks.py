"""Real disks that are full, read-only or limited: one message, a failed run, and one that continues afterwards."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.cli.main import main
from runner.errors import EXIT_DONE, EXIT_INVALID_RECIPE, EXIT_STAGE_FAILED
from runner.pipeline.runs import find_run
from runner.report.status import status_of
from tests import conftest
from tests.paths import ROOT

_SIZE = 2 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB in memory. Only who may mount has one."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True)


def run(disk: Path, tmp_path: Path) -> int:
    places = [f"storage.root={disk}/runs", f"storage.cache={tmp_path}/cache", f"storage.artifacts={tmp_path}/store"]
    return main(["recipe=viggo_quickstart", *places])


def fill(disk: Path, left_kib: int) -> Path:
    """Fill the disk but for some room."""
    filler = disk / "filler"
    filler.write_bytes(bytes(max(shutil.disk_usage(disk).free - (left_kib << 10), 0)))
    return filler


def assert_one_message(shown: str, reason: str) -> None:
    assert reason in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("left_kib", [0, 64, 280, 320, 400])
def test_a_disk_that_fills_up_anywhere_in_a_run_is_one_message_and_the_run_continues_with_room(
    left_kib: int, disk: Path, tmp_path: Path, fake_stages: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    filler = fill(disk, left_kib)
    code = run(disk, tmp_path)
    shown = capsys.readouterr()
    if code != EXIT_DONE:
        assert code in (EXIT_STAGE_FAILED, EXIT_INVALID_RECIPE)
        assert_one_message((shown.err + shown.out).lower(), "no space left on device")
        if (disk / "runs" / "latest").exists():
            assert status_of(find_run(disk / "runs", "latest"))["status"] == "failed"
    filler.unlink()
    assert run(disk, tmp_path) == EXIT_DONE
    assert status_of(find_run(disk / "runs", "latest"))["status"] == "done"


def test_a_log_on_a_full_disk_does_not_keep_the_terminal_from_what_is_printed_next() -> None:
    """A library has printed to the stage's log, and its words do not get there."""
    program = (
        "from pathlib import Path\nfrom runner.pipeline.engine.output import Output\noutput = Output()\n"
        "output.capture(Path('/dev/full'))\nprint('of a library')\noutput.release()\nprint('printed next')\n"
    )
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert "printed next" in done.stdout


def test_a_root_that_is_read_only_is_one_message_of_the_run_and_of_its_plan(
    disk: Path, tmp_path: Path, fake_stages: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    remount(disk, "ro")
    assert run(disk, tmp_path) == EXIT_INVALID_RECIPE
    assert_one_message(capsys.readouterr().err, "read-only")
    main(["recipe=viggo_quickstart", "action=plan", f"storage.root={disk}/runs"])
    assert_one_message(capsys.readouterr().err, "read-only")
    assert fake_stages.runs == []


def test_a_limit_of_the_size_of_files_is_one_message(
    tmp_path: Path, fake_stages: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = conftest.Train.run

    def writes_too_much(self: Any, ctx: Any) -> Any:
        (ctx.stage_dir / "weights").write_bytes(bytes(2 << 20))
        return real(self, ctx)

    monkeypatch.setattr(conftest.Train, "run", writes_too_much)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        assert run(tmp_path, tmp_path) == EXIT_STAGE_FAILED
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    shown = capsys.readouterr()
    assert_one_message((shown.err + shown.out).lower(), "file too large")
    assert run(tmp_path, tmp_path) == EXIT_DONE


def test_clean_leaves_what_others_have_put_next_to_the_runs(
    tmp_path: Path, fake_stages: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, tmp_path) == EXIT_DONE
    home = next((tmp_path / "runs").glob("viggo_quickstart/*/manifest.json")).parent.parent
    foreign = {
        home / "photos" / "a.jpg": "mine",
        home / "20200101-000000-abcdef" / "manifest.json": '{"run_id": "20200101-000000-abcdef"}',
        home.parent / "other" / "20200101-000000-abcdef" / "manifest.json": "{}",
        home.parent / "notes.txt": "mine",
    }
    for path, text in foreign.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (home / "linked").symlink_to(tmp_path / "cache")
    (tmp_path / "cache").mkdir(exist_ok=True)
    (tmp_path / "cache" / "kept").write_text("kept")
    assert main(["clean", "recipe=viggo_quickstart", f"storage.root={tmp_path}/runs"]) == EXIT_DONE
    assert {path: path.read_text() for path in foreign} == foreign
    assert (tmp_path / "cache" / "kept").read_text() == "kept"
    assert not list(home.glob("*/identity.json"))
