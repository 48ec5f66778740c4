"""`runner/` is an engine for any pipeline: no word of language models, no key of a stage, no stage's name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.pipeline.registry import BUILTIN
from runner.recipe import schema
from runner.recipe.load import section_of
from stages.sections.recipe import Recipe
from tests.paths import ROOT

WORDS = re.compile(
    r"\b(lora|adapters?|vllm|llama.?factory|tokenizers?|prompts?|gguf|kv.?cache\w*|checkpoints?|inference|fine.?tun\w*|"
    r"datasets?|language.models?|engine_kwargs|trainers?|training|predictions?)\b|cpu_kv_cache",
    re.IGNORECASE,
)
SECTIONS = {
    name: section_of(info.annotation)
    for name, info in Recipe.model_fields.items()
    if name not in schema.Recipe.model_fields
}
DOTTED = [rf"{name}\.(?:{'|'.join(model.model_fields)})" for name, model in SECTIONS.items() if model]
KEYS = re.compile(rf"(?<!ray\.)(?<!stages\.)(?<![\w/])({'|'.join(DOTTED)})\b")

# The command line is the product's face: its verbs, examples and help are about the shipped pipeline.
FACE = ("runner/cli/", "runner/__main__.py")
# The patches speak of Ray's libraries by Ray's words.
PATCHES = "runner/patches/"
NAMES_OF_STAGES = {
    "runner/pipeline/registry.py": "the registry of stages",
    "runner/recipe/schema.py": "examples of values",
}
FILES = [
    path
    for path in sorted((ROOT / "runner").rglob("*.py"))
    if not str(path.relative_to(ROOT)).startswith((*FACE, PATCHES))
]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def texts(tree: ast.AST) -> Iterator[str]:
    """Every text constant, whole."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_word_of_language_models(path: Path) -> None:
    assert not {match[0].lower() for match in WORDS.finditer(path.read_text())}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_key_of_a_section_that_the_stages_bring(path: Path) -> None:
    assert not {match[0] for match in KEYS.finditer(path.read_text())}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_stage_by_its_name(path: Path) -> None:
    if name_of(path) not in NAMES_OF_STAGES:
        assert not set(texts(ast.parse(path.read_text()))) & set(BUILTIN)


def test_the_checks_find_what_they_look_for() -> None:
    assert WORDS.search("starts vLLM")
    assert KEYS.search("recipe.train.lora_rank")
    assert KEYS.search("ray.serve.deployment") is None
    assert {"serve.port", "model.source"} <= {match[0] for match in KEYS.finditer("serve.port and model.source")}
