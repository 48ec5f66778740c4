"""The log of a training: a line of JSON for each entry, which the report reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stages.trainers.output import TRAINER_LOG

_NAMES = {"learning_rate": "lr"}  # others as transformers calls them


def entry(step: int, total: int, logs: dict[str, Any]) -> dict[str, Any]:
    """A line of the log: `current_steps`, `total_steps`, and the numbers of an entry of transformers' trainer."""
    numbers = {_NAMES.get(name, name): value for name, value in logs.items() if isinstance(value, int | float)}
    return {"current_steps": step, "total_steps": total, **numbers}


def log_file(output: Path) -> Any:
    """A callback of transformers' trainer that writes the log into the output folder, on the first worker."""
    from transformers import TrainerCallback

    class LogFile(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if not state.is_world_process_zero or not {"loss", "eval_loss"} & set(logs or {}):
                return
            output.mkdir(parents=True, exist_ok=True)
            with (output / TRAINER_LOG).open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry(state.global_step, state.max_steps, logs)) + "\n")

    return LogFile()
