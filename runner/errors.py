"""What can go wrong, in words for the person who can change it. Nothing here imports anything of the project."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

EXIT_DONE = 0
EXIT_STAGE_FAILED = 1
EXIT_INVALID_RECIPE = 2
EXIT_GATE_REFUSED = 3
EXIT_LOCKED = 4
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class Problem:
    """One mistake in a recipe.

    key: dotted recipe key. value: what was received. origin: the file or override it came from.
    message: what is wrong and what is allowed. hint: what to do about it.
    """

    key: str
    value: Any
    message: str
    hint: str = ""
    origin: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON form: `{key, value, origin, message, hint}`."""
        return asdict(self)


def nearest(name: str, legal: Iterable[str]) -> str:
    """The legal name most like `name`, or "" when none is near. One that differs in capitals alone is nearest."""
    there = sorted(legal)
    same = [each for each in there if each.lower() == name.lower()]
    return next(iter(same or difflib.get_close_matches(name, there, n=1, cutoff=0.6)), "")


def printable(text: str) -> str:
    """The text with every character that would steer a terminal (or hide text) written out: \\x1b, \\r, \\u202e.

    Rows of data, answers of models and messages of libraries are shown to people through this.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else repr(char)[1:-1] for char in text)


def shortened(text: str, most: int) -> str:
    """The text, its middle left out where it is longer than so many characters."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half]} ... {text[-half:]}"


class RunnerError(Exception):
    """A failure that is explained to the user without a traceback. `hint` says what to do next."""

    exit_code = EXIT_STAGE_FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:  # errors cross process borders on Ray
        return (type(self), (self.message, self.hint))


class UsageError(RunnerError):
    """The command line or the recipe asks for what cannot be done, or is not there; nothing was begun."""

    exit_code = EXIT_INVALID_RECIPE


class RecipeError(RunnerError):
    """The recipe is invalid; `problems` holds every reason."""

    exit_code = EXIT_INVALID_RECIPE

    def __init__(self, problems: list[Problem]) -> None:
        place = "command line" if problems and all(each.origin == "command line" for each in problems) else "recipe"
        super().__init__(f"{len(problems)} problem{'s' if len(problems) != 1 else ''} in the {place}")
        self.problems = problems

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.problems,))


class GateError(RunnerError):
    """A quality gate refused the result."""

    exit_code = EXIT_GATE_REFUSED


class DamagedError(RunnerError):
    """A file is not what its size or digest says; moved once more it may be."""


class LockedError(RunnerError):
    """Another run holds the lock."""

    exit_code = EXIT_LOCKED


def cause_of(error: BaseException) -> str:
    """The error in a line, with what to do where that is known."""
    if isinstance(error, RunnerError):
        return f"{error.message}. {error.hint}".strip() if error.hint else error.message
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[-1] if text else 'no message'}"


def first_line(error: BaseException) -> str:
    """The first line of a library's message, cut where it is long; the error's kind where it has none."""
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__


def os_failure(error: OSError, place: str = "") -> RunnerError:
    """The operating system's refusal for the person who can change it. place: where, if the error names no file."""
    where = shortened(f"{error.filename}" if error.filename else place, _MOST_PATH_CHARS)
    reason = (error.strerror or str(error) or type(error).__name__).lower()
    kind = UsageError if error.errno == errno.ENAMETOOLONG else RunnerError  # names come from who asks
    return kind(f"{where}: {reason}" if where else reason, _OS_HINTS.get(error.errno or 0, ""))


_MOST_PATH_CHARS = 1000
_FOLDER_HINT = "Name a folder that you may write to: storage.root=FOLDER."
_SPACE_HINT = "Free space on that disk, or set storage.root to a folder on another, and run the same command again."
_OS_HINTS = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _SPACE_HINT),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), _FOLDER_HINT),
    **dict.fromkeys(
        (errno.ENOTDIR, errno.EEXIST), f"Something on that path is a file and not a folder. {_FOLDER_HINT}"
    ),
    errno.ENOENT: f"It cannot be made there. {_FOLDER_HINT}",
    errno.ENAMETOOLONG: "Give a shorter name or path.",
    errno.EMFILE: "Raise the limit of open files (ulimit -n), and run again.",
}
