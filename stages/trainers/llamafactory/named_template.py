"""Samples by one of LLaMA-Factory's own templates, where `model.template` names it: its own encoder makes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from runner.errors import RunnerError
from stages.models.endpoint_form import RefusedRowError, template_messages, without_reasoning
from stages.models.learned import NO_LOSS, Sample
from stages.patches.llamafactory_encode import encode
from stages.trainers.llamafactory.arguments import torchaudio_stand_in

_NO_CUT = 1 << 30


class NamedTemplate:
    """LLaMA-Factory's template of that name, with a tokenizer of its own, which the template may change."""

    def __init__(self, name: str, folder: str, *, last_only: bool, on_prompt: bool, trust_remote_code: bool) -> None:
        with torchaudio_stand_in():
            from llamafactory.data import get_template_and_fix_tokenizer
            from llamafactory.data.processor import SupervisedDatasetProcessor
            from llamafactory.hparams import DataArguments
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        settings = {"cutoff_len": _NO_CUT, "mask_history": last_only, "train_on_prompt": on_prompt}
        data = DataArguments(template=name, **settings)
        try:
            template = get_template_and_fix_tokenizer(tokenizer, data)
        except ValueError as error:
            raise RunnerError(
                f"LLaMA-Factory's template {name} cannot be used: {error}", "Set model.template=null."
            ) from error
        plugin = template.mm_plugin
        if any(token is not None for token in (plugin.image_token, plugin.video_token, plugin.audio_token)):
            raise RunnerError(
                f"LLaMA-Factory's template {name} is of models with images or audio, and is not compared",
                "Set model.template=null, so that the model's own chat template is used.",
            )
        self._name = name
        self._processor = SupervisedDatasetProcessor(template, tokenizer, None, data)

    def samples(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] | None, *, reasoning: str
    ) -> list[Sample]:
        """The conversation as one sample. Raises RefusedRowError for what such a template has no place for."""
        self._check(messages, tools)
        shown = template_messages(
            without_reasoning(messages) if reasoning == "strip" else messages, split_thoughts=False
        )
        system = shown.pop(0)["content"] if shown[0]["role"] == "system" else ""
        ids, labels = encode(self._processor, shown[:-1], shown[-1:], system)
        learned = [at for at, label in enumerate(labels) if label != NO_LOSS]
        start = max((at for at in learned if at == 0 or labels[at - 1] == NO_LOSS), default=len(ids))
        return [Sample(ids, labels, start)]

    def _check(self, messages: Sequence[Mapping[str, Any]], tools: Any) -> None:
        given = {key for message in messages for key in message} - {"role", "content"}
        named = ["tools"] if tools else sorted(given)
        if named:
            raise RefusedRowError(
                f"it has {named[0]}, for which LLaMA-Factory's template {self._name} has no place",
                "Set model.template=null, so that the model's own chat template is used.",
            )
        turns = [message["role"] for message in messages if message["role"] != "system"]
        if turns != ["user", "assistant"] * (len(turns) // 2) or not turns:
            raise RefusedRowError(
                f"LLaMA-Factory's template {self._name} wants user and assistant in turns, and the row's turns are "
                f"{', '.join(turns) or 'none'}",
                "Set model.template=null, so that the model's own chat template is used.",
            )
