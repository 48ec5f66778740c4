"""Checkpoints by DeepSpeed without the whole model, which transformers gathers into each and does not resume from."""

from __future__ import annotations

from typing import Any


def in_parts(trainer: Any) -> Any:
    """The trainer class whose checkpoints under DeepSpeed hold the workers' parts alone."""

    class InParts(trainer):  # type: ignore[misc]
        def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
            if not (_internal_call and self.is_deepspeed_enabled) or self.args.save_only_model:
                super().save_model(output_dir, _internal_call)

    return InParts
