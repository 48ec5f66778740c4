"""Shell completion of verbs, recipes, groups, keys and values. It reads files and imports nothing heavy."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from runner.cli.verbs.table import VERBS
from runner.errors import Problem, RecipeError

RECIPES_DIR = Path(__file__).resolve().parents[2] / "recipes"
_CHOICES = {
    "format": ("text", "json"),
    "follow": ("true", "false"),
    "target": ("ray-job", "serve-config", "kuberay", "anyscale", "compose", "ci"),
    "runs": ("[latest]", "[@best]"),
    "other": ("latest",),
}
_FLAGS = ("--allow-env", "--trust", "--config-dir", "--help", "--multirun", "--version", "--yes")
_BASH = """\
_recipe_runner() {
  local IFS=$'\\n'
  COMPREPLY=($("${COMP_WORDS[0]}" completion words "${COMP_LINE:0:$COMP_POINT}" 2>/dev/null))
  [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[=.] ]] && compopt -o nospace
}
complete -o default -F _recipe_runner recipe-runner
"""
_ZSH = """\
_recipe_runner() {
  local -a found
  found=("${(@f)$(${words[1]} completion whole "${(j: :)words[1,CURRENT]}" 2>/dev/null)}")
  compadd -Q -S '' -- ${found:#}
}
(( $+functions[compdef] )) || { autoload -Uz compinit; compinit }
compdef _recipe_runner recipe-runner
"""


def complete(kind: str, line: str) -> str:
    """The script for bash or zsh; or for these scripts what may stand at the end of a command line, one a line.

    kind: `bash`, `zsh`; `words`: the part of the last word behind its last =, as bash splits words; `whole` words.
    Raises RecipeError for another kind.
    """
    if kind in ("bash", "zsh"):
        return _BASH if kind == "bash" else _ZSH
    if kind not in ("words", "whole"):
        hint = "Write `completion bash` or `completion zsh`."
        raise RecipeError([Problem("completion", kind or None, "is for a shell: bash or zsh", hint)])
    words = _words(line)
    found = [each for each in candidates(words) if each.startswith(words[-1])]
    cut = words[-1].rpartition("=")[0] if kind == "words" else ""
    return "".join(f"{each[len(cut) + 1 if cut else 0 :]}\n" for each in found)


def _words(line: str) -> list[str]:
    """The words behind the program's name; the last is the one to complete, "" behind a space."""
    try:
        words = shlex.split(line)
    except ValueError:  # an open quote
        words = line.split()
    return [*words[1:], *([""] if line[-1:].isspace() or len(words) < 2 else [])]


def candidates(words: Sequence[str]) -> Iterator[str]:
    """What the last word may become."""
    *before, last = words
    config_dir = next((Path(words[at + 1]) for at, word in enumerate(before[:-1]) if word == "--config-dir"), None)
    verb = VERBS.get(next((word for word in before if word in VERBS), ""))
    if before and before[-1] == "--config-dir":
        return
    key, equals, _ = last.partition("=")
    if equals:
        yield from (f"{key}={value}" for value in _values(key, _roots(config_dir)))
    elif last.startswith("-"):
        yield from _FLAGS
    elif "." in last:
        yield from _keys(last)
    else:
        yield from () if verb else (*VERBS, "help", "completion")
        yield from (f"{option}=" for option in (verb.options if verb else ()))
        yield from (f"{group}=" for group in _groups(_roots(config_dir)))
        yield from _keys(last)


def _roots(config_dir: Path | None) -> list[Path]:
    return [RECIPES_DIR, *([config_dir] if config_dir and config_dir.is_dir() else [])]


def _groups(roots: Sequence[Path]) -> list[str]:
    return sorted({path.parent.name for root in roots for path in root.glob("[!._]*/*.yaml")})


def _values(key: str, roots: Sequence[Path]) -> Iterator[str]:
    """Values of an option, variants of a group, or values of an enumeration of the recipe."""
    variants = sorted({file.stem for root in roots for file in (root / key).glob("*.yaml")})
    if key == "other":
        variants = sorted({file.stem for root in roots for file in (root / "recipe").glob("*.yaml")})
    yield from (*variants, *_CHOICES.get(key, ()))
    for node in _options(_schema(), _at(_schema(), key.split("."))):
        yield from map(str, node.get("enum", [node["const"]] if "const" in node else []))
        yield from ("true", "false") if node.get("type") == "boolean" else ()


def _keys(dotted: str) -> Iterator[str]:
    """Keys of the recipe at the section that the text ends in: with = behind a value, with . behind a section."""
    schema, (*sections, _) = _schema(), dotted.split(".")
    for node in _options(schema, _at(schema, sections)):
        for name, child in node.get("properties", {}).items():
            nested = any("properties" in each or isinstance(each.get("additionalProperties"), dict)
                         for each in _options(schema, child))  # fmt: skip
            yield f"{'.'.join([*sections, name])}{'.' if nested else '='}"


def _schema() -> dict[str, Any]:
    """The schema of a recipe file, as it is shipped."""
    loaded: dict[str, Any] = json.loads((RECIPES_DIR / "_schema" / "recipe.json").read_bytes())
    return loaded


def _at(schema: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """The schema at the keys; {} where there is none."""
    node = schema
    for key in keys:
        found = [each for each in _options(schema, node) if key in each.get("properties", {})]
        free = [each for each in _options(schema, node) if isinstance(each.get("additionalProperties"), dict)]
        node = found[0]["properties"][key] if found else free[0]["additionalProperties"] if free else {}
    return node


def _options(schema: dict[str, Any], node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The node, or each of its alternatives, with references followed."""
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        yield from _options(schema, schema["$defs"][name]) if name != "Interpolation" else ()
        return
    for each in node.get("anyOf", ()):
        yield from _options(schema, each)
    yield node
