"""Writes the JSON Schemas of the recipe files: `python -m runner.cli.schema_files`, or `make schema`."""

from __future__ import annotations

from pathlib import Path

from runner.pipeline.registry import BUILTIN, choices, mappings
from runner.recipe.json_schema import FromStages, file_schemas
from runner.recipe.load import RECIPES_DIR
from runner.storage.atomic import write_text

_COMMENT = "yaml-language-server: $schema="
_GLOBAL = "# @package _global_\n"  # must stay the first line of a file


def write_files(recipes: Path) -> None:
    """Write the schemas to `_schema` below the folder, and the comment that points to them into files without one."""
    for name, content in file_schemas(FromStages(mappings(BUILTIN), choices(BUILTIN))).items():
        write_text(recipes / "_schema" / name, content)
    for file in recipes.glob("*/*.yaml"):
        text = file.read_text(encoding="utf-8")
        if _COMMENT not in text:
            first, rest = (_GLOBAL, text.removeprefix(_GLOBAL)) if text.startswith(_GLOBAL) else ("", text)
            group = "recipe" if first else file.parent.name
            write_text(file, f"{first}# {_COMMENT}../_schema/{group}.json\n{rest}")


if __name__ == "__main__":
    write_files(RECIPES_DIR)
