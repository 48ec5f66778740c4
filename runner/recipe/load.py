"""From the command line to a typed `Recipe`. Hydra's DictConfig comes in and ends here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, get_args

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers.oc import env as oc_env
from pydantic import BaseModel, ValidationError

from runner.errors import Problem, RecipeError, nearest
from runner.recipe import origins
from runner.recipe.grants import GRANTS, granted, granted_by_files, is_readable
from runner.recipe.hydra.code import refused_overrides, refused_values
from runner.recipe.hydra.errors import explain
from runner.recipe.hydra.limits import refused_files
from runner.recipe.machine import cpu_dtype
from runner.recipe.schema import Recipe, RunOptions
from runner.recipe.secrets import REDACTED, names_secret, reads_secret, secrets_in
from runner.recipe.secrets import redact as redact
from runner.recipe.valid_parts import partial_recipe

RECIPES_DIR = Path(__file__).resolve().parents[2] / "recipes"
_NOT_GIVEN = object()
_ONLY_OF_INFER = ("max_loras",)  # the endpoint's is serve.max_adapters_per_replica
_READS_ENVIRONMENT = "reads a secret from the environment into the recipe"
_READS_VARIABLE = "reads the environment variable"
_CHAINS = "Leave credentials to boto3's and the hub's own chains."
_CODE_KEY = re.compile(r"^_\w+_$")
# pydantic's errors about a value of the wrong kind, in the words that `runner.recipe.arguments` uses.
_KINDS = {
    **dict.fromkeys(("model_type", "model_attributes_type", "dict_type"), "must be a mapping"),
    "list_type": "must be a list",
    "string_type": "must be a text",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
}


@dataclass(frozen=True)
class Composed:
    """A composed configuration before it is checked.

    values: plain nested dict with every interpolation resolved where it can be. problems: what could not be.
    trace: finds `origins`; it reads every file once more, so it is called only when somebody asks where a value came
    from. overrides: as given on the command line.
    """

    values: dict[str, Any]
    problems: list[Problem]
    trace: Callable[[], dict[str, str]] = dict
    overrides: list[str] = field(default_factory=list)

    @cached_property
    def trusted(self) -> list[str]:
        """Keys that the command line trusts, see `runner.recipe.rules.code`."""
        return granted(self.overrides, "trust")

    @cached_property
    def origins(self) -> dict[str, str]:
        """Dotted key -> the file and line, or the override, that set it."""
        return self.trace()

    def origin(self, key: str) -> str:
        """Origin of the key, or of the nearest section above it, or "" for a default of the schema."""
        if key in self.origins:
            return self.origins[key]
        key = key.partition("[")[0]
        while key:
            if key in self.origins:
                return self.origins[key]
            key = key.rpartition(".")[0]
        return ""


def compose(overrides: list[str], config_dir: Path | None = None) -> Composed:
    """Compose recipes/config.yaml with the overrides; `config_dir` holds a user's own recipes and group variants.

    Raises RecipeError for what Hydra itself refuses: a file that does not exist or is no YAML, a malformed override.
    """
    roots = [RECIPES_DIR, *([config_dir] if config_dir else [])]
    searchpath = [f"file://{config_dir.resolve()}"] if config_dir else []
    if config_dir is not None and (refused := refused_files(config_dir)):
        raise RecipeError(refused)
    OmegaConf.register_new_resolver("oc.env", partial(_environment, _allowed(overrides)), replace=True)
    OmegaConf.register_new_resolver("cpu_dtype", cpu_dtype, replace=True)
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
        refused = list(refused_overrides(each.get_key_element().lstrip("+~") for each in parsed))
        if searchpath:
            overrides = [f"hydra.searchpath=[{searchpath[0]}]", *overrides]
        with initialize_config_dir(str(RECIPES_DIR), version_base="1.3"):
            loader = GlobalHydra.instance().config_loader()
            overrides = accept_new_keys(overrides, set(loader.list_groups("")))
            config = None if refused else hydra_compose("config", overrides=overrides, return_hydra_config=True)
    except Exception as error:  # Hydra raises whatever a user's files and overrides make it stumble over
        raise RecipeError(explain(error, roots)) from error
    if config is not None:
        hydra: Any = OmegaConf.to_container(config.hydra, resolve=False)
        refused = list(refused_values(hydra, searchpath))
    if config is None or refused:
        raise RecipeError(refused)
    with read_write(config), open_dict(config):
        del config["hydra"]
    labelled = [(RECIPES_DIR, "recipes"), *([(config_dir, str(config_dir))] if config_dir else [])]
    trace = cache(lambda: origins.trace(loader, overrides, labelled))
    values, problems = _plain(config, trace)
    return Composed(values, problems, trace, overrides)


def _allowed(overrides: list[str]) -> list[str]:
    try:
        return granted(overrides, "allow_env")
    except OverrideParseException:  # is explained where they are composed
        return []


def _environment(allowed: list[str], variable: str, default: Any = _NOT_GIVEN) -> Any:
    """The resolver `oc.env`, for variables that recipes may read: the name may itself come out of an interpolation."""
    if names_secret(variable):
        raise ValueError(_READS_ENVIRONMENT)
    if not is_readable(variable, allowed):
        raise ValueError(f"{_READS_VARIABLE} {variable}, which is not for recipes to read")
    return oc_env(variable) if default is _NOT_GIVEN else oc_env(variable, default)


def accept_new_keys(overrides: list[str], groups: set[str]) -> list[str]:
    """Let `a.b=c` set a key that no file names (Hydra's `++a.b=c`), so that the schema alone says what is legal."""
    parser = OverridesParser.create()
    accepted = []
    for text, override in zip(overrides, parser.parse_overrides(overrides), strict=True):
        key = override.get_key_element().lstrip("+~").split("@")[0]
        plain = not (override.is_delete() or override.is_force_add() or override.is_add())
        group = key in groups or key.startswith("hydra")
        if plain and not group:
            text = f"++{text}"
        elif override.is_add() and not group:
            text = f"+{text}"
        accepted.append(text)
    return accepted


@dataclass(frozen=True)
class Parsed:
    """What the schema says of a composed configuration.

    recipe: whole when there are no problems; else what can be read of it. options: None when they are wrong.
    """

    recipe: Recipe
    options: RunOptions | None
    problems: list[Problem]


def parse(composed: Composed) -> Parsed:
    """Check the values against the schema, and collect every problem found."""
    problems = [*composed.problems, *_forbidden(composed)]
    bad = {problem.key for problem in problems}
    options_values = {key: composed.values[key] for key in RunOptions.model_fields if key in composed.values}
    values = {key: value for key, value in composed.values.items() if key not in RunOptions.model_fields}
    fill_serve_engine(values)
    fill_model_id(values)
    recipe = _validate(Recipe, values, composed, problems, bad)
    options = _validate(RunOptions, options_values, composed, problems, bad)
    if recipe is None or problems:
        recipe = partial_recipe(values, {problem.key for problem in problems})
    return Parsed(recipe, options, problems)


def to_recipe(composed: Composed) -> tuple[Recipe, RunOptions]:
    """The recipe and the options. Raises RecipeError with every problem that the schema finds."""
    parsed = parse(composed)
    if parsed.problems or parsed.options is None:
        raise RecipeError(parsed.problems)
    return parsed.recipe, parsed.options


def fill_serve_engine(values: dict[str, Any]) -> None:
    """Complete `serve.engine_kwargs` from `infer.engine_kwargs`, in place, once for all that read it.

    A null there drops the key. What the section has a key of its own for is not copied.
    """
    infer, serve = values.get("infer"), values.get("serve")
    if not (isinstance(infer, dict) and isinstance(serve, dict)):
        return
    base, own = infer.get("engine_kwargs") or {}, serve.get("engine_kwargs") or {}
    if isinstance(base, dict) and isinstance(own, dict):
        copied = {key: value for key, value in base.items() if key not in _ONLY_OF_INFER}
        serve["engine_kwargs"] = {key: value for key, value in {**copied, **own}.items() if value is not None}


def fill_model_id(values: dict[str, Any]) -> None:
    """Name the endpoint's base model after `model.source` where `serve.model_id` says nothing, in place.

    Adapters are published under that name, so that a store shared by several base models offers each its own.
    """
    model, serve = values.get("model"), values.get("serve")
    if isinstance(model, dict) and isinstance(serve, dict) and serve.get("model_id") in (None, ""):
        last = str(model.get("source") or "").rstrip("/").rpartition("/")[2].removesuffix(".gguf")
        serve["model_id"] = re.sub(r"[^A-Za-z0-9._-]", "-", last).lstrip("._-") or "base"


def flatten(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every leaf; a list is a leaf, an empty mapping too."""
    if isinstance(values, dict) and (values or not prefix):
        for key, value in values.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, values


def _plain(config: DictConfig, trace: Callable[[], dict[str, str]]) -> tuple[dict[str, Any], list[Problem]]:
    problems: list[Problem] = []

    def walk(node: Any, prefix: str) -> Any:
        if isinstance(node, DictConfig):
            return {str(key): leaf(node, key, f"{prefix}.{key!s}" if prefix else str(key)) for key in node}
        if isinstance(node, ListConfig):
            return [leaf(node, index, f"{prefix}[{index}]") for index in range(len(node))]
        return node

    def leaf(parent: Any, key: Any, dotted: str) -> Any:
        raw = OmegaConf.to_container(parent, resolve=False)[key]  # type: ignore[index]
        if isinstance(raw, str) and reads_secret(raw):
            problems.append(Problem(dotted, raw, _READS_ENVIRONMENT, _CHAINS))
            return None
        if OmegaConf.is_missing(parent, key):
            problems.append(Problem(dotted, "???", "is required and was not given", f"Add {dotted}=...", ""))
            return None
        try:
            return walk(parent[key], dotted)
        except OmegaConfBaseException as error:
            problems.append(Problem(dotted, raw, *_unresolved(error), trace().get(dotted, "")))
            return None

    return walk(config, ""), problems


def _unresolved(error: OmegaConfBaseException) -> tuple[str, str]:
    """Message and hint for an interpolation that leads nowhere."""
    reason = str(error.__cause__ or error).splitlines()[0].strip("'")
    if unset := re.search(r"Environment variable '?(\w+)'? not found", reason):
        return f"takes the environment variable {unset[1]}, which is not set", f"Set it: export {unset[1]}=..."
    if _READS_ENVIRONMENT in reason:
        return _READS_ENVIRONMENT, _CHAINS
    if refused := re.search(rf"{_READS_VARIABLE} (\S+),.*", reason):
        return refused[0], f"Write the value, or add --allow-env {refused[1]} if the recipe may have its value."
    return reason, "Name an existing key, or write the value itself."


def _forbidden(composed: Composed) -> list[Problem]:
    problems = [
        Problem(
            key,
            composed.values.get(key),
            "is for who runs the recipe to say, not for a recipe file",
            f"Remove it; the command line has {GRANTS[key]} for it.",
            composed.origin(key),
        )
        for key in granted_by_files(composed.values, composed.overrides)
    ]
    for dotted, value in flatten(composed.values):
        for part in dotted.split("."):
            if _CODE_KEY.match(part):
                hint = "Remove it. A stage of your own is added as a package with an entry point."
                problems.append(
                    Problem(
                        dotted, value, f"{part} is not allowed: recipes carry no code", hint, composed.origin(dotted)
                    )
                )
    for dotted in secrets_in(composed.values):
        hint = "Remove it; credentials come from boto3's and the hub's own chains (environment, files, roles)."
        if dotted.startswith("serve.api_keys"):
            hint = "Remove it; serve.api_keys.file and serve.api_keys.env say where the keys are."
        problems.append(Problem(dotted, REDACTED, "looks like a secret", hint, composed.origin(dotted)))
    return problems


def _validate(
    model: type[BaseModel], values: dict[str, Any], composed: Composed, problems: list[Problem], bad: set[str]
) -> Any:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        for item in error.errors():
            key = _dotted(item["loc"])
            if key not in bad:
                problems.append(_schema_problem(model, key, item, composed.origin(key), ""))
        return None


def _dotted(loc: tuple[int | str, ...]) -> str:
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return key.removeprefix(".")


def settings_problems(model: type[BaseModel], values: Any, section: str) -> list[Problem]:
    """What the model says against the values of a section that the recipe's own schema does not describe."""
    try:
        model.model_validate(values)
    except ValidationError as error:
        return [_schema_problem(model, _dotted(item["loc"]), item, "", f"{section}.") for item in error.errors()]
    return []


def _schema_problem(model: type[BaseModel], key: str, item: Any, origin: str, prefix: str) -> Problem:
    """key: below the model; prefix: of the model's section in the recipe, with its dot, or ""."""
    parent, _, name = key.rpartition(".")
    value = None if item["type"] == "missing" else item["input"]
    if item["type"] == "extra_forbidden":
        legal = set(section_fields(model, parent))
        if not prefix and not parent:
            legal |= set(RunOptions.model_fields)
        section = f"{prefix}{parent}".rstrip(".")
        guess = nearest(name, legal)
        return Problem(
            f"{prefix}{key}",
            value,
            f"is not a known key; {section or 'a recipe'} takes: {', '.join(sorted(legal))}",
            f"Did you mean {f'{section}.{guess}' if section else guess}?" if guess else "Remove it.",
            origin,
        )
    if item["type"] == "missing":
        return Problem(f"{prefix}{key}", None, "is required and was not given", f"Add {prefix}{key}=...", origin)
    message = _KINDS.get(item["type"]) or item["msg"][0].lower() + item["msg"][1:]
    return Problem(f"{prefix}{key}", value, message, field_description(model, key), origin)


def section_fields(model: type[BaseModel], dotted: str) -> dict[str, Any]:
    """Fields of the section at the dotted key; {} for a pass-through mapping."""
    for part in [part for part in dotted.split(".") if part]:
        info = model.model_fields.get(part)
        if info is None:
            continue  # the free name inside a mapping, such as resources.<stage>
        section = section_of(info.annotation)
        if section is None:
            return {}
        model = section
    return dict(model.model_fields)


def field_description(model: type[BaseModel], dotted: str) -> str:
    """Description of the field at the dotted key, or ""."""
    parent, _, name = dotted.rpartition(".")
    info = section_fields(model, parent).get(name)
    return (info.description or "") if info is not None else ""


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a field's annotation names, itself or inside a mapping; None for anything else."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
