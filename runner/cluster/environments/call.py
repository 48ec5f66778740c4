"""A function called in the interpreter of an environment, in a process of its own, without Ray."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from runner.cluster import environments
from runner.cluster.environments import Chosen
from runner.errors import RunnerError

T = TypeVar("T")


def call(chosen: Chosen | None, function: Callable[..., T], *arguments: Any) -> T:
    """What the function returns there; None, and where this process is in the environment: here.

    function: of a module, with arguments and a result that pickle takes. Raises the function's RunnerError, and one
    where the environment is not made or its process ends otherwise.
    """
    if chosen is None or Path(sys.prefix) == environments.folder(chosen.name):
        return function(*arguments)
    if environments.record(chosen.name) is None:
        raise RunnerError(
            f"{chosen.key}={chosen.value} is looked at in the environment {chosen.name}, which is not made",
            f"Run: {environments.command(chosen.name, 'cpu')}",
        )
    with TemporaryDirectory() as folder:
        asked, told = Path(folder, "call"), Path(folder, "result")
        asked.write_bytes(pickle.dumps((function, arguments)))
        command = [str(environments.python(chosen.name)), "-m", __name__, str(asked), str(told)]
        env = {**os.environ, environments.HOME: str(environments.home())}
        done = subprocess.run(command, env=env, capture_output=True, text=True, errors="replace")  # noqa: S603
        if not told.is_file():
            reason = done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
            raise RunnerError(f"the process in the environment {chosen.name} has ended: {reason}")
        result, error = pickle.loads(told.read_bytes())  # noqa: S301 (of the process that this one has started)
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def main(asked: str, told: str) -> None:
    """Call what the file holds, and write (result, error) into the other."""
    function, arguments = pickle.loads(Path(asked).read_bytes())  # noqa: S301 (of the process that has started this one)
    result, refusal = None, None
    try:
        result = function(*arguments)
    except RunnerError as error:
        refusal = error
    Path(told).write_bytes(pickle.dumps((result, refusal)))


if __name__ == "__main__":
    main(*sys.argv[1:])
