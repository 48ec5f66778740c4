"""From a command line to plain values, with the origin of each. Hydra's DictConfig comes in and ends here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Sweep
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers.oc import env as oc_env

from runner.errors import Problem, RecipeError
from runner.recipe import origins
from runner.recipe.grants import granted, is_readable
from runner.recipe.hydra.code import refused_overrides, refused_values
from runner.recipe.hydra.errors import explain
from runner.recipe.hydra.expansion import too_much
from runner.recipe.hydra.folders import RECIPE, RECIPES_DIR, Folders, file_name, searched
from runner.recipe.hydra.given import checked_config_dir, checked_file
from runner.recipe.hydra.overrides import COMMAND_LINE, key_of, parsed, readable
from runner.recipe.machine import cpu_dtype
from runner.recipe.secrets import names_secret, reads_secret

_NOT_GIVEN = object()
_READS_ENVIRONMENT = "reads a secret from the environment into the recipe"
_READS_VARIABLE = "reads the environment variable"
_CHAINS = "Leave credentials to boto3's and the hub's own chains."


@dataclass(frozen=True)
class Composed:
    """A composed configuration before it is checked.

    values: plain nested dict with every interpolation resolved where it can be. problems: what could not be.
    trace: finds `origins`; it reads every file once more, so it is called only when somebody asks where a value came
    from. overrides: as the command line gives them. settings: those of the user's settings file, which come before.
    recorded: the values are a record of an earlier run, whose own command line was asked for what a file may not say.
    swept: keys whose values a sweeper takes from a file.
    """

    values: dict[str, Any]
    problems: list[Problem]
    trace: Callable[[], dict[str, str]] = dict
    overrides: list[str] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)
    recorded: bool = False
    swept: tuple[str, ...] = ()

    @cached_property
    def trusted(self) -> list[str]:
        """Keys that the command line trusts, see `runner.recipe.rules.code`."""
        return granted(self.overrides, "trust")

    @cached_property
    def origins(self) -> dict[str, str]:
        """Dotted key -> the file and line, or the override, that set it."""
        return self.trace()

    @cached_property
    def given(self) -> set[str]:
        """Dotted keys that the command line or the user's settings file sets."""
        return {key_of(each) for each in parsed([*self.settings, *self.overrides])}

    @cached_property
    def allowed(self) -> list[str]:
        """Places that the command line or the settings file lets files name, see `runner.recipe.places`."""
        return granted(self.overrides, "allow")

    @cached_property
    def _leaves_given(self) -> set[str]:
        overrides = parsed([*self.settings, *self.overrides])
        return {
            leaf for each in overrides if not each.is_delete() for leaf in origins.leaf_keys(each.value(), key_of(each))
        }

    def is_given(self, key: str) -> bool:
        """Whether the command line or the settings file sets the key's own value.

        `cluster=NAME` and a mapping do not set the keys below them that they leave to files.
        """
        return self.recorded or key.partition("[")[0] in self._leaves_given

    def origin(self, key: str) -> str:
        """Origin of the key, of the last one below it, or of the nearest section above; "" for a schema's default."""
        if key in self.origins:
            return self.origins[key]
        if inner := [origin for name, origin in self.origins.items() if name.startswith(f"{key}.")]:
            return inner[-1]
        key = key.partition("[")[0]
        while key:
            if key in self.origins:
                return self.origins[key]
            key = key.rpartition(".")[0]
        return ""


def compose(overrides: list[str], config_dir: Path | None = None, settings: Sequence[str] = ()) -> Composed:
    """Compose recipes/config.yaml with the overrides; `config_dir` holds a user's own recipes and group variants.

    settings: overrides of the user's settings file, below those of the command line.
    Raises RecipeError for what Hydra itself refuses: a file that does not exist or is not YAML, a malformed override.
    """
    given = readable(overrides)
    with prepared(given, config_dir) as (texts, folders):
        keys = [key_of(each) for each in parsed(texts)]
        if refused := list(refused_overrides(iter(keys))):
            raise RecipeError(refused)
        try:
            with _own_hydra(), initialize_config_dir(str(RECIPES_DIR), version_base="1.3"):
                loader = GlobalHydra.instance().config_loader()
                final = accept_new_keys([*settings, *texts], set(loader.list_groups("")))
                config = hydra_compose("config", overrides=final, return_hydra_config=True)
        except RecipeError:
            raise
        except Exception as error:  # Hydra raises whatever a user's files and overrides make it stumble over
            raise RecipeError(explain(error, folders, texts)) from error
        if refused := list(refused_values(OmegaConf.to_container(config.hydra, resolve=False), [], keys)):  # type: ignore[arg-type]
            raise RecipeError(refused)
    if large := too_much({key: value for key, value in _unresolved_values(config).items() if key != "hydra"}):
        raise RecipeError([large])
    labels = [*(f"settings file: {text}" for text in settings), *(f"{COMMAND_LINE}: {text}" for text in given)]
    trace = cache(lambda: _trace(loader, final, labels, folders))
    name = folders.recipe_name(config.hydra.runtime.choices.get(RECIPE))
    swept = tuple(map(str, config.hydra.sweeper.get("params") or ()))
    with read_write(config), open_dict(config):
        del config["hydra"]
        if OmegaConf.is_missing(config, "name") and name:
            config["name"] = name
    values, problems = _plain(config, trace)
    problems += _not_removed(texts, values, trace)
    return Composed(values, problems, trace, given, list(settings), swept=swept)


def _not_removed(
    overrides: Sequence[str], values: dict[str, Any], trace: Callable[[], dict[str, str]]
) -> list[Problem]:
    """Groups that the command line removes, of which a file sets values besides."""
    removed = [key_of(each) for each in parsed(overrides) if each.is_delete()]
    left = [key for key in removed if "." not in key and isinstance(values.get(key), dict) and values[key]]
    hint = "Remove those lines from the file, or give other values for its keys."
    message = "removes the variant that the group chose, and not the values that a file sets besides"
    return [
        Problem(
            f"~{key}", None, message, hint, next((trace()[name] for name in trace() if name.startswith(f"{key}.")), "")
        )
        for key in left
    ]


@contextmanager
def _own_hydra() -> Iterator[None]:
    """Set aside the Hydra that runs a sweep's jobs, from within which they are composed."""
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = running


@contextmanager
def prepared(overrides: Sequence[str], config_dir: Path | None) -> Iterator[tuple[list[str], Folders]]:
    """Let Hydra find the user's files while the block lasts.

    Gives the overrides with recipe files named as Hydra knows them. Raises RecipeError for a file or folder that is
    not there.
    """
    OmegaConf.register_new_resolver("oc.env", partial(_environment, granted(overrides, "allow_env")), replace=True)
    OmegaConf.register_new_resolver("cpu_dtype", cpu_dtype, replace=True)
    texts, files = _named_files(overrides)
    folders = Folders(checked_config_dir(config_dir), tuple(files.items()))
    with searched(folders):
        yield texts, folders


def _named_files(overrides: Sequence[str]) -> tuple[list[str], dict[str, Path]]:
    """`recipe=path/to/file.yaml` by the name that Hydra knows the file by, and those files."""
    texts: list[str] = []
    files: dict[str, Path] = {}
    for text, override in zip(overrides, parsed(overrides), strict=True):
        if key_of(override) == RECIPE and re.search(r"\.ya?ml\b", text, re.IGNORECASE) and not override.is_delete():
            paths = override.sweep_string_iterator() if override.is_sweep_override() else [override.value()]
            names = {str(path): checked_file(str(path).strip("'\"")) for path in paths}
            files |= {file_name(file): file for file in names.values() if file}
            shown = ",".join(file_name(file) if file else path for path, file in names.items())
            text = f"{text.partition('=')[0]}={shown}" if any(names.values()) else text
        texts.append(text)
    return texts, files


def _trace(loader: Any, overrides: list[str], labels: Sequence[str], folders: Folders) -> dict[str, str]:
    with searched(folders):
        return origins.trace(loader, overrides, labels, folders.find)


def _environment(allowed: list[str], variable: str, default: Any = _NOT_GIVEN) -> Any:
    """The resolver `oc.env`, for variables that recipes may read: the name may itself come out of an interpolation."""
    if names_secret(variable):
        raise ValueError(_READS_ENVIRONMENT)
    if not is_readable(variable, allowed):
        raise ValueError(f"{_READS_VARIABLE} {variable}, which is not for recipes to read")
    return oc_env(variable) if default is _NOT_GIVEN else oc_env(variable, default)


def accept_new_keys(overrides: Sequence[str], groups: set[str]) -> list[str]:
    """Let `a.b=c` set a key that no file names (Hydra's `++a.b=c`), so that the schema alone says what is legal."""
    accepted = []
    for text, override in zip(overrides, parsed(overrides), strict=True):
        key = key_of(override)
        plain = not (override.is_delete() or override.is_force_add() or override.is_add())
        group = key in groups or key.startswith("hydra")
        if key in groups and not override.is_delete() and not isinstance(override.value(), str | list | dict | Sweep):
            hint = f"Write {key}=NAME, or keys below it: {key}.KEY=VALUE. `python -m runner list` has the names."
            raise RecipeError(
                [Problem(key, override.value(), "is a group, and takes a variant's name", hint, COMMAND_LINE)]
            )
        if plain and not group:
            text = f"++{text}"
        elif override.is_add() and not group:
            text = f"+{text}"
        accepted.append(text)
    return accepted


def _unresolved_values(config: DictConfig) -> dict[str, Any]:
    values = OmegaConf.to_container(config, resolve=False)
    return {str(key): value for key, value in values.items()} if isinstance(values, dict) else {}


def _plain(config: DictConfig, trace: Callable[[], dict[str, str]]) -> tuple[dict[str, Any], list[Problem]]:
    problems: list[Problem] = []

    def walk(node: Any, raw: Any, prefix: str) -> Any:
        if isinstance(node, DictConfig | ListConfig) and isinstance(raw, str):  # an interpolation of a section
            raw = OmegaConf.to_container(node, resolve=False)
        if isinstance(node, DictConfig):
            return {str(key): leaf(node, key, raw[key], f"{prefix}.{key!s}" if prefix else str(key)) for key in node}
        if isinstance(node, ListConfig):
            return [leaf(node, index, raw[index], f"{prefix}[{index}]") for index in range(len(node))]
        return node

    def leaf(parent: Any, key: Any, raw: Any, dotted: str) -> Any:
        if isinstance(raw, str) and reads_secret(raw):
            problems.append(Problem(dotted, raw, _READS_ENVIRONMENT, _CHAINS))
            return None
        if OmegaConf.is_missing(parent, key):
            problems.append(Problem(dotted, "???", "is required and was not given", f"Add {dotted}=...", ""))
            return None
        try:
            return walk(parent[key], raw, dotted)
        except OmegaConfBaseException as error:
            problems.append(Problem(dotted, raw, *_unresolved(error), trace().get(dotted, "")))
            return None

    return walk(config, OmegaConf.to_container(config, resolve=False), ""), problems


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
