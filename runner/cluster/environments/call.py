"""A function called in the interpreter of an environment, in a process of its own, without Ray."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from runner.cluster import environments
from runner.cluster.environments import Chosen
from runner.errors import RunnerError


def call(
    chosen: Chosen | None,
    function: Callable[..., Any],
    *arguments: Any,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Any:
    """What the function returns there; None, and where this process is in the environment: here.

    function: of a module. arguments, and what it returns: as JSON has them. variables: of the process's environment.
    Raises the function's RunnerError, and one where the environment is not made or its process ends otherwise.
    """
    if chosen is None or Path(sys.prefix) == environments.folder(chosen.name):
        return function(*arguments)
    if environments.record(chosen.name) is None:
        raise RunnerError(
            f"{chosen.key}={chosen.value} is looked at in the environment {chosen.name}, which is not made",
            f"Run: {environments.command(chosen.name, 'cpu')}",
        )
    with TemporaryDirectory() as folder:
        outcome = Path(folder, "outcome.json")
        asked = json.dumps([function.__module__, function.__qualname__, arguments])
        command = [str(environments.python(chosen.name)), "-P", "-m", __name__, str(outcome)]
        env = {**os.environ, **variables, environments.HOME: str(environments.home())}
        done = subprocess.run(  # noqa: S603
            command, env=env, input=asked, capture_output=True, text=True, errors="replace"
        )
        if not outcome.is_file():
            reason = done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
            raise RunnerError(f"the process in the environment {chosen.name} has ended: {reason}")
        result, refusal = json.loads(outcome.read_bytes())
    if refusal:
        raise RunnerError(*refusal)
    return result


def main(outcome: str) -> None:
    """Call what standard input names, and write [result, refusal] into the file."""
    module, name, arguments = json.load(sys.stdin)
    result, refusal = None, None
    try:
        result = getattr(import_module(module), name)(*arguments)
    except RunnerError as error:
        refusal = [error.message, error.hint]
    Path(outcome).write_text(json.dumps([result, refusal]), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
