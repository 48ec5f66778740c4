"""A loss that is not a number ends a training by transformers' trainer before anything of it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.errors import RunnerError
from stages.trainers.worker.callback import callback
from stages.trainers.worker.reporter import Reporter

pytestmark = [pytest.mark.environment("llamafactory"), pytest.mark.timeout(120)]


class Listener:
    def update(self, *args: Any, **figures: Any) -> None: ...

    def is_stopping(self) -> bool:
        return False


def diverging(output: Path, **args: Any) -> Any:
    """A trainer of four steps whose weights are not numbers after the first."""
    from datasets import Dataset
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

    config = LlamaConfig(
        vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, max_position_embeddings=16,
    )  # fmt: skip
    rows = Dataset.from_list([{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 4)
    given = TrainingArguments(
        output_dir=str(output), per_device_train_batch_size=1, max_steps=4, learning_rate=1e38, optim="sgd",
        max_grad_norm=0.0, lr_scheduler_type="constant", use_cpu=True, report_to=[], disable_tqdm=True,
        logging_nan_inf_filter=False, **args,
    )  # fmt: skip
    listening = callback(Reporter(0, 1, Listener()))
    return Trainer(model=LlamaForCausalLM(config), args=given, train_dataset=rows, callbacks=[listening])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("args", "step"),
    [
        ({"logging_strategy": "no", "save_strategy": "no"}, 4),
        ({"logging_steps": 1000, "save_strategy": "steps", "save_steps": 3}, 3),
        ({"logging_strategy": "no", "save_strategy": "epoch"}, 4),
        ({"logging_steps": 2, "save_strategy": "no"}, 2),
    ],
)
def test_a_loss_is_looked_at_before_weights_are_kept_whatever_is_logged(
    tmp_path: Path, args: dict[str, Any], step: int
) -> None:
    with pytest.raises(RunnerError, match=f"the loss of step {step} is (nan|inf): training has diverged"):
        diverging(tmp_path, **args).train()
    assert [*tmp_path.glob("checkpoint-*")] == []
