"""The model's chat template: what training, batch inference and the endpoint alike make of messages.

A template is a program of the model's maker. It runs in jinja2's sandbox, and inside `within` with limits on its time
and memory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runner.errors import RunnerError, nearest
from runner.storage.small import MIB, read_small
from stages.models.chat.end_of_turn import Stop, lead_of, stop_of
from stages.models.chat.jinja import variables_of
from stages.models.chat.refusal import refusal
from stages.models.endpoint_form import RefusedRowError, rendered_messages, template_messages, template_tools
from stages.models.time_limit import LOADED, USED
from stages.models.vision import Vision, model_type_of_vision, processor_template

if TYPE_CHECKING:
    from stages.sections.recipe import Recipe

BUILT_IN = Path(__file__).parent / "templates"
OPEN_THOUGHT = re.compile(r"<think>\s*\Z")
_SUFFIXES = (".jinja", ".jinja2", ".j2")
_MOST_BYTES = 4 * MIB
_GIVEN = frozenset({"messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"})  # by others
_PROBE = "q7Zx-probe"
_PART_AS_CODE = re.compile(r"""["']type["']\s*:\s*["']text""")  # a list written where a text was expected


def built_in_names() -> list[str]:
    """Names that `model.chat_template` may have besides a file."""
    return sorted(path.stem for path in BUILT_IN.glob("*.jinja"))


def template_text(chosen: str | None) -> str | None:
    """The template that `model.chat_template` names, None where the model's own is to be used.

    Raises RunnerError when there is no such name and no such file, or the file is not text.
    """
    if chosen is None or "{%" in chosen or "{{" in chosen:
        return chosen
    path = BUILT_IN / f"{chosen}.jinja" if chosen in built_in_names() else Path(chosen).expanduser()
    try:
        for name in (path, path.resolve()):  # also of what a link leads to: it may be any file of this machine
            if name.suffix not in _SUFFIXES:
                raise OSError(f"the name {name.name} does not end in {' or '.join(_SUFFIXES)}")
        text = read_small(path, _MOST_BYTES).decode("utf-8-sig")
        if "{%" not in text and "{{" not in text:
            raise OSError("there is no Jinja template in it")
        return text
    except (OSError, UnicodeDecodeError) as error:
        guess = nearest(chosen, built_in_names())
        others = f"Did you mean {guess}?" if guess else f"Or give one of: {', '.join(built_in_names())}."
        hint = f"Give a file with a Jinja template, or null for the model's own. {others}"
        raise RunnerError(f"model.chat_template={chosen} cannot be read: {error}", hint) from error


def with_template_text(recipe: Recipe) -> Recipe:
    """The recipe with the template's text in place of its file, which other nodes need not have."""
    text = template_text(recipe.model.chat_template)
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"chat_template": text})})


def template_meaning(recipe: Recipe) -> dict[str, Any]:
    """What `model.chat_template` means to a result, for fingerprints: the template's text."""
    try:
        return {"model.chat_template": template_text(recipe.model.chat_template)}
    except RunnerError:
        return {}


class ChatTemplate:
    """A tokenizer with the template and the keyword arguments that the recipe sets."""

    def __init__(
        self,
        tokenizer: Any,
        chosen: str | None = None,
        kwargs: Mapping[str, Any] | None = None,
        vision: Vision | None = None,
        *,
        in_parts: bool | None = None,
    ) -> None:
        """vision: of a model that takes images. in_parts: whether content is given to the template as a list of parts;
        None: as `reads_parts` finds."""
        self.tokenizer, self.kwargs, self.vision = tokenizer, dict(kwargs or {}), vision
        self._told_in_parts = in_parts
        self._chosen = template_text(chosen)
        self.images: Sequence[str] = ()

    @classmethod
    def load(
        cls, folder: Path | str, chosen: str | None, kwargs: Mapping[str, Any], *, trust_remote_code: bool = False
    ) -> ChatTemplate:
        """The template of the tokenizer in the folder. Raises RunnerError when the tokenizer does not load."""
        try:
            from transformers import AutoTokenizer

            given = {
                "trust_remote_code": trust_remote_code,
                "clean_up_tokenization_spaces": False,  # "1 !" would be shown as "1!", which no engine does
            }
            with LOADED:
                tokenizer = AutoTokenizer.from_pretrained(folder, **given)
        except Exception as error:
            raise RunnerError(f"the tokenizer in {folder} does not load: {error}", "Look at model.source.") from error
        sees = model_type_of_vision(folder) is not None
        vision = Vision.load(folder, trust_remote_code=trust_remote_code) if sees else None
        return cls(tokenizer, processor_template(folder) if chosen is None else chosen, kwargs, vision)

    @classmethod
    def of(cls, recipe: Recipe, folder: Path | str) -> ChatTemplate:
        """The recipe's template with the tokenizer in the folder."""
        model = recipe.model
        return cls.load(
            folder, model.chat_template, model.chat_template_kwargs, trust_remote_code=model.trust_remote_code
        )

    def seeing(self, images: Sequence[str] | None) -> ChatTemplate:
        """The template with the images of a row: its token ids have those of the images in their places.

        images: as data URIs. Raises RefusedRowError where the model takes none.
        """
        if not images:
            return self
        if self.vision is None:
            raise RefusedRowError(
                "it has images, and the model takes none (its config.json has no vision_config)",
                "Set model.source to a vision-language model, or use rows with text alone.",
            )
        found = copy(self)
        found.images = images
        return found

    def source(self, tools: Any = None) -> str:
        """The template's text. Raises RunnerError when there is none."""
        if self._chosen is not None:
            return self._chosen
        try:
            return str(self.tokenizer.get_chat_template(None, tools))
        except (ValueError, AttributeError) as error:
            named = getattr(self.tokenizer, "chat_template", None)
            which = f" without a name (it has {', '.join(named)})" if isinstance(named, dict) and named else ""
            raise RunnerError(
                f"the model has no chat template{which}, so there is no way to ask it",
                f"Set model.chat_template to a file, or to one of: {', '.join(built_in_names())}.",
            ) from error

    def source_or_none(self) -> str | None:
        """The template's text, None where there is none."""
        try:
            return self.source()
        except RunnerError:
            return None

    @cached_property
    def variables(self) -> frozenset[str] | None:
        """Names that the template reads and does not set itself; None where there is no template that can be read."""
        import jinja2

        try:
            with USED:
                return variables_of(self.source()) | variables_of(self.source(tools=[{}]))  # some have one for tools
        except (RunnerError, RecursionError, jinja2.TemplateSyntaxError):
            return None

    def require_variables(self) -> None:
        """Raise RunnerError naming a keyword argument that the template does not read."""
        unread = [] if self.variables is None else sorted(self.kwargs.keys() - self.variables)
        if unread:
            known = ", ".join(sorted((self.variables or frozenset()) - _GIVEN)) or "none"
            raise RunnerError(
                f"model.chat_template_kwargs.{unread[0]} is not a variable of the chat template",
                f"Remove it, or correct its name. It reads: {known}.",
            )

    @cached_property
    def in_parts(self) -> bool:
        """Whether content is given to the template as a list of parts, and not as text."""
        if self._told_in_parts is not None:
            return self._told_in_parts
        return self.reads_parts(sees=self.vision is not None)

    def reads_parts(self, *, sees: bool) -> bool:
        """Whether the template is to be given content as a list of parts. sees: of a model that takes images.

        What it writes of each form shows it: parts where the model sees, and text where it does not, unless the
        template writes a content of the other form alone.
        """
        return sees if self._writes(in_parts=sees) or not self._writes(in_parts=not sees) else not sees

    def _writes(self, *, in_parts: bool) -> bool:
        """Whether the template writes content of this form as it is."""
        given = rendered_messages([{"role": "user", "content": _PROBE}], in_parts=in_parts)
        try:
            text = self._rendered(given, None, ask=True)
        except RunnerError:
            return False
        return _PROBE in text and _PART_AS_CODE.search(text) is None

    @cached_property
    def renders_reasoning(self) -> bool:
        """Whether the template writes an answer's reasoning where it is the last message."""
        messages = [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b", "reasoning": _PROBE, "reasoning_content": _PROBE},
        ]
        try:
            return _PROBE in self._render(messages, None, ask=False)
        except RefusedRowError:
            return False

    @cached_property
    def opens_thought(self) -> bool:
        """Whether a request ends inside a thought, which the answer then continues."""
        try:
            return OPEN_THOUGHT.search(self._render([{"role": "user", "content": "a"}], None, ask=True)) is not None
        except RefusedRowError:
            return False

    @cached_property
    def lead(self) -> str:
        """White space that it writes before an answer, which is learned with it and is not part of it."""
        return lead_of(self)

    @cached_property
    def stop(self) -> Stop:
        """What ends an answer, besides the tokenizer's own end."""
        return stop_of(self)

    def messages(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Messages of an Example as the template is given them."""
        return template_messages(messages, split_thoughts=self.renders_reasoning or self.opens_thought)

    def text(self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, *, ask: bool) -> str:
        """The conversation as text. ask: with the start of an answer after it. Messages and tools are as given by
        `messages` and `template_tools`. Raises RefusedRowError with the template's own words where it refuses them.
        """
        text = self._render(messages, tools, ask=ask)
        if self.vision is not None:
            self.vision.check_places(messages, text)
        return text

    def ids(self, text: str) -> list[int]:
        """Token ids of the text, with nothing around them; after `seeing` with those of the images in their places."""
        if self.vision is not None and self.images and self.vision.place in text:
            with LOADED:
                return self.vision.ids(text, self.images)
        with USED:
            return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []

    def drops(self, text: str) -> bool:
        """Whether an engine leaves the text out of an answer: it is special tokens alone, besides white space."""
        return {*self.ids(text.strip())} <= {*self.tokenizer.all_special_ids}

    def ids_after(self, prompt: str, prompt_ids: list[int], answer: str) -> list[int]:
        """Token ids of an answer as it stands after its prompt: by itself it would begin with what tokenizers such as
        SentencePiece's put before a text."""
        if self._marks_beginnings:
            whole = self.ids(prompt + answer)
            if whole[: len(prompt_ids)] == prompt_ids:
                return whole[len(prompt_ids) :]
        return self.ids(answer)

    @cached_property
    def _marks_beginnings(self) -> bool:
        return self.ids("\na") != self.ids("\n") + self.ids("a")

    def num_images(self, text: str) -> int:
        """How many images have a place in the rendered text."""
        return text.count(self.vision.place) if self.vision is not None else 0

    def prompt_ids(self, messages: Sequence[Mapping[str, Any]], tools: Any = None) -> list[int]:
        """Token ids of a request: what the engine is given to answer."""
        return self.ids(self.text(self.messages(messages), template_tools(tools), ask=True))

    def _render(self, messages: list[dict[str, Any]], tools: Any, *, ask: bool) -> str:
        return self._rendered(rendered_messages(messages, in_parts=self.in_parts), tools, ask=ask)

    def _rendered(self, messages: list[dict[str, Any]], tools: Any, *, ask: bool) -> str:
        try:
            with USED:
                return str(
                    self.tokenizer.apply_chat_template(
                        messages,
                        tools=tools,
                        chat_template=self.source(tools),
                        add_generation_prompt=ask,
                        tokenize=False,
                        **self.kwargs,
                    )
                )
        except RunnerError:
            raise
        except Exception as error:
            raise refusal(error, messages) from error
