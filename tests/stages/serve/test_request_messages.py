"""Messages of a request: at least one, of known roles, with content."""

from __future__ import annotations

from typing import Any

import pytest

from stages.serve.guard.messages import refuse_empty
from stages.serve.guard.refusal import RefusedError

USER = {"role": "user", "content": "x"}


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": None}], "messages[0].content"),
        ([USER, {"role": "tool", "tool_call_id": "a"}], "messages[1].content"),
        ([USER, {"role": "alien", "content": "x"}], "messages[1].role"),
        ([{"role": "User", "content": "x"}], "messages[0].role"),
    ],
)
def test_what_a_template_would_write_as_nothing_or_as_it_is_is_refused(messages: list[Any], param: str) -> None:
    with pytest.raises(RefusedError) as caught:
        refuse_empty({"messages": messages})
    assert (caught.value.refusal.status, caught.value.refusal.param) == (400, param)


@pytest.mark.parametrize(
    "messages",
    [
        [USER],
        [{"role": "system", "content": ""}, USER],
        [USER, {"role": "assistant", "content": None, "tool_calls": []}],
        [USER, {"role": "assistant"}],
        [{"role": "developer", "content": "x"}, {"role": "user", "content": [{"type": "text", "text": "x"}]}],
        [3],  # judged by the request's own form
        "x",
        None,
    ],
)
def test_others_are_taken(messages: Any) -> None:
    refuse_empty({"messages": messages})
