"""TRL's trainers of preferences on rows that are tokens already; its SFTTrainer takes such rows by itself."""

from __future__ import annotations

from typing import Any


def dpo_trainer() -> Any:
    """DPOTrainer for rows of `prompt_ids`, `chosen_ids` and `rejected_ids`."""
    from trl import DPOTrainer

    class PreparedDpo(DPOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

    return PreparedDpo


def kto_trainer() -> Any:
    """KTOTrainer for rows of `prompt_ids`, `completion_ids` and `label`."""
    from trl import KTOTrainer

    class PreparedKto(KTOTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, dataset: Any, processing_class: Any, args: Any, dataset_name: str) -> Any:
            if not self.calculate_KL:
                return dataset
            return dataset.map(rotated, batched=True, batch_size=args.per_device_train_batch_size)

    return PreparedKto


def rotated(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """The rows of a batch, each with the answer of the row before it, as TRL pairs them to estimate the divergence."""
    answers = rows["completion_ids"]
    return {**rows, "KL_completion_ids": [answers[-1], *answers[:-1]]}
