"""Where recipe files come from: the shipped folder, a folder of the user's own, and files named by their path.

Hydra is given the user's files through a config source and a search path plugin, its public extension points. A path is
never parsed there, so that it may hold any character, and each file is checked when Hydra loads it. The user's files
come before the shipped ones: one under a shipped name wins.
"""

from __future__ import annotations

import hashlib
import io
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, ListConfig, OmegaConf

from runner.errors import Problem, RecipeError
from runner.recipe.hydra.files import GLOBAL, not_yaml, package_of, read_recipe_file, refused

RECIPES_DIR = Path(__file__).resolve().parents[3] / "recipes"
RECIPE = "recipe"  # the group whose files are whole recipes


@dataclass(frozen=True)
class Folders:
    """config_dir: the user's folder of groups. files: recipe files by the name that Hydra knows each by."""

    config_dir: Path | None = None
    files: tuple[tuple[str, Path], ...] = ()

    @property
    def roots(self) -> list[tuple[Path, str]]:
        """Folders of groups in order of search, each with what its files are called: `recipes`, or its path."""
        own = [(self.config_dir, str(self.config_dir))] if self.config_dir else []
        return [*own, (RECIPES_DIR, "recipes")]

    def find(self, config_path: str) -> tuple[Path, str] | None:
        """The file of `group/variant`, and what it is called; None for one that is not a recipe's."""
        for name, file in self.files:
            if config_path == f"{RECIPE}/{name}":
                return file, str(file)
        for root, label in self.roots:
            file = root / f"{config_path}.yaml"
            if file.is_file():
                return file, f"{label}/{config_path}.yaml"
        return None

    def groups(self) -> list[str]:
        """Names of the groups that a recipe may choose from."""
        return sorted(path.name for path in RECIPES_DIR.iterdir() if path.is_dir() and path.name[0] not in "._")

    def with_paths(self, text: str) -> str:
        """The text with the paths of recipe files in the place of the names that Hydra knows them by."""
        for name, file in self.files:
            text = text.replace(name, str(file))
        return text

    def shown(self, override: str) -> str:
        """An override as the command line gave it, with the path of a recipe file."""
        names = {f"{RECIPE}={name}": f"{RECIPE}={file}" for name, file in self.files}
        return names.get(override, override)

    def recipe_name(self, chosen: str | None) -> str | None:
        """The name of a recipe that gives itself none: from its file's. chosen: what Hydra knows it by."""
        if chosen is None:
            return None
        stem = next((file.stem for name, file in self.files if name == chosen), Path(chosen).name)
        return legal_name(stem) or None


_NOW: ContextVar[Folders] = ContextVar("folders")


def legal_name(stem: str) -> str:
    """A name that a recipe may have, from a file's: without accents, `_` for what else it may not hold. "" for none."""
    plain = "".join(char for char in unicodedata.normalize("NFKD", stem) if not unicodedata.combining(char))
    return re.sub(r"[^A-Za-z0-9._-]+", "_", plain).strip("._-")[:64]


def file_name(file: Path) -> str:
    """The name that Hydra knows a recipe file by."""
    digest = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]
    return f"file_{re.sub(r'[^A-Za-z0-9_-]', '_', file.stem)}_{digest}"


@contextmanager
def searched(folders: Folders) -> Iterator[None]:
    """Let Hydra find the folders' files while the block lasts."""
    plugins = Plugins.instance()
    for plugin in (OwnFiles, OwnFolders):
        plugins.register(plugin)
    token = _NOW.set(folders)
    try:
        yield
    finally:
        _NOW.reset(token)


class OwnFolders(SearchPathPlugin):  # type: ignore[misc]
    """Puts the user's files before the shipped ones."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        folders = _NOW.get(Folders())
        for name, _ in folders.files:
            search_path.prepend("recipe file", f"{OwnFiles.scheme()}://{name}", "main")
        if folders.config_dir is not None:
            search_path.prepend("--config-dir", f"{OwnFiles.scheme()}://", "main")


class OwnFiles(ConfigSource):  # type: ignore[misc]
    """The user's folder, or one recipe file: `path` is then the name that Hydra knows it by.

    Only variants of groups are offered: a folder's other YAML files are not recipes.
    """

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        self._folder = None if self.path else _NOW.get().config_dir
        self._file = dict(_NOW.get().files).get(self.path)

    @staticmethod
    def scheme() -> str:
        return "own"

    def load_config(self, config_path: str) -> ConfigResult:
        file = self._find(config_path)
        if self._folder is not None:
            _refuse_kept_elsewhere(file, self._folder)
        text, group = read_recipe_file(file), config_path.partition("/")[0]
        config = _content(file, text)
        package = package_of(text)
        if group == RECIPE:
            _check_recipe(file, config, package)
        return ConfigResult(self.provider, f"{self.scheme()}://{file}", config, {"package": package})

    def _find(self, config_path: str) -> Path:
        if self._folder is None:
            assert self._file is not None
            return self._file
        return self._folder / f"{config_path.removesuffix('.yaml')}.yaml"

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        _refuse_above(config_path)
        if self._folder is None:
            return config_path == RECIPE
        return bool(config_path) and (self._folder / config_path).is_dir()

    def is_config(self, config_path: str) -> bool:
        _refuse_above(config_path)
        if self._folder is None:
            return config_path.removesuffix(".yaml") == f"{RECIPE}/{self.path}"
        return "/" in config_path and self._find(config_path).is_file()

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        if self._folder is None or results_filter == ObjectType.GROUP:
            return []
        return sorted(file.stem for file in (self._folder / config_path).glob("*.yaml") if file.is_file())


def _refuse_above(config_path: str) -> None:
    """Raise RecipeError for a name in a defaults list that leads out of the folders of recipes. Hydra asks these
    sources for each before it looks among the shipped ones."""
    if ".." in config_path.split("/"):
        message, hint = "leads out of the folders of recipes", "Name a variant: a file in the group's folder."
        raise RecipeError([Problem("defaults", config_path, message, hint)])


def _refuse_kept_elsewhere(file: Path, folder: Path) -> None:
    """Raise RecipeError for a link to another program's file: one outside, in a folder whose name begins with a dot."""
    real = file.resolve()
    if not real.is_relative_to(folder.resolve()) and any(part.startswith(".") for part in real.parts):
        raise refused(file, f"is a link to {real}, a file that another program keeps", "Copy it there.")


def _content(file: Path, text: str) -> DictConfig:
    """The file's mapping; empty where it holds nothing."""
    try:
        root = next(islice(yaml.parse(text, Loader=yaml.SafeLoader), 2, None), None)
        empty = isinstance(root, yaml.StreamEndEvent | None) or (isinstance(root, yaml.ScalarEvent) and not root.value)
        if not empty and not isinstance(root, yaml.MappingStartEvent):
            raise refused(file, "must be a mapping of `key: value` lines", "Write such lines at the top of the file.")
        config = OmegaConf.load(io.StringIO(text))
    except yaml.YAMLError as error:
        raise not_yaml(file, error) from error
    assert isinstance(config, DictConfig)
    return config


def _check_recipe(file: Path, config: DictConfig, package: str | None) -> None:
    defaults = config.get("defaults")
    lines = [line for line in defaults if isinstance(line, DictConfig)] if isinstance(defaults, ListConfig) else []
    names = [str(name) for line in lines for name in line]
    if twice := next((name for at, name in enumerate(names) if name in names[:at]), ""):
        raise refused(file, f"names a variant for `{twice}` twice in its `defaults`", "Keep one of the lines.")
    if package == GLOBAL:
        return
    if not config:
        raise refused(file, "is empty", "Write `# @package _global_` into it, and what differs from the defaults.")
    found = f"has `# @package {package}`" if package else "has no line `# @package _global_`"
    why = f"{found}, so that its keys would be put below `{package or RECIPE}`"
    raise refused(file, why, "Make `# @package _global_` the first line of the file.")
