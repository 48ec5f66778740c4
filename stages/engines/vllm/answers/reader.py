"""What the endpoint makes of requests with tools and of answers, for batch inference: by the endpoint's own parsers.

Imports vLLM (seconds) only where the recipe names a parser.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from runner.errors import RunnerError
from stages.data.answer import Answer, call_of
from stages.models.chat_template import ChatTemplate
from stages.models.endpoint_form import template_tools
from stages.sections.model import Model

Tools = Sequence[Mapping[str, Any]] | None


class ParsedAnswers:
    """Answers as vLLM's chat completions give them with these parsers."""

    def __init__(self, model: Model, template: ChatTemplate) -> None:
        """Raises RunnerError when a parser does not fit the tokenizer."""
        from vllm.parser import ParserManager

        self._tokenizer, self._kwargs = template.tokenizer, dict(model.chat_template_kwargs)
        self._has_tools, self._has_reasoning = model.tool_parser is not None, model.reasoning_parser is not None
        try:
            self._parser = ParserManager.get_parser(
                tool_parser_name=model.tool_parser,
                reasoning_parser_name=model.reasoning_parser,
                enable_auto_tools=self._has_tools,
            )
            self._made(None)
        except (RuntimeError, ValueError, TypeError, KeyError) as error:
            named = [f"{key}={value}" for key, value in named_parsers(model).items()]
            why = f"it has no token {error}" if isinstance(error, KeyError) else error
            raise RunnerError(
                f"{' and '.join(named)} cannot be used with the model's tokenizer: {why}",
                "Name the parser of the model's family.",
            ) from error

    def sampling(self, own: Mapping[str, Any], tools: Tools) -> dict[str, Any]:
        """See `stages.engines.work.Answers`. Every request has the same keys: Ray Data would fill in nulls."""
        request = self._request(tools, skip_special_tokens=own.get("skip_special_tokens", True))
        made = {**own, "skip_special_tokens": request.skip_special_tokens}
        if request.structured_outputs is not None:  # of tools that are strict
            made["structured_outputs"] = {"structural_tag": request.structured_outputs.structural_tag}
        return made

    def read(self, text: str, tools: Tools) -> Answer:
        """The answer that a client receives for the engine's text."""
        request = self._request(tools)
        reasoning, content, calls = self._made(request.tools).parse(text, request, enable_auto_tools=self._has_tools)
        return Answer(content or "", [call_of(each.name, each.arguments) for each in calls or []], reasoning)

    def read_streamed(self, asked: Sequence[int], answer: Sequence[int], tools: Tools, *, skip_special: bool) -> Answer:
        """The answer that a client puts together from what it receives token by token.

        asked, answer: token ids of the prompt, and of the answer without what ends it. skip_special: whether special
        tokens are left out of the text.
        """
        request = self._request(tools)
        parser, received = self._made(request.tools), _Received()
        deltas = list(text_deltas(self._tokenizer, answer, skip_special=skip_special))
        for number, (text, ids) in enumerate(deltas, 1):
            finished = number == len(deltas)
            received.add(parser.parse_delta(text, ids, request, list(asked), finished=finished))
        return received.answer()

    def _made(self, tools: Any) -> Any:
        return self._parser(self._tokenizer, tools, model_config=None, chat_template_kwargs=self._kwargs)

    def _request(self, tools: Tools, **fields: Any) -> Any:
        """The request as vLLM's renderer hands it on (`OnlineRenderer.preprocess_chat`)."""
        from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest

        given: dict[str, Any] = {"messages": [{"role": "user", "content": ""}], "model": "", **fields}
        if rendered := template_tools(tools):
            given["tools"] = rendered
        request = ChatCompletionRequest.model_validate(given)
        if self._has_reasoning or request.tool_choice != "none":
            request = self._made(request.tools).adjust_request(request)
        return request


class _Received:
    """The parts of a streamed answer."""

    def __init__(self) -> None:
        self._content, self._reasoning = "", ""
        self._calls: dict[int, list[str]] = {}  # name and arguments by index

    def add(self, delta: Any) -> None:
        """delta: a DeltaMessage of vLLM, or None."""
        if delta is None:
            return
        self._content += delta.content or ""
        self._reasoning += delta.reasoning or ""
        for each in delta.tool_calls or []:
            call = self._calls.setdefault(each.index, ["", ""])
            if each.function is not None:
                call[0] += each.function.name or ""
                call[1] += each.function.arguments or ""

    def answer(self) -> Answer:
        calls = [call_of(name, arguments) for _, (name, arguments) in sorted(self._calls.items())]
        return Answer(self._content, calls, self._reasoning or None)


def text_deltas(tokenizer: Any, ids: Sequence[int], *, skip_special: bool) -> Iterator[tuple[str, list[int]]]:
    """The text that each token adds, with the tokens since the text before; the last ones also where they add none.

    A character of several tokens comes with the last of them, as from vLLM (`detokenize_incrementally`).
    """
    begin = shown = 0
    for end in range(1, len(ids) + 1):
        before = tokenizer.decode(ids[begin:shown], skip_special_tokens=skip_special)
        text = tokenizer.decode(ids[begin:end], skip_special_tokens=skip_special)
        if (len(text) > len(before) and not text.endswith("\ufffd")) or end == len(ids):
            yield text[len(before) :], list(ids[shown:end])
            begin, shown = shown, end


class PlainAnswers:
    """Answers whose text is all there is."""

    def sampling(self, own: Mapping[str, Any], tools: Tools) -> dict[str, Any]:
        return dict(own)

    def read(self, text: str, tools: Tools) -> Answer:
        return Answer(text)

    def read_streamed(self, asked: Sequence[int], answer: Sequence[int], tools: Tools, *, skip_special: bool) -> Answer:
        raise AssertionError("only what a parser reads is compared")


def answers_of(model: Model, template: ChatTemplate) -> PlainAnswers | ParsedAnswers:
    """The reader of the recipe's parsers. template: with the model's tokenizer."""
    return ParsedAnswers(model, template) if named_parsers(model) else PlainAnswers()


def named_parsers(model: Model) -> dict[str, str]:
    """The keys that name a parser, and what they name."""
    keys = {"model.tool_parser": model.tool_parser, "model.reasoning_parser": model.reasoning_parser}
    return {key: name for key, name in keys.items() if name is not None}
