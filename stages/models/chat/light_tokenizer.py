"""A tokenizer from its folder by `tokenizers` and jinja2 alone, for checks before a run: transformers takes seconds.

It has what `ChatTemplate` asks of a tokenizer. Its ids are compared with each other and with nothing else, so that a
class of transformers that changes the file's tokenizer cannot make a difference where there is none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from runner.storage.small import read_small
from stages.models.chat.jinja import compiled
from stages.models.chat.template_here import own_template, own_templates

_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class LightTokenizer:
    """The tokenizer in a folder that has tokenizer.json; without it there are templates alone, and no tokens."""

    def __init__(self, folder: Path) -> None:
        self.name_or_path = str(folder)
        self._folder = folder

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        return Tokenizer.from_file(str(self._folder / "tokenizer.json"))

    @cached_property
    def special_tokens(self) -> dict[str, str]:
        """The special tokens by their names in templates."""
        config = json.loads(read_small(self._folder / "tokenizer_config.json"))
        older = self._folder / "special_tokens_map.json"  # read by transformers where the config lists no added tokens
        if "added_tokens_decoder" not in config and older.is_file():
            config = {**config, **json.loads(read_small(older))}
        found = {name: config[name] for name in _NAMES if config.get(name) is not None}
        return {name: token["content"] if isinstance(token, Mapping) else str(token) for name, token in found.items()}

    @property
    def eos_token_id(self) -> int | None:
        token = self.special_tokens.get("eos_token")
        return None if token is None else self._tokenizer.token_to_id(token)

    @property
    def all_special_ids(self) -> list[int]:
        return [at for at, token in self._tokenizer.get_added_tokens_decoder().items() if token.special]

    def get_added_vocab(self) -> dict[str, int]:
        return {token.content: at for at, token in self._tokenizer.get_added_tokens_decoder().items()}

    def __call__(self, text: str, *, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids}

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=skip_special_tokens))

    @cached_property
    def chat_template(self) -> dict[str, str]:
        """The templates by their names."""
        return own_templates(self._folder)

    def get_chat_template(self, chosen: str | None, tools: Any = None) -> str:
        """Raises ValueError where there is none."""
        found = chosen or own_template(self._folder, tools=bool(tools))
        if found is None:
            raise ValueError("the tokenizer has no chat template")
        return found

    def apply_chat_template(
        self,
        messages: Any,
        *,
        chat_template: str,
        tools: Any,
        add_generation_prompt: bool,
        tokenize: bool,
        **kwargs: Any,
    ) -> str:
        """The conversation as text. tokenize: False alone."""
        assert not tokenize
        given = {"documents": None, **self.special_tokens, **kwargs}
        asked = {"messages": messages, "tools": tools, "add_generation_prompt": add_generation_prompt}
        return str(compiled(chat_template).render(**asked, **given))
