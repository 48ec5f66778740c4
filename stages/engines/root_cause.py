"""Which exception a text of tracebacks ends in, as engines and Ray's processes print them."""

from __future__ import annotations

import itertools
import re

_ERROR_LINE = re.compile(r"^(?:[\w.]*\.)?\w*(?:Error|Exception|Interrupt|Failure)\b(?::.*|\(.*\))?$")
# What terminals, vLLM's processes and its logger put before a line of a traceback.
_PREFIX = re.compile(r"^(?:\x1b\[[\d;]*m|\(\w+ pid=\d+\) |(?:ERROR|WARNING) [\d-]+ [\d:]+ \[[\w.:]+\] )+")
_MAX_REASON = 600
# Of vLLM's exceptions that only point at an earlier one, which the engine's own process has printed.
ENGINE_FAILED = "Engine core initialization failed"
ENGINE_DIED = "EngineCore encountered an issue"


def root_cause(text: str) -> str:
    """The last exception that a text of tracebacks names, with its indented details, as one line; "" if there is none.

    One that only points at an earlier one (`only_points`) is taken where the text has no other.
    """
    lines = [_PREFIX.sub("", line).rstrip() for line in text.splitlines()]
    found = [index for index, line in enumerate(lines) if _ERROR_LINE.match(line)]
    telling = [index for index in found if not only_points(lines[index])]
    if not found:
        return ""
    index = (telling or found)[-1]
    details = itertools.takewhile(lambda line: line.startswith("  "), lines[index + 1 :])
    parts = [lines[index], *(line.strip() for line in details if "For further information" not in line)]
    return " ".join(parts)[:_MAX_REASON]


def only_points(reason: str) -> bool:
    """Whether the text only points at what the engine's process has printed."""
    return ENGINE_FAILED in reason or ENGINE_DIED in reason
