"""Words of a command line that are neither a verb nor a value nor a flag, each with what is written instead."""

from __future__ import annotations

import re
from pathlib import Path

from runner.cli.verbs.table import VERBS
from runner.errors import Problem, nearest

ORIGIN = "command line"
OTHER_VERBS = ("help", "completion")
ASKING_VERBS = ("init",)
_RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "recipe"
_FLAGS = ("-m", "--multirun", "--config-dir", "--trust", "--allow-env", "--allow", "-h", "--help", "--version", "--yes")
_MEANT_FLAGS = {
    "--dry-run": "`plan` shows what a run would do.",
    **dict.fromkeys(("-v", "--verbose", "--debug"), "hydra.verbose=true shows tracebacks."),
    "-V": "Did you mean --version?",
    "-y": "Did you mean --yes?",
    **dict.fromkeys(("-c", "--config", "-cd"), "Did you mean --config-dir?"),
    **dict.fromkeys(("-f", "--force"), "Name the stages to run again: force=[train]."),
}
_MEANT_VERBS = {
    **dict.fromkeys(("check", "lint", "test", "verify"), "validate"),
    **dict.fromkeys(("ls", "recipes"), "list"),
    **dict.fromkeys(("runs", "ps", "info", "history"), "status"),
    **dict.fromkeys(("rm", "remove", "delete", "del", "prune"), "clean"),
    **dict.fromkeys(("start", "resume", "continue", "execute", "exec"), "run"),
    **dict.fromkeys(("new", "create"), "init"),
    **dict.fromkeys(("compare",), "diff"),
    **dict.fromkeys(("kill", "cancel", "abort"), "stop"),
    "config": "show",
}


def unknown_word(word: str, verb: str = "") -> Problem:
    """What is wrong with a word that is not a verb. verb: the one that the command names."""
    if verb in ASKING_VERBS:
        hint = f"Write data={word}: values are written key=value."
        return Problem(ORIGIN, word, f"is not a value of {verb}", hint, ORIGIN)
    from runner.pipeline.registry import BUILTIN

    if word in BUILTIN:
        hint = f"Run that stage with `run ... only=[{word}]`, or end there with `run ... stop_after={word}`."
        return Problem(ORIGIN, word, "is a stage, not a verb", hint, ORIGIN)
    if word.endswith((".yaml", ".yml")):
        hint = f"Name the recipe file as a value: recipe={word}"
        return Problem(ORIGIN, word, "is a file, not a verb", hint, ORIGIN)
    if not word.strip():
        hint = "Write a verb or key=value there; a shell puts an empty word where a variable has no value."
        return Problem(ORIGIN, word, "is an empty word", hint, ORIGIN)
    if verb:
        return Problem(ORIGIN, word, f"is not a value of {verb}", _as_value(word, verb), ORIGIN)
    if (_RECIPES / f"{word}.yaml").is_file():
        return Problem(ORIGIN, word, "is a recipe, not a verb", f"Name it as a value: recipe={word}", ORIGIN)
    guess = _MEANT_VERBS.get(word.lower()) or nearest(word, (*VERBS, *OTHER_VERBS))
    hint = f"Did you mean {guess}?" if guess else f"Verbs: {', '.join(VERBS)}. Values are written key=value."
    return Problem(ORIGIN, word, "is not a verb", hint, ORIGIN)


def _as_value(word: str, verb: str) -> str:
    """How a word behind a verb is written as a value."""
    if word == "help":
        return f"Write {verb} --help."
    key, colon, value = word.partition(":")
    if colon or re.fullmatch(r"[a-z_]+(\.[a-z_0-9]+)+", word):
        return f"Values are written key=value: {key}={value.strip() or 'VALUE'}."
    return f"Values are written key=value, such as recipe={word}."


def unknown_flag(word: str) -> Problem:
    """What is wrong with a flag that there is not."""
    name, equals, _ = word.partition("=")
    if equals:
        hint = f"Write it without the leading dashes: {word.lstrip('-')}"
        return Problem(ORIGIN, word, "is not an option; keys of a recipe have no leading --", hint, ORIGIN)
    if name in _MEANT_FLAGS:
        return Problem(ORIGIN, word, "is not an option", _MEANT_FLAGS[name], ORIGIN)
    guess = nearest(name, _FLAGS) if word.startswith("-") else ""
    others = f"Options: {', '.join(_FLAGS)}. Keys of a recipe are written without dashes: train.num_epochs=3."
    hint = f"Did you mean {guess}?" if guess and abs(len(guess) - len(name)) <= 1 else others
    return Problem(ORIGIN, word, "is not an option", hint, ORIGIN)
