"""What leaves this machine goes where its user says: each key of the table in docs/security.md, and none is missing."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from runner.cli.main import main
from runner.cluster import environments
from runner.errors import EXIT_DONE, EXIT_INVALID_RECIPE
from runner.recipe import places
from runner.recipe.extension import extension, recipe_class
from runner.recipe.load import section_of
from runner.recipe.origin_rules import leaving
from tests.paths import ROOT

HEAD = "# @package _global_\ndefaults: [override /dataset: viggo_slice]\n"
DOCS = (ROOT / "docs" / "security.md").read_text()
SECTION = DOCS.partition("### What may leave this machine")[2].partition("\n## ")[0]
ROWS = [
    (key, yaml.safe_load(value), who)
    for key, value, _, who in re.findall(r"^\| `([\w.]+)` \| `(.+?)` \| (.+?) \| (.+?) \|$", SECTION, re.MULTILINE)
]
# Texts that name nothing outside this machine: names from lists, templates, patterns, ids, files and folders.
NAMES_NOTHING_OUTSIDE = (
    "name", "pipeline", "model.chat_template", "model.chat_template_kwargs", "model.tool_parser",
    "model.reasoning_parser", "model.template", "model.revision", "model.architecture.*", "dataset.files.*",
    "dataset.split.*", "dataset.prompt.*", "dataset.ignore_keys", "dataset.roles", "train.trainer",
    "train.lora_target", "train.reasoning", "infer.backend", "infer.sampling", "evaluate.metrics",
    "evaluate.metric_args", "evaluate.slices", "evaluate.reasoning", "evaluate.require", "evaluate.objective",
    "serve.model_id", "serve.host", "serve.api_keys.file", "serve.api_keys.env", "serve.autoscaling",
    "serve.deployment", "cleanup.delete", "cluster.resources", "submit.python", "submit.resources",
    "resources.accelerator_type", "resources.custom", "stages",
)  # fmt: skip


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Validates a recipe file with these values; gives the exit code and what was printed."""
    monkeypatch.setattr(environments, "version", lambda *names: "1")
    monkeypatch.delenv("ARTIFACT_URI", raising=False)
    (tmp_path / "recipe").mkdir()

    def validate(values: dict[str, Any], *arguments: str) -> tuple[int, str]:
        (tmp_path / "recipe" / "bot.yaml").write_text(HEAD + yaml.safe_dump(nested(values)))
        code = main(["validate", "recipe=bot", "--config-dir", str(tmp_path), *arguments])
        shown = capsys.readouterr()
        return code, " ".join((shown.out + shown.err).split())

    return validate


def nested(values: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for dotted, value in values.items():
        *parents, name = dotted.split(".")
        section = found
        for parent in parents:
            section = section.setdefault(parent, {})
        section[name] = value
    return found


def settings(text: str) -> None:
    file = Path(os.environ["XDG_CONFIG_HOME"]) / "recipe-runner" / "settings.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(text)


@pytest.mark.parametrize(("key", "value", "who"), ROWS, ids=[row[0] for row in ROWS])
def test_a_foreign_value_in_a_recipe_file_is_refused_with_what_allows_it(
    key: str, value: Any, who: str, run: Any
) -> None:
    code, printed = run({key: value})
    assert code == EXIT_INVALID_RECIPE
    assert key in printed
    hint = next((word for word in ("--trust", "never") if word in who), "allow: [")
    assert hint == "never" or hint in printed
    if "allowed places" in who:
        assert run({key: value}, "--allow", value)[0] == EXIT_DONE


def test_the_table_has_every_key_that_may_name_a_place() -> None:
    listed = [key for key, _, _ in ROWS]
    assert set(leaving()) <= set(listed)
    mentioned = set(re.findall(r"`([a-z_]+(?:\.[a-z_]+)*)[`:]", SECTION))
    for key in texts_of(recipe_class()):
        below = [each for each in listed if each == key or each.startswith(f"{key}.") or key in each]
        general = key == "resources.runtime_env" and "resources.train.runtime_env" in listed
        reviewed = any(fnmatch.fnmatchcase(key, each) for each in NAMES_NOTHING_OUTSIDE)
        assert below or general or key in mentioned or reviewed, key


def texts_of(model: Any, prefix: str = "") -> Iterator[str]:
    """Dotted keys of the schema whose values may be texts of any content."""
    for name, field in model.model_fields.items():
        if section := section_of(field.annotation):
            yield from texts_of(section, f"{prefix}{name}.")
        elif "str" in str(field.annotation):
            yield f"{prefix}{name}"


def test_a_store_below_the_users_own_is_fine(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTIFACT_URI", "s3://ours/art")
    assert run({"storage.artifacts": "${oc.env:ARTIFACT_URI}/team"})[0] == EXIT_DONE
    assert run({"storage.artifacts": "s3://evil/${oc.env:ARTIFACT_URI}"})[0] == EXIT_INVALID_RECIPE
    monkeypatch.delenv("ARTIFACT_URI")
    assert run({"storage.artifacts": "${oc.env:ARTIFACT_URI,s3://evil/x}"})[0] == EXIT_INVALID_RECIPE


def test_the_settings_file_allows_a_teams_places_to_every_verb_and_adds_to_the_command_lines(run: Any) -> None:
    settings("allow: [s3://ours, 'https://minio.ours:9000']\n")
    ours = {"storage.artifacts": "s3://ours/art", "storage.endpoint_url": "https://minio.ours:9000"}
    assert run(ours)[0] == EXIT_DONE
    assert run({**ours, "train.storage_path": "s3://theirs/x"})[0] == EXIT_INVALID_RECIPE
    assert run({**ours, "train.storage_path": "s3://theirs/x"}, "--allow", "s3://theirs/x")[0] == EXIT_DONE


def test_settings_that_allow_no_list_are_refused_with_the_file(run: Any) -> None:
    settings("allow: s3://ours\n")
    code, printed = run({})
    assert code == EXIT_INVALID_RECIPE
    assert "must be a list of places" in printed
    assert "settings.yaml" in printed


def test_choosing_a_variant_on_the_command_line_gives_no_key_of_it(run: Any) -> None:
    code, printed = run({"cluster.address": "evil.example:6379"}, "cluster=local_cpu")
    assert code == EXIT_INVALID_RECIPE
    assert "cluster.address" in printed


def test_public_data_may_be_asked_for_anywhere(run: Any) -> None:
    public = {
        "dataset.source": "s3://open/rows",
        "dataset.endpoint_url": "https://s3.example",
        "dataset.anonymous": True,
    }
    code, printed = run(public)
    assert "dataset.endpoint_url" not in printed, code


KEYS = "a-good-key-0123456789\n"


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_a_file_of_keys_is_named_by_who_runs_the_recipe(host: str, run: Any, tmp_path: Path) -> None:
    known = tmp_path / "keys.txt"
    known.write_text(KEYS)
    known.chmod(0o644)  # as files that a cluster mounts are
    values = {"serve.host": host, "serve.api_keys.file": str(known)}
    code, printed = run(values)
    assert code == EXIT_INVALID_RECIPE
    assert "serve.api_keys.file" in printed
    for granted in (["--allow", str(known)], ["--allow", str(tmp_path)], [f"serve.api_keys.file={known}"]):
        assert run(values, *granted)[0] == EXIT_DONE, granted
    assert run({"serve.host": host}, f"serve.api_keys={{file: {known}}}")[0] == EXIT_DONE
    assert run(values, "--allow", str(tmp_path / "key"))[0] == EXIT_INVALID_RECIPE


def test_a_file_of_keys_next_to_the_users_settings_is_the_users(run: Any, tmp_path: Path) -> None:
    settings("allow: []\n")
    folder = Path(os.environ["XDG_CONFIG_HOME"]) / "recipe-runner"
    for file in (folder / "keys", tmp_path / "keys"):
        file.write_text(KEYS)
    assert run({"serve.api_keys.file": str(folder / "keys")})[0] == EXIT_DONE
    up = os.path.relpath(tmp_path / "keys", folder)
    assert run({"serve.api_keys.file": f"{folder}/{up}"})[0] == EXIT_INVALID_RECIPE


def test_every_key_that_names_a_file_of_keys_asks_the_user() -> None:
    named = [key for key in texts_of(recipe_class()) if key.endswith("keys.file")]
    assert named == list(extension().secrets)


@pytest.mark.parametrize(
    ("place", "value", "covered"),
    [
        ("s3://ours", "s3://ours", True),
        ("s3://ours/", "s3://ours/a/b", True),
        ("s3://ours/a", "s3://ours/ab", False),
        ("s3://ours/a", "s3://ours/a/../b", False),
        ("s3://ours", "s3://ours-evil/a", False),
        ("s3://ours", "https://ours/a", False),
        ("https://minio.ours:9000", "https://MINIO.ours:9000/x", True),
        ("https://minio.ours:9000", "https://minio.ours:9000@evil/x", False),
        ("https://minio.ours", "https://minio.ours\\@evil/x", False),
        ("https://minio.ours", "https://minio.ours.evil", False),
        ("https://minio.ours", "http://minio.ours", False),
        ("10.0.0.1:6379", "10.0.0.1:6379", True),
        ("10.0.0.1:6379", "10.0.0.1:63790", False),
        ("s3://", "s3://evil", False),
        ("", "s3://evil", False),
        ("/", "//evil", False),
    ],
)
def test_a_place_stands_for_itself_and_what_is_below_it(place: str, value: str, covered: bool) -> None:
    assert places.is_allowed(value, [place]) is covered
