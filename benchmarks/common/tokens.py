"""Rows as token ids, made in LLaMA-Factory's environment: the benchmarks' own has no tokenizers of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from runner.cluster.environments import Chosen
from runner.cluster.environments.call import call

_WHERE = Chosen("llamafactory", "train.trainer", "llamafactory")


def ids_of(model: str, conversations: Sequence[Any], *, asked: bool) -> list[list[int]]:
    """The conversations by the chat template of the model in the folder; asked: up to where an answer begins."""
    found: list[list[int]] = call(_WHERE, _ids, model, list(conversations), asked)
    return found


def _ids(model: str, conversations: list[Any], asked: bool) -> list[list[int]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    options = {"add_generation_prompt": asked, "tokenize": True, "return_dict": False}
    return [tokenizer.apply_chat_template(each, **options) for each in conversations]
