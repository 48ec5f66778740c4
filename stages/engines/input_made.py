"""Tells what stands before an engine's API that the engine has made its input of a request, images and all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_CALL: ContextVar[Callable[[], None] | None] = ContextVar("_CALL", default=None)


@contextmanager
def when_input_is_made(call: Callable[[], None]) -> Iterator[None]:
    """Have `input_is_made` call the function where it is called for the request that the block answers."""
    token = _CALL.set(call)
    try:
        yield
    finally:
        _CALL.reset(token)


def input_is_made() -> None:
    """Called by an engine in the task of the request, or in one that this has begun."""
    if call := _CALL.get():
        call()
