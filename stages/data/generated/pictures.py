"""Drawn pictures and what is on them: one to three shapes of one kind and colour, each in a cell of four by four.

`generated://pictures?train=1200&test=100&seed=7&size=56` names the rows: `{image, question, answer}` with the answer
"two red circles", and its parts as columns of their own. The same URI gives the same pictures everywhere. A picture
belongs to one split for good, by a hash of what is where, so that no test picture is among the training pictures.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random
from urllib.parse import urlsplit

from runner.errors import RunnerError
from runner.text import count_text
from stages.data.generated.grammar import SPLIT_BUCKETS, RowsSpec, Split, count_of, pairs_of

QUESTION = "What do you see?"
COLOURS = {"red": (220, 30, 30), "green": (30, 160, 60), "blue": (40, 70, 220), "yellow": (240, 200, 20)}
SHAPES = ("circle", "square", "triangle")
COUNTS = ("one", "two", "three")
_CELLS, _BACKGROUND = 4, (255, 255, 255)
_SIZES = range(28, 1025)
_MOST_MISSES = 10_000
_HINT = "Write generated://pictures?train=1200&val=32&test=100&seed=7&size=56"


@dataclass(frozen=True)
class PictureSpec(RowsSpec):
    """What to draw: rows, seed, and the width and height of a picture in pixels."""

    size: int = 56


def parse_uri(uri: str, default_seed: int = 0) -> PictureSpec:
    """The spec that a `generated://pictures` URI names. Raises RunnerError naming what is unknown.

    default_seed: taken when the URI names none. What the query leaves out has `PictureSpec`'s defaults.
    """
    parts = urlsplit(uri)
    if parts.path.strip("/") or parts.fragment:
        raise RunnerError(f"{uri} names no set of pictures", _HINT)
    given = {key: count_of(key, value, uri, _HINT) for key, value in pairs_of(uri, ("size",), _HINT)}
    spec = replace(PictureSpec(seed=default_seed), **given)
    if spec.size not in _SIZES:
        raise RunnerError(f"{uri}: size={spec.size} is not from {_SIZES[0]} to {_SIZES[-1]} pixels", _HINT)
    return spec


def generate(spec: PictureSpec, split: Split) -> Iterator[dict[str, str]]:
    """The split's rows, one by one. No two rows of val or of test have one picture.

    Raises RunnerError when there are no more pictures.
    """
    random = Random(f"{spec.seed}/{split}/pictures")  # noqa: S311 - made-up data, not a secret
    seen: set[str] = set()
    made = misses = 0
    while made < spec.num_rows(split):
        colour, shape, count = random.choice([*COLOURS]), random.choice(SHAPES), random.randrange(len(COUNTS))
        cells = sorted(random.sample(range(_CELLS**2), count + 1))
        key = f"{colour} {shape} {cells}"
        if zlib.crc32(key.encode()) % 100 not in SPLIT_BUCKETS[split] or key in seen:
            misses += 1
            if misses > _MOST_MISSES:
                message = (
                    f"only {count_text(made, 'different picture')} can be made for {split}, not {spec.num_rows(split)}"
                )
                raise RunnerError(message, "Ask for fewer rows.")
            continue
        if split != "train":
            seen.add(key)
        made, misses = made + 1, 0
        png = draw(spec.size, colour, shape, cells)
        yield {
            "image": f"data:image/png;base64,{base64.b64encode(png).decode()}",
            "question": QUESTION,
            "answer": f"{COUNTS[count]} {colour} {shape}{'s' if count else ''}",
            "colour": colour,
            "shape": shape,
            "count": COUNTS[count],
        }


def draw(size: int, colour: str, shape: str, cells: list[int]) -> bytes:
    """A PNG of size by size pixels in RGB, with the shape in each of the cells (0 to 15, row by row)."""
    cell, ink = size // _CELLS, bytes(COLOURS[colour])
    lines = [_line(cell, at, shape, ink) for at in range(cell)]
    blank, rest = bytes(_BACKGROUND) * cell, bytes(_BACKGROUND) * (size - cell * _CELLS)
    rows = list[bytes]()
    for row in range(_CELLS):
        there = [row * _CELLS + column in cells for column in range(_CELLS)]
        rows += [b"".join([line if drawn else blank for drawn in there]) + rest for line in lines]
    rows += [bytes(_BACKGROUND) * size] * (size - len(rows))
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))  # each line as it is, without a filter
    header = struct.pack(">2I5B", size, size, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _line(cell: int, at: int, shape: str, ink: bytes) -> bytes:
    """A line of a cell, `at` pixels below its top, with the shape's part of it in the middle."""
    margin = max(1, cell // 8)
    inside, height = at - margin, cell - 2 * margin
    if not 0 <= inside < height:
        width = 0
    elif shape == "square":
        width = height
    elif shape == "triangle":
        width = max(1, round(height * (inside + 1) / height))
    else:
        middle = (height - 1) / 2
        width = round(2 * max(0.0, (height / 2) ** 2 - (inside - middle) ** 2) ** 0.5)
    left = (cell - width) // 2
    white = bytes(_BACKGROUND)
    return white * left + ink * width + white * (cell - left - width)


def _chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG file (RFC 2083): length, type, content, checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
