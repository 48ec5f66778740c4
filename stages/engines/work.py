"""What an engine is handed besides a recipe: a batch job's work, and what stands before its HTTP API.

The stages make these; an engine runs them where it computes, so they are pickled to it by reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from stages.data.answer import Answer


class Work(Protocol):
    """A batch job. Rows, requests and results are plain mappings, because Ray Data carries them.

    source: folder of the model that the engine loads. lora_rank: of the adapter to load as well, None without one.
    """

    @property
    def source(self) -> str: ...
    @property
    def lora_rank(self) -> int | None: ...

    def read(self, piece: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The rows of a piece that are still to be answered. Raises RunnerError when they cannot be made."""

    def adapter(self, row: Mapping[str, Any]) -> str | None:
        """The name of the adapter that is to answer the row; None for the model itself."""

    def ask(self, row: dict[str, Any]) -> dict[str, Any]:
        """`tokenized_prompt` (token ids), `model`, `sampling_params` and `__inference_error__` ("" unless refused); for
        models that take images `multimodal_data` (`{image: [...]}` or None), and more that `tell` is given."""

    def tell(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The result of a row, given with the engine's output: `generated_text`, `num_input_tokens`,
        `num_generated_tokens`, `time_taken_llm` (s) and `__inference_error__`."""


class Answers(Protocol):
    """What the endpoint makes of tools and answers, for batch inference, which asks the engine below it."""

    def sampling(self, own: Mapping[str, Any], tools: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
        """The sampling parameters of a request with these tools, as the endpoint changes them. own: before that."""

    def read(self, text: str, tools: Sequence[Mapping[str, Any]] | None) -> Answer:
        """The answer that a client receives for the engine's text."""

    def read_streamed(
        self,
        asked: Sequence[int],
        answer: Sequence[int],
        tools: Sequence[Mapping[str, Any]] | None,
        *,
        skip_special: bool,
    ) -> Answer:
        """The answer that a client receives token by token. asked, answer: token ids, the answer's without what ends
        it; skip_special: whether special tokens are left out."""


class Front(Protocol):
    """What stands before an engine's HTTP API in each replica: who may ask, for how much, and how errors read."""

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Use other settings from now on."""

    def complete(self, body: Any) -> None:
        """Set a limit in a parsed request that leaves it open."""

    def wrap(
        self,
        app: Any,
        status_of: Callable[[Exception, str], int],
        try_grammar: Callable[..., Any],
        wrong_values: Callable[[Mapping[str, Any]], Iterable[tuple[str, Any, str]]],
    ) -> Any:
        """The FastAPI application behind this front.

        status_of: the HTTP status of an exception and the request's id. try_grammar: `GrammarCheck` of the engine.
        wrong_values: parameter, its value and a clause after it, of what in a request's body the engine cannot compute.
        """
