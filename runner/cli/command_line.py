"""From the words of a command line to a verb, its overrides and its flags; nothing is composed yet."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.cli.unknown_words import ASKING_VERBS, ORIGIN, OTHER_VERBS, unknown_flag, unknown_word
from runner.cli.verbs.table import VERBS
from runner.errors import Problem, RecipeError

_PROGRAM = "python -m runner"


@dataclass(frozen=True)
class CommandLine:
    """verb: "" where none is named and there is nothing to run. overrides: `key=value` words, without `action=`.

    argument: the verb to help with, or the shell to complete in. completed: that shell's line.
    yes: whether nothing is to be asked.
    text: the whole command, for people to repeat.
    """

    verb: str
    overrides: list[str]
    config_dir: Path | None = None
    multirun: bool = False
    help: bool = False
    version: bool = False
    argument: str = ""
    completed: str = ""
    yes: bool = False
    text: str = ""

    @property
    def about_itself(self) -> bool:
        """Whether it asks for help, the version or completion, and not for anything about recipes."""
        return self.help or self.version or self.verb in ("", *OTHER_VERBS)

    @property
    def bare(self) -> bool:
        return self.text == _PROGRAM

    @property
    def verbose(self) -> bool:
        return "hydra.verbose=true" in self.overrides

    @property
    def as_json(self) -> bool:
        return "format=json" in self.overrides


def read_command_line(argv: Sequence[str]) -> CommandLine:
    """Raises RecipeError for a verb, flag or word that is not known."""
    if argv[:1] == ["completion"]:  # what follows is a shell's line and not this one's
        if argv[1:2] in (["-h"], ["--help"]):
            return CommandLine("help", [], help=True, argument="completion")
        return CommandLine("completion", [], argument=next(iter(argv[1:2]), ""), completed=" ".join(argv[2:]))
    parser = _parser()
    try:
        flags, unknown = parser.parse_known_intermixed_args(list(argv))
    except argparse.ArgumentError as error:
        raise RecipeError([Problem(ORIGIN, None, str(error), "--help lists what there is.", ORIGIN)]) from error
    words = [word for word in flags.words if "=" not in word and not word.startswith("~")]
    overrides = [word for word in flags.words if word not in words]
    problems = [unknown_flag(word) for word in unknown]
    verb, argument, wrong = _verb(words, overrides)
    if flags.yes and verb not in ASKING_VERBS:
        hint = f"Leave it out; these ask: {', '.join(ASKING_VERBS)}."
        wrong.append(Problem("--yes", None, f"is not an option of {verb or 'run'}, which asks nothing", hint, ORIGIN))
    if len(flags.config_dir) > 1:
        hint = "Give one folder, and put the recipes and variants of both into it."
        wrong.append(Problem("--config-dir", " ".join(map(str, flags.config_dir)), "is given twice", hint, ORIGIN))
    if problems := [*problems, *wrong]:
        raise RecipeError(problems)
    overrides = [word for word in overrides if key_of(word) != "action"]
    if flags.trust or flags.allow_env or flags.allow:
        from runner.recipe.grants import as_overrides

        overrides += as_overrides({"trust": flags.trust, "allow_env": flags.allow_env, "allow": flags.allow})
    help_ = flags.help or verb == "help"
    return CommandLine(
        verb or ("run" if overrides else ""),
        overrides,
        next(iter(flags.config_dir), None),
        flags.multirun,
        help_,
        flags.version,
        argument=argument or (verb if help_ and verb in VERBS else ""),
        yes=flags.yes,
        text=" ".join([_PROGRAM, *map(shlex.quote, argv)]),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("words", nargs="*")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("--config-dir", type=Path, action="append", default=[])
    parser.add_argument("--trust", action="append", default=[])
    parser.add_argument("--allow-env", action="append", default=[])
    parser.add_argument("--allow", action="append", default=[])
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--version", action="store_true")
    parser.add_argument("--yes", action="store_true")
    return parser


def key_of(override: str) -> str:
    """The key that an override sets."""
    return override.lstrip("+").partition("=")[0]


def _verb(words: Sequence[str], overrides: Sequence[str]) -> tuple[str, str, list[Problem]]:
    """The verb, the word after `help`, and what is wrong with either."""
    if words and words[0] == "help":
        return words[0], words[1] if len(words) > 1 else "", [unknown_word(word) for word in words[2:]]
    named = [*words, *(word.partition("=")[2] for word in overrides if key_of(word) == "action")]
    known = list(dict.fromkeys(word for word in named if word in VERBS))
    wrong = [unknown_word(word, next(iter(known), "")) for word in named if word not in VERBS]
    if len(known) > 1:
        hint = "Give one verb; run the command once for each."
        wrong.append(Problem(ORIGIN, " ".join(known), "names several verbs", hint, ORIGIN))
    return (known[0] if known else ""), "", wrong
