"""Folders that a recipe file has written to: none that another program keeps, unless the user says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.cli.main import main
from runner.cli.settings import settings_path
from runner.cluster import environments
from runner.errors import EXIT_DONE, EXIT_INVALID_RECIPE
from runner.pipeline.runs import remember_root

HEAD = "# @package _global_\ndefaults: [override /dataset: viggo_slice]\n"
KEPT = [
    "~/.ssh",
    "~/.ssh/runs",
    "~/.aws/x",
    "~/.config/systemd/user",
    "~/.cache/../.gnupg",
    ".git/hooks",
    "project/.git",
    "./.venv/lib",
    "/var/www/html",
    "/run/user/0/x",
    "/mnt/shared/.snapshots",
    "link",
    "~/.cache/huggingface/.locks",
]
FREE = [
    "runs",
    "./runs",
    "../runs",
    "~/runs",
    "~/projects/runs",
    "/mnt/shared/runs",
    "/tmp/runs",
    "/var/tmp/runs",
    "/dev/shm/runs",
    "/data",
    "/opt/runs",
    "/srv/runs",
    "~/.cache/recipe-runner/runs",
    "~/.local/share/runs",
    "/run/media/me/disk/runs",
]


@pytest.fixture
def validate(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Validates a recipe file with a value of storage, in a project of a user's home; gives what was printed."""
    monkeypatch.setattr(environments, "version", lambda *names: "1")
    for name in ("RUNS_DIR", "ARTIFACT_URI", "XDG_CACHE_HOME", "XDG_DATA_HOME", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/tmp")
    (home / ".ssh").mkdir(parents=True)
    (home / "project" / "recipe").mkdir(parents=True)
    monkeypatch.chdir(home / "project")
    Path("link").symlink_to(home / ".ssh")

    def run(values: dict[str, Any], *arguments: str, code: int = EXIT_INVALID_RECIPE) -> str:
        Path("recipe", "bot.yaml").write_text(HEAD + yaml.safe_dump(values))
        found = main(["validate", "recipe=bot", "--config-dir", ".", *arguments])
        shown = capsys.readouterr()
        assert found == code, shown.err
        return " ".join((shown.out + shown.err).split())

    return run


@pytest.mark.parametrize("key", ["root", "artifacts", "cache"])
@pytest.mark.parametrize("folder", KEPT)
def test_a_folder_of_another_program_is_not_for_a_recipe_file(folder: str, key: str, validate: Any) -> None:
    shown = validate({"storage": {key: folder}})
    assert f"storage.{key} = '{folder}'" in shown
    assert "which a recipe file may not name" in shown
    assert f"--allow {folder}" in shown


def test_a_store_below_a_root_that_is_refused_is_not_told_as_well(validate: Any) -> None:
    shown = validate({"storage": {"root": "~/.ssh", "artifacts": "~/.ssh/artifacts"}})
    assert "storage.root = '~/.ssh'" in shown
    assert "storage.artifacts" not in shown


@pytest.mark.parametrize("folder", FREE)
def test_other_folders_are(folder: str, validate: Any) -> None:
    validate({"storage": {"root": folder}}, code=EXIT_DONE)


def test_the_folder_of_the_recipe_s_runs_is_looked_at_behind_a_link(validate: Any) -> None:
    Path("runs").mkdir()
    Path("runs", "mine").symlink_to(Path("~/.ssh").expanduser())
    shown = validate({"storage": {"root": "runs"}, "name": "mine"})
    assert "storage.root = 'runs' is in .ssh" in shown
    validate({"storage": {"root": "runs"}, "name": "other"}, code=EXIT_DONE)
    validate({"name": "mine"}, "storage.root=runs", code=EXIT_DONE)


def test_checkpoints_are_written_to_no_such_folder(validate: Any) -> None:
    assert "train.storage_path = '~/.ssh'" in validate({"train": {"storage_path": "~/.ssh"}})


def test_the_user_names_any_on_the_command_line_and_by_allow(validate: Any) -> None:
    kept = {"storage": {"root": "~/.runs/team"}}
    validate(kept)
    validate(kept, "storage.root=~/.runs/mine", code=EXIT_DONE)  # the store is below it, by the recipe's own words
    validate({"storage": {"cache": "~/.runs"}}, "storage.cache=~/.models", code=EXIT_DONE)
    validate(kept, "--allow", "~/.runs", code=EXIT_DONE)
    validate(kept, "--allow", "~/.run")


def test_the_user_names_any_in_the_settings_file_and_the_environment(
    validate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"storage": {"root": "~/.runs/team"}}
    monkeypatch.setenv("RUNS_DIR", str(Path("~/.runs").expanduser()))
    validate(kept, code=EXIT_DONE)
    monkeypatch.delenv("RUNS_DIR")
    settings = settings_path()
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text("allow: ['~/.runs']\n")
    validate(kept, code=EXIT_DONE)


def test_a_place_of_earlier_runs_is_one(validate: Any) -> None:
    root = Path("~/.runs").expanduser()
    validate({"storage": {"root": "~/.runs"}})
    root.mkdir()
    remember_root(root)
    validate({"storage": {"root": "~/.runs"}}, code=EXIT_DONE)
    validate({"storage": {"root": "~/.runs/.git"}})
