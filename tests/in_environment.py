"""`python -m tests.in_environment NAME MODULE [ARGUMENTS]`: a module of the tests in the interpreter of an environment.

With the module `pytest` it runs the tests that are marked with the environment. The environment has what its tool needs
and nothing of the tests'; what it lacks comes from the environment that runs this, behind its own packages.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from runner.cluster import environments
from tests.paths import ROOT

VARIABLE = "RECIPE_RUNNER_TESTED_ENVIRONMENT"  # its name, for the tests in it
_RUN = (
    "import runpy, sys; sys.path[0] = {root!r}; sys.path.append({others!r}); sys.argv = sys.argv[1:]; "
    "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
)


def command(name: str, module: str, *arguments: str) -> list[str]:
    """The command of the module in the environment, for a process with `surroundings`."""
    program = _RUN.format(root=str(ROOT), others=sysconfig.get_path("purelib"))
    return [str(environments.python(name)), "-c", program, module, *arguments]


def surroundings(name: str) -> dict[str, str]:
    """The variables of such a process. There, too, other environments are those of the one that runs this."""
    return {**os.environ, environments.HOME: str(environments.home()), VARIABLE: name}


def with_torch(write: Callable[..., Path]) -> Callable[..., Path]:
    """A function that writes a model into a folder, called in LLaMA-Factory's environment where this has no torch."""

    @wraps(write)
    def called(*arguments: Any, **named: Any) -> Path:
        if find_spec("torch") is not None:
            return write(*arguments, **named)
        name = write.__name__
        code = f"import sys; from pathlib import PosixPath; sys.path.insert(0, {str(ROOT)!r}); "
        code += f"from {write.__module__} import {name}; {name}(*{arguments!r}, **{named!r})"
        subprocess.run([environments.python("llamafactory"), "-c", code], check=True, capture_output=True)
        return next(each for each in arguments if isinstance(each, Path))

    return called


def main(name: str, *arguments: str) -> None:
    """Become the module in the environment. Ends with the command that makes it where it cannot be used."""
    reason = environments.unusable(name, "cpu")
    if reason:
        sys.exit(f"the environment {name} {reason}; run: {environments.command(name, 'cpu')}")
    program = command(name, *arguments)
    os.execve(program[0], program, surroundings(name))


if __name__ == "__main__":
    main(*sys.argv[1:])
