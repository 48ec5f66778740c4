"""A trainer in an environment of its own learns the tokens that the runner's tokenizer makes."""

from __future__ import annotations

import pytest

from runner.errors import RunnerError
from stages.train.same_tokens import require_same_tokens

HERE = {"train.jsonl:1": "a", "train.jsonl:2": "b"}


def test_the_same_tokens_pass() -> None:
    require_same_tokens("tool", HERE, dict(HERE))


@pytest.mark.parametrize("there", [{**HERE, "train.jsonl:2": "c"}, {"train.jsonl:1": "a"}])
def test_a_row_with_other_tokens_or_none_ends_the_training(there: dict[str, str]) -> None:
    with pytest.raises(RunnerError, match=r"train\.jsonl:2: the tokenizer of the environment tool") as failure:
        require_same_tokens("tool", HERE, there)
    assert "requirements/environments/tool.in" in failure.value.hint


def test_a_row_that_only_the_environment_has_is_named() -> None:
    with pytest.raises(RunnerError, match=r"train\.jsonl:2"):
        require_same_tokens("tool", {"train.jsonl:1": "a"}, HERE)
