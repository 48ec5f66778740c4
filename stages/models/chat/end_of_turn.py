"""Where an answer ends: what the chat template writes after it, which the engine must stop at.

A base model's own end of text is seldom what a chat template ends a turn with. The model learns the template's, and an
engine that stops only at the model's own would continue to `max_tokens`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stages.models.endpoint_form import RefusedRowError

if TYPE_CHECKING:
    from stages.models.chat_template import ChatTemplate

_PROBE = "q7Zx-answer"


@dataclass(frozen=True)
class Stop:
    """token_ids: to stop at besides the tokenizer's own end. texts: where the end is not a single token."""

    token_ids: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()


_MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": _PROBE}]


def has_end(template: ChatTemplate) -> bool:
    """Whether the template writes anything but white space after an answer; True where it takes no such question."""
    try:
        return bool(template.text(_MESSAGES, None, ask=False).rpartition(_PROBE)[2].strip())
    except RefusedRowError:
        return True


def lead_of(template: ChatTemplate) -> str:
    """White space between a request's end and an answer, as an engine gives it; "" where anything else is there."""
    try:
        prompt, whole = template.text(_MESSAGES[:1], None, ask=True), template.text(_MESSAGES, None, ask=False)
    except RefusedRowError:
        return ""
    if not whole.startswith(prompt):
        return ""
    asked = template.ids(prompt)
    ids = template.ids_after(prompt, asked, whole.removeprefix(prompt))
    before, after = (template.tokenizer.decode(each, skip_special_tokens=True) for each in (asked, asked + ids))
    lead = str(after).removeprefix(str(before)).partition(_PROBE)[0]
    return lead if lead.isspace() else ""


def stop_of(template: ChatTemplate) -> Stop:
    """What ends an answer of the template; nothing where that is the tokenizer's own end, or the template has none."""
    try:
        after = template.text(_MESSAGES, None, ask=False).rpartition(_PROBE)[2]
    except RefusedRowError:
        return Stop()
    end, tokenizer = after.strip(), template.tokenizer
    ids = template.ids(end)
    if not ids or ids[0] == tokenizer.eos_token_id:
        return Stop()
    if ids[0] in {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}:
        return Stop(token_ids=(ids[0],))
    return Stop(texts=(end.splitlines()[0],))


def with_stop(sampling: Mapping[str, Any], stop: Stop) -> dict[str, Any]:
    """The sampling parameters with these ends added to their own."""
    made = dict(sampling)
    if stop.token_ids:
        made["stop_token_ids"] = [*dict.fromkeys([*(made.get("stop_token_ids") or []), *stop.token_ids])]
    if stop.texts:
        own = made.get("stop") or []
        made["stop"] = [*dict.fromkeys([*([own] if isinstance(own, str) else own), *stop.texts])]
    return made
