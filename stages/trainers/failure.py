"""Why a training failed, in one line: from Ray Train's errors down to the one that a worker raised."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from runner.errors import RunnerError
from runner.patches import ray_train

_LOG_HINT = "The stage's log has the traceback."
_MEMORY_WORDS = ("outofmemory", "out of memory", "can't allocate memory", "memoryerror", "running low on memory")

# What a peer's death looks like from a worker that waits for it in a collective operation, or a network that is down.
_PEER_WORDS = ("connection closed", "connection reset", "connection refused", "gloo", "nccl", "socket", "timed out")


def explain_in_worker(
    error: Exception, *, begun: bool, memory_hint: str, known: Callable[[Exception], RunnerError | None]
) -> Exception:
    """A worker's error for the driver: RunnerError for what would fail again in a new attempt, else RuntimeError.

    begun: whether a step was made. What fails before fails again, unless it is the network or the file system.
    memory_hint: the trainer's advice when memory runs out. known: the trainer's own mistakes, None for other errors.
    """
    text = _describe(error)
    if _is_out_of_memory(text):
        return RunnerError(f"training ran out of memory: {_first_line(error)}", memory_hint)
    if (mistake := known(error)) is not None:
        return mistake
    missing = isinstance(error, FileNotFoundError | NotADirectoryError | PermissionError)
    passing = (isinstance(error, OSError) and not missing) or _is_peers_echo(text)
    return RuntimeError(text) if begun or passing else RunnerError(f"training failed: {text}", _LOG_HINT)


def explain(error: BaseException, memory_hint: str) -> RunnerError:
    """The RunnerError for what `TorchTrainer.fit` raised. memory_hint: as of `explain_in_worker`.

    Ray Train wraps a worker's exception twice, and reports those of all workers, most of which only lost a peer.
    """
    cause = root_cause(error)
    if isinstance(cause, RunnerError):
        return cause
    text, kind = _first_line(cause), type(cause).__name__
    if _is_out_of_memory(_describe(cause)):
        return RunnerError(f"training ran out of memory: {text}", memory_hint)
    if kind in ("ActorDiedError", "ActorUnavailableError", "RayActorError", "NodeDiedError"):
        return RunnerError(
            f"a training worker died more than train.max_failures times: {text}",
            f"Often its node is out of memory. {memory_hint}",
        )
    if kind == "CheckpointManagerInitializationError":
        return RunnerError(
            f"the checkpoints of the interrupted attempt cannot be read: {text}",
            "Start again with force=[train], or remove the run's folder.",
        )
    return RunnerError(f"training failed: {text if kind == 'RuntimeError' else _describe(cause)}", _LOG_HINT)


def root_cause(error: BaseException) -> BaseException:
    """The exception at the bottom: a RunnerError if any worker raised one, else the first that is not a peer's echo."""
    while (inner := _inner(error)) is not None:
        error = inner
    return error


def _inner(error: BaseException) -> BaseException | None:
    failures = getattr(error, "worker_failures", None)
    if failures:
        return _worst(failures[rank] for rank in sorted(failures))
    wrapped = (
        getattr(error, "controller_failure", None),
        ray_train.inner_error(error),
        getattr(error, "health_check_failure", None),
    )
    return next((inner for inner in wrapped if isinstance(inner, BaseException)), None)


def _worst(errors: Iterable[BaseException]) -> BaseException:
    causes = [root_cause(error) for error in errors]
    mistakes = [cause for cause in causes if isinstance(cause, RunnerError)]
    own = [cause for cause in causes if not _is_peers_echo(_describe(cause))]
    return (mistakes or own or causes)[0]


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")


def _is_out_of_memory(text: str) -> bool:
    """CUDA's, torch's CPU allocator's, Python's, or Ray's monitor's words for it."""
    return any(word in text.lower() for word in _MEMORY_WORDS)


def _is_peers_echo(text: str) -> bool:
    return any(word in text.lower() for word in _PEER_WORDS)
