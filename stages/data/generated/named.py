"""The generated sets by name: `generated://NAME?...`."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from runner.errors import RunnerError
from stages.data.generated import grammar, pictures
from stages.data.generated.grammar import GrammarSpec, Split
from stages.data.generated.pictures import PictureSpec

NAMES = ("viggo", "pictures")


def parse_uri(uri: str, default_seed: int = 0) -> GrammarSpec | PictureSpec:
    """What a `generated://` URI names. Raises RunnerError naming what is unknown; ValueError for no URI."""
    name = urlsplit(uri).netloc
    if name not in NAMES:
        raise RunnerError(
            f"there is no grammar {uri!r}; there are {' and '.join(f'generated://{each}' for each in NAMES)}",
            grammar.URI_HINT,
        )
    return pictures.parse_uri(uri, default_seed) if name == "pictures" else grammar.parse_uri(uri, default_seed)


def generate(spec: GrammarSpec | PictureSpec, split: Split) -> Iterator[dict[str, str]]:
    """The split's rows, one by one."""
    return pictures.generate(spec, split) if isinstance(spec, PictureSpec) else grammar.generate(spec, split)
