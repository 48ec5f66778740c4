"""The command line: parse, compose, check, then one function for each verb. Exit codes are in `runner.errors`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from select import POLLERR, poll
from typing import TYPE_CHECKING

from runner.cli.command_line import CommandLine, read_command_line
from runner.cli.interrupted import noted_ctrl_c, say_interrupted
from runner.cli.light_base import not_installed
from runner.cli.verbs.table import VERBS
from runner.errors import (
    EXIT_DONE,
    EXIT_INVALID_RECIPE,
    Problem,
    RecipeError,
    RunnerError,
    UsageError,
    os_failure,
)

if TYPE_CHECKING:
    from runner.cli.asked import Asked


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # of what the terminal's encoding lacks the code is shown
            stream.reconfigure(errors="backslashreplace")
    line = CommandLine("", [word for word in argv if word in ("format=json", "hydra.verbose=true")])
    with noted_ctrl_c() as seen:
        try:
            line = read_command_line(argv)
            if line.about_itself:
                return _about_itself(line)
            _check_place(argv)
            return dispatch(line)
        except KeyboardInterrupt:
            return say_interrupted(line.text)
        except Exception as error:
            if seen:  # a library took it for a failure of its own
                return say_interrupted(line.text)
            if isinstance(error, ModuleNotFoundError):
                error = not_installed(error) or error
            is_unread = isinstance(error, BrokenPipeError) and _is_unread()
            if line.verbose or is_unread or not isinstance(error, RunnerError | OSError):
                raise
            return _explain(error, line)


def _check_place(argv: Sequence[str]) -> None:
    """Raise UsageError where the user has no home or current folder, or a path or word is not UTF-8, as records are."""
    try:
        Path.home()
    except RuntimeError:
        what = "HOME is not set, and the system knows no home folder of this user"
        raise UsageError(what, "Set it to a folder that you may write to: export HOME=FOLDER.") from None
    try:
        here = str(Path.cwd())
    except FileNotFoundError:
        raise UsageError("the current folder has been removed", "Change into one that is there: cd FOLDER.") from None
    for text in (here, *argv):
        if not _is_utf8(text):
            what = "the current folder" if text is here else "the command line"
            hint = "Rename the file or folder: the names of what a run reads and writes have to be UTF-8."
            raise UsageError(f"{what} is not UTF-8: {text!a}", hint)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_unread() -> bool:
    """Whether stdout is a pipe that nobody reads any more, as behind `| head`."""
    watched = poll()
    watched.register(1, 0)
    return any(event & POLLERR for _, event in watched.poll(0))


def _about_itself(line: CommandLine) -> int:
    """Print the version, the script for completion, or a page of help."""
    from runner.cli import help as pages

    if line.version:
        from runner import __version__

        print(__version__)
        return EXIT_DONE
    if line.verb == "completion":
        from runner.cli.completion import complete

        print(complete(line.argument, line.completed), end="")
        return EXIT_DONE
    print(pages.page(line.argument), end="")
    return EXIT_DONE if line.help or line.bare else EXIT_INVALID_RECIPE


def dispatch(line: CommandLine) -> int:
    """Compose the configuration, once or for each job of `-m`, and do what the verb says."""
    from runner.cli.asked import Call
    from runner.cli.overrides import checked_overrides
    from runner.cli.settings import settings_for, with_allowed
    from runner.recipe.load import compose

    verb = VERBS[line.verb]
    if not verb.composes and not line.multirun:
        written: int = verb.load()(line)
        return written
    overrides = with_allowed(checked_overrides(line, verb))
    if line.multirun:
        return _each_job(line, overrides)
    call = Call(line, compose(overrides, line.config_dir, settings_for(line.verb)))
    function = verb.load()
    done: int = function([call.checked()]) if verb.sweeps else function(call)
    return done


def _each_job(line: CommandLine, overrides: list[str]) -> int:
    """The verb for every combination: a sweep of runs, or what light verbs say of each."""
    from runner.sweep.grid import combinations, sweep

    verb = VERBS[line.verb]
    if not verb.sweeps:
        able = ", ".join(name for name, each in VERBS.items() if each.sweeps)
        hint = f"Leave out -m; these do it for each combination: {able}."
        raise RecipeError([Problem("-m", None, f"is not an option of {verb.name}", hint)])
    if verb.name == "run":
        return sweep(overrides, line.config_dir, line.text)
    done: int = verb.load()(_checked_jobs(line, combinations(overrides)))
    return done


def _checked_jobs(line: CommandLine, jobs: list[list[str]]) -> list[Asked]:
    """Every job of `-m`. Raises RecipeError with the problems of all."""
    from runner.cli.asked import Call
    from runner.recipe.load import compose

    found: list[Asked] = []
    problems: list[Problem] = []
    for job in jobs:
        try:
            found.append(Call(line, compose(job, line.config_dir)).checked())
        except RecipeError as error:
            problems += [problem for problem in error.problems if problem not in problems]
    if problems:
        raise RecipeError(problems)
    return found


def _explain(error: RunnerError | OSError, line: CommandLine) -> int:
    """Say what went wrong, without a traceback, and return the exit code."""
    if isinstance(error, OSError):
        error = os_failure(error)
    problems = error.problems if isinstance(error, RecipeError) else []
    if line.as_json:
        from runner.cli.asked import print_json

        listed = problems or [Problem("", None, error.message, error.hint)]
        print_json({"ok": False, "problems": [problem.as_dict() for problem in listed]})
    else:
        from runner.report.terminal import Report

        with suppress(OSError):  # the exit code says it where stderr is full or closed
            Report(sys.stderr).error(error, problems)
    return error.exit_code
