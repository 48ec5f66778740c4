"""What an engine that is starting does, by the lines that it has written."""

from __future__ import annotations

from stages.engines.vllm.failure import engine_logs

# A line of vLLM's log -> what happens after it.
_STEPS = (
    ("Starting to load model", "loading the weights"),
    ("Loading weights took", "computing how much memory is left for the KV cache"),
    ("Dynamo bytecode transform time", "compiling"),
    ("Warming up model", "compiling and warming up"),
    ("Capturing CUDA graphs", "capturing CUDA graphs"),
    ("init engine (", "opening its API"),
)


def start_state() -> str:
    """What the engine on this machine that has written last is doing, in a few words; "" where no log tells it."""
    text = next(engine_logs(), "")
    last = max(_STEPS, key=lambda step: text.rfind(step[0]))
    return last[1] if last[0] in text else ""
