"""Private names of libraries lie in runner/patches and stages/patches alone, and their READMEs list every patch."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.paths import ROOT

FOLDERS = ("runner", "stages", "benchmarks")
PATCHES = ("runner/patches", "stages/patches")
OWN = {*FOLDERS, "tests", "recipes"}
# A library's private module in a text, such as a class that is loaded by its name.
IN_TEXT = re.compile(r"^(ray|vllm|hydra|omegaconf|llamafactory|transformers|torch|peft|trl)(\.\w+)*\._[a-z]\w*")


def is_private(name: str) -> bool:
    """One leading underscore; `_target_` is a key of Hydra's files, `__init__` Python's."""
    return name.startswith("_") and not name.startswith("__") and not name.endswith("_")


def is_foreign(module: str) -> bool:
    """Whether a module is a library's; what comes from a patch counts as such, because it derives from one."""
    top = module.split(".")[0]
    return (top not in OWN and top not in sys.stdlib_module_names) or ".patches" in module


def private_names(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each use of a library's private name."""
    tree = ast.parse(source)
    foreign, standard = imported(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from in_import(node)
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            if not (isinstance(node.value, ast.Name) and node.value.id in {"self", "cls", *standard}):
                yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.ClassDef) and is_derived(node, foreign):
            yield from in_class(node)
        elif isinstance(node, ast.keyword) and node.arg and is_private(node.arg):
            yield node.lineno, f"{node.arg}="
        elif isinstance(node, ast.Call):
            yield from in_getattr(node)
        elif isinstance(node, ast.Dict):
            keys = [key.value for key in node.keys if isinstance(key, ast.Constant)]
            yield from ((node.lineno, f"{key!r}:") for key in keys if isinstance(key, str) and is_private(key))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and IN_TEXT.match(node.value):
            yield node.lineno, repr(node.value)


def imported(tree: ast.AST) -> tuple[set[str], set[str]]:
    """Names that libraries (or patches) and the standard library have given this module."""
    foreign, standard = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            pairs = [(alias.name, alias.asname or alias.name.split(".")[0]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            pairs = [(f"{node.module}.", alias.asname or alias.name) for alias in node.names]
        else:
            continue
        foreign |= {name for module, name in pairs if is_foreign(module)}
        standard |= {name for module, name in pairs if module.split(".")[0] in sys.stdlib_module_names}
    return foreign, standard


def in_import(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[int, str]]:
    module = getattr(node, "module", "") or ""
    for alias in node.names:
        path = f"{module}.{alias.name}".strip(".")
        if path.split(".")[0] not in {*OWN, *sys.stdlib_module_names} and any(map(is_private, path.split("."))):
            yield node.lineno, path


def is_derived(node: ast.ClassDef, foreign: set[str]) -> bool:
    return any(ast.unparse(base).split(".")[0].split("[")[0] in foreign for base in node.bases)


def in_class(node: ast.ClassDef) -> Iterator[tuple[int, str]]:
    """What a class uses of its base or replaces in it: private names that it has not given itself, or never uses."""
    own = [each for each in ast.walk(node) if isinstance(each, ast.Attribute) and ast.unparse(each.value) == "self"]
    methods = {each.name: each.lineno for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
    given = {each.attr for each in own if isinstance(each.ctx, ast.Store)} | methods.keys()
    for each in own:
        if is_private(each.attr) and each.attr not in given:
            yield each.lineno, f"self.{each.attr} of a library's class"
    used = {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
    for name, line in methods.items():
        if is_private(name) and name not in used:
            yield line, f"def {name} in a library's class"


def in_getattr(node: ast.Call) -> Iterator[tuple[int, str]]:
    if ast.unparse(node.func) in ("getattr", "setattr", "hasattr", "delattr") and len(node.args) > 1:
        name = node.args[1]
        if isinstance(name, ast.Constant) and is_private(str(name.value)):
            yield node.lineno, ast.unparse(node)


def modules() -> list[Path]:
    return sorted(path.relative_to(ROOT) for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("path", [each for each in modules() if not str(each).startswith(PATCHES)], ids=str)
def test_private_names_of_libraries_lie_in_patches_alone(path: Path) -> None:
    assert not list(private_names((ROOT / path).read_text()))


@pytest.mark.parametrize(
    "source",
    [
        "from ray._private import worker",
        "import ray._private.worker",
        "from ray.serve.context import _get_global_client",
        "store._internal_kv_put(key, value)",
        "from hydra.x import Sweeper\nclass Own(Sweeper):\n    def _run(self): ...",
        "from ray import Base\nclass Own(Base):\n    def run(self): return self._config",
        "from ray import Base\nclass Own(Base):\n    def run(self): return super()._config()",
        "from stages.patches.ray_llm_server import Server\nclass Own(Server):\n    async def _start_engine(self): ...",
        "handle.options(_by_reference=True)",
        "getattr(error, '_base_exc', error)",
        "options = {'_node_ip_address': address}",
        "GRID = 'hydra._internal.core_plugins.basic_sweeper.BasicSweeper'",
    ],
)
def test_each_way_to_use_one_is_found(source: str) -> None:
    assert list(private_names(source))


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos._exit(1)",
        "class Own:\n    def _run(self): ...\n    def run(self): self._run()",
        "from ray import Base\nclass Own(Base):\n    def _run(self): ...\n    def run(self): self._run()",
        "from runner.sweep.state import _value",
        "hydra.sweeper._target_",
    ],
)
def test_own_private_names_are_none_of_a_library(source: str) -> None:
    assert not list(private_names(source))


@pytest.mark.parametrize("folder", PATCHES)
def test_every_patch_is_listed_in_its_readme(folder: str) -> None:
    rows = [line for line in (ROOT / folder / "README.md").read_text().splitlines() if line.startswith("| `")]
    listed = {line.split("`")[1] for line in rows}
    assert listed == {path.name for path in (ROOT / folder).glob("*.py")} - {"__init__.py"}
