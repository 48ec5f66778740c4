"""How much work the parts of an image's file make, counted before a library reads it.

A file of few pixels and few bytes may hold parts without number: scans of a progressive JPEG, each of which passes over
every pixel, or segments and chunks that Pillow reads one by one, and puts texts together from. A decoder has no limit
on them, and nothing can end it in its thread.
"""

from __future__ import annotations

import math
import re

MOST_SCANS = 100
"""Of a JPEG."""
USUAL_SCANS = 10
"""Of a progressive JPEG, as encoders write it."""
MOST_BEFORE = 2_000
"""Segments of a JPEG, and chunks of a PNG and blocks of a GIF before the first pixels."""
MOST_CHUNKS = 10_000
"""Of a PNG."""

_JPEG = b"\xff\xd8"
_MARKER = re.compile(rb"\xff+([\x01\xc0-\xcf\xd8-\xfe])")  # but for those within a scan
_SCAN, _END = b"\xda", b"\xd9"
_ALONE = (b"\x01", b"\xd8")  # without a length
_CODED_OTHERWISE = {0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}  # arithmetic, lossless, hierarchical
_TABLE, _EXTENSION = 0x80, 0x21


def why_too_costly(content: bytes) -> str:
    """Why the file costs more than its pixels say, or "". What is cut off or wrong is left to its reader."""
    if content.startswith(_JPEG):
        return _of_jpeg(content)[1]
    if content.startswith(b"\x89PNG"):
        return _of_png(content)
    return _of_gif(content) if content.startswith(b"GIF8") else ""


def num_passes(content: bytes) -> int:
    """How often all pixels are decoded: once in a usual file, more often in a JPEG of more scans."""
    scans = _of_jpeg(content)[0] if content.startswith(_JPEG) else 0
    return max(1, math.ceil(scans / USUAL_SCANS))


def _of_jpeg(content: bytes) -> tuple[int, str]:
    """How many scans it has, and why it costs too much, or ""."""
    at, scans = 2, 0
    for _ in range(MOST_BEFORE):
        found = _MARKER.search(content, at)
        if found is None or found[1] == _END:
            return scans, ""
        if found[1][0] in _CODED_OTHERWISE:
            return scans, "is a JPEG of a kind that no browser shows"
        scans += found[1] == _SCAN
        if scans > MOST_SCANS:
            return scans, f"has more than {MOST_SCANS} scans"
        at = found.end() + (0 if found[1] in _ALONE else int.from_bytes(content[found.end() : found.end() + 2], "big"))
    return scans, f"has more than {MOST_BEFORE} segments"


def _of_png(content: bytes) -> str:
    at, before = 8, True
    for number in range(MOST_CHUNKS):
        if at + 8 > len(content):
            return ""
        before = before and content[at + 4 : at + 8] != b"IDAT"
        if before and number >= MOST_BEFORE:
            break
        at += 12 + int.from_bytes(content[at : at + 4], "big")
    return "has too many chunks"


def _of_gif(content: bytes) -> str:
    if len(content) < 13:
        return ""
    flags = content[10]
    at = 13 + (3 << (flags & 7) + 1 if flags & _TABLE else 0)
    within = False
    for _ in range(MOST_BEFORE):
        if at >= len(content):
            return ""
        if within:
            within, at = content[at] > 0, at + 1 + content[at]
        elif content[at] == _EXTENSION:
            within, at = True, at + 2
        elif content[at] == ord(","):  # the first image
            return ""
        else:  # passed over
            at += 1
    return f"has more than {MOST_BEFORE} blocks before its first image"
