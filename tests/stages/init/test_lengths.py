"""The tokenizer that `init` counts with is loaded within limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tokenizers

from runner.cluster.forked import Step
from runner.errors import RunnerError
from stages.data.example import Example
from stages.init import lengths
from stages.init.lengths import Counter, tokenizer_of


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a"))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_a_tokenizer_that_loads_counts(model: Path, tmp_path: Path) -> None:
    assert tokenizer_of(str(model), tmp_path / "cache").get_vocab_size() == 1


def test_one_that_would_not_end_loading_is_ended(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hangs:
        @staticmethod
        def from_file(path: str) -> Any:
            while True:
                pass

    monkeypatch.setattr(tokenizers, "Tokenizer", Hangs)
    monkeypatch.setattr(lengths, "LOADED", Step(0.3, 1 << 30))
    with pytest.raises(RunnerError, match=r"the model's tokenizer did not end within 0\.3 s"):
        tokenizer_of(str(model), model / "cache")


def test_one_that_is_damaged_is_one_sentence(model: Path) -> None:
    (model / "tokenizer.json").write_text("{")
    with pytest.raises(RunnerError, match=r"the tokenizer in .*tokenizer\.json does not load: EOF"):
        tokenizer_of(str(model), model / "cache")


def test_texts_that_it_would_not_end_counting_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hangs:
        def encode(self, text: str, add_special_tokens: bool) -> Any:
            while True:
                pass

    monkeypatch.setattr(lengths, "USED", Step(0.3, 1 << 30))
    counter = Counter(Hangs())
    counter.add(Example(id="1", text="a"))
    with pytest.raises(RunnerError, match=r"the model's tokenizer did not end within 0\.3 s"):
        _ = counter.found
