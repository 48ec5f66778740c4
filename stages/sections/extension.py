"""What the language-model pipeline adds to recipes: its sections, and values that follow from others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from runner.recipe.schema import Recipe as AnyRecipe
from stages.sections.recipe import Recipe

_ENGINE = "serve.engine_kwargs"
_ONLY_OF_INFER = ("max_loras",)  # the endpoint's is serve.max_adapters_per_replica


class LanguageModels:
    """The extension of `runner.recipe.extension`."""

    hosts: ClassVar[Mapping[str, str]] = {
        "deploy.url": "sends requests and their key to another host",
        "dataset.endpoint_url": "sends requests, signed by your credentials, to another host",
    }
    stores: ClassVar[Mapping[str, str]] = {"train.storage_path": "sends checkpoints to another host"}
    secrets: ClassVar[Mapping[str, str]] = {"serve.api_keys.file": "lets those in who know what is in that file"}

    def is_public(self, key: str, values: Mapping[str, Any]) -> bool:
        """An endpoint that is asked without credentials."""
        dataset = values.get("dataset")
        return key == "dataset.endpoint_url" and isinstance(dataset, dict) and dataset.get("anonymous") is True

    def recipe_class(self) -> type[AnyRecipe]:
        return Recipe

    def complete(self, values: dict[str, Any]) -> None:
        _complete_engine(values)
        _complete_model_id(values)

    def as_given(self, values: dict[str, Any]) -> None:
        """An engine argument that the endpoint drops is null: without the key, batch inference's would be read."""
        serve = values["serve"]["engine_kwargs"]
        serve |= {name: None for name in values["infer"]["engine_kwargs"] if name not in serve}

    def inherits(self, key: str) -> str:
        return f"infer.engine_kwargs{key.removeprefix(_ENGINE)}" if key.startswith(f"{_ENGINE}.") else ""

    def sources(self, values: Mapping[str, Any]) -> list[tuple[str, str]]:
        found = [(name, (values.get(name) or {}).get("source")) for name in ("model", "dataset")]
        return [(name, str(source)) for name, source in found if source]

    def code(self, recipe: Any) -> Iterator[tuple[str, Any, str]]:
        if recipe.model.trust_remote_code:
            yield "model.trust_remote_code", True, "code of the model's repository"


def _complete_engine(values: dict[str, Any]) -> None:
    """Complete `serve.engine_kwargs` from `infer.engine_kwargs`, in place, once for all that read it.

    A null there drops the key. What the section has a key of its own for is not copied.
    """
    infer, serve = values.get("infer"), values.get("serve")
    if not (isinstance(infer, dict) and isinstance(serve, dict)):
        return
    given = (section.get("engine_kwargs") for section in (infer, serve))
    base, own = ({} if each is None else each for each in given)
    if isinstance(base, dict) and isinstance(own, dict):
        copied = {key: value for key, value in base.items() if key not in _ONLY_OF_INFER}
        serve["engine_kwargs"] = {key: value for key, value in {**copied, **own}.items() if value is not None}


def _complete_model_id(values: dict[str, Any]) -> None:
    """Name the endpoint's base model after `model.source` where `serve.model_id` says nothing, in place.

    Adapters are published under that name, so that a store shared by several base models offers each its own.
    """
    model, serve = values.get("model"), values.get("serve")
    if isinstance(model, dict) and isinstance(serve, dict) and serve.get("model_id") in (None, ""):
        last = str(model.get("source") or "").rstrip("/").rpartition("/")[2].removesuffix(".gguf")
        serve["model_id"] = re.sub(r"[^A-Za-z0-9._-]", "-", last).lstrip("._-")[:128] or "base"
