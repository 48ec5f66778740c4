"""Before its first stage a run tries the places that it will write to."""

from __future__ import annotations

import errno
import io
import os
import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from runner.errors import EXIT_DONE, EXIT_INVALID_RECIPE, RunnerError
from runner.pipeline.engine import run
from runner.recipe.load import compose, to_recipe
from runner.report.observers import OnTerminal
from runner.report.terminal import Report
from runner.storage.store import open_store
from tests import conftest

pytest_plugins = ["tests.moto_s3"]


@pytest.fixture
def stages(fake_stages: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Fake stages, of which publish writes where the real one does."""
    from stages.ingest.stage import Ingest
    from stages.publish.stage import Publish
    from stages.serve.stage import Serve
    from stages.train.stage import Train

    for real in (Ingest, Train, Publish, Serve):
        name = real.__name__
        writing = type(name, (getattr(conftest, name),), {"destinations": real.destinations})
        monkeypatch.setattr(conftest, name, writing)  # a class of its own: isinstance remembers what a class had
    return fake_stages


def run_with(tmp_path: Path, *overrides: str) -> int:
    own = [f"storage.root={tmp_path}/runs", f"storage.cache={tmp_path}/cache", "storage.share_cache=false"]
    recipe, options = to_recipe(
        compose(["recipe=viggo_quickstart", *own, "pipeline=[ingest,train,publish]", *overrides])
    )
    return run(recipe, options, "python -m runner", [OnTerminal(Report(io.StringIO()))])[0]


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@pytest.mark.usefixtures("s3_env")
@pytest.mark.parametrize(
    ("overrides", "environment", "named"),
    [
        (["storage.artifacts=s3://no-such-bucket-here/x"], {}, "NoSuchBucket"),
        (["storage.artifacts=s3://mine/x"], {"AWS_ACCESS_KEY_ID": None}, "there are no credentials"),
        (["storage.artifacts=s3://mine/x", "storage.endpoint_url=http://127.0.0.1:{port}"], {}, "Could not connect"),
    ],
)
def test_a_store_that_takes_nothing_ends_the_run_before_its_first_stage(
    overrides: list[str], environment: dict[str, Any], named: str, stages: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name, value in environment.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    begin = time.monotonic()
    with pytest.raises(RunnerError, match=r"storage\.artifacts, where results are to be written, takes none") as raised:
        run_with(tmp_path, *(each.format(port=free_port()) for each in overrides))
    assert named in raised.value.message
    assert raised.value.hint
    assert raised.value.exit_code == EXIT_INVALID_RECIPE, "nothing was begun"
    assert stages.runs == []
    assert time.monotonic() - begin < 20


def test_a_folder_that_cannot_be_written_ends_the_run_before_its_first_stage(stages: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunnerError, match=r"takes none: .*file") as raised:
        run_with(tmp_path, f"storage.artifacts={tmp_path}/file/store")
    assert raised.value.exit_code == EXIT_INVALID_RECIPE
    assert stages.runs == []


@pytest.mark.parametrize("key", ["storage.cache", "train.storage_path", "storage.artifacts"])
def test_a_folder_without_the_right_to_write_is_named_by_its_key(
    key: str, stages: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The superuser of a container may write everywhere: what is asked of the system is answered here instead."""
    closed = tmp_path / "closed"
    closed.mkdir()
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != closed and may(path, mode))

    def full(self: Any, *_: Any, **__: Any) -> Any:
        raise OSError(errno.EROFS, "Read-only file system", str(closed))

    monkeypatch.setattr("runner.storage.local.FolderBlobs.put_file", full)
    with pytest.raises(RunnerError, match=rf"^{re.escape(key)}, where results are to be written, takes none") as raised:
        run_with(tmp_path, f"{key}={closed}/inner")
    assert f"{key}=" in raised.value.hint
    assert stages.runs == []


def test_a_run_that_writes_nothing_there_does_not_ask(stages: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert run_with(tmp_path, f"storage.artifacts={tmp_path}/file/store", "stop_after=train") == EXIT_DONE


def test_a_port_that_is_taken_is_named_before_the_first_stage(stages: Any, tmp_path: Path) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        taken = f"serve.port={held.getsockname()[1]}"
        serving = "pipeline=[ingest,train,publish,serve]"
        with pytest.raises(RunnerError, match=rf"^{taken} cannot be used on 127.0.0.1: .*held by ") as raised:
            run_with(tmp_path, serving, taken)
        assert raised.value.exit_code == EXIT_INVALID_RECIPE
        assert stages.runs == []
        assert run_with(tmp_path, serving, taken, "stop_after=publish") == EXIT_DONE


def test_a_store_that_keeps_nothing_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.storage.local.FolderBlobs.read", lambda self, key: b"<html>Welcome</html>")
    with pytest.raises(RunnerError, match="takes a file and does not keep it"):
        open_store(str(tmp_path / "store")).check_writable()


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_look_leaves_nothing_behind(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    where = str(tmp_path / "store") if kind == "folder" else f"s3://{request.getfixturevalue('bucket')}/prefix"
    store = open_store(where, patient=False)
    store.check_writable()
    assert list(store.list()) == []
    assert os.path.isdir(where) or kind == "s3"  # noqa: PTH112 (one line)
