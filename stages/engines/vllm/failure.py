"""Why batch inference stopped, in a sentence, and which key of the recipe to change."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress

from runner.errors import RunnerError
from runner.patches import ray_node
from stages.engines.root_cause import only_points, root_cause

_LOG_BYTES = 256 << 10
_ENGINE = "EngineCore"
# What the cause says -> what to do; the first that matches.
_HINTS = (
    (
        re.compile(r"KV cache|cache blocks|max seq len|max_model_len", re.IGNORECASE),
        "Lower infer.engine_kwargs.max_model_len, or give the KV cache more memory: on a GPU raise "
        "infer.engine_kwargs.gpu_memory_utilization (or use a larger one, or tensor_parallel_size), on CPUs "
        "cluster.cpu_kv_cache_gib.",
    ),
    (
        re.compile(r"memory|OOM", re.IGNORECASE),
        "Lower infer.engine_kwargs.max_num_seqs, max_num_batched_tokens or max_model_len (on a GPU also "
        "gpu_memory_utilization, on CPUs cluster.cpu_kv_cache_gib).",
    ),
    (
        re.compile(r"unexpected keyword argument|SamplingParams|sampling", re.IGNORECASE),
        "infer.engine_kwargs takes vLLM's engine arguments, infer.sampling its sampling parameters, both by its names.",
    ),
    (
        re.compile(r"lora|adapter", re.IGNORECASE),
        "Compare infer.engine_kwargs.max_lora_rank and the adapter's targets with what this vLLM supports.",
    ),
)
_RUN_AGAIN = "Run the same command again: it continues. A machine under heavy load starts Ray Serve's proxy too slowly."
_HINT = "Look into the log; the arguments of the engine are infer.engine_kwargs."


def batch_failure(error: BaseException, since: float) -> RunnerError:
    """What a failed Ray Data job is to the user. A RunnerError from one of its tasks is returned as it is.

    since: when the job began (Unix time, s); older logs are not looked at.
    """
    for cause in causes(error):
        if isinstance(cause, RunnerError):
            return cause
    text = str(error)
    if "ActorDiedError" not in type(error).__name__ + text:
        reason = root_cause(text) or last_line(text) or type(error).__name__
        if only_points(reason):
            reason = root_cause(f"{engine_log(since)}\n{text}")
        return RunnerError(f"batch inference failed: {reason}", hint_for(reason))
    if "ProxyActor" in text:  # of the endpoint whose engine the job asks
        return RunnerError(f"the endpoint's proxy ended: {last_line(text)}", _RUN_AGAIN)
    if "creation task" in text:  # the end of its traceback may be the engine's own, or only point at the engine's log
        reason = root_cause(f"{engine_log(since)}\n{text}")
        return RunnerError(f"the engine did not start: {reason or last_line(text)}", hint_for(reason))
    reason = root_cause(engine_log(since)) or "its process ended without a word, as when memory runs out"
    return RunnerError(f"the engine died, again after each restart: {reason}", hint_for(reason))


def hint_for(reason: str) -> str:
    """What to do about an engine that failed for that reason."""
    return next((hint for pattern, hint in _HINTS if pattern.search(reason)), _HINT)


def server_hint(reason: str) -> str | None:
    """What to do about a replica that did not start for that reason; None where only its log can tell."""
    if "memory" in reason.lower():
        return "Lower engine_kwargs.max_model_len or gpu_memory_utilization (CPUs: cluster.cpu_kv_cache_gib)."
    return None


def causes(error: BaseException | None) -> list[BaseException]:
    """The error and what caused it, outermost first."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or getattr(error, "cause", None)
    return found


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def engine_log(since: float) -> str:
    """The end of what the engine that ended last has written, if it ran on this machine; "" otherwise.

    The engine is a process of its own and tells its reason only in the log files of the actor that started it.
    """
    return next((text for text in engine_logs(since) if root_cause(text)), "")


def engine_logs(since: float = 0.0) -> Iterator[str]:
    """The ends of the log files of engines on this machine that were written since then (Unix time, s), newest first.

    A file that Ray removes meanwhile is left out.
    """
    folder = ray_node.logs_folder()
    found = []
    for path in folder.glob("worker-*") if folder else ():
        with suppress(OSError):
            if path.suffix in (".out", ".err") and (written := path.stat().st_mtime) >= since:
                found.append((written, path))
    for _, path in sorted(found, reverse=True):
        with suppress(OSError):
            text = path.read_bytes()[-_LOG_BYTES:].decode(errors="replace")
            if _ENGINE in text:
                yield text
