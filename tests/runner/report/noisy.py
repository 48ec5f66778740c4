"""`python -m tests.runner.report.noisy ARGUMENTS...`: the command line with stages that print wherever they can.

NOISY_STEP_S is how long a step takes, NOISY_FAIL names a stage that fails, NOISY_HANG one that waits to be
interrupted, NOISY_SCORE what evaluate measures.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import replace
from typing import Any

from runner.cli.main import main
from runner.pipeline import registry
from runner.pipeline.stage import StageResult
from tests import conftest

STEPS = 12
MARKS = ("fd-1", "fd-2", "sys-stdout", "sys-stderr", "child-out", "child-err", "logged", "warned", "threaded", "kept")
_EARLY = sys.stderr  # a library may keep the stream that it found when it was imported


def shout(stage: str) -> None:
    """Print each mark of MARKS, with the stage's name."""
    os.write(1, f"{stage} fd-1\n".encode())
    os.write(2, f"{stage} fd-2\n".encode())
    print(f"{stage} sys-stdout")
    print(f"{stage} sys-stderr", file=sys.stderr)
    print(f"{stage} kept", file=_EARLY)
    subprocess.run(["sh", "-c", f"echo {stage} child-out; echo {stage} child-err >&2"], check=True)
    logging.getLogger("library").warning("%s logged", stage)
    warnings.warn(f"{stage} warned", stacklevel=1)
    thread = threading.Thread(target=lambda: print(f"{stage} threaded"))
    thread.start()
    thread.join()


class Noisy:
    """Does what the fake stage does, with noise and progress."""

    def run(self, ctx: Any) -> StageResult:
        name: str = ctx.stage
        for step in range(STEPS + 1):
            if step % 5 == 0:
                shout(name)
            ctx.ray._on_progress(name, {"done": step, "total": STEPS, "unit": "step", "loss": 1.0 / (step + 1)})
            time.sleep(float(os.environ.get("NOISY_STEP_S", "0.02")))
        if os.environ.get("NOISY_FAIL") == name:
            raise ValueError("the disk is full")
        while os.environ.get("NOISY_HANG") == name:
            time.sleep(0.05)
        result: StageResult = super().run(ctx)  # type: ignore[misc]
        return replace(result, metrics=scores(ctx)) if name == "evaluate" else result


def scores(ctx: Any) -> dict[str, Any]:
    value = float(os.environ.get("NOISY_SCORE", "0.9"))
    tuned = {"n": 40, "num_errors": 0, "num_wrong": 4, "exact_match": value, "exact_match_ci": [value - 0.1, value]}
    missed = [] if value >= 0.5 else [f"exact_match is {value}; >= 0.5 is required (off by {0.5 - value:.4g})"]
    return {
        "metrics": ["exact_match"],
        "tuned": tuned,
        "base": {**tuned, "exact_match": 0.1},
        "gate": {"passed": not missed, "missed": missed},
    }


def run() -> int:
    """Put the noisy stages into the registry and run the command line."""
    logging.basicConfig()
    for name in registry.BUILTIN:
        fake = getattr(conftest, name.title())
        setattr(sys.modules[__name__], name.title(), type(name.title(), (Noisy, fake), {}))
    registry.BUILTIN = {name: f"tests.runner.report.noisy:{name.title()}" for name in registry.BUILTIN}
    sys.modules["tests.runner.report.noisy"] = sys.modules[__name__]
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(run())
