"""`init`: write a recipe for somebody's data, a test of it, and say how to run it."""

from __future__ import annotations

import sys
from pathlib import Path
from shlex import quote

from runner.cli.command_line import CommandLine, key_of
from runner.cli.unknown_words import ORIGIN
from runner.errors import EXIT_DONE, Problem, RecipeError, RunnerError, UsageError, printable

OPTIONS = ("data", "recipe", "user", "answer", "model", "cluster")
_HINT = "Write data=tickets.csv: a file, a folder, a pattern, hf://org/name or s3://bucket/folder."


def init(line: CommandLine) -> int:
    """Propose a recipe from the data, write it, and show what it will ask. Asks before it overwrites a file."""
    from runner.storage.atomic import write_text
    from stages.init.draft import Asked, draft

    made = draft(Asked(**_options(line), command=line.text))
    for path in _confirmed(made.files, line.yes):
        write_text(path, made.files[path])
    _say([f"wrote {path}" for path in made.files], [f"remark: {each}" for each in made.made.remarks])
    if made.made.shape.doubt:
        _say([f"the prompt is a guess, {made.made.shape.doubt}: look at dataset.prompt in {made.path}"])
    _show_preview(made)
    _say(_commands(made.path))
    return EXIT_DONE


def _options(line: CommandLine) -> dict[str, str]:
    """The values as they were written, without a shell's quotes. Raises RecipeError for others than OPTIONS."""
    found: dict[str, str] = {}
    problems = []
    for word in line.overrides:
        key, value = key_of(word), word.partition("=")[2]
        if key not in OPTIONS or "=" not in word:
            hint = f"It has: {', '.join(OPTIONS)}. Change other keys in the recipe that it writes."
            problems.append(Problem(key, value or None, "is not an option of init", hint, ORIGIN))
        found[key] = value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
    if not found.get("data"):
        problems.append(Problem("data", None, "is needed by init and was not given", _HINT, ORIGIN))
    if line.config_dir is not None:
        hint = "Name the file to write: recipe=mine/recipe/tickets.yaml."
        problems.append(Problem("--config-dir", str(line.config_dir), "is not an option of init", hint, ORIGIN))
    if problems:
        raise RecipeError(problems)
    return found


def _confirmed(files: dict[Path, str], yes: bool) -> list[Path]:
    """The files to write: those that are not there as they should be. Raises UsageError unless all may be replaced."""
    other = [path for path in files if path.exists() and not _same(path, files[path])]
    if other and not yes:
        named = ", ".join(map(str, other))
        hint = "Add --yes to overwrite, or name another recipe=FILE.yaml."
        refusal = UsageError(f"{named} would be overwritten", hint)
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise refusal
        try:
            answer = input(f"Overwrite {printable(named)}? [y/N] ")
        except EOFError:
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            raise refusal
    return [path for path in files if not (path.exists() and _same(path, files[path]))]


def _same(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()


def _show_preview(made: object) -> None:
    """A row as the model will see it; one line where that cannot be shown here."""
    from stages.init.draft import Draft, preview_of

    assert isinstance(made, Draft)
    if not made.previews:
        _say([f"no preview: the tokenizer of {made.recipe.model.source} is not on this machine"])
        return
    try:
        _say(preview_of(made))
    except RunnerError as error:
        _say([f"no preview: {error.message}"])


def _commands(path: Path) -> list[str]:
    file = quote(str(path))
    rows = (
        (f"python -m runner plan recipe={file}", "what would run, with memory and time"),
        (f"python -m runner preview recipe={file} row=1", "another row"),
        (f"python -m runner run recipe={file} serve.keep_alive=true", "from the data to an endpoint"),
        (f"python -m pytest {quote(str(_test_of(path)))}", "the recipe's tests"),
    )
    width = max(len(command) for command, _ in rows)
    return ["next:", *(f"  {command:<{width}}  # {what}" for command, what in rows)]


def _test_of(path: Path) -> Path:
    from stages.init.pytest_text import pytest_name

    return path.with_name(pytest_name(path.stem))


def _say(*blocks: list[str]) -> None:
    """Print the lines of each block, with an empty line behind the last."""
    lines = [line for block in blocks for line in block]
    print(printable("\n".join([*lines, ""])))
