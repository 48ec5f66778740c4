"""Functions of the tests that need torch, for tests in the runner's own environment, which has none."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.in_environment import command, surroundings

_WHERE = "llamafactory"


def with_torch(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, called in LLaMA-Factory's environment where this process has no torch."""

    @wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        if find_spec("torch") is not None:
            return function(*arguments, **named)
        with TemporaryDirectory() as folder:
            asked, told = Path(folder, "call"), Path(folder, "result")
            asked.write_bytes(pickle.dumps((function.__module__, function.__qualname__, arguments, named)))
            there = command(_WHERE, __name__, str(asked), str(told))
            subprocess.run(there, check=True, env=surroundings(_WHERE), capture_output=True)
            return pickle.loads(told.read_bytes())

    return called


if __name__ == "__main__":
    module, name, arguments, named = pickle.loads(Path(sys.argv[1]).read_bytes())
    Path(sys.argv[2]).write_bytes(pickle.dumps(getattr(import_module(module), name)(*arguments, **named)))
