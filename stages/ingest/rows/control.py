"""Control tokens of chat templates inside texts of rows. They stay text, and a person should know of them."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path

_USUAL = (
    rb"<\|[a-z_]{2,20}\|>|</?s>|\[/?INST\]|<(?:start|end)_of_turn>|<(?:bos|eos)>|<\xef\xbd\x9c[^<>]{2,40}\xef\xbd\x9c>"
)
_MOST_HINTS = 8


class ControlTokens:
    """Finds control tokens in lines of JSON: the model's own, or without them the usual ones of chat templates."""

    def __init__(self, tokens: Collection[str] = ()) -> None:
        self.known = bool(tokens)
        written = [json.dumps(each, ensure_ascii=False)[1:-1].encode() for each in tokens]
        pattern = b"|".join(re.escape(each) for each in sorted(written, key=len, reverse=True)) or _USUAL
        self._search = re.compile(pattern).search
        self._hints = _hints(written) if written else (b"<", b"INST]")

    def first(self, line: bytes) -> str:
        """The first control token of the line; "" where there is none."""
        for hint in self._hints:
            if hint in line:
                found = self._search(line)
                return found[0].decode() if found else ""
        return ""


def _hints(tokens: Collection[bytes]) -> tuple[bytes, ...]:
    """A few bytes of which a line with one of the tokens has some; where they would be many, what every line has."""
    hints = {b"<" if each[:1] == b"<" else each for each in tokens}
    return tuple(hints) if len(hints) <= _MOST_HINTS else (b"",)


def tokens_of(folder: Path) -> list[str]:
    """The special tokens that the tokenizer in the folder names; none where it has no tokenizer.json."""
    try:
        added = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
        return [each["content"] for each in added if each["special"] and each["content"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
