"""Verbs that look at a recipe and change nothing: `validate`, `show`, `diff`, `preview`, `list`, `schema`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runner.cli.asked import Asked, Call, needed, print_json, title
from runner.errors import EXIT_DONE, EXIT_INVALID_RECIPE, Problem, RecipeError, printable
from runner.recipe.hydra.files import headline
from runner.recipe.hydra.given import checked_config_dir
from runner.recipe.load import recipe_roots


def validate(jobs: Sequence[Asked]) -> int:
    """Say that each job's recipe is valid; one that is not has been refused by now."""
    if jobs[0].options.format == "json":
        print_json({"ok": True, "problems": []})
        return EXIT_DONE
    for asked in jobs:
        print(f"{printable(title(asked, jobs)).rstrip() or asked.recipe.name}: ok")
    return EXIT_DONE


def show(jobs: Sequence[Asked]) -> int:
    """Print every value with its origin."""
    from runner.recipe import show as page

    if jobs[0].options.format != "json":
        for asked in jobs:
            heading = title(asked, jobs)
            print(f"{'---' if heading else ''}{f' # {heading}' if heading else ''}", end="")
            print(page.as_yaml(asked.recipe, asked.composed), end="")
        return EXIT_DONE
    values = [page.shown_values(asked.recipe) for asked in jobs]
    documents = [
        {"recipe": each, "origins": page.value_origins(each, asked.composed)}
        for each, asked in zip(values, jobs, strict=True)
    ]
    print_json(documents[0] if len(documents) == 1 else {"jobs": documents})
    return EXIT_DONE


def diff(call: Call) -> int:
    """Print what differs from the recipe, recipe file or run that `other` names."""
    from runner.report import diff as sides
    from runner.report.terminal import Report

    asked = call.checked()
    if asked.options.other is None:
        raise needed("other", "diff", "Add other=NAME: a recipe's name or file, or a run's folder, id or latest.")
    other = sides.find_other(asked.options.other, asked.root, call.line.config_dir)
    found = sides.differences(sides.Side.of_recipe(asked.recipe.name, asked.recipe, asked.composed), other)
    listed = [each.as_dict() for each in found]
    if asked.options.format == "json":
        print_json({"this": asked.recipe.name, "other": other.name, "differences": listed})
    else:
        Report().diff(asked.recipe.name, other.name, listed)
    return EXIT_DONE


def preview(call: Call) -> int:
    """Print a row as the model sees it, and token lengths against the limits."""
    from stages.ingest.preview import preview as look
    from stages.ingest.preview import preview_lines
    from stages.sections.recipe import with_sections

    asked = call.checked()
    found = look(with_sections(asked.recipe), asked.options.row)
    if asked.options.format == "json":
        print_json(found)
    else:
        print(printable("\n".join(preview_lines(found))))
    return EXIT_INVALID_RECIPE if found["problems"] else EXIT_DONE


def schema(call: Call) -> int:
    """Print the JSON Schema of a resolved recipe, or of a group's files."""
    from runner.pipeline.registry import choices, mappings, stage_settings
    from runner.recipe import json_schema

    group, known = call.options.group, ("recipe", *json_schema.sections())
    if group is not None and group not in known:
        message = f"has no files; there are: {', '.join(known)}"
        raise RecipeError([Problem("group", group, message, "Name one of these.")])
    stages = json_schema.FromStages(mappings(), choices(), stage_settings())
    print_json(json_schema.recipe_schema(stages) if group is None else json_schema.file_schema(group, stages))
    return EXIT_DONE


def list_all(call: Call) -> int:
    """Print recipes, group variants and stages, each with its first comment line."""
    from runner.pipeline.registry import describe_stage, known_stages

    found = _variants(checked_config_dir(call.line.config_dir))
    stages = {name: describe_stage(name) for name in known_stages()}
    if call.options.format == "json":
        print_json(found | {"stages": stages})
        return EXIT_DONE
    for group in ["recipe", *(name for name in found if name != "recipe")]:
        _print_names(f"{group}=", found.get(group, {}))
    _print_names("stages of a pipeline", stages)
    return EXIT_DONE


def _print_names(heading: str, lines: dict[str, str]) -> None:
    print(heading)
    for name, line in lines.items():
        print(printable(f"  {name:<22} {line}".rstrip()))


def _variants(config_dir: Path | None) -> dict[str, dict[str, str]]:
    """Group -> variant -> its headline; of the user's own files those that win over a shipped one say so."""
    found: dict[str, dict[str, str]] = {}
    for root in recipe_roots(config_dir):
        for group in sorted(path for path in root.iterdir() if path.is_dir() and path.name[0] not in "_."):
            variants = found.setdefault(group.name, {})
            for file in sorted([*group.glob("*.yaml"), *group.glob("*.yml")]):
                over = f" (instead of the shipped {group.name}={file.stem})" if file.stem in variants else ""
                variants[file.stem] = f"{_headline(file)}{over}".strip()
    return dict(sorted(found.items()))


def _headline(file: Path) -> str:
    """What the file says of itself, or why it cannot be used."""
    if file.suffix == ".yml":
        return f"cannot be used: {file} must end in .yaml"
    try:
        return headline(file)
    except RecipeError as error:
        return f"cannot be used: {file} {error.problems[0].message.removeprefix('a recipe file ')}"
