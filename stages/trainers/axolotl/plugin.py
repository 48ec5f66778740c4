"""The runner's part in axolotl's trainer, by the hooks that axolotl has for plugins."""

from __future__ import annotations

from typing import Any, ClassVar

from runner.errors import RunnerError

NAME = "the runner's"
# What axolotl changes in the model's description: its length to the rows', and several tokens for its end to one.
_OF_THE_MODEL = ("max_position_embeddings", "bos_token_id", "eos_token_id")


def register(callbacks: list[Any], arguments: dict[str, Any]) -> None:
    """Give axolotl's next trainer in this process these callbacks and arguments, both of transformers' trainer."""
    from axolotl.integrations.base import BasePlugin, PluginManager

    class Runner(BasePlugin):  # type: ignore[misc]
        before: ClassVar[dict[str, Any]] = {}
        num_tokens = 0

        def get_training_args(self, cfg: Any) -> dict[str, Any]:
            return arguments

        def add_callbacks_pre_trainer(self, cfg: Any, model: Any) -> list[Any]:
            return callbacks

        def post_model_build(self, cfg: Any, model: Any) -> None:
            self.num_tokens = model.get_input_embeddings().num_embeddings
            self.before.update(
                (name, getattr(model.config, name)) for name in _OF_THE_MODEL if hasattr(model.config, name)
            )

        def post_model_load(self, cfg: Any, model: Any) -> None:
            require_same_vocabulary(self.num_tokens, model.get_input_embeddings().num_embeddings)
            for name, value in self.before.items():
                setattr(model.config, name, value)

        def post_trainer_create(self, cfg: Any, trainer: Any) -> None:
            require_all_workers(cfg.world_size, trainer.args.world_size)

    PluginManager.get_instance().plugins[NAME] = Runner()


def require_same_vocabulary(before: int, after: int) -> None:
    """Raise RunnerError where the model was given other tokens than it came with, which no request would have."""
    if before != after:
        raise RunnerError(
            f"axolotl has changed the model's vocabulary from {before:,} to {after:,} tokens",
            "Set train.trainer=llamafactory, or take a model whose tokenizer has a token for padding.",
        )


def require_all_workers(wanted: int, found: int) -> None:
    """Raise RunnerError where each worker would train a model of its own."""
    if wanted != found:
        raise RunnerError(
            f"axolotl trains on {found} of {wanted} workers together", "Set resources.train.num_workers=1."
        )
