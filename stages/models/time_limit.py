"""Limits on the time and memory of code that a model's maker wrote: chat templates and tokenizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runner.cluster.forked import Standing, Step, call

SECONDS = 20.0
MAKERS_CODE = "the chat template or the tokenizer"
USED = Step(SECONDS, 2 << 30)
"""One use of a template or tokenizer. It has its limits inside `within` alone."""
LOADED = Step(120.0, 8 << 30)
"""A tokenizer or processor that is loaded, or that makes tensors of images: libraries are imported meanwhile."""
_HINT = "Correct it, or use another model."


def within(seconds: float | None, what: str, function: Callable[[], Any]) -> Any:
    """The function's result as JSON has it, made in a copy of this process, which is killed when its time is up.

    seconds: for all of it; None limits each step (USED, LOADED) alone. Raises RunnerError naming `what` when it takes
    longer or too much memory, and the function's RunnerError.
    """
    return call(function, what, _HINT, seconds)


def standing(function: Callable[[Any], Any]) -> Standing:
    """The function in a copy of this process that stays for further calls, each with limits as `within` has them."""
    return Standing(function, _HINT)
