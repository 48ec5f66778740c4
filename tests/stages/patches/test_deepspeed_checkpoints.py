"""What a trainer under DeepSpeed writes into a checkpoint, and what at the end."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from stages.patches.deepspeed_checkpoints import in_parts


class Trainer:
    """Stands for transformers' trainer; notes the folders that it writes the whole model into."""

    def __init__(self, *, by_deepspeed: bool, weights_only: bool) -> None:
        self.is_deepspeed_enabled = by_deepspeed
        self.args = SimpleNamespace(save_only_model=weights_only)
        self.wrote: list[str | None] = []

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        self.wrote.append(output_dir)


@pytest.mark.parametrize(
    ("by_deepspeed", "weights_only", "wrote"),
    [(True, False, ["end"]), (True, True, ["checkpoint-1", "end"]), (False, False, ["checkpoint-1", "end"])],
)
def test_the_whole_model_is_written_at_the_end_alone(by_deepspeed: bool, weights_only: bool, wrote: list[str]) -> None:
    trainer = in_parts(Trainer)(by_deepspeed=by_deepspeed, weights_only=weights_only)
    trainer.save_model("checkpoint-1", _internal_call=True)
    trainer.save_model("end")
    assert trainer.wrote == wrote
