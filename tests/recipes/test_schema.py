"""The JSON Schemas: complete, not stale, and right about every shipped recipe and group file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from runner.cli.main import main
from runner.errors import EXIT_DONE, EXIT_INVALID_RECIPE
from runner.pipeline.registry import BUILTIN, choices, mappings
from runner.pipeline.rules.check import load_recipe
from runner.recipe.json_schema import FromStages, file_schema, file_schemas, recipe_schema, sections
from runner.recipe.load import RECIPES_DIR, compose
from stages.trainers.accelerate.mappings import TRL
from stages.trainers.axolotl.mappings import AXOLOTL
from stages.trainers.llamafactory.mappings import LLAMAFACTORY

FILES = sorted(file for file in RECIPES_DIR.rglob("*.yaml") if file.parent != RECIPES_DIR)
STAGES = FromStages(mappings(BUILTIN), choices(BUILTIN))
COMMENT = re.compile(r"^# yaml-language-server: \$schema=(\S+)$", re.MULTILINE)


@cache
def validator(group: str) -> Draft7Validator:
    schema = file_schema(group, STAGES)
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema)


def named_by(file: Path) -> Path:
    """The schema that the file's editor comment points to."""
    found = COMMENT.search(file.read_text())
    assert found, f"{file} has no editor comment: run `make schema`"
    return (file.parent / found[1]).resolve()


def fields(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], bool]]:
    for name, model in (("Recipe", schema), *schema["$defs"].items()):
        for key, field in model.get("properties", {}).items():
            yield f"{name}.{key}", field, key in model.get("required", [])


def test_the_written_files_are_those_of_the_code() -> None:
    written = {file.name: file.read_text() for file in (RECIPES_DIR / "_schema").iterdir()}
    assert written == file_schemas(STAGES), "run `make schema`"


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_shipped_file_is_valid_by_the_schema_it_names(file: Path) -> None:
    schema = named_by(file)
    whole = file.read_text().startswith("# @package _global_\n")
    assert schema.name == ("recipe.json" if whole else f"{file.parent.name}.json")
    Draft7Validator(json.loads(schema.read_text())).validate(yaml.safe_load(file.read_text()))


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_misspelled_key_of_a_shipped_file_is_refused(file: Path) -> None:
    content = yaml.safe_load(file.read_text())
    for key in [key for key in content if key != "defaults"]:
        wrong = {f"{name}x" if name == key else name: value for name, value in content.items()}
        assert not Draft7Validator(json.loads(named_by(file).read_text())).is_valid(wrong), key


@pytest.mark.parametrize(
    ("values", "valid"),
    [
        ({"train": {"lora_rank": 4}}, True),
        ({"train": {"lora_rank": "${oc.env:RANK}"}}, True),
        ({"train": {"lora_rank": "four"}}, False),
        ({"train": {"lora_rnk": 4}}, False),
        ({"train": {"args": {"cutoff_len": 128, "bf16": True}}}, True),
        ({"train": {"args": {"cutof_len": 128}}}, False),
        ({"infer": {"engine_kwargs": {"max_modle_len": 128}}}, False),
        ({"infer": {"engine_kwargs": {"max_model_len": "${train.args.cutoff_len}"}}}, True),
        ({"infer": {"engine_kwargs": {"model": "other/model"}}}, False),
        ({"resources": {"train": {"gpus_per_worker": 1, "runtime_env": {"env_vars": {"A": "b"}}}}}, True),
        ({"resources": {"train": {"runtime_env": {"env_var": {}}}}}, False),
        ({"defaults": [{"override /model": "smollm2_135m"}, "_self_"], "seed": 1}, True),
        ({"stop_after": "infer"}, False),
        ({"serve": {"autoscaling": {"max_replicas": 0}}}, False),
    ],
)
def test_a_recipe_file_holds_some_of_the_keys_and_no_others(values: dict[str, Any], valid: bool) -> None:
    assert validator("recipe").is_valid(values) is valid


@pytest.mark.parametrize("recipe", ["viggo_quickstart", "viggo_qwen7b"])
def test_a_resolved_recipe_is_valid_by_the_schema_of_recipes(recipe: str) -> None:
    resolved, _ = load_recipe(compose([f"recipe={recipe}", "storage.artifacts=s3://bucket/prefix"]))
    Draft7Validator(recipe_schema(STAGES)).validate(resolved.model_dump(mode="json"))


def test_every_key_has_a_description_a_default_and_examples() -> None:
    for name, field, required in fields(recipe_schema(STAGES)):
        assert field.get("description") or "$ref" in field, name
        assert required or "default" in field, name
        assert field.get("examples") or "$ref" in json.dumps(field), f"{name} needs examples=[...]"


def test_the_librarys_own_arguments_are_completed() -> None:
    arguments = file_schema("train", STAGES)["properties"]["args"]
    known = {name for option in arguments["anyOf"] for name in option.get("properties", {})}
    of_any_trainer = {name for library in (LLAMAFACTORY, TRL, AXOLOTL) for name in library.table("arguments")}
    assert {"cutoff_len", "lora_alpha", "max_length", "beta", "sequence_len"} <= known <= of_any_trainer


def test_schema_of_a_group_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["action=schema", "group=model"]) == EXIT_DONE
    assert set(json.loads(capsys.readouterr().out)["properties"]) > {"source", "template"}
    assert main(["action=schema", "group=modle"]) == EXIT_INVALID_RECIPE
    assert "cluster" in sections()
